# What the rules share: params.yaml, read once, and where its runs keep their files.
# `snakemake --config params=mine.yaml` works from another file, and tells its steps by the environment.
import os
import re
import sys
from functools import cache

try:
    from comics import params as comics_params
    from comics.workflow import plan
    from comics.errors import UserError
    from comics.files import file_digest
    from comics.machine import has_gpu
except ImportError as error:
    sys.exit(f"comics cannot be imported ({error}): run `make setup`, then activate .venv, or use environment.yml.")

try:
    if "params" in config:
        os.environ[comics_params.ENVIRONMENT] = str(config["params"])
    PARAMS = comics_params.load()
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)

# `--software-deployment-method apptainer --config container=comics.sif` runs every step in that image (docs/cluster.md).
if "container" in config:

    container: str(config["container"])


SPLITS = comics_params.SPLITS
# The test splits that the dataset has: one's own may have one.
TESTED = [split for split in comics_params.TEST_SPLITS if split in plan.splits_of(PARAMS)] or comics_params.TEST_SPLITS
REPORTS = PARAMS.reports
RUN_FOLDER = f"results/{PARAMS.dataset}/{{run}}/seed{{seed}}"
LOG_FOLDER = f"logs/{PARAMS.dataset}/{{run}}/seed{{seed}}"


# Of any name: Snakemake writes a constraint into every pattern, and the names of many runs made it take twice as long.
# `resolved` refuses one that no run bears.
wildcard_constraints:
    run=r"[^/]+",
    seed=r"\d+",
    split="|".join(SPLITS),


# `comics` is the one of this environment, also where it is not activated. Snakemake sets OMP_NUM_THREADS and its like to
# a rule's threads, and so to 1 under `--cores 1`; a training that has the machine to itself (resource gpu=1) leaves the choice
# to torch, which takes all cores. Side by side on a processor they keep their rule's threads, each its part. MKL follows OpenMP:
# torch takes the lower of the two numbers, so that a part of one core would also bound who asks for more. A value that the user
# exported wins. It, or the path of the environment, may hold anything: it reaches the shell as a variable, never as text of
# a command, which would be run, or formatted.
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))


def side_by_side():
    """How many trainings and predictions this call runs at a time, where that is known; on a cluster, and unbounded, 1."""
    bound = workflow.global_resources.get("gpu")
    count = getattr(bound, "value", bound)
    return max(1, count) if isinstance(count, int) and workflow.resource_settings.cores else 1


