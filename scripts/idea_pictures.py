"""Make docs/images/ideas/*.png, the pictures of docs/ideas.md, from images of mini and the package's own functions; and
docs/images/finding.png from the README's table.

python scripts/idea_pictures.py docs/images
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from PIL import Image
from pycocotools import mask as run_lengths
from torchvision.ops import box_iou

from comics.attention import ImageResiduals
from comics.contrast.coarse import label_proposals
from comics.contrast.fine import crop_masks, split_regions
from comics.contrast.flatnce import flatnce, infonce
from comics.data.loading import views
from comics.data.mini.dataset import render_image
from comics.evaluation.lrp import lrp_curve, optimal_lrp
from comics.params import MiniDataset, ViewsParams

matplotlib.use("Agg")
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
NUMBER = 14
"""Of the image, which has large faces of both classes."""
COLOURS = {1: BLUE, 2: ORANGE}
"""Of the categories Real and Fake."""
WORDS = {1: "real", 2: "fake"}


class Scene:
    """An image of mini with its faces."""

    def __init__(self, split: str, index: int) -> None:
        file, self.faces = render_image(MiniDataset(), split, index)
        with Image.open(io.BytesIO(file)) as picture:
            self.pixels = np.asarray(picture.convert("RGB"))
        self.image = torch.from_numpy(self.pixels.copy()).permute(2, 0, 1) / 255
        size = self.pixels.shape[:2]
        polygons = [run_lengths.frPyObjects(face["segmentation"], *size) for face in self.faces]
        self.masks = [run_lengths.decode(run_lengths.merge(parts)).astype(bool) for parts in polygons]
        self.categories = [face["category_id"] + 1 for face in self.faces]
        self.boxes = torch.tensor([self._box(mask) for mask in self.masks], dtype=torch.float32)

    @staticmethod
    def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
        rows, columns = np.nonzero(mask)
        return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)

    def outline(self, ax: Axes, width: float = 1.5) -> None:
        """Draw the faces' outlines, fake ones dashed."""
        for face, category in zip(self.faces, self.categories, strict=True):
            for ring in face["segmentation"]:
                points = np.array([*ring, *ring[:2]]).reshape(-1, 2)
                ax.plot(*points.T, color=COLOURS[category], lw=width, ls="-" if category == 1 else "--")


