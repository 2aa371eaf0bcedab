"""How long it takes to look at a finished project, against the number of its runs.

    python benchmarks/dag.py                    # 0, 100 and 300 more runs of three seeds in Table IV, results made up
    python benchmarks/dag.py --runs 300 --where # and where the time goes

Prints processor seconds of whole processes, user and system, of the fewest of `--repeats`: a machine that is busy stretches
them less than the clock.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/workflow"))

COMMANDS = {
    "comics runs": ["-m", "comics", "runs"],
    "comics table table_iv": ["-m", "comics", "table", "table_iv"],
    "snakemake -n reports/table_iv.tex": ["-m", "snakemake", "-n", "reports/table_iv.tex"],
    "snakemake -n": ["-m", "snakemake", "-n"],
}


def make_project(folder: Path, more: int) -> None:
    """A finished project with `more` runs of three seeds, as rows of Table IV."""
    from fabricate import copy_project, fabricate

    from comics.params import load

    copy_project(folder)
    file = folder / "params.yaml"
    text = file.read_text()
    runs = "".join(
        f"  more_{index}: {{components: [coarse], seeds: [0, 1, 2], objective: {{temperature: {0.001 * (index + 1):.3f}}}}}\n"
        for index in range(more)
    )
    rows = "".join(f'      - {{label: ["no", "no", "{index}"], run: more_{index}}}\n' for index in range(more))
    text = text.replace("\nruns:\n", "\nruns:\n" + runs, 1)
    head, _, tail = text.partition("  table_iv:\n")
    before, _, after = tail.partition("    rows:\n")
    file.write_text(head + "  table_iv:\n" + before + "    rows:\n" + rows + after)
    before_folder = Path.cwd()
    os.chdir(folder)
    try:
        fabricate(load("params.yaml"), folder)
    finally:
        os.chdir(before_folder)


def called(words: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """One call of Python, and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds(words: list[str], folder: Path) -> float:
    """Processor seconds of a call that succeeds."""
    done, spent = called(words, folder)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[0, 100, 300], help="how many more runs of three seeds")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--where", action="store_true", help="the functions in which `comics runs` and `table` spend it"
    )
    arguments = parser.parse_args()
    print(f"{'more runs':>34}", *(f"{more:>8}" for more in arguments.runs))
    with tempfile.TemporaryDirectory() as scratch:
        folders = {more: Path(scratch) / str(more) for more in arguments.runs}
        for more, folder in folders.items():
            make_project(folder, more)
        for name, words in COMMANDS.items():
            found = [min(seconds(words, folder) for _ in range(arguments.repeats)) for folder in folders.values()]
            print(f"{name:>34}", *(f"{one:>7.1f}s" for one in found), flush=True)
        if arguments.where:
            os.chdir(folders[max(folders)])
            sys.path.insert(0, str(ROOT))
            from comics.cli import app

            for words in (["runs"], ["table", "table_iv"]):
                profile = cProfile.Profile()
                profile.runcall(app(), words, standalone_mode=False)
                print(f"\ncomics {' '.join(words)}:")
                pstats.Stats(profile).sort_stats("cumulative").print_stats(25)


if __name__ == "__main__":
    main()
