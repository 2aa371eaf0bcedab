"""A loaded model: pictures in, faces with one verdict each out. What ``comics.load`` gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from comics.detect.backends import Backend, Found, Mask, cropped, open_backend
from comics.detect.outcome import About, Face, Failure, Outcome
from comics.errors import UserError, did_you_mean
from comics.evaluation.calibration import THRESHOLDS, UNCALIBRATED_SCORE
from comics.images import UNNAMED, Picture, Pixels, Source, UnreadableImage, read, shown
from comics.verdicts import FLOOR, OVERLAP, faces, mask_overlaps

if TYPE_CHECKING:
    from comics.params import ResolvedRun

DEFAULT_THRESHOLD = "eer"
UNCALIBRATED_THRESHOLD = 0.5
TILE_OVERLAP = 0.25
"""Share of a tile's side that it has in common with the next."""

MINI_NOTICE = "A demonstration, trained on rendered faces: no forensic tool."
UNKNOWN_NOTICE = "It is not known what this model was trained on: its verdicts are no evidence."
RESEARCH_NOTICE = "A research model, trained on {}: its verdicts are indications, no evidence."
UNCALIBRATED_NOTICE = "Scores are not calibrated: they are no probabilities."

Item = Source | NDArray[Any] | Any
"""A path, the bytes of a file, a binary stream, a PIL image, an array or a tensor."""


def notice_of(kind: str, trained_on: str, calibrated: bool) -> str:
    """What has to be said on every use of a model trained on a dataset of `kind`."""
    if kind in ("mini", "crowd"):
        text = MINI_NOTICE
    elif not trained_on:
        text = UNKNOWN_NOTICE
    else:
        text = RESEARCH_NOTICE.format(trained_on)
    return text if calibrated else f"{text} {UNCALIBRATED_NOTICE}"


def load(
    run_or_file: str | os.PathLike[str],
    *,
    seed: int | None = None,
    threshold: float | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    project: str | os.PathLike[str] = ".",
) -> Model:
    """A trained model, ready to find faces.

    Args:
        run_or_file: a file (``model.pt``, ``.safetensors``, ``.onnx``), the folder of a run, or the name of a trained run of
            the project's params.yaml.
        seed: of the run; its first one by default.
        threshold: P(fake) from which on a face is called fake: a number, or ``eer``, ``fpr1``, ``fpr5`` or ``olrp`` of the
            calibration. Default: ``eer``, or 0.5 where the model is not calibrated.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, bf16 or fp32; no effect on ONNX files.
        project: folder that holds params.yaml and results/.

    Raises:
        UserError: there is nothing of that name, or it cannot be used.
    """
    path, run = Path(run_or_file), None
    # a folder of the run's name is none of a run: the project's own package is called comics
    if not path.is_file() and not (path / "model.pt").is_file() and path.suffix not in (".pt", ".safetensors", ".onnx"):
        path, run = run_file(str(run_or_file), seed, Path(project))
    return Model(open_backend(path, device, precision, run), threshold)


def run_file(run: str, seed: int | None, project: Path) -> tuple[Path, ResolvedRun]:
    """The weights of a run of the project's params.yaml, and the run.

    Raises:
        UserError: there is no project, no such run, or it is not trained, or has changed since.
    """
    from comics.files import read_json
    from comics.params import ENVIRONMENT
    from comics.params import load as load_params

    named = os.environ.get(ENVIRONMENT) if project == Path() else None  # `comics detect --params FILE`
    params_file = Path(named or project / "params.yaml")
    if not params_file.exists():
        raise UserError(
            f"{run}: neither a file of weights, nor a run: there is no params.yaml in this folder.",
            "Give --weights FILE (model.pt, .safetensors or .onnx), or call it from the project's folder.",
        )
    params = load_params(params_file)
    params.require_run(run)
    resolved = params.resolve(params.canonical(run), seed)
    folder = project / resolved.folder
    target = resolved.folder / "model.pt"
    if not (folder / "model.pt").exists():
        raise UserError(f"{target}: no such checkpoint.", f"Train it with: snakemake {target}")
    described = folder / "run.json"
    facts = read_json(described) if described.exists() else {}
    if facts and facts.get("checkpoint_digest") != resolved.checkpoint_digest:
        raise UserError(
            f"{target}: its run has changed since ({facts.get('checkpoint_digest')}, params.yaml now gives "
            f"{resolved.checkpoint_digest}).",
            f"Train it with: snakemake --force {target}, or give the file itself: --weights {target}",
        )
    return folder / "model.pt", resolved