def show(ax: Axes, picture: object, title: str) -> None:
    """An image without axes under a title."""
    ax.imshow(picture if isinstance(picture, np.ndarray) else picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def save(figure: Figure, target: Path) -> None:
    """Write a PNG of at most 256 colours without a date."""
    memory = io.BytesIO()
    figure.savefig(memory, dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)
    with Image.open(memory) as picture:
        picture.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(target, optimize=True)


def augmentation(scene: Scene) -> Figure:
    """DA: each of the four families alone, and two views of one image."""
    paper = ViewsParams()
    random = torch.Generator().manual_seed(4)
    figure, axes = plt.subplots(2, 4, figsize=(9.4, 3.9), layout="constrained")
    show(axes[0, 0], scene.image, "the image")
    jittered = views.colour_jitter(scene.image, torch.Generator().manual_seed(1), 1.0, paper.jitter_strength)
    show(axes[0, 1], jittered, "colour jitter")
    show(axes[0, 2], views.random_blocking(scene.image, random, paper.blocking_grid, (0.06, 0.06)), "random blocking")
    show(axes[0, 3], views.gaussian_noise(scene.image, random, paper.gaussian_sigma), "additional noise")
    show(axes[1, 0], views.salt_and_pepper(scene.image, random, paper.salt_pepper_share), "noise, salt and pepper")
    show(axes[1, 1], views.shrink_and_back(scene.image, paper.interpolation_factor), "shrunk and enlarged")
    show(axes[1, 2], views.view(scene.image, torch.Generator().manual_seed(11), paper), "query view: all, at random")
    show(axes[1, 3], views.view(scene.image, torch.Generator().manual_seed(8), paper), "key view: drawn again")
    return figure


def residuals(scene: Scene) -> Figure:
    """FEA: what is left of an image without what its neighbours tell, whole and at one face of each class."""
    found = ImageResiduals()(scene.image[None])[0].abs().mean(0).numpy()
    figure, axes = plt.subplots(2, 3, figsize=(9.4, 4.6), layout="constrained", width_ratios=[2, 1, 1])
    show(axes[0, 0], scene.pixels, "image, faces outlined: real (blue), fake (orange, dashed)")
    scene.outline(axes[0, 0])
    axes[1, 0].imshow(found, cmap="magma", vmin=0, vmax=1)
    axes[1, 0].set_title("size of its SRM residuals (bright: large)", fontsize=9)
    axes[1, 0].axis("off")
    for column, category in ((1, 1), (2, 2)):
        largest = max(
            (index for index, one in enumerate(scene.categories) if one == category), key=lambda i: scene.masks[i].sum()
        )
        left, top, right, bottom = (int(value) for value in scene.boxes[largest])
        part = slice(max(top - 6, 0), bottom + 6), slice(max(left - 6, 0), right + 6)
        show(axes[0, column], scene.pixels[part], f"a {WORDS[category]} face")
        axes[1, column].imshow(found[part], cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axes[1, column].set_title(("its residuals", "its: the swap is too smooth")[category - 1], fontsize=9)
        axes[1, column].axis("off")
    return figure


def on_circle(angle: float) -> np.ndarray:
    """The point of the unit circle at `angle` degrees."""
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def coarse(scene: Scene) -> Figure:
    """The coarse grain: which proposals are compared, and what equation 4 pulls and pushes."""
    random = np.random.default_rng(2)
    around = [
        box + (torch.tensor(random.normal(0, 0.13, 4), dtype=torch.float32) * (box[2:] - box[:2]).repeat(2))
        for box in scene.boxes
        for _ in range(5)
    ]
    proposals = torch.stack(around)
    labels = torch.tensor([category - 1 for category in scene.categories])
    told = label_proposals(proposals[None], [scene.boxes], [labels], 0.6)[0]
    assert (box_iou(proposals, scene.boxes).amax(1)[told >= 0] > 0.6).all()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.7), layout="constrained", width_ratios=[1.25, 1])
    show(left, scene.pixels, "proposals: real, fake, or too far from a face (thin)")
    for (x0, y0, x1, y1), label in zip(proposals.tolist(), told.tolist(), strict=True):
        colour, width = (COLOURS[label + 1], 1.6) if label >= 0 else ("white", 0.7)
        left.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=width))
    right.set_title("features of unit length, on a circle", fontsize=9)
    right.add_patch(Circle((0, 0), 1, fill=False, ec="#cccccc"))
    query, key = on_circle(62), on_circle(90)
    for angle in (118, 136, 152, 176, 205):
        right.plot(*on_circle(angle), "s", color=BLUE, ms=8)
    right.plot(*query, "o", color=ORANGE, ms=10)
    right.plot(*key, "o", mfc="white", mec=ORANGE, mew=2, ms=10)
    right.plot(*on_circle(30), "*", color=ORANGE, ms=13)
    style = {"arrowstyle": "-|>", "mutation_scale": 14, "lw": 1.6}
    bend = {"connectionstyle": "arc3,rad=0.2", "color": "black"}
    right.add_patch(FancyArrowPatch(0.8 * query, 0.8 * key, **bend, **style))
    bend = {"connectionstyle": "arc3,rad=-0.2", "color": GREY}
    right.add_patch(FancyArrowPatch(1.22 * on_circle(112), 1.22 * on_circle(75), **bend, **style))
    for text, place, align in (
        ("query: a fake face's proposal", (0.56, 1.02), "left"),
        ("its key: the same proposal,\nother view (pulled together)", (0.02, 0.42), "center"),
        ("prototype: running mean\nof fake keys", (0.95, 0.5), "left"),
        ("queue of real keys\n(the query is pushed away)", (-0.98, -0.68), "center"),
    ):
        right.text(*place, text, fontsize=8, ha=align, va="center")
    right.set(xlim=(-1.9, 2.5), ylim=(-1.15, 1.35), aspect="equal")
    right.axis("off")
    return figure


def fine(scene: Scene) -> Figure:
    """The fine grain: which pixels around each face are compared, and which are dropped."""
    masks = crop_masks([torch.from_numpy(np.stack(scene.masks))], [scene.boxes], 28)
    inside, outside = split_regions(masks, "far", 2.0)
    order = sorted(range(len(scene.masks)), key=lambda index: -int(scene.masks[index].sum()))
    chosen = sorted(
        [next(i for i in order if scene.categories[i] == category) for category in (1, 2)],
        key=lambda i: scene.categories[i],
    )
    figure, axes = plt.subplots(1, 4, figsize=(9.4, 2.9), layout="constrained")
    for column, index in enumerate(chosen):
        left, top, right, bottom = (int(value) for value in scene.boxes[index])
        word = WORDS[scene.categories[index]]
        show(axes[2 * column], scene.pixels[top:bottom, left:right], f"a {word} face in its box")
        picture = np.full((28, 28, 3), 0.93)
        colour = matplotlib.colors.to_rgb(COLOURS[scene.categories[index]])
        picture[inside[index].numpy()] = colour
        picture[outside[index].numpy()] = [0.25, 0.25, 0.25]
        show(axes[2 * column + 1], picture, "$h^+$ (colour), $h^-$ (dark), dropped (light)")
    return figure


