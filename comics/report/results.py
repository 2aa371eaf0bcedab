"""Reading results for rendering: scores of a run over its seeds, refused where the run has since changed."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from comics.data.canonical.content import content_of
from comics.errors import UserError
from comics.files import file_digest, read_json
from comics.params import Params, ResolvedRun, TableParams, TableRow
from comics.params.read import ENVIRONMENT
from comics.provenance import fits, read_sidecar, sidecar_path
from comics.score_files import Key, read_score_file


@dataclass(frozen=True)
class Score:
    """A metric over seeds, as a fraction. Both are None where no seed defines it, `std` also for a single seed."""

    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Measured:
    """The scores of one run on one split."""

    run: ResolvedRun
    """The run that made them, with its first seed."""
    split: str
    digests: dict[int, str]
    """Digest of each seed."""
    scores: tuple[Mapping[Key, float | None], ...]
    """One mapping a seed; fractions."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.digests)

    def score(self, task: str, metric: str, cls: str = "all") -> Score:
        """Mean and sample standard deviation over the seeds that define the metric."""
        values = [value for scores in self.scores if (value := scores.get((task, cls, metric))) is not None]
        if not values:
            return Score(None, None)
        mean = fmean(values)
        if len(values) == 1:
            return Score(mean, None)
        # `statistics.stdev` computes with fractions, a third of the time of a table of many seeds.
        return Score(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)))


def resolved_runs(params: Params, run: str) -> list[ResolvedRun]:
    """`run` with each of its seeds, as the first run of the file that resolves to the same: the one that is trained."""
    return [params.resolve(params.canonical(run), seed) for seed in params.seeds(run)]


def _tested(run: ResolvedRun, test: str | None) -> Path:
    """Where results on the dataset `test` are: beside the weights for the run's own, in a folder there for another."""
    return run.folder if test in (None, run.dataset_name) else run.folder / f"on_{test}"


def scores_path(run: ResolvedRun, split: str, test: str | None = None) -> Path:
    """Scores of `run` on `split` of its own dataset, or of the dataset `test`, from the project's root."""
    return _tested(run, test) / f"{split}.csv"


def detections_path(run: ResolvedRun, split: str, test: str | None = None) -> Path:
    """Detections of `run` on `split` of its own dataset, or of the dataset `test`, from the project's root."""
    return _tested(run, test) / f"{split}.detections.json"


def intervals_path(run: ResolvedRun, split: str, test: str | None = None) -> Path:
    """95 % intervals over images of the scores at `scores_path`, from the project's root."""
    return _tested(run, test) / f"{split}.intervals.csv"


def details_path(run: ResolvedRun, split: str, name: str) -> Path:
    """A breakdown of the scores of `run` on `split` (``errors``, ``by_size``, ...), from the project's root."""
    return run.folder / f"{split}.details" / f"{name}.csv"


def elsewhere_path(dataset: str, row: TableRow, split: str) -> Path:
    """Scores on `split` of the detections that `row` names, from the project's root. The folder's name is made from their path
    alone, so that tables share them."""
    pattern = row.detections or ""
    word = re.sub(r"[^A-Za-z0-9]+", "_", os.path.splitext(pattern)[0]).strip("_")[-48:]
    key = hashlib.sha256(pattern.encode()).hexdigest()[:8]
    return Path("results") / dataset / "elsewhere" / f"{word}-{key}" / f"{split}.csv"


def robustness_path(run: ResolvedRun) -> Path:
    """Scores of `run` on perturbed images, from the project's root."""
    return run.folder / "robustness.csv"


def _stamp(path: Path) -> tuple[int, int]:
    """What the file system tells of a file: another file has another."""
    about = os.stat(path)
    return about.st_mtime_ns, about.st_size


@cache
def _read_scores(path: Path, stamp: tuple[int, int]) -> Mapping[Key, float | None]:
    return MappingProxyType(read_score_file(path))


def read_scores(path: Path) -> Mapping[Key, float | None]:
    """As `comics.score_files.read_score_file`, each file once a process."""
    try:
        stamp = _stamp(path)
    except OSError:
        return read_score_file(path)  # which says what is wrong
    return _read_scores(path, stamp)


