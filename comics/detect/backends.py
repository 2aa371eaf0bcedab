"""Networks that find: a trained run in PyTorch, or its ONNX export in onnxruntime, which needs no PyTorch.

Both take RGB pictures and give detections of both classes, before they are grouped to faces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from comics.errors import UserError
from comics.evaluation.calibration import Calibration, from_json
from comics.files import read_json
from comics.images import Pixels, shown
from comics.provenance import require_intact

if TYPE_CHECKING:
    from comics.detectors.soft_masks import SoftMasks
    from comics.params import ResolvedRun

PAD_TO = 32
"""Sides of a batch are multiples of it, in px: the coarsest stride of the backbones."""

SMALLEST = 160
"""Least side of what an exported graph takes, in px: below, its coarsest map would have one cell, which graphs fix."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """The detections in one picture, of both classes, best first.

    Attributes:
        boxes: (N, 4) left, top, right, bottom in px of the picture given.
        scores: (N,).
        fake: (N,) bool, whether the detection says Fake.
        masks: of each, the part of its mask that is set (h, w) bool, and where that begins (x, y).
        mask_scores: (N,) how sure it is of each mask, where the detector says it.
        soft: what they are cut from, to cut them at the size of the original; exported graphs do not give it.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    fake: NDArray[np.bool_]
    masks: list[tuple[Mask, tuple[int, int]]] = field(default_factory=list)
    soft: SoftMasks | None = None
    mask_scores: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Origin:
    """Where a network comes from, as told by the file that holds it.

    Attributes:
        name: of the run, or of the file.
        detector: its kind.
        trained_on: name of the dataset.
        kind: of the dataset: ``mini``, ``openforensics``, ``coco``; empty where it is not known.
        digest: of the run.
        image_size: longest side of a picture in px.
        batch_size: pictures at a time.
        calibration: or None.
        predicts_boxes: whether boxes are predicted, and not only drawn around masks.
    """

    name: str
    detector: str
    trained_on: str
    kind: str
    digest: str
    image_size: int
    batch_size: int = 1
    calibration: Calibration | None = None
    predicts_boxes: bool = True


class Backend(Protocol):
    """A network that finds."""

    origin: Origin

    def find(self, pictures: Sequence[Pixels]) -> list[Found]:
        """Detections in `pictures`, (h, w, 3) uint8 RGB each, of sides up to ``origin.image_size``."""
        ...


def cropped(masks: NDArray[np.bool_]) -> list[tuple[Mask, tuple[int, int]]]:
    """Masks (N, h, w) as the parts that are set and their places; an empty mask as one pixel that is not set."""
    parts = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            parts.append((np.zeros((1, 1), bool), (0, 0)))
            continue
        top, left = int(rows[0]), int(columns[0])
        parts.append((mask[top : rows[-1] + 1, left : columns[-1] + 1].copy(), (left, top)))
    return parts


