"""Perturbations: each operation, the levels, geometry, and whole splits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from comics.data.canonical import coco
from comics.data.perturb import operations
from comics.data.perturb.operations import FAMILIES, OPERATIONS, WARPS, generator_for, perturb, warp_image, warp_mask
from comics.data.perturb.split import perturb_split, warp_face
from comics.errors import UserError

HEIGHT, WIDTH = 90, 130
# What may leave a particular image as it is: a colour operation on grey, or a mild one after rounding.
PICTURES = Path(__file__).parents[2] / "docs/images/perturbations"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Colourful, with smooth parts, edges and texture."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / 90
    picture = np.stack([x / 1.5, y, 0.7 - 0.3 * x * y], axis=-1)
    picture[30:60, 40:80] = (0.85, 0.6, 0.5)
    picture += generator.normal(0, 0.03, picture.shape)
    return (picture.clip(0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_operations_change_the_image_and_nothing_else(name: str, strength: float, photo: np.ndarray) -> None:
    before = photo.copy()
    first, second = (OPERATIONS[name](photo, strength, generator_for(1, name)) for _ in range(2))
    assert (photo == before).all()
    assert (first.shape, first.dtype) == (photo.shape, np.uint8)
    assert (first == second).all()
    assert (first != photo).any()
    assert not np.shares_memory(first, photo)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3)])
def test_operations_take_any_size(name: str, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 100, dtype=np.uint8)
    assert OPERATIONS[name](image, 1.0, generator_for(0, name)).shape == image.shape


@pytest.mark.parametrize(
    "name", [n for n in OPERATIONS if n not in {"hue", "equalize", "invert", "posterize", "solarize"}]
)
def test_strength_is_monotonic(name: str, photo: np.ndarray) -> None:
    """On average over draws, the strongest differs from the image by more than the mildest."""

    def distance(strength: float) -> float:
        results = (OPERATIONS[name](photo, strength, generator_for(seed, name)) for seed in range(6))
        return float(np.mean([np.abs(result.astype(int) - photo).mean() for result in results]))

    assert distance(1.0) > distance(0.0)


def test_every_operation_is_in_one_family() -> None:
    listed = [name for names in FAMILIES.values() for name in names]
    assert sorted(listed) == sorted(OPERATIONS)
    assert set(FAMILIES) == {"colour", "edge", "convolution", "block", "corruption", "weather"}


def test_every_operation_has_an_example_picture_and_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    for name in [*OPERATIONS, *WARPS]:
        with Image.open(PICTURES / f"{name}.jpg") as picture:
            assert picture.width <= 320
        assert f"images/perturbations/{name}.jpg" in text
        assert (OPERATIONS.get(name) or WARPS[name]).__doc__


# Independent references for what the docstrings promise.


def test_noise_has_the_promised_deviation() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    for strength, deviation in ((0.0, 4), (1.0, 20)):
        noisy = OPERATIONS["gaussian_noise"](grey, strength, generator_for(0, "x")).astype(float)
        assert noisy.std() == pytest.approx(deviation, rel=0.05)
        assert noisy.mean() == pytest.approx(128, abs=0.5)


def test_block_operations_touch_the_promised_share(photo: np.ndarray) -> None:
    white = np.full((240, 240, 3), 255, dtype=np.uint8)
    for strength, share in ((0.0, 0.02), (1.0, 0.06)):
        changed = (OPERATIONS["block_fill"](white, strength, generator_for(0, "x")) != white).any(-1).mean()
        assert changed == pytest.approx(share, abs=1e-9)
    for strength, share in ((0.0, 0.04), (1.0, 0.08)):
        dropped = (OPERATIONS["block_dropout"](white, strength, generator_for(0, "x")) == 0).all(-1).mean()
        assert dropped == pytest.approx(share, abs=0.002)
    shuffled = OPERATIONS["block_noise"](photo, 1.0, generator_for(0, "x"))
    assert Counter(map(tuple, shuffled.reshape(-1, 3))) == Counter(map(tuple, photo.reshape(-1, 3)))


def test_salt_and_pepper_share() -> None:
    grey = np.full((300, 300, 3), 128, dtype=np.uint8)
    result = OPERATIONS["salt_and_pepper"](grey, 1.0, generator_for(0, "x"))
    assert (result == 0).all(-1).mean() == pytest.approx(0.02, rel=0.1)
    assert (result == 255).all(-1).mean() == pytest.approx(0.02, rel=0.1)


def test_pixelate_and_box_filter_against_naive(photo: np.ndarray) -> None:
    pixelated = OPERATIONS["pixelate"](photo[:88, :128], 1.0, generator_for(0, "x"))
    for y in range(0, 88, 4):
        for x in range(0, 128, 4):
            block = photo[y : y + 4, x : x + 4].reshape(-1, 3).mean(0)
            assert np.abs(pixelated[y : y + 4, x : x + 4] - block).max() <= 1
    filtered = OPERATIONS["box_filter"](photo, 1.0, generator_for(0, "x"))
    for y, x in ((10, 10), (40, 70), (80, 120)):
        mean = photo[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(0)
        assert np.abs(filtered[y, x] - mean).max() <= 0.51


# Levels.


def drawn(level: int | None) -> list[tuple[str, ...]]:
    return [operations.plan((8, 8), name=str(i), level=level).operations for i in range(400)]


def families(operations: tuple[str, ...]) -> list[str]:
    return [family for name in operations for family, names in FAMILIES.items() if name in names]


def test_levels_follow_the_description() -> None:
    harsh = {"invert", "solarize", "shot_noise", "zoom_blur"}
    used = {level: drawn(level) for level in operations.LEVELS}
    for level in (1, 2, 3):
        assert not harsh & {name for chosen in used[level] for name in chosen}
    assert harsh <= {name for chosen in used[4] for name in chosen}
    weather = set(FAMILIES["weather"])
    for chosen in used[1]:
        assert 1 <= len(chosen) <= 5
        assert families(chosen).count("colour") <= 3
        assert len([name for name in chosen if name in weather | {"jpeg"}]) <= 1
    for chosen in used[2]:
        if "colour" in families(chosen):
            assert families(chosen)[-1] in {"edge", "convolution", "corruption"}
            assert families(chosen).count("colour") == len(chosen) - 1
        else:
            assert 1 <= len(chosen) <= 2
    for chosen in used[4]:
        assert set(families(chosen)[-2:-1]) <= {"corruption", "block"}
        assert chosen[-1] in weather
    everything = {name for level in used.values() for operations in level for name in operations}
    assert everything == set(OPERATIONS)
    assert {operations.plan((8, 8), name=str(i)).level for i in range(50)} == set(operations.LEVELS)
    with pytest.raises(UserError, match="level"):
        operations.plan((8, 8), level=5)


def test_deterministic_per_image_and_seed(photo: np.ndarray) -> None:
    first, again = (perturb(photo, seed=3, name="a.jpg") for _ in range(2))
    assert (first.image == again.image).all()
    assert first.operations == again.operations
    assert any((perturb(photo, seed=seed, name="a.jpg").image != first.image).any() for seed in (4, 5))
    assert any((perturb(photo, seed=3, name=name).image != first.image).any() for name in ("b.jpg", "c.jpg"))


def test_a_plan_is_what_happens(photo: np.ndarray) -> None:
    for i in range(20):
        planned = operations.plan((HEIGHT, WIDTH), name=str(i), geometry=True)
        result = perturb(photo, name=str(i), geometry=True)
        assert (planned.level, planned.operations) == (result.level, result.operations)
        assert (planned.positions == result.positions).all()


def test_wrong_images_are_refused() -> None:
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="expected"):
            perturb(image)


# Geometry.


def test_flip_is_the_mirror(photo: np.ndarray) -> None:
    positions = WARPS["flip"]((HEIGHT, WIDTH), 1.0, generator_for(0, ""))
    assert (warp_image(photo, positions) == photo[:, ::-1]).all()
    mask = (photo[..., 0] > 128).astype(np.uint8)
    assert (warp_mask(mask, positions) == mask[:, ::-1]).all()


def test_rotation_agrees_with_scipy(photo: np.ndarray) -> None:
    """By the angle that the docstring promises, about the centre."""
    positions = WARPS["rotate"]((HEIGHT, WIDTH), 1.0, generator_for(0, ""))
    found = warp_image(photo, positions).astype(int)
    errors = [
        np.abs(found - ndimage.rotate(photo.astype(float), angle, reshape=False, order=1)).mean() for angle in (20, -20)
    ]
    assert min(errors) < 0.6 < max(errors)


@pytest.mark.parametrize("name", WARPS)
def test_masks_and_boxes_move_with_the_pixels(name: str) -> None:
    """A white disc: its mask, warped, is where the warped image is white."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = ((y - 40) ** 2 + (x - 50) ** 2 < 20**2).astype(np.uint8)
    image = np.repeat(disc[..., None] * 255, 3, axis=-1).astype(np.uint8)
    rle = coco_mask.encode(np.asfortranarray(disc))
    segmentation = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
    positions = WARPS[name]((HEIGHT, WIDTH), 1.0, generator_for(5, name))
    face = warp_face(segmentation, positions, HEIGHT, WIDTH)
    assert face is not None
    moved = coco_mask.decode(face["segmentation"]).astype(bool)
    white = warp_image(image, positions)[..., 0] > 127
    assert (moved & white).sum() / (moved | white).sum() > 0.97
    rows, columns = np.nonzero(moved)
    left, top = columns.min(), rows.min()
    assert face["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
    assert face["area"] == moved.sum()


def test_a_face_that_leaves_is_gone() -> None:
    positions = np.full((2, 10, 10), -50, dtype=np.float32)
    assert warp_face([[1, 1, 5, 1, 5, 5]], positions, 10, 10) is None


# Whole splits.


@pytest.fixture
def split(tmp_path: Path, photo: np.ndarray) -> Path:
    folder = tmp_path / "data/test_dev"
    (folder / "images").mkdir(parents=True)
    images, faces = [], []
    for i in range(5):
        Image.fromarray(np.roll(photo, i, axis=1)).save(folder / f"images/{i}.png")
        images.append({"id": 200 + i, "file_name": f"images/{i}.png", "width": WIDTH, "height": HEIGHT})
        for label in (1, 2):
            x = 30 * label
            ring = [x, 30, x + 20, 30, x + 20, 60, x, 60]
            faces.append(
                {
                    "id": 300 + 2 * i + label,
                    "image_id": 200 + i,
                    "category_id": label,
                    "bbox": [x, 30, 20, 30],
                    "area": 600,
                    "iscrowd": 0,
                    "segmentation": [ring],
                }
            )
    coco.write(folder / "annotations.json", images, faces)
    return folder / "annotations.json"


def test_split_keeps_geometry(split: Path, tmp_path: Path) -> None:
    output = tmp_path / "data/test_challenge"
    report = perturb_split(split, output, seed=1)
    assert (report.images, report.faces, report.lost) == (5, 10, 0)
    summary = coco.validate(output / "annotations.json")
    assert summary.faces == {"Real": 5, "Fake": 5}
    before, after = coco.read(split), coco.read(output / "annotations.json")
    for field in ("bbox", "area", "segmentation", "category_id"):
        assert [face[field] for face in after["annotations"]] == [face[field] for face in before["annotations"]]
    assert not {image["id"] for image in after["images"]} & {image["id"] for image in before["images"]}
    notes = json.loads((output / "perturbation.json").read_text())
    assert set(notes["operations"]) == {image["file_name"] for image in after["images"]}


@pytest.mark.parametrize("geometry", [False, True])
def test_split_is_the_same_in_processes_and_after_an_interruption(
    split: Path, tmp_path: Path, geometry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"seed": 2, "geometry": geometry, "png": True}
    perturb_split(split, tmp_path / "a/test_challenge", **options)
    if not geometry:  # starting processes takes seconds
        perturb_split(split, tmp_path / "b/test_challenge", jobs=2, **options)

    def interrupt(task: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturb_split(split, tmp_path / "c/test_challenge", progress=interrupt, **options)
    assert not (tmp_path / "c/test_challenge").exists()
    computed = []
    original = operations.perturb
    monkeypatch.setattr(operations, "perturb", lambda *args, **kw: computed.append(kw["name"]) or original(*args, **kw))
    perturb_split(split, tmp_path / "c/test_challenge", **options)
    assert computed == ["3.png", "4.png"]
    first = {path.name: path.read_bytes() for path in (tmp_path / "a/test_challenge").rglob("*") if path.is_file()}
    for other in ("b", "c"):
        if (tmp_path / other).exists():
            folder = tmp_path / other / "test_challenge"
            assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first
    coco.validate(tmp_path / "c/test_challenge/annotations.json")


def test_another_recipe_starts_anew(split: Path, tmp_path: Path) -> None:
    def interrupt(task: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "x/test_challenge"
    with pytest.raises(KeyboardInterrupt):
        perturb_split(split, output, seed=1, level=4, png=True, progress=interrupt)
    perturb_split(split, output, seed=2, level=4, png=True)
    perturb_split(split, tmp_path / "y/test_challenge", seed=2, level=4, png=True)
    for i in range(5):
        name = f"test_challenge/images/{i}.png"
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_split_refusals(split: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="perturbed into itself"):
        perturb_split(split, split.parent)
    with pytest.raises(UserError, match="'hard' is no split"):
        perturb_split(split, tmp_path / "data/hard")
    with pytest.raises(UserError, match="level"):
        perturb_split(split, tmp_path / "data/val", level=9)
    (split.parent / "images/2.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"2\.png: no readable image"):
        perturb_split(split, tmp_path / "data/val")
    assert not (tmp_path / "data/val").exists()