def olrp() -> Figure:
    """oLRP: the error of every threshold, of which the least counts."""
    scores = np.array([0.97, 0.95, 0.92, 0.88, 0.83, 0.75, 0.66, 0.58, 0.47, 0.35, 0.22, 0.12])
    ious = np.array([0.93, 0.90, 0.88, 0.85, 0.0, 0.82, 0.76, 0.0, 0.71, 0.0, 0.0, 0.55])
    matched = ious > 0
    faces = 8
    curve = lrp_curve(ious, matched, faces)
    best = optimal_lrp(scores, ious, matched, faces)
    kept = np.arange(1, len(scores) + 1)
    found = np.cumsum(matched)
    total = kept + faces - found
    parts = {
        "loose outlines": np.cumsum(np.where(matched, (1 - ious) / 0.5, 0)) / total,
        "false alarms": (kept - found) / total,
        "missed faces": (faces - found) / total,
    }
    assert np.allclose(sum(parts.values()), curve)
    figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    below = np.zeros(len(kept))
    for (name, height), colour in zip(parts.items(), ("#56B4E9", "#E69F00", "#999999"), strict=True):
        ax.bar(kept, height, 0.8, below, label=name, color=colour)
        below = below + height
    place = int(np.argmin(curve))
    ax.annotate(
        f"oLRP = {best.olrp:.2f}",
        (kept[place], curve[place]),
        (kept[place] - 0.4, curve[place] + 0.2),
        arrowprops={"arrowstyle": "-|>"},
        fontsize=9,
    )
    ax.set_xticks(kept, [f"{score:.2f}" for score in scores], fontsize=8)
    ax.set_xlabel("threshold: detections with at least this score are kept", fontsize=9)
    ax.set_ylabel("LRP error", fontsize=9)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_ylim(0, 1)
    ax.legend(fontsize=8, frameon=False, ncols=3)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def flat() -> Figure:
    """FlatNCE beside InfoNCE: value, and pull on the positive, over how far the positive is ahead of the negatives."""
    ahead = torch.linspace(-1.5, 1.9, 69)
    values, pulls = {}, {}
    for name, loss in (("InfoNCE", infonce), ("FlatNCE", flatnce)):
        positive = ahead.clone().requires_grad_()
        value = loss(positive, torch.zeros(len(ahead), 4), torch.ones(4, dtype=torch.bool), 0.2)
        value.sum().backward()
        assert positive.grad is not None
        values[name], pulls[name] = value.detach().numpy(), -positive.grad.numpy() * 0.2
    figure, axes = plt.subplots(1, 2, figsize=(9.4, 2.9), layout="constrained")
    for ax, lines, title in (
        (axes[0], values, "value: FlatNCE's is always 1"),
        (axes[1], pulls, "pull on the positive: FlatNCE's never lets go"),
    ):
        for (name, line), style in zip(lines.items(), ("-", "--"), strict=True):
            ax.plot(ahead.numpy(), line, style, color={"InfoNCE": BLUE, "FlatNCE": ORANGE}[name], label=name, lw=2)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("similarity of the positive minus that of 4 negatives", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.set_ylim(bottom=-0.05)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=8, frameon=False)
    return figure


def finding(readme: Path) -> Figure:
    """The README's table: clean and perturbed AP of each row, joined by a line."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \|$", readme.read_text(encoding="utf-8"), re.MULTILINE)
    names, clean, perturbed = zip(*((name, float(first), float(second)) for name, first, second in rows), strict=True)
    places = range(len(names))
    figure, ax = plt.subplots(figsize=(7, 2.9), layout="constrained")
    ax.hlines(places, perturbed, clean, color="#cccccc", lw=3)
    ax.plot(clean, places, "o", color=BLUE, label="clean images")
    ax.plot(perturbed, places, "s", color=ORANGE, label="perturbed images")
    ax.set_yticks(places, names, fontsize=8)
    ax.invert_yaxis()
    ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel("box AP, percent (mini, one seed)", fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.15), ncols=2)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def main(images: Path) -> None:
    """Write all pictures below the folder `images`."""
    folder = images / "ideas"
    folder.mkdir(parents=True, exist_ok=True)
    save(finding(Path(__file__).parents[1] / "README.md"), images / "finding.png")
    scene = Scene("test_dev", NUMBER)
    for name, figure in {
        "augmentation": augmentation(scene),
        "residuals": residuals(scene),
        "coarse": coarse(scene),
        "fine": fine(scene),
        "olrp": olrp(),
        "flatnce": flat(),
    }.items():
        save(figure, folder / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