class Model:
    """A network with its calibration and thresholds.

    Args:
        backend: the network.
        threshold: see `load`.
        score: least score of a face; by default the calibration's, or 0.3.

    Attributes:
        about: what it is, with the notice that belongs to each of its verdicts.
    """

    def __init__(self, backend: Backend, threshold: float | str | None = None, score: float | None = None) -> None:
        self.backend = backend
        origin, self.calibration = backend.origin, backend.origin.calibration
        calibrated = self.calibration is not None
        if threshold is None:
            threshold = DEFAULT_THRESHOLD if calibrated else UNCALIBRATED_THRESHOLD
        if score is None:
            score = UNCALIBRATED_SCORE if self.calibration is None else self.calibration.score
        self.floor = FLOOR if self.calibration is None else self.calibration.floor
        self.about = About(
            model=origin.name,
            detector=origin.detector,
            trained_on=origin.trained_on,
            notice=notice_of(origin.kind, origin.trained_on, calibrated),
            calibrated=calibrated,
            threshold=self.threshold_of(threshold),
            threshold_name=str(threshold),
            score=score,
            overlap=OVERLAP if self.calibration is None else self.calibration.overlap,
            overlap_of="boxes" if origin.predicts_boxes else "masks",
            digest=origin.digest,
        )

    def threshold_of(self, threshold: float | str) -> float:
        """P(fake) that `threshold` means: a number in [0, 1], or a name of the calibration's.

        Raises:
            UserError: it is neither, or a name without a calibration.
        """
        try:
            value = float(threshold)
        except ValueError:
            pass
        else:
            if not 0 <= value <= 1:
                raise UserError(f"threshold: {threshold} is not between 0 and 1.")
            return value
        if threshold not in THRESHOLDS:
            raise UserError(
                f"threshold: there is no '{threshold}'.",
                f"{did_you_mean(str(threshold), THRESHOLDS)} Or give a number between 0 and 1.",
            )
        if self.calibration is None:
            raise UserError(
                f"threshold: '{threshold}' comes from a calibration, and these weights have none.",
                "Make it with `comics calibrate RUN`, or give a number between 0 and 1.",
            )
        return float(self.calibration.thresholds[str(threshold)])

    @overload
    def detect(self, source: list[Any] | tuple[Any, ...], *, tiles: bool = False) -> list[Outcome]: ...
    @overload
    def detect(self, source: Item, *, tiles: bool = False) -> Outcome: ...
    def detect(self, source: Any, *, tiles: bool = False) -> Outcome | list[Outcome]:
        """The faces of a picture, or of each of a list of them.

        Args:
            source: a path, the bytes of an image file, a binary stream, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4) of
                uint8, or of floats in [0, 1], or a tensor (3, H, W) or (1, H, W) of the same; or a list of such.
            tiles: look at pictures larger than the network takes part by part as well, for small faces.

        Raises:
            UserError: a picture cannot be read.
        """
        if isinstance(source, list | tuple):
            found = list(self.stream(((name_of(one), one) for one in source), tiles=tiles))
        else:
            found = list(self.stream([(name_of(source), source)], tiles=tiles))
        outcomes = []
        for one in found:
            if isinstance(one, Failure):
                raise UnreadableImage(f"{one.file}: {one.error}" if one.file else one.error)
            outcomes.append(one)
        return outcomes if isinstance(source, list | tuple) else outcomes[0]

    def stream(
        self, items: Iterable[tuple[str, Any]], *, tiles: bool = False, readers: int = 2
    ) -> Iterator[Outcome | Failure]:
        """The faces of many pictures, in order; pictures that cannot be read come back as a `Failure`.

        Pictures are decoded in the background while the network works, and taken together where they are of one size.

        Args:
            items: name and picture (see `detect`) of each.
            tiles: see `detect`.
            readers: threads that decode.
        """
        batch = max(1, self.backend.origin.batch_size)
        ahead = batch * 2 + readers
        supply = iter(items)
        with ThreadPoolExecutor(readers, thread_name_prefix="comics-read") as pool:
            waiting: list[tuple[str, Any, Future[Picture]]] = []

            def refill() -> None:
                for name, source in islice(supply, ahead - len(waiting)):
                    waiting.append((name, source, pool.submit(self._read, source)))

            refill()
            while waiting:
                group, waiting[:] = waiting[:batch], waiting[batch:]
                refill()
                yield from self._group(group, tiles)

    def _read(self, source: Any) -> Picture:
        return as_picture(source, self.backend.origin.image_size)

    def _group(self, group: Sequence[tuple[str, Any, Future[Picture]]], tiles: bool) -> list[Outcome | Failure]:
        results: dict[int, Outcome | Failure] = {}
        ready: dict[tuple[int, int], list[tuple[int, Picture]]] = {}
        for place, (name, _, future) in enumerate(group):
            try:
                picture = future.result()
            except UserError as error:
                text = error.message.removeprefix(f"{name}: ")
                text = text.removeprefix(f"{UNNAMED}: ") if name else text
                results[place] = Failure(name, text)
                continue
            height, width = picture.pixels.shape[:2]
            ready.setdefault((-(-height // 32), -(-width // 32)), []).append((place, picture))
        for same in ready.values():
            found = self.backend.find([picture.pixels for _, picture in same])
            for (place, picture), one in zip(same, found, strict=True):
                name, source, _ = group[place]
                scaled = [_enlarged(one, picture.pixels.shape[:2], picture.size)]
                notes = picture.notes
                if tiles and max(picture.size) > self.backend.origin.image_size:
                    parts = self._tiles(as_picture(source, None))
                    scaled += parts
                    notes += (f"also looked at in {len(parts)} tiles",)
                results[place] = Outcome(
                    file=name,
                    size=picture.size,
                    faces=self.faces_of(scaled),
                    about=self.about,
                    notes=notes,
                    picture=picture.pixels,
                )
        return [results[place] for place in range(len(group))]

    def _tiles(self, picture: Picture) -> list[Found]:
        """Detections in overlapping tiles of the whole picture, in its px; those cut by a tile's edge are left out."""
        side = self.backend.origin.image_size
        height, width = picture.size
        found = []
        for top in _starts(height, side):
            for left in _starts(width, side):
                tile = np.ascontiguousarray(picture.pixels[top : top + side, left : left + side])
                one = self.backend.find([tile])[0]
                h, w = tile.shape[:2]
                x1, y1, x2, y2 = one.boxes.T if len(one.boxes) else np.zeros((4, 0))
                cut = ((x1 < 2) & (left > 0)) | ((y1 < 2) & (top > 0))
                cut |= ((x2 > w - 2) & (left + w < width)) | ((y2 > h - 2) & (top + h < height))
                keep = np.flatnonzero(~cut)
                masks = [(one.masks[k][0], (one.masks[k][1][0] + left, one.masks[k][1][1] + top)) for k in keep]
                mask_scores = None if one.mask_scores is None else one.mask_scores[keep]
                boxes = one.boxes[keep] + [left, top, left, top]
                found.append(Found(boxes, one.scores[keep], one.fake[keep], masks, mask_scores=mask_scores))
        return found

    def faces_of(self, found: Sequence[Found]) -> tuple[Face, ...]:
        """One verdict a face from detections of both classes, of one picture, in its px."""
        boxes = np.concatenate([one.boxes for one in found]).reshape(-1, 4)
        scores = np.concatenate([one.scores for one in found])
        masks = [mask for one in found for mask in one.masks]
        mask_scores = [one.mask_scores for one in found if one.mask_scores is not None]  # of all, or of none
        of_masks = np.concatenate(mask_scores) if mask_scores else None
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        fake = np.concatenate([one.fake for one in found])
        overlaps = None
        if self.about.overlap_of == "masks":
            areas = np.array([crop.sum() for crop, _ in masks], float)
            overlaps = mask_overlaps(xywh, areas, partial(_shared, masks), self.about.overlap)
        grouped = faces(xywh, scores, fake, self.about.overlap, self.floor, overlaps)
        p_fake = grouped.p_fake if self.calibration is None else self.calibration.apply(grouped.p_fake)
        result = []
        for leader, score, probability in zip(grouped.leaders.tolist(), grouped.scores, p_fake, strict=True):
            if score < self.about.score:
                continue
            left, top, right, bottom = boxes[leader].tolist()
            crop, corner = masks[leader]
            result.append(
                Face(
                    box=(left, top, right, bottom),
                    score=float(score),
                    p_fake=float(probability),
                    fake=bool(probability >= self.about.threshold),
                    crop=crop,
                    corner=corner,
                    score_mask=None if of_masks is None else float(of_masks[leader]),
                )
            )
        return tuple(result)

    def with_threshold(self, threshold: float | str) -> Model:
        """The same model with another threshold for P(fake)."""
        return Model(self.backend, threshold, self.about.score)

    def judged(self, outcome: Outcome, threshold: float) -> Outcome:
        """`outcome` with the verdicts of another threshold; nothing is looked at again."""
        about = replace(outcome.about, threshold=threshold, threshold_name=str(threshold))
        return replace(
            outcome,
            about=about,
            faces=tuple(replace(face, fake=face.p_fake >= threshold) for face in outcome.faces),
        )


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` begin so that they cover `length` with `TILE_OVERLAP` in common."""
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - TILE_OVERLAP)))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _shared(masks: Sequence[tuple[Mask, tuple[int, int]]], one: int, other: int) -> int:
    """Pixels that two of `masks` have in common, each a part and where it begins (x, y)."""
    (mine, (x, y)), (theirs, (u, v)) = masks[one], masks[other]
    left, top = max(x, u), max(y, v)
    right, bottom = min(x + mine.shape[1], u + theirs.shape[1]), min(y + mine.shape[0], v + theirs.shape[0])
    if left >= right or top >= bottom:
        return 0
    return int(
        (mine[top - y : bottom - y, left - x : right - x] & theirs[top - v : bottom - v, left - u : right - u]).sum()
    )


def name_of(source: Any) -> str:
    """A picture's name: its path, or the file it was opened from; empty where there is none."""
    if isinstance(source, str | os.PathLike):
        return shown(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return shown(name) if isinstance(name, str) else ""


def as_picture(source: Any, longest: int | None) -> Picture:
    """What `Model.detect` takes, as a picture of sides up to `longest`.

    Raises:
        UserError: it cannot be read, or is no picture.
    """
    if isinstance(source, str | os.PathLike | bytes | Image.Image) or hasattr(source, "read"):
        return read(source, longest)
    if hasattr(source, "detach"):  # a tensor, channels first
        array = source.detach().cpu().float().numpy() if source.is_floating_point() else source.detach().cpu().numpy()
        if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
            raise UserError(f"a tensor of shape {tuple(array.shape)} is no picture.", "Give (3, H, W) or (1, H, W).")
        source = array.transpose(1, 2, 0)
    if not isinstance(source, np.ndarray):
        raise UserError(
            f"{type(source).__name__}: no picture.", "Give a path, bytes, a PIL image, an array or a tensor."
        )
    return read(Image.fromarray(_as_bytes(source)), longest)


def _as_bytes(array: NDArray[Any]) -> Pixels:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as uint8."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise UserError(f"an array of shape {array.shape} is no picture.", "Give (H, W), (H, W, 3) or (H, W, 4).")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        return (array / 257).round().astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"an array of {array.dtype} is no picture.", "Give uint8, uint16, or floats in [0, 1].")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise UserError("an array of floats outside of [0, 1] is no picture.", "Divide it by its largest value.")
    return (array * 255).round().astype(np.uint8)


def _enlarged(found: Found, size: tuple[int, ...], original: tuple[int, int]) -> Found:
    """Detections in a picture of `size` (height, width) in the px of its `original` size."""
    if tuple(size) == tuple(original):
        return found
    x, y = original[1] / size[1], original[0] / size[0]
    if found.soft is not None:
        masks = []
        for part in found.soft.parts(original):  # one by one: the original may be large
            ((crop, (left, top)),) = cropped(part.mask.cpu().numpy()[None])
            masks.append((crop, (left + part.left, top + part.top)))
    else:
        masks = [_enlarged_mask(crop, corner, (x, y), original) for crop, corner in found.masks]
    return Found(found.boxes * [x, y, x, y], found.scores, found.fake, masks, mask_scores=found.mask_scores)


def _enlarged_mask(
    crop: Mask, corner: tuple[int, int], scale: tuple[float, float], original: tuple[int, int]
) -> tuple[Mask, tuple[int, int]]:
    """A mask's part, bilinearly resized to its place in the original."""
    (left, top), (x, y) = corner, scale
    height, width = crop.shape
    x1, y1 = int(left * x), int(top * y)
    x2, y2 = min(original[1], int(np.ceil((left + width) * x))), min(original[0], int(np.ceil((top + height) * y)))
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    ground = Image.fromarray(np.pad(crop, 1).astype(np.uint8) * 255)
    box = (x1 / x - left + 1, y1 / y - top + 1, x2 / x - left + 1, y2 / y - top + 1)
    box = (max(0.0, box[0]), max(0.0, box[1]), min(box[2], width + 2.0), min(box[3], height + 2.0))
    resized = ground.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized) >= 128, (x1, y1)
