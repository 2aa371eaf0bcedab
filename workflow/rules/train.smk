# Weights of a run. `params` is the run's own digest, so that editing one run renews that run alone; it holds a code
# version raised by hand in place of the source files. Checkpoints to resume from are no outputs: Snakemake deletes
# outputs before it runs a step again.


rule train:
    input:
        train=lambda wildcards: needed("train"),
        prepared=prepared_for,
        start=start_of,
        validated=validated_on,
    output:
        model=ensure(f"{RUN_FOLDER}/model.pt", non_empty=True),
        description=ensure(f"{RUN_FOLDER}/run.json", non_empty=True),
    log:
        f"{LOG_FOLDER}/train.log",
    benchmark:
        f"{LOG_FOLDER}/train.tsv"
    # Trainings side by side on a processor: the last ones leave cores, on which predictions then run. On a GPU a run's scores
    # come before the next run.
    priority: 0 if has_gpu() else 1
    threads: part_of_cores
    resources:
        gpu=lambda wildcards: gpus_of(resolved(wildcards)),
    params:
        digest=lambda wildcards: resolved(wildcards).checkpoint_digest,
    message:
        "Train {wildcards.run}, seed {wildcards.seed} (progress: tail -f {log})"
    # What all others wait for has all cores (`comics demo` tells how many; the others have one each).
    shell:
        'if [ -z {input.start:q} ] && [ -n "${{COMICS_START_THREADS:-}}" ]; '
        "then export OMP_NUM_THREADS=$COMICS_START_THREADS; fi; "
        "comics train {wildcards.run} --seed {wildcards.seed} &> {log}"
