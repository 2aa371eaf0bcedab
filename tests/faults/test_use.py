"""Use: what is done with trained weights on full disks, in odd environments, twice at one instant"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trainings
from test_disk import fill, litter, mounted
from trainings import RUNS, code_of, require_equal, train, weights

RUN = "results/mini/plain/seed0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dataset with a trained run and its detections."""
    folder = tmp_path_factory.mktemp("use")
    trainings.write_params(folder, {"plain": RUNS["plain"]})
    trainings.comics(folder, "data", "make", "mini")
    code, text = train(folder, "plain")
    assert code == 0, text
    trainings.comics(folder, "predict", "plain", "--split", "val")
    return folder


@pytest.fixture
def alone(trained: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(trained, tmp_path / "project")
    return tmp_path / "project"


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """An empty file system at `folder` without room for anything but names."""
    if not mounted(folder, 256):
        pytest.skip("no file system can be mounted here")
    try:
        fill(folder)
        yield folder
    finally:
        os.system(f"umount -l '{folder}'")


def ended(folder: Path, *words: object, before: object = None, seconds: float = 120) -> tuple[int, str]:
    """Exit code and output of a command in a process of its own; one that hangs is killed, and its code is 137."""
    with begun(folder, *words, before=before) as (process, log):
        process.join(seconds)
        if process.is_alive():
            process.kill()
    return code_of(process), log.read_text(errors="replace")


@contextmanager
def begun(folder: Path, *words: object, before: object = None) -> Iterator[tuple[object, Path]]:
    log = folder / f"{'_'.join(map(str, words)).replace('/', '_')[:60]}-{os.urandom(3).hex()}.log"
    arguments = (str(folder), list(map(str, words)), str(log), before)
    process = trainings._context.Process(target=trainings._comics, args=arguments)
    process.start()
    try:
        yield process, log
    finally:
        process.join(120)


def set_variables(variables: dict[str, str]) -> None:
    os.environ.update(variables)


@pytest.mark.injects(
    "the disk is full while `comics predict`, `evaluate --details`, `detect` and `weights export` write",
    "one message that names the file, code 2, nothing half-written, what was there is whole",
)
def test_predict_detect_and_export_on_a_full_disk(alone: Path, tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        for words in (
            ("predict", "plain", "--split", "val", "--output", disk / "val.json"),
            ("evaluate", "data/mini/val/annotations.json", f"{RUN}/val.detections.json", "--details", disk / "details"),
            ("detect", "data/mini/val/images", "--run", "plain", "--output", disk / "found"),
            ("weights", "export", f"{RUN}/model.pt", "--output", disk / "plain.safetensors"),
        ):
            code, text = ended(alone, *words)
            assert code == 2, (words, text)
            assert "Traceback" not in text, text
            assert str(disk) in text, text
            assert "o space left" in text, text
            assert not [path for path in disk.rglob("*") if path.is_file() and path.name != "filler"], words
    before = {path: path.read_bytes() for path in (alone / RUN).glob("*.json")}
    code, text = ended(alone, "predict", "plain", "--split", "val", before=no_files)
    assert (code, "Traceback" in text) == (2, False), text
    assert {path: path.read_bytes() for path in before} == before
    assert not litter(alone / RUN)


def no_files() -> None:
    """No file may have a byte: what a quota does, in the place that has the results."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))


@pytest.mark.injects(
    "a temporary folder without room, or that is not there, for `comics predict` and `evaluate`", "they end well"
)
def test_a_temporary_folder_without_room_does_not_matter_to_predictions(alone: Path, tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        for folder in (str(disk), "/nowhere"):
            code, text = ended(
                alone, "predict", "plain", "--split", "val", before=partial(set_variables, {"TMPDIR": folder})
            )
            assert code == 0, text
            words = ("evaluate", "data/mini/val/annotations.json", f"{RUN}/val.detections.json", "--output", "val.csv")
            code, text = ended(alone, *words, before=partial(set_variables, {"TMPDIR": folder}))
            assert code == 0, text


@pytest.mark.injects(
    "one bit of model.pt flipped, under `comics detect`, `weights export` and `calibrate`", "refused by name, code 2"
)
def test_whoever_reads_the_weights_compares_them_with_their_sidecar(alone: Path) -> None:
    path = alone / RUN / "model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (alone / RUN / "val.detections.json").unlink()
    for words in (
        ("detect", "data/mini/val/images", "--run", "plain"),
        ("detect", "data/mini/val/images", "--weights", path),
        ("weights", "export", f"{RUN}/model.pt", "--output", "plain.safetensors"),
        ("calibrate", "plain"),
    ):
        code, text = ended(alone, *words)
        assert code == 2, (words, text)
        assert "its bytes have changed since it was written" in text, text
        assert "Traceback" not in text
    assert not (alone / "detections").exists()
    assert not (alone / "plain.safetensors").exists()


@pytest.mark.injects(
    "two `comics predict` of one run and split at one instant", "both end with code 0, the result is whole"
)
def test_two_predictions_at_one_instant(alone: Path) -> None:
    whole = (alone / RUN / "val.detections.json").read_bytes()
    for path in (alone / RUN).glob("val.*"):
        path.unlink()
    with (
        begun(alone, "predict", "plain", "--split", "val") as first,
        begun(alone, "predict", "plain", "--split", "val") as second,
    ):
        pass
    assert [code_of(process) for process, _ in (first, second)] == [0, 0]
    assert (alone / RUN / "val.detections.json").read_bytes() == whole
    assert ended(alone, "evaluate", "data/mini/val/annotations.json", f"{RUN}/val.detections.json")[0] == 0
    assert not litter(alone / RUN)


ENVIRONMENTS = {
    "of another launcher": {"COMICS_RANKS": "3", "WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1", "NODE_RANK": "2"},
    "of a SLURM job step": {
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "x",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
    },
    "nonsense": {
        "OMP_NUM_THREADS": "x",
        "CUDA_VISIBLE_DEVICES": "x",
        "COMICS_GPUS": "x",
        "COLUMNS": "0",
        "PL_GLOBAL_SEED": "x",
    },
    "no home, no caches": {
        "HOME": "/nowhere",
        "XDG_CACHE_HOME": "/dev/null/x",
        "TORCH_HOME": "/dev/null/x",
        "LC_ALL": "C",
    },
}


@pytest.mark.parametrize("kind", list(ENVIRONMENTS))
@pytest.mark.injects(
    "variables of other launchers, of a SLURM step, nonsense, no home, while training", "the same weights"
)
def test_a_training_does_what_it_is_told_whatever_is_exported(trained: Path, alone: Path, kind: str) -> None:
    shutil.rmtree(alone / RUN)
    code, text = ended(alone, "train", "plain", before=partial(set_variables, ENVIRONMENTS[kind]))
    assert code == 0, text
    require_equal(weights(alone, "plain"), weights(trained, "plain"))


@pytest.mark.injects(
    "a named pipe, a folder or a device in the place of an image, the annotations or params.yaml", "named, code 2 or 3"
)
def test_what_is_no_file_is_named_and_not_waited_for(alone: Path) -> None:
    image = next((alone / "data/mini/val/images").iterdir())
    places = [image, alone / "data/mini/val/annotations.json", alone / "params.yaml"]
    for path in places:
        kept = path.read_bytes()
        for make in (os.mkfifo, Path.mkdir, lambda target: os.symlink("/dev/zero", target)):
            path.unlink()
            make(path)
            code, text = ended(alone, "predict", "plain", "--split", "val", seconds=60)
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
            path.write_bytes(kept)
            assert code == 2, (path, make, text)
            assert "Traceback" not in text, text
            assert path.name in text, text
