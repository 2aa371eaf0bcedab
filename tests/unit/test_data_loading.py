"""Geometry, samples, batches, and orders that depend on the seed alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from PIL import Image
from pycocotools import mask as rle
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from comics.data.loading.batches import Batch, collate
from comics.data.loading.geometry import Affine, fit, random_affine
from comics.data.loading.loaders import EpochSampler, TrainingLoader
from comics.data.loading.samples import Annotations, ForensicsDataset, box_of, rasterise
from comics.errors import UserError
from comics.params import TrainingParams, ViewsParams

PLAIN = TrainingParams(crop=1.0, rotation=0.0, flip=0.0, image_size=1024)


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Five images of different sizes: two faces, one RLE face, no face, one face at the edge, one crowd."""
    sizes = [(40, 60), (50, 50), (33, 65), (40, 60), (64, 32)]
    images, faces = [], []
    (tmp_path / "images").mkdir()
    for index, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{index}.png")
        images.append({"id": index + 7, "file_name": f"images/{index}.png", "height": height, "width": width})

    def face(image: int, category: int, segmentation: object, crowd: int = 0) -> None:
        faces.append(
            {
                "id": len(faces) + 1,
                "image_id": image + 7,
                "category_id": category,
                "iscrowd": crowd,
                "bbox": [0, 0, 1, 1],
                "area": 1.0,
                "segmentation": segmentation,
            }
        )

    mask = np.zeros((50, 50), np.uint8)
    mask[10:20, 5:30] = 1
    code = rle.encode(np.asfortranarray(mask))
    face(1, 2, {"size": [50, 50], "counts": code["counts"].decode()})
    face(0, 1, [square(4, 6, 10)])
    face(0, 2, [square(30, 10, 12), square(45, 10, 3)])
    face(3, 1, [square(55, 35, 5)])
    face(4, 1, [square(4, 4, 8)], crowd=1)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": faces, "categories": []}))
    return path


def test_annotations_are_found_whatever_their_order_in_the_file(split: Path) -> None:
    notes = Annotations(split)
    assert [len(notes.faces(row)) for row in range(5)] == [2, 1, 0, 1, 0]  # crowds are no targets
    assert [len(notes.rings(face)) for face in notes.faces(0)] == [1, 2]
    assert notes.file(4) == split.parent / "images/4.png"
    assert notes.code(notes.faces(1)[0])


def test_samples_are_pixels_boxes_and_masks_of_the_file(split: Path) -> None:
    dataset = ForensicsDataset(Annotations(split), PLAIN)
    first, second, third = dataset[0], dataset[1], dataset[2]
    pixels = np.asarray(Image.open(split.parent / "images/0.png"), np.float32) / 255
    np.testing.assert_allclose(first.image.permute(1, 2, 0).numpy(), pixels, atol=1e-6)
    assert first.boxes.tolist() == [[4, 6, 14, 16], [30, 10, 48, 22]]
    assert first.labels.tolist() == [0, 1]
    assert first.masks.sum((1, 2)).tolist() == [100, 144 + 9]
    assert second.boxes.tolist() == [[5, 10, 30, 20]]
    assert (third.boxes.shape, third.masks.shape) == ((0, 4), (0, 33, 65))


def test_images_longer_than_the_limit_shrink_with_their_faces(split: Path) -> None:
    sample = ForensicsDataset(Annotations(split), PLAIN.model_copy(update={"image_size": 32}))[0]
    assert sample.image.shape == (3, 21, 32)
    assert sample.original_size == (40, 60)
    scale = torch.tensor([32 / 60, 21 / 40, 32 / 60, 21 / 40])
    assert (sample.boxes - torch.tensor([[4, 6, 14, 16], [30, 10, 48, 22]]) * scale).abs().max() <= 1


@pytest.mark.parametrize("seed", range(12))
def test_the_same_map_moves_pixels_and_points(seed: int) -> None:
    """A bright square stays inside of its own transformed outline."""
    training = TrainingParams(crop=0.8, rotation=30.0, flip=0.5, image_size=64)
    image = np.zeros((96, 128, 3), np.uint8)
    image[40:56, 60:84] = 255
    affine = random_affine(np.random.default_rng(seed), 96, 128, training)
    moved = np.asarray(affine.image(Image.fromarray(image)))[..., 0] >= 128
    corners = affine.points(np.array([[60, 40], [84, 40], [84, 56], [60, 56]], float))
    outline = rasterise([corners], affine.size)
    union = (moved | outline).sum()
    assert union == 0 or (moved & outline).sum() / union > 0.75
    assert moved.shape == affine.size