@cache
def _checked(path: Path, file: tuple[int, int], sidecar: tuple[int, int] | None) -> tuple[Mapping[str, Any], bool]:
    told = read_sidecar(path)
    return MappingProxyType(told), fits(path, told)


def _looked_at(path: Path, file: tuple[int, int]) -> tuple[Mapping[str, Any], bool]:
    """What the sidecar of `path` tells, and whether the file is what it was written for: each file once a process.

    Args:
        path: that is there.
        file: its stamp.
    """
    try:
        sidecar = _stamp(sidecar_path(path))
    except FileNotFoundError:
        sidecar = None
    return _checked(path, file, sidecar)


def state(path: Path, digest: str, root: Path) -> str:
    """``current`` or ``missing``; ``stale`` where the sidecar of `path` below `root` tells another digest of its run, or other
    training data than there is, and ``damaged`` where `path` is no longer what its sidecar was written for."""
    there = root / path
    try:
        told, intact = _looked_at(there, _stamp(there))
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if told.get("digest") != digest or data_changed(told, root):
        return "stale"
    return "current" if intact else "damaged"


_CONTENT_SECONDS = 5
"""A split is looked at again after so long: many results of one call stand on the same data."""


@cache
def _content(annotations: Path, moment: int) -> dict[str, str]:
    return content_of(annotations).facts


def data_changed(told: Mapping[str, Any], root: Path = Path()) -> bool:
    """Whether the training split of ``dataset``, where it is there, is no longer the ``data`` of a sidecar or run.json."""
    if not told.get("data"):
        return False
    annotations = root / "data" / str(told.get("dataset")) / "train" / "annotations.json"
    if not annotations.exists():
        return False
    try:
        return _content(annotations.absolute(), int(time.monotonic() / _CONTENT_SECONDS)) != told["data"]
    except UserError:
        return True  # an image is missing


UNUSABLE = ("stale", "damaged")
"""States of a result that is there and must be made anew."""


def is_current(params: Params, run: str, split: str, root: Path = Path()) -> bool:
    """Whether all seeds of `run` have results on `split`, made by the run as it now is.

    Damaged ones count: reading them then says so, where leaving them out would not.
    """
    found = {state(scores_path(one, split), one.digest, root) for one in resolved_runs(params, run)}
    return found <= {"current", "damaged"}


class NotCurrent(UserError):
    """Results are missing, or of another version of their run.

    Args:
        message: what is wrong with each.
        remedy: the command.
        outdated: what Snakemake has to be told to make anew for them.
    """

    def __init__(self, message: str, remedy: str, outdated: Iterable[Path] = ()) -> None:
        super().__init__(message, remedy)
        self.outdated = tuple(outdated)


class NotMade(NotCurrent):
    """All that is wrong is that results, or a dataset, are missing."""


def renewal(targets: Iterable[Path | str], outdated: Iterable[Path]) -> str:
    """The command that makes `targets` out of new versions of `outdated`."""
    file = os.environ.get(ENVIRONMENT)
    command = ["snakemake", *map(str, targets), *(["--config", f"params={file}"] if file else [])]
    forced = list(dict.fromkeys(map(str, outdated)))
    return shlex.join([*command, "--forcerun", *forced] if forced else command)


def outdated_file(path: Path, run: ResolvedRun, root: Path = Path()) -> Path | None:
    """The first file on the way to the result `path` of `run` that is there, but made by another version of the run.

    Snakemake takes a file that it did not make itself, or not last, as it is; so it has to be told.
    """
    model, described = run.folder / "model.pt", root / run.folder / "run.json"
    if (root / model).exists() and described.exists():
        facts = read_json(described)
        if not isinstance(facts, dict) or facts.get("checkpoint_digest") != run.checkpoint_digest:
            return model
        if data_changed(facts, root):
            return model
    folder, split = path.parent, path.name.split(".")[0]
    if folder.suffix == ".details":
        folder, split = folder.parent, folder.stem
    detections = folder / f"{split}.detections.json"
    return next((file for file in (detections, path) if state(file, run.digest, root) in UNUSABLE), None)


