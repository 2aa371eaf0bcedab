"""Images a second of ``comics detect``'s way from file to verdict: PyTorch in fp32 and bf16, ONNX, beside torchvision.

    python benchmarks/inference.py --backbone resnet50 --size 1024 --images 8

All by turns in one process, on the same pictures: ratios hold where single numbers swing. `model` is the share of the time
that the network takes; the rest is decoding, grouping and bookkeeping. A fresh network finds nothing or everything, so that
give --weights of a trained run for typical numbers.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.models.detection import maskrcnn_resnet50_fpn

from comics.detect.backends import Backend, TorchBackend, open_backend
from comics.detect.model import Model
from comics.detect.outcome import Outcome
from comics.machine import cores
from comics.params import ModelParams, ResolvedRun, RunParams, TrainingParams
from comics.params.datasets import MiniDataset


class Timed:
    """A network that counts the seconds it takes."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.origin, self.seconds = backend, backend.origin, 0.0

    def find(self, pictures):
        start = time.perf_counter()
        found = self.backend.find(pictures)
        self.seconds += time.perf_counter() - start
        return found


def fresh(backbone: str, size: int) -> tuple[ResolvedRun, dict[str, torch.Tensor]]:
    from comics.model import Comics

    params = RunParams(model=ModelParams(backbone=backbone), training=TrainingParams(image_size=size))
    run = ResolvedRun(name="fresh", place="fresh", seed=0, dataset_name="mini", dataset=MiniDataset(), params=params)
    torch.manual_seed(0)
    return run, Comics(run).state_dict()


def photographs(count: int, size: int) -> list[bytes]:
    """JPEG files of the size that cameras of some years ago gave, three by two."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (24, 36, 3), np.uint8))
        stream = io.BytesIO()
        small.resize((2 * size, 2 * size * 2 // 3), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a run's model.pt; without, a fresh BlendMask")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=1024, help="longest side in px, of a fresh network")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-onnx", action="store_true")
    options = parser.parse_args()

    def backend(precision: str) -> TorchBackend:
        if options.weights:
            return open_backend(options.weights, options.device, precision)  # type: ignore[return-value]
        run, state = fresh(options.backbone, options.size)
        return TorchBackend(run, state, device=options.device, precision=precision)

    ways: dict[str, Timed] = {f"PyTorch {precision}": Timed(backend(precision)) for precision in ("fp32", "bf16")}
    with tempfile.TemporaryDirectory() as folder:
        if not options.no_onnx:
            from comics.detect.export import export_onnx

            single = ways["PyTorch fp32"].backend if options.device == "cpu" else None
            export_onnx(single or open_backend(options.weights, "cpu", "fp32"), Path(folder) / "model.onnx")
            ways["ONNX"] = Timed(open_backend(Path(folder) / "model.onnx", options.device))
        size = ways["PyTorch fp32"].origin.image_size
        files = photographs(options.images, size)
        reference = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=size * 2 // 3, max_size=size)
        reference = reference.eval().to(options.device)

        def torchvision_way() -> None:
            for file in files:
                picture = np.asarray(Image.open(io.BytesIO(file)).convert("RGB").resize((size, size * 2 // 3)))
                pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float().div(255).to(options.device)
                with torch.inference_mode():
                    reference([pixels])

        def our_way(timed: Timed) -> Callable[[], None]:
            def run() -> None:
                found = list(Model(timed).stream((str(number), file) for number, file in enumerate(files)))
                assert all(isinstance(one, Outcome) for one in found)

            return run

        runs = {
            **{name: our_way(timed) for name, timed in ways.items()},
            "torchvision maskrcnn_resnet50_fpn": torchvision_way,
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        shares: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):  # the first one warms up
            for name, run in runs.items():
                before = ways[name].seconds if name in ways else 0.0
                start = time.perf_counter()
                run()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                elapsed = time.perf_counter() - start
                if number:
                    seconds[name].append(elapsed)
                    if name in ways:
                        shares[name].append((ways[name].seconds - before) / elapsed)
    print(
        f"{options.images} JPEG files of {2 * size} px, at {size} px; {cores()} cores, {torch.get_num_threads()} threads"
    )
    base = np.median(seconds["torchvision maskrcnn_resnet50_fpn"])
    for name, values in seconds.items():
        middle = float(np.median(values))
        share = f", model {100 * np.median(shares[name]):.0f} % of the time" if name in shares else ""
        print(f"{name:36} {options.images / middle:6.2f} images/s, {base / middle:4.2f} x torchvision{share}")


if __name__ == "__main__":
    main()
