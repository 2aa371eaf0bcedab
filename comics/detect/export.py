"""A trained run as one graph for other programs: ONNX, or a program of ``torch.export``.

Post-processing is part of the graph: thresholds, the best of each level, suppression by class, masks at the picture's
size. Batch, height and width are dynamic. The graph is written anew from the detector's own layers here, because what
runs eagerly goes image by image and box by box, which no graph can hold. It is checked against the detector before it
is written.

Inputs: ``pixels`` (B, 3, H, W) float32 RGB in [0, 1], padded on the right and below to multiples of
32, 160 at least, and ``sizes`` (B, 2)
int64, height and width before padding. Outputs, N detections over all images: ``boxes`` (N, 4) xyxy px, ``scores`` (N,),
``labels`` (N,) 0 Real, 1 Fake, ``images`` (N,) which image each is of, ``masks`` (N, H, W) bool.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import nms, roi_align

from comics.detect.backends import SMALLEST, Found, OnnxBackend, TorchBackend
from comics.detectors.blendmask import MASK, BlendMask, blend
from comics.detectors.condinst import COORDINATE_SCALES, HIDDEN, LAYERS, MASK_STRIDE, CondInst, enlarge
from comics.detectors.fcos import FCOSDetector, FCOSOutputs, PointConv, decode, flatten
from comics.detectors.meinst import MEInst
from comics.errors import UserError
from comics.files import atomic_write

OUTPUTS = ("boxes", "scores", "labels", "images", "masks")
OPSET = 18
TOLERANCE = 1e-4
"""Largest difference that an export may have: of a score, of a box relative to the picture, of masks in shares of pixels."""
APART = 1e5
"""Between boxes of two classes or images, in px, so that none suppresses the other: larger than any picture."""


@dataclass
class _Cells:
    """The locations of a pyramid, finest level first, L over all levels.

    Attributes:
        points: (L, 2) x and y in px.
        strides: (L,) px.
        levels: (L,).
        first: (L,) row of the location's cell in the table of `_table`, for the first image.
        images: (L,) rows from one image to the next.
        lines: (L,) rows from one line of its map to the next.
    """

    points: Tensor
    strides: Tensor
    levels: Tensor
    first: Tensor
    images: Tensor
    lines: Tensor


def _cells(maps: list[Tensor], strides: tuple[int, ...]) -> _Cells:
    parts: list[tuple[Tensor, ...]] = []
    start: Any = 0
    batch = maps[0].shape[0]
    for level, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        height, width = one.shape[-2], one.shape[-1]
        y = torch.arange(height, device=one.device)[:, None].expand(height, width).reshape(-1)
        x = torch.arange(width, device=one.device)[None, :].expand(height, width).reshape(-1)
        none = torch.zeros_like(x)
        points = torch.stack([(x + 0.5) * stride, (y + 0.5) * stride], dim=1)
        lines = none + (width + 2)
        parts.append(
            (
                points,
                none.float() + stride,
                none + level,
                start + (y + 1) * lines + x + 1,
                none + (height + 2) * (width + 2),
                lines,
            )
        )
        start = start + batch * (height + 2) * (width + 2)
    return _Cells(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _at(conv: PointConv, maps: list[Tensor], cells: _Cells, images: Tensor, locations: Tensor) -> Tensor:
    """`PointConv.at`: values (P, out_channels) at `locations` (P,) of L in `images` (P,) of B."""
    channels = maps[0].shape[1]
    table = torch.cat([functional.pad(one, [1, 1, 1, 1]).permute(0, 2, 3, 1).reshape(-1, channels) for one in maps])
    step = torch.arange(-1, 2, device=table.device)
    centre = cells.first[locations] + images * cells.images[locations]
    rows = centre[:, None, None] + step[None, :, None] * cells.lines[locations][:, None, None] + step[None, None, :]
    patches = table.index_select(0, rows.reshape(-1)).reshape(-1, 9 * channels)
    return functional.linear(patches, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)


def _pasted(probabilities: Tensor, boxes: Tensor, height: Any, width: Any) -> Tensor:
    """`comics.detectors.soft_masks.PastedMasks` of all boxes at once: (N, height, width) bool."""
    side = probabilities.shape[-1]
    cells = torch.arange(side, device=boxes.device)

    def axis(low: Tensor, high: Tensor, length: Any) -> tuple[Tensor, Tensor]:
        """Hat functions (N, length, side), and which pixels are of the box (N, length)."""
        pixel = torch.arange(length, device=boxes.device)
        place = (pixel[None] + 0.5 - low[:, None]) * (side / (high - low).clamp(min=1e-6))[:, None] - 0.5
        inside = (pixel[None] >= low.floor()[:, None]) & (pixel[None] < high.ceil()[:, None])
        return (1 - (place[:, :, None] - cells).abs()).clamp(min=0), inside

    left, top, right, bottom = boxes.unbind(1)
    across, columns = axis(left, right, width)
    down, rows = axis(top, bottom, height)
    values = down @ probabilities @ across.transpose(1, 2)
    return (values >= 0.5) & rows[:, :, None] & columns[:, None, :]


class Portable(nn.Module):
    """A run's network with its post-processing, as one graph.

    Args:
        backend: the run.

    Raises:
        UserError: its detector cannot be exported.
    """

    def __init__(self, backend: TorchBackend) -> None:
        super().__init__()
        self.model = backend.model
        detector = backend.model.detector
        if type(detector) not in (BlendMask, CondInst, MEInst):  # what derives from them selects or draws otherwise
            raise UserError(
                f"{backend.origin.detector}: cannot be exported as one graph.", "blendmask, condinst and meinst can."
            )
        assert isinstance(detector, FCOSDetector)
        self.detector = detector

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        features = self.model.features(pixels, sizes)  # type: ignore[arg-type]
        outputs = self.detector.forward_heads(features)
        cells = _cells(outputs.logits, self.detector.strides)
        boxes, scores, labels, images, locations = self._select(outputs, cells, sizes)
        masks = self._masks(outputs, cells, boxes, images, locations, pixels.shape[2], pixels.shape[3])
        # padding is none of the picture
        rows = torch.arange(pixels.shape[2], device=pixels.device)[None] < sizes[images, 0][:, None]
        columns = torch.arange(pixels.shape[3], device=pixels.device)[None] < sizes[images, 1][:, None]
        return boxes, scores, labels, images, masks & rows[:, :, None] & columns[:, None, :]

    def _select(self, outputs: FCOSOutputs, cells: _Cells, sizes: Tensor) -> tuple[Tensor, ...]:
        """`FCOSDetector.select` of all images at once: boxes, scores, labels, images and locations of N detections."""
        settings, classes = self.detector.inference, self.detector.num_classes
        scores, labels, places = [], [], []
        start: Any = 0
        for logits, centerness in zip(outputs.logits, outputs.centerness, strict=True):
            probability = logits.sigmoid()
            product = probability * centerness.sigmoid()
            judged = product if self.detector.threshold_on_product else probability
            level = torch.where(judged > settings.score_threshold, product, 0.0).permute(0, 2, 3, 1).flatten(1)
            # so many zeros more that there are always enough to choose from
            best, index = functional.pad(level, [0, settings.pre_nms_top]).topk(settings.pre_nms_top, dim=1)
            scores.append(best)
            labels.append(index % classes)
            places.append(torch.where(best > 0, index // classes, 0) + start)
            start = start + logits.shape[-2] * logits.shape[-1]
        score, label, location = torch.cat(scores, 1), torch.cat(labels, 1), torch.cat(places, 1)
        images, slots = (score > 0).nonzero(as_tuple=True)
        score, label, location = score[images, slots].sqrt(), label[images, slots], location[images, slots]
        sides = flatten(outputs.distances)[images, location] * cells.strides[location][:, None]
        boxes = decode(cells.points[location], sides)
        apart = ((images * classes + label) * APART).to(boxes.dtype)
        # boxes are moved apart from where they are, for suppression only; float32 keeps 1/128 px at 1e5
        kept = nms(boxes + apart[:, None], score, settings.nms_threshold)
        owners = images[kept]
        rank = (owners[:, None] == torch.arange(sizes.shape[0], device=owners.device)).long().cumsum(0)
        rank = rank.gather(1, owners[:, None])[:, 0]
        limits = sizes[owners].to(boxes.dtype)
        low = torch.zeros_like(limits)
        corners = boxes[kept].reshape(-1, 2, 2)
        clipped = torch.minimum(torch.maximum(corners, low[:, None]), limits.flip(1)[:, None]).reshape(-1, 4)
        whole = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        final = (whole & (rank <= settings.max_detections)).nonzero()[:, 0]
        kept = kept[final]
        return clipped[final], score[kept], label[kept], images[kept], location[kept]

    def _masks(
        self, outputs: Any, cells: _Cells, boxes: Tensor, images: Tensor, locations: Tensor, height: Any, width: Any
    ) -> Tensor:
        detector = self.detector
        if isinstance(detector, BlendMask):
            attention = _at(detector.attention, outputs.towers, cells, images, locations)
            rois = torch.cat([images[:, None].to(boxes.dtype), boxes], dim=1)
            crops = roi_align(outputs.bases, rois, MASK, 1.0 / detector.bases_stride, sampling_ratio=1, aligned=True)
            return _pasted(blend(crops, attention).sigmoid(), boxes, height, width)
        if isinstance(detector, MEInst):
            codes = _at(detector.code, outputs.mask_towers, cells, images, locations)
            return _pasted(detector.decode(codes), boxes, height, width)
        assert isinstance(detector, CondInst)
        filters = _at(detector.controller, outputs.towers, cells, images, locations)
        scales = cells.points.new_tensor(COORDINATE_SCALES)[cells.levels[locations]]
        maps = outputs.mask_maps
        logits = _dynamic_masks(maps, detector.maps_stride, filters, images, cells.points[locations], scales)
        small = enlarge(logits, detector.maps_stride // MASK_STRIDE).sigmoid()
        return (enlarge(small, MASK_STRIDE) > 0.5)[:, :height, :width]


def _dynamic_masks(
    maps: Tensor, stride: int, filters: Tensor, images: Tensor, points: Tensor, scales: Tensor
) -> Tensor:
    """`comics.detectors.condinst.dynamic_masks`, each instance by itself."""
    height, width = maps.shape[-2], maps.shape[-1]
    lengths = [*(rows * columns for rows, columns in LAYERS), *(rows for rows, _ in LAYERS)]
    parts = filters.split(lengths, dim=1)
    weights = [part.reshape(-1, rows, columns) for part, (rows, columns) in zip(parts[:3], LAYERS, strict=True)]
    biases = [part.unsqueeze(2) for part in parts[3:]]
    y = ((torch.arange(height, device=maps.device) + 0.5) * stride)[:, None].expand(height, width).reshape(-1)
    x = ((torch.arange(width, device=maps.device) + 0.5) * stride)[None, :].expand(height, width).reshape(-1)
    toward = weights[0][:, :, :2] / scales[:, None, None]
    places = torch.stack([x, y])
    value = weights[0][:, :, 2:] @ maps.flatten(2)[images] - toward @ places
    value = functional.relu(value + biases[0] + toward @ points[:, :, None])
    assert value.shape[1] == HIDDEN
    value = functional.relu(weights[1] @ value + biases[1])
    return (weights[2] @ value + biases[2]).reshape(-1, height, width)


# --------------------------------------------------------------------------------------------------------------- writing


def _example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 192, 224, generator=generator), torch.tensor([[180, 224], [192, 200]])


def program_of(backend: TorchBackend) -> torch.export.ExportedProgram:
    """The run as a program of ``torch.export``, of dynamic batch, height and width.

    Raises:
        UserError: its detector cannot be exported.
    """
    if backend.device.type != "cpu":
        raise UserError("Exports are made on the processor.", "Give --device cpu.")
    portable = Portable(backend).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    height, width = (32 * torch.export.Dim(name, min=SMALLEST // 32, max=512) for name in ("rows", "columns"))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            portable,
            _example(),
            dynamic_shapes={"pixels": {0: batch, 2: height, 3: width}, "sizes": {0: batch}},
            strict=False,
        )


def export_torch(backend: TorchBackend, path: Path) -> None:
    """Write the run for ``torch.export.load(path).module()(pixels, sizes)``.

    Raises:
        UserError: its detector cannot be exported, or the export finds something else than the detector.
    """
    program = program_of(backend)
    _same(backend, lambda pixels, sizes: [one.detach().numpy() for one in program.module()(pixels, sizes)])
    with atomic_write(path) as beside:
        torch.export.save(program, beside, extra_files={"comics.json": json.dumps(about(backend))})


def export_onnx(backend: TorchBackend, path: Path) -> float:
    """Write the run as ONNX and compare it, in onnxruntime, with the detector.

    Returns:
        The largest difference found.

    Raises:
        UserError: its detector cannot be exported, a package is missing, or the export finds something else.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed.", "pip install 'comics-forensics[onnx]'") from None
    program = program_of(backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        made = torch.onnx.export(
            program,
            (),
            input_names=["pixels", "sizes"],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert made is not None
    proto = made.model_proto
    onnx.helper.set_model_props(proto, {"comics": json.dumps(about(backend))})
    with atomic_write(path) as beside:
        onnx.save(proto, beside)
        session = OnnxBackend(beside, "cpu").session
        return _same(
            backend,
            lambda pixels, sizes: session.run(list(OUTPUTS), {"pixels": pixels.numpy(), "sizes": sizes.numpy()}),
        )


def about(backend: TorchBackend) -> dict[str, Any]:
    """What an export says of itself."""
    origin = backend.origin
    return {
        **{
            name: getattr(origin, name)
            for name in ("name", "detector", "trained_on", "kind", "digest", "image_size", "predicts_boxes")
        },
        "calibration": None if origin.calibration is None else origin.calibration.as_json(),
    }


def _same(backend: TorchBackend, run: Any) -> float:
    """The largest difference between what `run` finds and what the detector does, on pictures of several sizes.

    Raises:
        UserError: they differ.
    """
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for height, width, sizes in (
        (160, 256, [[160, 256]]),
        (288, 192, [[288, 192], [270, 161]]),
        (160, 160, [[40, 140]]),
    ):
        pixels = torch.rand(len(sizes), 3, height, width, generator=generator)
        with torch.inference_mode():
            outputs = backend.model.detector.forward_heads(
                backend.model.features(pixels, [tuple(one) for one in sizes])
            )
            wanted = backend.model.detector.predict(outputs, [tuple(one) for one in sizes])
        boxes, scores, labels, images, masks = run(pixels, torch.tensor(sizes))
        for index, one in enumerate(wanted):
            mine = images == index
            found = Found(boxes[mine], scores[mine], labels[mine] == 1)
            if len(found.scores) != len(one["scores"]):
                raise UserError(
                    f"The export finds {len(found.scores)} faces where the detector finds {len(one['scores'])}.",
                    "Tell the project's issues, with the versions that `comics doctor` lists.",
                )
            ours, theirs = _ordered(found.boxes, found.scores), _ordered(one["boxes"].numpy(), one["scores"].numpy())
            if len(found.scores):
                worst = max(worst, float(np.abs(found.scores[ours] - one["scores"].numpy()[theirs]).max()))
                worst = max(
                    worst, float(np.abs(found.boxes[ours] - one["boxes"].numpy()[theirs]).max()) / max(height, width)
                )
                rows, columns = sizes[index]
                apart = masks[mine][ours][:, :rows, :columns] != one["masks"].numpy()[theirs]
                worst = max(worst, float(apart.mean()))
    if worst > TOLERANCE:
        raise UserError(f"The export differs from the detector by {worst:.2g}, more than {TOLERANCE:.0e}.")
    return worst


def _ordered(boxes: Any, scores: Any) -> Any:
    """An order of detections that does not depend on which of two equal scores comes first."""
    return np.lexsort((*boxes.round(2).T, -scores.round(5)))
