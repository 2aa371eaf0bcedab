# What the rules share: params.yaml, read once, and where its runs keep their files.
import os
import sys
from functools import cache

try:
    import comics.params as comics_params
    from comics.errors import UserError
except ImportError as error:
    sys.exit(f"comics cannot be imported ({error}): run `make setup`, then activate .venv, or use environment.yml.")

try:
    PARAMS = comics_params.load("params.yaml")
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)

SPLITS = comics_params.SPLITS
RUN_FOLDER = f"results/{PARAMS.dataset}/{{run}}/seed{{seed}}"
LOG_FOLDER = f"logs/{PARAMS.dataset}/{{run}}/seed{{seed}}"


wildcard_constraints:
    run="|".join(dict.fromkeys(map(PARAMS.canonical, PARAMS.runs))),
    seed=r"\d+",
    split="|".join(SPLITS),


# `comics` is the one of this environment, also where it is not activated. Snakemake sets OMP_NUM_THREADS and its like to
# a rule's threads, and so to 1 under `--cores 1`; a training has the machine to itself (resource gpu), so the choice is
# left to torch, which takes all cores, or to a value that the user exported.
shell.prefix(
    f'export PATH="{os.path.dirname(sys.executable)}:$PATH"; '
    + "".join(
        f"export {name}={os.environ[name]}; " if name in os.environ else f"unset {name}; "
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    )
)


def resolved(wildcards):
    """The run of `wildcards`, complete."""
    return PARAMS.resolve(wildcards.run, int(wildcards.seed))


def annotations(split):
    """The canonical COCO file of `split`."""
    return f"data/{PARAMS.dataset}/{split}/annotations.json"


def sources(*packages):
    """The Python files of packages of `comics`: input of the cheap steps, so that they follow their code."""
    root = os.path.dirname(comics_params.__file__)
    files = []
    for package in packages:
        for folder, _, names in os.walk(os.path.join(root, package)):
            files += [os.path.join(folder, name) for name in names if not name.endswith(".pyc")]
    return sorted(os.path.relpath(file) for file in files)


def scores_of(runs, splits):
    """The score files, and their sidecars, of `runs` (each trained once, under the name of the first like it)."""
    scores = [
        f"{PARAMS.resolve(PARAMS.canonical(run), seed).folder}/{split}.csv"
        for run in runs
        for seed in PARAMS.seeds(run)
        for split in splits
    ]
    return [file for score in dict.fromkeys(scores) for file in (score, f"{score}.meta.json")]


@cache
def requested_runs():
    """Runs that this call makes for some table's sake: of the tables among its targets, or of all of them where a
    target is no file (`all`, say)."""
    targets = [os.path.splitext(target) for target in map(str, workflow.dag_settings.targets)]
    named = {os.path.basename(stem) for stem, _ in targets}
    everything = not targets or not all(suffix for _, suffix in targets)
    return {
        PARAMS.canonical(row.run)
        for name, table in PARAMS.tables.items()
        for row in table.rows
        if row.run and not row.optional and (everything or name in named)
    }


def row_scores(table, splits):
    """Scores of a table's rows; those of an optional row where they exist or this call makes them anyway."""
    needed = []
    for row in PARAMS.tables[table].rows:
        if row.run:
            scores = scores_of([row.run], splits)
            if not row.optional or PARAMS.canonical(row.run) in requested_runs() or all(map(os.path.exists, scores)):
                needed += scores
    return list(dict.fromkeys(needed))


def figure_files(figure):
    """What a figure draws: scores of a table's rows, images of the dataset, or detections beside them."""
    if figure.kind == "scatter":
        return row_scores(figure.table, [figure.split])
    files = [annotations(split) for split in figure.splits]
    if figure.kind == "comparison":
        scores = scores_of(figure.runs, figure.splits)
        files += scores + [file.replace(".csv", ".detections.json") for file in scores]
    return files


def figure_block(figure):
    """What params.yaml says of a figure, with the rows that it draws."""
    rows = {"rows": PARAMS.tables[figure.table].model_dump(mode="json")["rows"]} if figure.kind == "scatter" else {}
    return {**figure.model_dump(mode="json"), **rows}


def datasets_of(kind):
    """A wildcard constraint: the datasets of params.yaml of one kind."""
    return "|".join(name for name, block in PARAMS.file.datasets.items() if block.kind == kind) or "(?!)"


def dataset_block(wildcards):
    return PARAMS.file.datasets[wildcards.dataset].model_dump(mode="json")
