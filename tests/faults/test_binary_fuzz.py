"""Pictures and archives with bytes changed, cut and doubled: read, or refused in one message, in bounded time.

The seeds of mutations that once did harm are kept in `CORPUS`; the printed seed repeats a run.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comics.data.openforensics.extract import Bounds, extract_split
from comics.errors import UserError
from comics.images import read

SEED = int(os.environ.get("FAULT_SEED", random.randrange(2**31)))
CORPUS: tuple[int, ...] = (0, 1, 2)
"""Seeds that every run takes first."""
QUICK, LONG = 60, 1500


def pictures() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    found = {}
    for kind, options in {
        "JPEG": {},
        "PNG": {},
        "GIF": {},
        "BMP": {},
        "TIFF": {"compression": "tiff_lzw"},
        "WEBP": {},
    }.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        found[kind] = buffer.getvalue()
    return found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bytes changed, a piece cut out, doubled or overwritten with 0xff, or its end lost."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        place, length = rng.randrange(len(changed)), rng.randint(1, 16)
        way = rng.randrange(5)
        if way == 0:
            changed[place] = rng.randrange(256)
        elif way == 1:
            del changed[place : place + length]
        elif way == 2:
            changed[place:place] = changed[place : place + length]
        elif way == 3:
            changed[place : place + length] = b"\xff" * len(changed[place : place + length])
        else:
            del changed[place:]
    return bytes(changed)


def seeds(count: int) -> list[int]:
    print(f"FAULT_SEED={SEED}")
    rng = random.Random(SEED)
    return [*CORPUS, *(rng.randrange(2**31) for _ in range(count))]


def fuzz_pictures(kind: str, count: int) -> None:
    data = pictures()[kind]
    for seed in seeds(count):
        started = time.process_time()
        try:
            pixels = read(mutated(data, random.Random(seed))).pixels
        except UserError:
            pass
        else:
            assert pixels.dtype == np.uint8, seed
            assert pixels.ndim == 3, seed
            assert pixels.shape[2] == 3, seed
        assert time.process_time() - started < 10, seed


@pytest.mark.parametrize("kind", list(pictures()))
@pytest.mark.injects("bytes of a picture changed, cut, doubled", "read, or one message; never a traceback")
def test_pictures(kind: str) -> None:
    fuzz_pictures(kind, QUICK)


@pytest.mark.faults
@pytest.mark.parametrize("kind", list(pictures()))
@pytest.mark.injects("bytes of a picture changed, 1,500 times", "read, or one message; never a traceback")
def test_pictures_many_times(kind: str) -> None:
    fuzz_pictures(kind, LONG)


def fuzz_archives(folder: Path, count: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in pictures().items():
            archive.writestr(f"Val/{name.lower()}.{'jpg' if name == 'JPEG' else name.lower()}", data)
    before = {path for path in folder.parent.rglob("*") if path != folder}
    for number, seed in enumerate(seeds(count)):
        here = folder / str(number)
        here.mkdir(parents=True)
        path = here / "Val.zip"
        path.write_bytes(mutated(buffer.getvalue(), random.Random(seed)))
        try:
            extract_split([path], here / "Images", "Val", Bounds())
        except UserError as refusal:
            message = refusal.message
        else:
            message = ""
        assert not message or "Val.zip" in message, seed
        assert not message or not (here / "Images/Val").exists(), seed
        outside = {one for one in folder.parent.rglob("*") if folder not in one.parents and one != folder}
        assert outside == before, seed
        shutil.rmtree(here)  # so that to look around costs the same every time


@pytest.mark.injects(
    "bytes of an archive changed, cut, doubled", "extracted, or one message; nothing outside, nothing half"
)
def test_archives(tmp_path: Path) -> None:
    fuzz_archives(tmp_path / "in", QUICK)


@pytest.mark.faults
@pytest.mark.injects(
    "bytes of an archive changed, 1,500 times", "extracted, or one message; nothing outside, nothing half"
)
def test_archives_many_times(tmp_path: Path) -> None:
    fuzz_archives(tmp_path / "in", LONG)