def part_of_cores(wildcards):
    """Cores of a training or prediction: its part of those that this call has. Beside a GPU more than 8 are of no use."""
    if side_by_side() == 1:
        return 8
    part = max(1, workflow.resource_settings.cores // side_by_side())
    return min(8, part) if has_gpu() else part


_OTHERWISE = {
    "OMP_NUM_THREADS": ":" if side_by_side() > 1 and not has_gpu() else "unset OMP_NUM_THREADS",
    "MKL_NUM_THREADS": "unset MKL_NUM_THREADS",
}
for _name in _OTHERWISE:
    os.environ[f"COMICS_{_name}"] = os.environ.get(_name, "")
_PREFIX = "".join(
    f'if [ "$COMICS_{name}" ]; then export {name}="$COMICS_{name}"; else {otherwise}; fi; '
    for name, otherwise in _OTHERWISE.items()
)
# Snakemake removes a step's log before it tries again; what an attempt at a training said stays under a second name. (It stands
# here, since another text of the rule would train all runs anew.)
_PREFIX += (
    '_log=${{BASH_EXECUTION_STRING##*&> }}; case "$BASH_EXECUTION_STRING" in *"comics train "*"&> "$_log) '
    ': > "$_log" && ln "$_log" "${{_log%.log}}.$(date +%Y%m%d-%H%M%S)-$$.log" || :;; esac; '
)
shell.prefix(_PREFIX)


def resolved(wildcards):
    """The run of `wildcards`, complete."""
    return PARAMS.resolve(wildcards.run, int(wildcards.seed), dataset_of(wildcards))


def dataset_of(wildcards):
    """The dataset that the run of `wildcards` is trained on."""
    return getattr(wildcards, "dataset", PARAMS.dataset)


def gpus_of(run):
    """How many GPUs a training takes; `auto` takes those that are free, and is one job for Snakemake."""
    return 1 if run.training.devices == "auto" else run.training.devices


def prepared_for(wildcards):
    """What a detector needs from the training split before it is trained."""
    return [f"data/{dataset_of(wildcards)}/{name}" for name in resolved(wildcards).model.settings.prepared]


def start_of(wildcards):
    """The weights that a run starts from, where another run makes them."""
    start = resolved(wildcards).start
    return [] if start is None else str(start.weights_file)


def validated_on(wildcards):
    """What a run is validated on while it is trained."""
    if not resolved(wildcards).training.validation.every:
        return []
    return needed("val", dataset_of(wildcards))


def annotations(split):
    """The canonical COCO file of `split`."""
    return f"data/{PARAMS.dataset}/{split}/annotations.json"


def needed(split, dataset=PARAMS.dataset):
    """The same of `dataset`, for a step that cannot do without `split`: a dataset for testing only has no train, say."""
    path = f"data/{dataset}/{split}/annotations.json"
    if split not in comics_params.splits_of(PARAMS.file.datasets[dataset]) and not os.path.exists(path):
        raise WorkflowError(
            f"{PARAMS.path}: datasets.{dataset}: has no split '{split}', which this step needs. "
            f"Name its files there, or choose another `dataset:`."
        )
    return path


ELSEWHERE = plan.elsewhere_files(PARAMS)


def detections_elsewhere(wildcards):
    """The file of a system that was run elsewhere: nothing here makes it."""
    file = ELSEWHERE.get(wildcards.elsewhere, {}).get(wildcards.split)
    if file is None or not os.path.exists(file):
        raise WorkflowError(
            f"{PARAMS.path}: tables: detections: {file or wildcards.split}: no such file. Put the COCO results of the system that "
            f"was run elsewhere there, or give their row `optional: true`."
        )
    return file


def sources(*packages):
    """The Python files of packages of `comics`: input of the cheap steps, so that they follow their code. What is one face is
    asked by both evaluation and report."""
    root = os.path.dirname(os.path.dirname(comics_params.__file__))
    files = [os.path.join(root, "verdicts.py")] if {"evaluation", "report"} & set(packages) else []
    for package in packages:
        for folder, _, names in os.walk(os.path.join(root, package)):
            files += [os.path.join(folder, name) for name in names if not name.endswith(".pyc")]
    return sorted(os.path.relpath(file) for file in files)


@cache
def code_of(*packages):
    """The same as one digest, for `params` of the steps that there are many of: a file more is a thousand looks at it."""
    return comics_params.digest_of({file: file_digest(file) for file in sources(*packages)})


@cache
def requested_tables():
    """Tables that this call makes: those among its targets, or all of them where a target is the paper or no file (`all`,
    say)."""
    targets = [os.path.splitext(target) for target in map(str, workflow.dag_settings.targets)]
    named = {os.path.basename(stem) for stem, _ in targets}
    if workflow.is_main_process:
        # A file between two steps that is gone is no reason for Snakemake where what is made of it is there. A result without
        # its sidecar is refused by what reads it: it is made anew, as with --forcerun.
        workflow.dag.forcefiles.update(plan.without_sidecar(PARAMS))
    everything = not targets or "paper" in named or not all(suffix for _, suffix in targets)
    return [table for table in PARAMS.tables if everything or table in named]


@cache
def requested_runs():
    """Runs that this call makes for the sake of `requested_tables`."""
    return plan.runs_of(PARAMS, requested_tables())


def datasets_of(*kinds):
    """A wildcard constraint: the datasets of params.yaml of these kinds."""
    return "|".join(name for name, block in PARAMS.file.datasets.items() if block.kind in kinds) or "(?!)"


def dataset_block(wildcards):
    return PARAMS.file.datasets[wildcards.dataset].model_dump(mode="json")


def training_block(wildcards):
    """What decides the training split, written as `dataset_block` writes it where the others have their default sizes."""
    return comics_params.trained_from(PARAMS.file.datasets[wildcards.dataset])