def training_state(run: ResolvedRun, root: Path = Path()) -> str:
    """``trained``, ``not trained``, ``interrupted``, ``out of date`` where ``run.json`` tells another version of the run,
    ``data changed`` where the training split is another, or ``no model.pt`` where the weights are gone."""
    folder = root / run.folder
    if not (folder / "run.json").exists():
        return "interrupted" if any((folder / "checkpoints").glob("*.ckpt")) else "not trained"
    facts = read_json(folder / "run.json")
    if not isinstance(facts, dict) or facts.get("checkpoint_digest") != run.checkpoint_digest:
        return "out of date"
    if data_changed(facts, root):
        return "data changed"
    return "trained" if (folder / "model.pt").exists() else "no model.pt"


def require(wanted: Iterable[tuple[Path, ResolvedRun]], root: Path = Path()) -> None:
    """Check that every result (its path, and the run that makes it) is there and current.

    Raises:
        NotCurrent: names all that are not; the remedy is one Snakemake command that makes exactly these. `NotMade` where
            all of them are missing.
    """
    problems, targets, outdated = [], [], []
    kind: type[NotCurrent] = NotMade
    for path, run in dict(wanted).items():
        found = state(path, run.digest, root)
        if found == "current":
            continue
        if found == "missing":
            problems.append(f"{path}: no such result.")
        elif found == "damaged":
            kind = NotCurrent
            problems.append(f"{path}: its bytes have changed since it was written, its SHA-256 is another.")
        else:
            kind = NotCurrent
            fields = read_sidecar(root / path)
            told = fields.get("digest", "missing")
            problems.append(
                f"{path}: the training data of its run has changed since."
                if told == run.digest
                else f"{path}: made by another version of its run (digest {told}, params.yaml gives {run.digest})."
            )
        targets.append(path)
        if (file := outdated_file(path, run, root)) is not None:
            outdated.append(file)
    if problems:
        raise kind("\n".join(problems), f"Renew with: {renewal(targets, outdated)}", outdated)


def read_run(params: Params, run: str, split: str, root: Path = Path()) -> Measured:
    """The scores of `run` on `split` over all its seeds, checked to be current.

    Raises:
        UserError: a result is missing or its run has since changed.
    """
    require([(scores_path(one, split), one) for one in resolved_runs(params, run)], root)
    return _scores_of(params, run, split, root)


def _scores_of(params: Params, run: str, split: str, root: Path) -> Measured:
    """As `read_run`, where the results were found to be current."""
    resolved = resolved_runs(params, run)
    return Measured(
        run=resolved[0],
        split=split,
        digests={one.seed: one.digest for one in resolved},
        scores=tuple(read_scores(root / scores_path(one, split)) for one in resolved),
    )


@dataclass(frozen=True)
class Elsewhere:
    """The scores on one split of detections that were made elsewhere."""

    file: str
    """The detections."""
    digest: str
    """The first sixteen digits of their SHA-256."""
    scores: Mapping[Key, float | None]
    """Fractions."""

    def score(self, task: str, metric: str) -> float | None:
        """A metric over all classes; None where it is undefined."""
        return self.scores.get((task, "all", metric))


@dataclass(frozen=True)
class Row:
    """A row of params.yaml with its results."""

    params: TableRow
    measured: dict[str, Measured] | None
    """Scores by split; None where the paper's row stands in, or none, or the row is of detections made elsewhere."""
    elsewhere: dict[str, Elsewhere] | None = None
    """Scores by split of detections made elsewhere."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One text a label column."""
        return (self.params.label,) if isinstance(self.params.label, str) else tuple(self.params.label)

    @property
    def name(self) -> str:
        """The labels as one text, for messages and plain output."""
        return " ".join(self.labels)


def read_rows(
    params: Params, table: TableParams, splits: Sequence[str], root: Path = Path(), *, available: bool = False
) -> list[Row]:
    """The rows of `table` with their scores on `splits`.

    An optional row without current results has none, on any of the splits: the paper's row stands in, where it has one. With
    `available`, so has any other row that lacks results and has none of another version of its run.

    Raises:
        NotCurrent: results of other rows are missing or no longer of their run: all of them, with the command.
    """
    measured: list[TableRow] = []
    wanted: dict[Path, ResolvedRun] = {}
    for row in table.rows:
        if row.run is None:
            continue
        results = {scores_path(one, split): one for split in splits for one in resolved_runs(params, row.run)}
        found = {state(path, one.digest, root) for path, one in results.items()}
        lacks = available and "missing" in found and found.isdisjoint(UNUSABLE)
        left_out = row.optional and "damaged" not in found  # damage is told, never covered
        if not lacks and (found == {"current"} or not left_out):
            measured.append(row)
            wanted |= results
    require(wanted.items(), root)
    shown = set(map(id, measured))
    return [
        Row(
            params=row,
            measured={split: _scores_of(params, row.run or "", split, root) for split in splits}
            if id(row) in shown
            else None,
            elsewhere=_read_elsewhere(params, row, splits, root, available),
        )
        for row in table.rows
    ]


