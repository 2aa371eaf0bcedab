"""All of a run's model from one file: the detector, its attention, and what only training needs.

Of two kinds of files: the COMICS authors' checkpoints (`comics.weights.authors`), and what ``comics weights import --run`` makes of
them. Other projects' files, and other runs', are of a detector alone (`comics.weights.transfer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from comics.detectors.base import Detector
from comics.errors import UserError
from comics.weights import authors
from comics.weights.checkpoint import Checkpoint
from comics.weights.transfer import Entry, Report, require_used, transfer

DETECTOR = "detector."
_KEY, _QUERY = "backbone_k.", "backbone."
_COPY = "momentum.module."
_QUEUE, _HEAD, _FILLED = (f"coarse.memory.{part}" for part in ("queue", "head", "filled"))
_PROTOTYPE, _KNOWN = "coarse.memory.prototype", "coarse.memory.has_prototype"
_FOLLOWS = (
    ("momentum.module.extractor.", "detector.extractor."),
    ("momentum.module.attention.", "attention."),
    ("coarse.key_projection.module.", "coarse.projection."),
)
"""What follows what, in a run's model: where a file has no copy, it begins as what it follows."""


def transfer_run(model: nn.Module, name: str, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], Report]:
    """The tensors of `checkpoint`, of a whole run, that a run's `model` can take, under its own names.

    Nothing is written into the model. Momentum copies that the file lacks begin as what they follow.

    Args:
        model: a `comics.model.Comics`, whose detector is of the kind `name`.
        name: the kind.
        checkpoint: with `Checkpoint.whole`.

    Raises:
        UserError: as `transfer`.
    """
    detector = getattr(model, "detector")  # noqa: B009 - of a module that is known by its state alone
    assert isinstance(detector, Detector)
    state = model.state_dict()
    if checkpoint.family == authors.FAMILY:
        taken, report = _of_authors(state, detector, name, checkpoint)
    else:
        taken, report = _of_ours(state, detector, name, checkpoint)
    for key in state:
        for copy, source in _FOLLOWS:
            if key.startswith(copy) and key not in taken and (origin := source + key.removeprefix(copy)) in taken:
                taken[key] = taken[origin].clone()
    report.missing = [key for key in state if key not in taken and not key.endswith("num_batches_tracked")]
    return taken, report


def _inside(entry: Entry, source: str, prefix: str) -> Entry:
    """An entry of a part's account in the account of the whole."""
    return replace(entry, source=source, target=f"{prefix}{entry.target}" if entry.target else "")


def _of_ours(
    state: Mapping[str, Tensor], detector: Detector, name: str, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], Report]:
    own = {key.removeprefix(DETECTOR): value for key, value in checkpoint.tensors.items() if key.startswith(DETECTOR)}
    found, report = transfer(detector, name, replace(checkpoint, tensors=own))
    taken = {DETECTOR + key: value for key, value in found.items()}
    account = {entry.source: _inside(entry, DETECTOR + entry.source, DETECTOR) for entry in report.entries}
    report.entries = []
    for source, tensor in checkpoint.tensors.items():
        if source.startswith(DETECTOR):
            report.entries.append(account[source.removeprefix(DETECTOR)])
            continue
        entry = _judged(source, authors.Place(source), tensor, state.get(source), tuple(tensor.shape))
        if entry.status == "used":
            taken[source] = tensor
        report.entries.append(entry)
    return taken, report


def _of_authors(
    state: Mapping[str, Tensor], detector: Detector, name: str, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], Report]:
    places = {source: authors.beside(source) for source in checkpoint.tensors}
    own = {source: tensor for source, tensor in checkpoint.tensors.items() if places[source] is None}
    found, report = transfer(detector, name, replace(checkpoint, tensors=own))
    taken = {DETECTOR + key: value for key, value in found.items()}
    account = {entry.source: _inside(entry, entry.source, DETECTOR) for entry in report.entries}

    following, of_copy = _of_copy(state, detector, name, checkpoint)
    taken |= following
    account |= of_copy

    rows: dict[str, dict[int, Tensor]] = {}
    report.entries = []
    for source, tensor in checkpoint.tensors.items():
        place = places[source]
        if source not in account:
            assert place is not None
            here = state.get(place.target)
            if place.row is not None and here is not None:
                here = here[place.row] if place.row < len(here) else None
            converted = place.convert(tensor)
            entry = account[source] = _judged(source, place, converted, here, tuple(tensor.shape))
            if entry.status == "used" and place.row is not None:
                rows.setdefault(place.target, {})[place.row] = converted
            elif entry.status == "used":
                taken[place.target] = converted.contiguous()
        report.entries.append(account[source])
    for index, entry in enumerate(report.entries):
        place = places[entry.source]
        if entry.status == "used" and place and place.target == _HEAD and place.row not in rows.get(_QUEUE, {}):
            del rows[_HEAD][place.row or 0]
            report.entries[index] = replace(entry, status="skipped", note="of a queue that is not taken")
    taken |= _memory(state, rows)
    return taken, report