def test_switching_one_transform_off_leaves_the_others_as_they_were() -> None:
    whole = TrainingParams(crop=0.9, rotation=30.0, flip=0.5, image_size=64)
    for seed in range(5):
        size = random_affine(np.random.default_rng(seed), 96, 128, whole).size
        still = whole.model_copy(update={"rotation": 0.0, "flip": 0.0})
        assert random_affine(np.random.default_rng(seed), 96, 128, still).size == size


def test_small_images_are_not_enlarged() -> None:
    assert fit(30, 40, 1024).is_identity
    assert fit(2000, 1000, 500).size == (500, 250)


def test_faces_that_fall_out_of_the_image_are_dropped(split: Path) -> None:
    training = PLAIN.model_copy(update={"crop": 0.5})
    dataset = ForensicsDataset(Annotations(split), training, seed=0)
    counts = set()
    for epoch in range(30):
        sample = dataset[(epoch, 3)]
        assert len(sample.boxes) == len(sample.labels) == len(sample.masks)
        height, width = sample.image.shape[-2:]
        assert (sample.boxes <= torch.tensor([width, height, width, height])).all()
        counts.add(len(sample.boxes))
    assert counts == {0, 1}


def test_masks_and_boxes_agree_and_views_do_not_touch_them(split: Path) -> None:
    training = TrainingParams(image_size=48)
    plain = ForensicsDataset(Annotations(split), training, seed=3)
    viewed = ForensicsDataset(Annotations(split), training, seed=3, views=ViewsParams(), two_views=True)
    for row in range(5):
        a, b = plain[(2, row)], viewed[(2, row)]
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.masks, b.masks)
        assert a.image.shape == b.image.shape == b.key.shape
        for box, mask in zip(a.boxes, a.masks, strict=True):
            assert box_of(mask.numpy()) == tuple(box.tolist())


def test_a_batch_is_padded_with_zeros_to_a_multiple_of_32(split: Path) -> None:
    dataset = ForensicsDataset(Annotations(split), PLAIN)
    batch = collate([dataset[row] for row in range(5)])
    assert batch.images.shape == (5, 3, 64, 96)
    assert batch.sizes == [(40, 60), (50, 50), (33, 65), (40, 60), (64, 32)]
    assert batch.image_ids == [7, 8, 9, 10, 11]
    assert batch.keys is None
    assert [target["masks"].shape for target in batch.targets] == [(n, 64, 96) for n in (2, 1, 0, 1, 0)]
    assert batch.images[0, :, 40:].abs().sum() == batch.images[0, :, :, 60:].abs().sum() == 0


def test_what_is_loaded_depends_on_seed_and_epoch_and_not_on_workers(split: Path) -> None:
    def epoch(workers: int, seed: int, number: int) -> list[torch.Tensor]:
        dataset = ForensicsDataset(Annotations(split), TrainingParams(), seed, ViewsParams(), two_views=True)
        sampler = EpochSampler(len(dataset), seed)
        sampler.set_epoch(number)
        loader = DataLoader(dataset, 2, sampler=sampler, num_workers=workers, collate_fn=collate)
        return [tensor for batch in loader for tensor in (batch.images, batch.keys, batch.targets[0]["boxes"])]

    reference = epoch(0, 1, 4)
    assert all(torch.equal(a, b) for a, b in zip(reference, epoch(2, 1, 4), strict=True))
    for other in (epoch(0, 2, 4), epoch(0, 1, 5)):
        assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(reference, other, strict=True))


def test_every_image_comes_once_an_epoch() -> None:
    sampler = EpochSampler(50, 0)
    first = [row for _, row in sampler]
    sampler.set_epoch(1)
    assert sorted(first) == sorted(row for _, row in sampler) == list(range(50))
    assert first != [row for _, row in sampler]