def _read_elsewhere(
    params: Params, row: TableRow, splits: Sequence[str], root: Path, available: bool
) -> dict[str, Elsewhere] | None:
    """The scores of the detections that `row` names; None where it names none, or they may be missing and are.

    Raises:
        NotCurrent: scores are missing, damaged, or of other detections than the file now holds.
    """
    if row.detections is None:
        return None
    scores = {split: elsewhere_path(params.dataset, row, split) for split in splits}
    files = {split: row.detections_of(split) for split in splits}
    missing = [split for split in splits if not (root / scores[split]).exists()]
    if missing and (available or (row.optional and any(not (root / files[split]).exists() for split in missing))):
        return None
    found, problems, outdated = {}, [f"{scores[split]}: no such result." for split in missing], []
    for split in [split for split in splits if split not in missing]:
        path, file = root / scores[split], root / files[split]
        told, intact = _looked_at(path, _stamp(path))
        # Scores may be here without the detections that they were made from.
        digest = file_digest(file)[:16] if file.exists() else str(told.get("digest"))
        if not intact:
            problems.append(f"{scores[split]}: its bytes have changed since it was written, its SHA-256 is another.")
        elif told.get("digest") != digest:
            problems.append(
                f"{scores[split]}: made from other detections (digest {told.get('digest', 'missing')}, "
                f"{files[split]} has {digest})."
            )
        else:
            found[split] = Elsewhere(str(files[split]), digest, read_scores(path))
            continue
        outdated.append(scores[split])
    if problems:
        kind = NotMade if not outdated else NotCurrent
        targets = [scores[split] for split in splits if split not in found]
        raise kind("\n".join(problems), f"Renew with: {renewal(targets, outdated)}", outdated)
    return found


def not_made(params: Params, table: TableParams, splits: Sequence[str], root: Path = Path()) -> list[str]:
    """Rows that are not optional and lack results: for a warning beside what is rendered without them."""
    found = []
    for row in table.rows:
        if row.optional or (row.run is None and row.detections is None):
            continue
        if row.run is None:
            paths = [elsewhere_path(params.dataset, row, split) for split in splits]
        else:
            paths = [scores_path(one, split) for split in splits for one in resolved_runs(params, row.run)]
        if not all((root / path).exists() for path in paths):
            found.append(row.run or row.detections or "")
    return found


def stale_rows(params: Params, table: TableParams, splits: Sequence[str], root: Path = Path()) -> list[str]:
    """Optional rows whose results are there but not of their run as it now is: for a warning beside the rendering."""
    warnings = []
    for row in table.rows:
        if row.optional and row.run is not None:
            paths = {scores_path(one, s): one for s in splits for one in resolved_runs(params, row.run)}
            stale = {path: one for path, one in paths.items() if state(path, one.digest, root) == "stale"}
            if stale:
                outdated = [outdated_file(path, one, root) or path for path, one in stale.items()]
                stands_in = "The table leaves out" if row.paper is None else "The paper's row stands in for"
                warnings.append(
                    f"{stands_in} {row.run}: its results are of another version of the run. "
                    f"Renew with: {renewal(stale, outdated)}"
                )
    return warnings


def runs_drawn(rows: Iterable[Row]) -> dict[str, str]:
    """``run seed k`` -> digest of everything measured in `rows`: goes into the rendered file."""
    drawn: dict[str, str] = {}
    for row in rows:
        for measured in (row.measured or {}).values():
            for seed, digest in measured.digests.items():
                drawn[f"{measured.run.name} seed {seed}"] = digest
    return drawn


def files_drawn(rows: Iterable[Row]) -> dict[str, str]:
    """Detections made elsewhere -> digest of everything in `rows` that was scored from them: goes into the rendered file."""
    return {one.file: one.digest for row in rows for one in (row.elsewhere or {}).values()}