def _of_copy(
    state: Mapping[str, Tensor], detector: Detector, name: str, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], dict[str, Entry]]:
    """The authors' second backbone as the momentum copy of a run's first, and the account of it, by names of the file."""
    tensors = {
        _QUERY + source.removeprefix(_KEY): tensor
        for source, tensor in checkpoint.tensors.items()
        if source.startswith(_KEY)
    }
    found, report = transfer(detector, name, replace(checkpoint, tensors=tensors))
    account = {}
    for entry in report.entries:
        source = _KEY + entry.source.removeprefix(_QUERY)
        entry = _inside(entry, source, _COPY)
        if entry.status == "used" and entry.target not in state:
            entry = replace(entry, status="skipped", expected=None, note=authors.wanted(_COPY))
        account[source] = entry
    return {_COPY + key: value for key, value in found.items() if _COPY + key in state}, account


def _judged(source: str, place: authors.Place, converted: Tensor, here: Tensor | None, shape: tuple[int, ...]) -> Entry:
    """What becomes of a tensor of `shape` in the file, `converted` for its place, that is not the detector's."""
    if not place.target:
        return Entry(source, "", "skipped", shape, None, place.note)
    target = place.target if place.row is None else f"{place.target}[{place.row}]"
    if here is None:
        return Entry(source, target, "skipped", shape, None, authors.wanted(place.target))
    if converted.shape == here.shape:
        return Entry(source, target, "used", shape, tuple(here.shape), place.note)
    note = "objective.coarse.queue_size is another" if place.target.endswith(".queue") else "another shape"
    return Entry(source, target, "mismatched", shape, tuple(here.shape), note)


def _memory(state: Mapping[str, Tensor], rows: Mapping[str, Mapping[int, Tensor]]) -> dict[str, Tensor]:
    """Queues, their heads and prototypes from rows of them. The authors' queues are full from the beginning, of noise."""
    taken = {target: state[target].clone() for target, found in rows.items() if found}
    for target, tensor in taken.items():
        for row, value in rows[target].items():
            tensor[row] = value.to(tensor.dtype)
    if _QUEUE in taken:
        taken[_FILLED] = state[_FILLED].clone()
        taken[_FILLED][list(rows[_QUEUE])] = taken[_QUEUE].shape[1]
    if _PROTOTYPE in taken:
        taken[_KNOWN] = state[_KNOWN].clone()
        taken[_KNOWN][list(rows[_PROTOTYPE])] = True
    return taken


def load_run(model: nn.Module, name: str, checkpoint: Checkpoint, partial: bool = False) -> Report:
    """Initialise a run's `model`, whose detector is of the kind `name`, from a checkpoint of a whole run.

    Raises:
        UserError: nothing fits, or less than a complete file would set; or it was trained with an attention that `model` has not,
            and neither `partial` nor the file itself says that this is meant.
    """
    taken, report = transfer_run(model, name, checkpoint)
    require_whole(report, partial)
    model.load_state_dict(taken, strict=False)
    return report


def require_whole(report: Report, partial: bool = False) -> None:
    """Refuse an account in which the detector, or the attention that it was trained with, is not set.

    Raises:
        UserError: see `load_run`.
    """
    require_used(report, partial)
    lost = [entry for entry in report.of("skipped", "mismatched") if entry.target.startswith("attention.")]
    if lost and not (partial or report.partial):
        raise UserError(
            f"{report.file}: its detector was trained with an attention ({lost[0].source}, ...) that this run has not.",
            "Give the run `components: [attention, ...]` and `attention: {inputs: image, identity: true, design: code}`.",
        )