def padded(pictures: Sequence[Pixels], smallest: int = PAD_TO) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
    """Pictures as one batch (B, 3, H, W) in [0, 1], padded to multiples of `PAD_TO`, `smallest` at least, and their sizes."""
    sizes = [(picture.shape[0], picture.shape[1]) for picture in pictures]
    height, width = (max(smallest, -(-max(sides) // PAD_TO) * PAD_TO) for sides in zip(*sizes, strict=True))
    batch = np.zeros((len(pictures), 3, height, width), np.float32)
    for slot, picture in zip(batch, pictures, strict=True):
        np.multiply(
            picture.transpose(2, 0, 1), 1 / 255, out=slot[:, : picture.shape[0], : picture.shape[1]], casting="unsafe"
        )
    return batch, sizes


def open_backend(
    source: str | os.PathLike[str], device: str = "auto", precision: str = "auto", run: ResolvedRun | None = None
) -> Backend:
    """The network in a file: ``model.pt`` of a run, safetensors with a description, or ONNX.

    Args:
        source: the file, or the folder of a run.
        device: auto, cpu, cuda or cuda:N.
        precision: auto (as the run was trained), bf16 or fp32.

    Raises:
        UserError: it is absent, of another kind, or says too little about itself.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "model.pt"
    if not path.is_file():
        raise UserError(
            f"{shown(path)}: no such file of weights.", "Give model.pt of a run, a .safetensors or a .onnx file."
        )
    require_intact(path, "Make or fetch it again; if it was changed on purpose, remove its sidecar.")
    if path.suffix == ".onnx":
        return OnnxBackend(path, device)
    return torch_backend_of_file(path, device, precision, run)


def torch_backend_of_file(path: Path, device: str, precision: str, run: ResolvedRun | None = None) -> TorchBackend:
    """The network in ``model.pt`` or safetensors, by the description it carries."""
    from comics.params import digest_of
    from comics.params.described import from_description
    from comics.weights.pickles import read_checkpoint

    name = shown(path)
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise UserError(f"{name}: cannot be read ({error}).") from None
        described: Any = _json(metadata.get("description", ""), name)
        digest = metadata.get("digest", "")
    else:
        content = read_checkpoint(path)
        if not isinstance(content, dict) or not {"state_dict", "description"} <= set(content):
            raise UserError(
                f"{name}: not a run's weights with their description.",
                "Give model.pt of a trained run, or what `comics weights export` makes of it.",
            )
        state, described, digest = content["state_dict"], content["description"], str(content.get("digest", ""))
    if run is not None:
        described = run.description
    else:
        run = from_description(described, metadata.get("run") or run_name(path), name)
    calibration = None
    if metadata.get("calibration"):
        calibration = from_json(_json(metadata["calibration"], name), name)
    elif (beside := path.parent / "calibration.json").exists() and path.name == "model.pt":
        require_intact(beside, "Make it again with `comics calibrate`.")
        calibration = from_json(read_json(beside), str(beside))
        if calibration.digest != digest_of(described):
            calibration = None  # of other weights, or of other settings of inference
    return TorchBackend(run, state, digest, calibration, device, precision)


def run_name(path: Path) -> str:
    """What to call the weights in `path`: the run whose folder it is in, else the file's name."""
    beside = path.parent / "run.json"
    if path.name == "model.pt" and beside.exists():
        facts = read_json(beside)
        if isinstance(facts, dict) and isinstance(facts.get("run"), str):
            return facts["run"]
    return shown(path.name)


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise UserError(
            f"{name}: carries no description of what it is.",
            "Write it with `comics weights export`, or `comics export`, of this version.",
        ) from None


class TorchBackend:
    """A trained run in PyTorch.

    Args:
        run: what the weights are of.
        state: the weights; those that only training needs are left out.
        digest: of the weights' run.
        calibration: of its scores, if there is one.
        device: auto, cpu, cuda or cuda:N.
        precision: auto (as the run was trained), bf16 or fp32.
    """

    def __init__(
        self,
        run: ResolvedRun,
        state: dict[str, Any],
        digest: str = "",
        calibration: Calibration | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        import torch

        from comics.model import Comics
        from comics.training.devices import device as first_device
        from comics.training.hardware import autocast_dtype

        self.device = first_device() if device == "auto" else torch.device(device)
        self.dtype = autocast_dtype(run.training.precision if precision == "auto" else precision, self.device)
        kept = [component for component in run.params.components if component == "attention"]
        bare = run.from_checkpoint()
        bare = bare.model_copy(update={"params": bare.params.model_copy(update={"components": kept})})
        model = Comics(bare)
        wanted = set(model.state_dict())
        try:
            model.load_state_dict({key: value for key, value in state.items() if key in wanted})
        except (RuntimeError, AttributeError) as error:
            first = str(error).splitlines()[-1].strip()
            raise UserError(f"{run.name}: its weights do not fit its description ({first}).") from None
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.origin = Origin(
            name=run.name,
            detector=run.detector,
            trained_on=run.dataset_name,
            kind=run.dataset.kind,
            digest=digest or run.checkpoint_digest,
            image_size=run.training.image_size,
            batch_size=run.inference.batch_size if self.device.type == "cuda" else 1,
            calibration=calibration,
            predicts_boxes=model.detector.predicts_boxes,
        )

    def find(self, pictures: Sequence[Pixels]) -> list[Found]:
        import torch

        images, sizes = padded(pictures)
        batch = torch.from_numpy(images).to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            predictions = self.model.predict(batch, sizes)
        return [
            Found(
                boxes=one["boxes"].double().cpu().numpy(),
                scores=one["scores"].double().cpu().numpy(),
                fake=one["labels"].cpu().numpy() == 1,
                masks=cropped(one["masks"].cpu().numpy()),
                soft=one.get("soft"),
                mask_scores=one["mask_scores"].double().cpu().numpy() if "mask_scores" in one else None,
            )
            for one in predictions
        ]


class OnnxBackend:
    """An export of ``comics export --onnx`` in onnxruntime.

    Args:
        path: the file.
        device: auto, cpu, cuda or cuda:N; what onnxruntime was built for is taken of it.

    Raises:
        UserError: onnxruntime is not installed, or the file is none of ours.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                "ONNX files need onnxruntime, which is not installed.", "pip install 'comics-forensics[onnx]'"
            ) from None

        name = shown(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads := int(os.environ.get("OMP_NUM_THREADS") or 0):
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own kinds have no common name
            raise UserError(f"{name}: onnxruntime cannot read it ({str(error).splitlines()[0][:200]}).") from None
        facts = self.session.get_modelmeta().custom_metadata_map
        about = _json(facts.get("comics", ""), name)
        try:
            self.origin = Origin(
                **{key: about[key] for key in ("name", "detector", "trained_on", "kind", "digest")},
                image_size=int(about["image_size"]),
                calibration=from_json(about["calibration"], name) if about.get("calibration") else None,
                predicts_boxes=bool(about.get("predicts_boxes", True)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{name}: no export of `comics export --onnx` ({error}).") from None

    def find(self, pictures: Sequence[Pixels]) -> list[Found]:
        images, sizes = padded(pictures, SMALLEST)
        boxes, scores, labels, owners, masks = self.session.run(
            ["boxes", "scores", "labels", "images", "masks"], {"pixels": images, "sizes": np.array(sizes, np.int64)}
        )
        found = []
        for index, (height, width) in enumerate(sizes):
            mine = owners == index
            found.append(
                Found(
                    boxes=boxes[mine].astype(np.float64),
                    scores=scores[mine].astype(np.float64),
                    fake=labels[mine] == 1,
                    masks=cropped(masks[mine, :height, :width]),
                )
            )
        return found