def resumable(split: Path, workers: int = 0) -> TrainingLoader:
    dataset = ForensicsDataset(Annotations(split), TrainingParams(), 1, ViewsParams())
    sampler = EpochSampler(len(dataset), 1)
    return TrainingLoader(dataset, sampler, batch_size=1, num_workers=workers, collate_fn=collate, drop_last=True)


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(torch.equal(x.images, y.images) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_its_state_was_taken(split: Path, workers: int) -> None:
    whole = resumable(split)
    whole.order.set_epoch(3)
    expected = list(whole)

    first = resumable(split, workers)
    first.order.set_epoch(3)
    seen = []
    for batch in first:
        seen.append(batch)
        if len(seen) == 2:
            state = first.state_dict()
            break
    second = resumable(split, workers)
    second.load_state_dict(state)
    assert second.state_dict() == state
    second.order.set_epoch(3)  # as the trainer does
    assert len(second) == 5
    assert same(seen + list(second), expected)
    assert second.state_dict() == {"epoch": 3, "batches": 5}

    third = resumable(split, workers)
    third.load_state_dict(second.state_dict())  # the epoch is over
    whole.order.set_epoch(4)
    second.order.set_epoch(4)
    expected = list(whole)
    assert same(list(second), expected)
    assert same(list(third), expected)


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 8])
def test_an_interrupted_training_sees_what_it_had_not_seen(split: Path, tmp_path: Path, stop: int) -> None:
    """Of two epochs of five batches; the checkpoint is taken after `stop` of the ten."""

    class Watcher(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: list[tuple[int, Batch]] = []

        def training_step(self, batch: Batch, index: int) -> torch.Tensor:
            self.seen.append((self.current_epoch, batch))
            return self.weight * 1.0

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

        def transfer_batch_to_device(self, batch: Batch, device: torch.device, number: int) -> Batch:
            return batch

    def fit(checkpoint: Path | None = None, save_at: int | None = None) -> list[tuple[int, Batch]]:
        keep = [ModelCheckpoint(tmp_path, "last", every_n_train_steps=save_at, save_top_k=1, monitor=None)]
        trainer = lightning.Trainer(
            max_epochs=2,
            max_steps=save_at or -1,
            accelerator="cpu",
            callbacks=keep if save_at else [],
            enable_checkpointing=save_at is not None,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        module = Watcher()
        trainer.fit(module, resumable(split), ckpt_path=checkpoint, weights_only=True)
        return module.seen

    expected = fit()
    before = fit(save_at=stop)
    after = fit(checkpoint=tmp_path / "last.ckpt")
    assert [epoch for epoch, _ in before + after] == [epoch for epoch, _ in expected]
    assert same([batch for _, batch in before + after], [batch for _, batch in expected])


def test_broken_input_is_named(split: Path) -> None:
    (split.parent / "images/2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2\.png: not an image"):
        ForensicsDataset(Annotations(split), PLAIN)[2]
    split.write_text('{"images": [{"id": 1}], "annotations": []}')
    with pytest.raises(UserError, match=r"annotations\.json: not a canonical COCO file"):
        Annotations(split)


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_turn_keeps_the_high_frequencies_of_test_images(scale: float) -> None:
    """What SRM filters see of a training image is what they see of a test image, to a few percent (docs/fidelity.md)."""
    size = 160
    noise = np.random.default_rng(0).normal(128, 12, (size, size, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise).resize((240, 240), Image.Resampling.BICUBIC)  # a camera's noise is no white one
    side = round(240 * scale)
    shrink = np.array([[scale, 0, 0], [0, scale, 0]])

    def residual(matrix: np.ndarray) -> float:
        pixels = np.asarray(Affine(matrix, (side, side)).image(picture)).astype(float).mean(2)
        middle = pixels[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4]
        return float(np.abs(4 * middle[1:-1, 1:-1] - 2 * (middle[:-2, 1:-1] + middle[2:, 1:-1])).mean())

    straight = residual(shrink)
    for degrees in (5, 15, 30):
        turn = math.radians(degrees)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        centre = np.array([side / 2, side / 2])
        moved = np.column_stack([rotation @ shrink[:, :2], centre - rotation @ centre])
        assert 0.85 < residual(moved) / straight < 1.15, degrees


def test_the_query_can_be_clean_beside_an_augmented_key(split: Path) -> None:
    annotations = Annotations(split)
    plain = ForensicsDataset(annotations, PLAIN, seed=1)[0, 0]
    clean = ForensicsDataset(annotations, PLAIN, 1, ViewsParams(query="clean", noise_probability=1), two_views=True)[
        0, 0
    ]
    both = ForensicsDataset(annotations, PLAIN, 1, ViewsParams(noise_probability=1), two_views=True)[0, 0]
    assert torch.equal(clean.image, plain.image)
    assert not torch.equal(clean.key, plain.image)
    assert not torch.equal(both.image, plain.image)
    assert not torch.equal(both.key, both.image)
