"""What Snakemake plans, and when it plans nothing. Training itself is tested in tests/end_to_end."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from fabricate import ROOT, Run, edit, planned

from comics.files import file_digest, write_json
from comics.params import TEST_SPLITS, load
from comics.provenance import read_sidecar, write_sidecar

TABLE = "reports/table_iv.tex"


def test_a_fresh_project_plans_every_distinct_run_once(project: Path, run: Run) -> None:
    done = run("snakemake", "-n", TABLE, cwd=project)
    assert "profiles/default" in done.stdout  # hence neither --cores nor --resources is needed
    assert planned(done.stdout) == {
        "make_dataset": 1,
        "make_other_splits": 1,
        "train": 9,  # and the start of all eight
        "predict": 8,
        "evaluate": 8,
        "compare_table": 1,
        "table": 1,
    }
    # Table V shares two of its seven runs with Table IV; Figure 9 and the page show only what is made anyway.
    # The flags as the README has them: targets before --resources, which takes all words after it.
    targets = [TABLE, "reports/table_v.tex", "reports/figures/figure_9.png", "reports/index.html"]
    done = run("snakemake", "-n", "--cores", "1", *targets, "--resources", "gpu=1", cwd=project)
    assert planned(done.stdout) == {
        "make_dataset": 1,
        "make_other_splits": 1,
        "train": 14,
        "predict": 13,
        "evaluate": 13,
        "compare_table": 2,
        "table": 2,
        "figure": 1,
        "page": 1,
    }


def test_only_what_changed_is_planned(made_project: Path, run: Run) -> None:
    params, annotations = made_project / "params.yaml", made_project / "data/mini/train/annotations.json"

    def plan() -> dict[str, int]:
        return planned(run("snakemake", "-n", TABLE, cwd=made_project).stdout)

    for suffix in ("tex", "csv", "md"):
        (made_project / TABLE).with_suffix(f".{suffix}").write_text("made")
    run("snakemake", "--touch", "--forceall", TABLE, cwd=made_project)
    original = params.read_text()

    annotations.touch()  # a checkout's time stamps retrain nothing, nor does a title
    edit(params, "{title: BlendMask + FEA, components: [attention]}", "{title: Other, components: [attention]}")
    assert plan() == {}
    edit(params, "{title: Other, components: [attention]}", "{components: [attention], training: {lr: 0.03}}")
    assert plan() == {"train": 1, "predict": 1, "evaluate": 1, "compare_table": 1, "table": 1}
    edit(params, "training: {lr: 0.03}", "inference: {score_threshold: 0.1}")
    assert plan() == {"predict": 1, "evaluate": 1, "compare_table": 1, "table": 1}  # the weights stay

    params.write_text(original)  # a run and a row more
    edit(params, "\nruns:\n", "\nruns:\n  hot: {components: [coarse, fine], objective: {temperature: 2.0}}\n")
    last = '      - {label: ["yes", "yes", "yes"], run: comics, paper: DA+FEA+Bi-grained}\n'
    edit(params, last, last + '      - {label: ["no", "no", "hot"], run: hot}\n')
    assert plan() == {"train": 1, "predict": 1, "evaluate": 1, "compare_table": 1, "table": 1}

    params.write_text(original)  # the size of a test split trains nothing, a caption compares nothing
    edit(params, "  mini:\n    kind: mini\n", "  mini:\n    kind: mini\n    test_dev: 60\n")
    again = {"predict": 8, "evaluate": 8, "compare_table": 1, "table": 1}
    assert plan() == {"make_other_splits": 1, **again}
    params.write_text(original)
    edit(params, "    caption: Effect of the components of COMICS.\n", "    caption: Another.\n")
    assert plan() == {"table": 1}
    params.write_text(original)

    for name, jobs in (("csv", {"evaluate": 1}), ("detections.json", {"predict": 1, "evaluate": 1})):
        sidecar = made_project / f"results/mini/da/seed0/test_dev.{name}.meta.json"
        told = sidecar.read_bytes()
        sidecar.unlink()  # noticed, though nothing but the sidecar is gone
        assert plan() == {**jobs, "compare_table": 1, "table": 1}
        sidecar.write_bytes(told)

    annotations.write_text(annotations.read_text().replace("Real", "Really"))
    assert plan()["train"] == 9


def test_the_orders_of_the_readme_find_their_target(project: Path, run: Run) -> None:
    """`--resources gpu=1 TARGET` takes the target for a resource: README says what to write instead."""
    orders = re.findall(r"^snakemake (--cores 1 --resources.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(orders) == 2
    for order in orders:
        assert planned(run("snakemake", "-n", *shlex.split(order), cwd=project).stdout)["table"] == 1


def test_another_start_renews_all_that_start_from_it(made_project: Path, run: Run) -> None:
    for suffix in ("tex", "csv", "md"):
        (made_project / TABLE).with_suffix(f".{suffix}").write_text("made")
    run("snakemake", "--touch", "--forceall", TABLE, cwd=made_project)
    edit(made_project / "params.yaml", "fea:        {title: BlendMask + FEA,", "fea: {model: {start: null},")
    edit(made_project / "params.yaml", "epochs: 8, lr: 0.002,", "epochs: 8, lr: 0.003,")
    # eight of nine, and the one that has no start any more
    planned_now = planned(run("snakemake", "-n", TABLE, cwd=made_project).stdout)
    assert (planned_now["train"], planned_now["predict"]) == (9, 8)


def test_a_mistake_ends_with_code_2_before_anything_runs(project: Path, run: Run) -> None:
    edit(project / "params.yaml", "fea:        {title: BlendMask + FEA, components", "fea: {componets")
    done = run("snakemake", TABLE, cwd=project, code=2)
    assert "params.yaml: runs.fea.componets: unknown key" in done.stdout
    assert "'components'" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (project / "data").exists()


def test_steps_choose_their_threads_themselves(project: Path, run: Run) -> None:
    """Under ``--cores 1`` Snakemake would hold torch to one core."""
    (project / "Snakefile").write_text(
        'include: "workflow/rules/common.smk"\n'
        'rule threads:\n    output: "threads.txt"\n    shell:\n'
        '        "(echo ${{OMP_NUM_THREADS-unset}} ${{MKL_NUM_THREADS-unset}}; command -v comics) > {output}"\n'
    )
    run("snakemake", "--cores", "1", cwd=project, MKL_NUM_THREADS="3")
    threads, comics = (project / "threads.txt").read_text().splitlines()
    assert threads == "unset 3"  # the user's choice is kept
    assert Path(comics).is_file()


def test_trainings_side_by_side_on_a_processor_share_its_cores(project: Path, run: Run, tmp_path: Path) -> None:
    (project / "Snakefile").write_text(
        'include: "workflow/rules/common.smk"\n'
        'rule:\n    output: "threads.txt"\n    threads: part_of_cores\n    resources: gpu=1\n    shell:\n'
        '        "echo {threads} ${{OMP_NUM_THREADS-unset}} ${{MKL_NUM_THREADS-unset}} > {output}"\n'
    )

    def told(*words: str, **environment: str) -> str:
        run("snakemake", "--forceall", "--nolock", *words, cwd=project, **environment)
        return (project / "threads.txt").read_text().strip()

    assert told("--cores", "12", "--resources", "gpu=3") == "4 4 unset"  # MKL follows OpenMP
    assert told("--cores", "2", "--resources", "gpu=3", OMP_NUM_THREADS="2") == "1 2 unset"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    assert (
        told("--cores", "8", "--resources", "gpu=4", PATH=path) == "2 unset unset"
    )  # all four at a time; the GPUs compute


def test_what_each_attempt_at_a_training_said_is_kept(project: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "comics").write_text(
        '#!/bin/sh\necho "said by $$"\n[ -e twice ] && touch done\ntouch twice\n[ -e done ]\n'
    )
    (tmp_path / "comics").chmod(0o755)
    (project / "Snakefile").write_text(
        'include: "workflow/rules/common.smk"\n'
        'rule:\n    output: "done"\n    log: "logs/train.log"\n    retries: 2\n'
        f'    shell: "PATH={tmp_path}:$PATH; comics train a --seed 0 &> {{log}}"\n'
    )
    run("snakemake", "--cores", "1", cwd=project)
    last = (project / "logs/train.log").read_text()
    attempts = [path.read_text() for path in (project / "logs").glob("train.*.log")]
    assert len(attempts) == len(set(attempts)) == 2
    assert last in attempts
    assert all(re.fullmatch(r"said by \d+\n", text) for text in attempts)


def test_steps_run_in_the_container_that_is_named(project: Path, run: Run, tmp_path: Path) -> None:
    """With a stand-in for apptainer, which runs the command outside of any container."""
    (tmp_path / "apptainer").write_text(
        '#!/bin/bash\nif [ "$1" = --version ]; then echo "apptainer version 1.3.4"; exit; fi\n'
        f'printf "%s\\n" "$@" > {tmp_path}/called\nexec "${{@: -3}}"\n'  # the last three: bash -c COMMAND
    )
    (tmp_path / "apptainer").chmod(0o755)
    (tmp_path / "comics.sif").write_text("")
    (project / "Snakefile").write_text(
        'include: "workflow/rules/common.smk"\nrule:\n    output: "done"\n    shell: "echo of $PPID > {output}"\n'
    )
    words = ["--software-deployment-method", "apptainer", "--config", f"container={tmp_path}/comics.sif"]
    run("snakemake", "--cores", "1", *words, cwd=project, PATH=f"{tmp_path}:{os.environ['PATH']}")
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "exec"
    assert f"{tmp_path}/comics.sif" in called
    assert (project / "done").exists()
    (project / "done").unlink()
    (tmp_path / "called").unlink()
    run("snakemake", "--cores", "1", cwd=project, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert not (tmp_path / "called").exists()  # nobody asked for it


def test_the_command_that_a_refusal_prints_renews_what_snakemake_did_not_make(made_project: Path, run: Run) -> None:
    """Of these results it has no record, and would leave them as they are."""
    params, folder = made_project / "params.yaml", "results/mini/da/seed0"
    both = [f"{folder}/test_dev.csv", f"{folder}/test_challenge.csv"]

    def refusal(module: str, *words: str) -> list[str]:
        """The arguments of `snakemake` in the remedy."""
        text = run(module, *words, cwd=made_project, code=2).stdout
        (command,) = re.findall(r"^(?:Renew|Train it) with: snakemake (.*)$", text, re.MULTILINE)
        return shlex.split(command)

    def plan(*words: str) -> dict[str, int]:
        return planned(run("snakemake", "-n", *words, cwd=made_project).stdout)

    edit(params, "{title: BlendMask + DA, components: [views]}", "{components: [views], training: {lr: 0.03}}")
    words = refusal("comics", "table", "table_iv")
    assert words == [*both, "--forcerun", f"{folder}/model.pt"]
    assert plan(*both) == {}
    assert plan(*words) == {"train": 1, "predict": 1, "evaluate": 1}
    (made_project / both[0]).unlink()  # missing is not enough either: made from these detections, it would be as stale
    assert refusal("comics", "table", "table_iv") == words
    assert plan(*words) == {"train": 1, "predict": 1, "evaluate": 1}
    page = run("comics", "page", cwd=made_project).stdout
    assert f"snakemake reports/table_iv.tex --forcerun {folder}/model.pt\n" in page

    # The weights are of the run as it is now (`comics train da`), and then the detections, too.
    resolved = load("params.yaml").resolve("da", 0)
    write_json(made_project / folder / "run.json", {"checkpoint_digest": resolved.checkpoint_digest})
    words = refusal("comics", "table", "table_iv")
    assert words == [*both, "--forcerun", *(f"{folder}/{split}.detections.json" for split in TEST_SPLITS)]
    assert plan(*words) == {"predict": 1, "evaluate": 1}
    for split in TEST_SPLITS:
        write_sidecar(f"{folder}/{split}.detections.json", {"digest": resolved.digest})
    words = refusal("comics", "table", "table_iv")
    assert words == [*both, "--forcerun", both[1]]
    assert plan(*words) == {"evaluate": 1}

    words = refusal("comics", "predict", "da", "--split", "test_dev")  # these weights are none
    assert words == ["--force", f"{folder}/model.pt"]
    assert plan(*words) == {"train": 1}


def test_detections_made_elsewhere_are_scored_as_a_step(project: Path, run: Run) -> None:
    following, row = "  table_iii:\n", "{label: Theirs, detections: theirs/found.json}"
    table = f"  theirs:\n    caption: A system run elsewhere.\n    splits: [test_dev]\n    rows:\n      - {row}\n"
    edit(project / "params.yaml", following, table + following)
    target = "reports/theirs.tex"
    refused = run("snakemake", "-n", target, cwd=project, code=1)
    assert "detections: theirs/found.json: no such file" in refused.stdout
    box = {"image_id": 1, "category_id": 2, "bbox": [2, 2, 20, 20]}
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "area": 400, "iscrowd": 0, **box}],
        "categories": [{"id": 1, "name": "Real"}, {"id": 2, "name": "Fake"}],
    }
    write_json(project / "theirs/found.json", [{"score": 0.9, **box}])
    for split in ("train", "val", *TEST_SPLITS):
        write_json(project / f"data/mini/{split}/annotations.json", truth)
    run("snakemake", "--cores", "1", target, cwd=project)
    (scores,) = (project / "results/mini/elsewhere").glob("theirs_found-*/test_dev.csv")
    told = read_sidecar(scores)
    assert told["detections"] == "theirs/found.json"
    assert told["digest"] == told["detections_sha256"][:16] == file_digest(project / "theirs/found.json")[:16]
    assert "| Theirs ‡ | 100.0 |" in (project / target).with_suffix(".md").read_text()
    write_json(project / "theirs/found.json", [{"score": 0.8, **box}])
    assert planned(run("snakemake", "-n", target, cwd=project).stdout) == {"evaluate_elsewhere": 1, "table": 1}
