#!/bin/sh
# A SLURM of one machine with a configuration of its own: cluster.sh start FOLDER | stop FOLDER. Needs slurm-wlm and munge, and
# root. It has two GPUs in name, 16 processors in name, and forgets no job; everything it writes is in FOLDER. Whoever uses it
# puts FOLDER/bin first into PATH: Snakemake's plugin takes SLURM_CONF away from jobs.
set -eu
action=$1
folder=$2

stop() {
    for daemon in slurmd slurmctld munged; do
        if [ -f "$folder/$daemon.pid" ]; then
            kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
        fi
    done
}

if [ "$action" = stop ]; then
    stop
    exit 0
fi

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

mkdir -p "$folder/state" "$folder/spool" "$folder/log"
head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
cat > "$folder/slurm.conf" <<END
ClusterName=comics
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock
CredType=cred/munge
SlurmctldPort=$(port)
SlurmdPort=$(port)
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
GresTypes=gpu
MinJobAge=86400
KillWait=30
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=localhost NodeHostname=localhost NodeAddr=localhost CPUs=16 RealMemory=200000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpus Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
printf 'Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n' > "$folder/gres.conf"
export SLURM_CONF="$folder/slurm.conf"
mkdir -p "$folder/bin"
for program in sbatch srun squeue scancel scontrol sinfo; do
    printf '#!/bin/sh\nSLURM_CONF="%s" exec "%s" "$@"\n' "$SLURM_CONF" "$(command -v $program)" > "$folder/bin/$program"
    chmod +x "$folder/bin/$program"
done
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N localhost
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
        exit 0
    fi
    sleep 0.5
done
sinfo >&2 || true
tail -n 5 "$folder/log/slurmctld.log" "$folder/log/slurmd.log" >&2 || true
stop
exit 1
