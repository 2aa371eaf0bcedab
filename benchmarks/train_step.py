"""Seconds and memory of one training step, plain and with each component of COMICS, side by side.

    python benchmarks/train_step.py [--preset mini | openforensics] [--device cpu | cuda] [--precision fp32 bf16]
                                    [--layout channels_last channels_first] [--compile] [--output FILE.json]

A step is losses, backward pass, optimiser and the momentum extractor's update, on a batch that is already on the device. The
variants take turns, and a ratio is the median over the turns of variant / plain, so that what else runs on the machine hits
both alike. `cpu` is the same ratio of processor time, which on a busy machine says more than the clock (on CUDA it is the
time spent launching).

Peak memory is of tensors alone and exact: the allocator's on CUDA, the profiler's record of allocations on a CPU. It is
given without the queues, whose size is in a column of its own.

The coarse objective's cost grows with the number of proposals that overlap a face, of which an untrained network has
none: before the measurement, the plain detector learns the batch by heart, and every variant starts from its weights.
The presets are those of params.yaml, with weights drawn at random. A dry run of the paper's on a processor:

    python benchmarks/train_step.py --preset openforensics --batch 2 --variants full --learn 2 --turns 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from comics.data.loading.batches import Batch
from comics.detectors import Target
from comics.machine import peak_resident
from comics.model import Comics
from comics.params import Params, ResolvedRun, load

VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "attention": ["attention"],
    "coarse": ["coarse"],
    "fine": ["fine"],
    "bi-grained": ["coarse", "fine"],
    "full": ["attention", "coarse", "fine"],
}
SHAPES = {"mini": (160, 224), "openforensics": (768, 1024)}  # height and width, px
FACES = 4  # an image; OpenForensics has 3.4


def scene(height: int, width: int, batch: int, device: torch.device) -> Batch:
    """Noise with red (Real) and blue (Fake) ellipses, of 15 to 40 % of the image's height, in two views."""
    random = torch.Generator().manual_seed(0)
    images = 0.3 + 0.3 * torch.rand(batch, 3, height, width, generator=random)
    y, x = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    targets = []
    for image in images:
        side = height * (0.15 + 0.25 * torch.rand(FACES, generator=random))
        left = torch.rand(FACES, generator=random) * (width - side)
        top = torch.rand(FACES, generator=random) * (height - 1.2 * side)
        boxes = torch.stack([left, top, left + side, top + 1.2 * side], dim=1)
        labels = torch.arange(FACES) % 2
        x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
        masks = ((x - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0)) ** 2 <= 0.25
        for mask, label in zip(masks, labels, strict=True):
            image[2 * int(label)][mask] += 0.4
        targets.append(Target(boxes=boxes, labels=labels, masks=masks))
    keys = (images + 0.05 * torch.randn(images.shape, generator=random)).clamp(0, 1)
    sizes = [(height, width)] * batch
    return Batch(images, keys, targets, sizes, list(range(1, batch + 1)), sizes).to(device)


def resolve(params: Params, preset: str, components: list[str], args: argparse.Namespace) -> ResolvedRun:
    """The run of `preset` with `components`, its weights drawn at random."""
    params = Params(params.file.model_copy(update={"dataset": preset}), params.path)
    run = params.resolve(params.runs[0], 0)
    model = run.model.model_copy(update={"weights": "none"})
    return run.model_copy(
        update={
            "params": run.params.model_copy(
                update={"components": components, "model": model, "detector": args.detector}
            )
        }
    )


@dataclass
class Step:
    """One variant and its optimiser."""

    model: Comics
    optimiser: torch.optim.Optimizer
    batch: Batch
    precision: str

    def __call__(self) -> dict[str, torch.Tensor]:
        device = self.batch.images.device.type
        half = torch.autocast(device, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with half:
            losses = self.model.losses(self.batch)
        losses.total.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.model.after_step()
        return losses.logged

    def queue_bytes(self) -> int:
        return sum(b.nbytes for name, b in self.model.named_buffers() if name.endswith("queue"))


def build_step(run: ResolvedRun, batch: Batch, precision: str, args: argparse.Namespace) -> Step:
    torch.manual_seed(0)
    layout = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    model = Comics(run).to(device=batch.images.device, memory_format=layout).train()
    if args.layout == "channels_first":
        normalise = model.detector.normalise
        model.detector.normalise = lambda *images: normalise(*images).contiguous()  # type: ignore[method-assign]
    if args.compile:
        model.detector.extractor.compile()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Step(model, torch.optim.SGD(trainable, args.lr, momentum=0.9), batch, precision)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """Largest sum of tensors alive during `step`, above what was alive before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        alive += event["args"]["Bytes"]
        peak = max(peak, alive)
    return peak


def state_bytes(model: Comics) -> int:
    """What stays from step to step: parameters, their momenta, and buffers other than the queues."""
    total = 0
    for parameter in model.parameters():
        total += parameter.nbytes * (2 if parameter.requires_grad else 1)
    return total + sum(b.nbytes for name, b in model.named_buffers() if not name.endswith("queue"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--preset", choices=list(SHAPES), default="mini")
    parser.add_argument("--detector", default="blendmask")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--layout", choices=["channels_last", "channels_first"], default="channels_last")
    parser.add_argument("--compile", action="store_true", help="compile the extractor")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--learn", type=int, default=60, help="steps of learning the batch before the measurement")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: PyTorch sees no GPU here (nvidia-smi tells whether the driver does)")
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    device = torch.device(args.device)

    params = load(args.params)
    height, width = args.size or SHAPES[args.preset]
    plain_run = resolve(params, args.preset, [], args)
    batch = scene(height, width, args.batch or plain_run.training.batch_size, device)
    rows = []
    for precision in args.precision:
        plain = build_step(plain_run, batch, precision, args)
        for index in range(args.learn):
            plain.optimiser.param_groups[0]["lr"] = args.lr * min(1, (index + 1) / 20)
            loss = plain()
        learnt = plain.model.state_dict()
        steps = {}
        for name in ["plain", *(name for name in args.variants if name != "plain")]:
            steps[name] = build_step(resolve(params, args.preset, VARIANTS[name], args), batch, precision, args)
            steps[name].model.load_state_dict(learnt, strict=False)
            if steps[name].model.momentum is not None:
                copy, source = steps[name].model.momentum.module.extractor, steps[name].model.detector.extractor
                copy.load_state_dict(source.state_dict())
        for step in steps.values():
            for group in step.optimiser.param_groups:
                group["lr"] = 1e-5  # the batch stays learnt
        times: dict[str, list[float]] = {name: [] for name in steps}
        processor: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(-2, args.turns):  # the first two warm up
            for name, step in steps.items():
                synchronise(device)
                start, start_processor = time.perf_counter(), time.process_time()
                loss = step()
                synchronise(device)
                if turn >= 0:
                    times[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - start_processor)
        print(f"{precision}, {args.preset}, {len(batch.images)} x {height} x {width} px, {args.layout}, {device}")
        print(
            f"{'variant':<12}{'seconds':>10}{'images/s':>10}{'ratio':>8}{'cpu':>8}{'peak MB':>10}{'extra':>8}{'queues MB':>11}"
        )
        base = 0
        for name, step in steps.items():
            ratio, cpu_ratio = (
                statistics.median(ours / other for ours, other in zip(taken[name], taken["plain"], strict=True))
                for taken in (times, processor)
            )
            seconds = statistics.median(times[name])
            peak = peak_bytes(step, device) + state_bytes(step.model)
            base = base or peak
            row = {
                "precision": precision,
                "variant": name,
                "seconds": seconds,
                "images_per_second": len(batch.images) / seconds,
                "ratio": ratio,
                "cpu_ratio": cpu_ratio,
                "peak_bytes": peak,
                "extra_memory": peak / base - 1,
                "queue_bytes": step.queue_bytes(),
            }
            rows.append(row)
            print(
                f"{name:<12}{seconds:>10.3f}{row['images_per_second']:>10.1f}{ratio:>8.2f}{cpu_ratio:>8.2f}{peak / 1e6:>10.0f}"
                f"{row['extra_memory']:>8.1%}{step.queue_bytes() / 1e6:>11.1f}"
            )
        print({name: round(float(value), 3) for name, value in loss.items()}, flush=True)
    print(f"most resident memory of the process: {peak_resident() / 1e9:.1f} GB")
    if args.output:
        settings = {key: str(value) for key, value in vars(args).items()}
        args.output.write_text(json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
