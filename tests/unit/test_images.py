"""Pictures of all kinds as RGB, and files that are none."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from comics import images
from comics.images import UnreadableImage, read, shown


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


GRADIENT = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(16, 0)


def test_plain_pixels_come_out_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    picture = read(saved(Image.fromarray(pixels)))
    assert (picture.pixels == pixels).all()
    assert picture.size == (20, 30)
    assert picture.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("longest", [None, 16])
def test_exif_turns_the_picture_as_pillow_does(orientation, longest):
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, exif=exif)
    picture = read(data, longest)
    with Image.open(io.BytesIO(data)) as file:
        upright = ImageOps.exif_transpose(file)
    assert picture.size == (upright.height, upright.width)
    if longest is None:
        assert (picture.pixels == np.asarray(upright)).all()
    else:
        small = upright.resize((picture.pixels.shape[1], picture.pixels.shape[0]), Image.Resampling.BILINEAR)
        assert max(picture.pixels.shape) == longest
        assert np.abs(picture.pixels.astype(int) - np.asarray(small)).mean() < 3


def test_sixteen_bit_greys_are_scaled_and_not_clipped():
    deep = Image.fromarray(GRADIENT.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    for data in (saved(deep), saved(deep, "TIFF")):
        pixels = read(data).pixels
        assert np.abs(pixels[:, :, 0].astype(int) - GRADIENT).max() <= 1


def test_floats_and_wide_integers_are_scaled():
    assert (
        np.abs(
            read(saved(Image.fromarray(GRADIENT / np.float32(255)), "TIFF")).pixels[:, :, 0].astype(int) - GRADIENT
        ).max()
        <= 1
    )
    wide = Image.fromarray(GRADIENT.astype(np.int32) * 100000)
    assert np.abs(read(saved(wide, "TIFF")).pixels[:, :, 1].astype(int) - GRADIENT).max() <= 1


def test_not_a_number_is_black():
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0] = np.nan
    pixels = read(saved(Image.fromarray(values), "TIFF")).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[1, 1, 0] in (127, 128)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_mode_becomes_rgb(mode):
    image = Image.fromarray(GRADIENT).convert("RGB")
    image = image.convert("L").convert(mode) if mode in ("1", "PA", "LA") else _converted(image, mode)
    pixels = read(image).pixels
    assert pixels.shape == (16, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].max() < 40
    assert pixels[0, -1].min() > 215


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return ImageCms.applyTransform(image, to_lab)
    return image.convert(mode)


def test_cmyk_jpeg_keeps_its_colours_also_when_shrunk():
    red = Image.new("RGB", (64, 64), (220, 30, 30)).convert("CMYK")
    for longest in (None, 16):
        pixels = read(saved(red, "JPEG", quality=95), longest).pixels
        assert pixels[5, 5, 0] > 180
        assert pixels[5, 5, 1:].max() < 90


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    pixels = read(saved(image)).pixels
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == [0, 0, 255]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert read(saved(palette, transparency=1)).pixels[3, 3].tolist() == [255, 255, 255]
    assert read(saved(Image.new("RGB", (8, 8), (1, 2, 3)), transparency=(1, 2, 3))).pixels[3, 3].tolist() == [255] * 3


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read_and_said_so(kind):
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "green", "blue")]
    picture = read(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert picture.notes == ("the first of 3 frames",)
    assert picture.pixels[8, 8, 0] > 200


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "BMP", "JPEG2000", "PPM"])
def test_further_kinds_of_file(kind):
    from PIL import features

    if kind in ("WEBP", "AVIF") and not features.check(kind.lower()):
        pytest.skip(f"this pillow has no {kind}")
    assert read(saved(Image.fromarray(GRADIENT).convert("RGB"), kind)).pixels.shape == (16, 64, 3)


def test_a_picture_is_shrunk_to_the_longest_side_and_never_enlarged():
    data = saved(Image.new("RGB", (400, 100)), "JPEG")
    assert read(data, 100).pixels.shape == (25, 100, 3)
    assert read(data, 100).size == (100, 400)
    assert read(data, 1000).pixels.shape == (100, 400, 3)
    assert read(saved(Image.new("L", (4000, 1))), 100).pixels.shape == (1, 100, 3)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


WHOLE = saved(Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an image"),
        (b"GIF89a", ""),
        (b"no image at all", "not an image"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (saved(Image.new("RGB", (64, 64)), "PNG")[:60], ""),
        (png_that_claims(60000, 60000), "megapixels"),
        (png_that_claims(2000, 2000), "truncated"),
        (b"\x89PNG\r\n\x1a\n" + os.urandom(200), ""),
        (b"II*\0" + b"\xff" * 60, ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n", ""),
    ],
)
def test_what_is_no_whole_picture_is_refused(data, why):
    with pytest.raises(UnreadableImage) as caught:
        read(data)
    assert why in caught.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_files_are_read_or_refused_and_never_crash(kind):
    data = saved(Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 40, 3), np.uint8)), kind)
    rng = np.random.default_rng(4)
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 6):
            damaged[place] = int(rng.integers(256))
        try:
            read(bytes(damaged), 32)
        except UnreadableImage:
            continue


def test_a_file_is_named_whatever_its_name_is(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    with open(path, "wb") as file:
        file.write(b"nothing")
    with pytest.raises(UnreadableImage) as caught:
        read(os.fsdecode(path))
    assert "\\xff\\xfe.jpg" in caught.value.message
    caught.value.message.encode()
    with pytest.raises(UnreadableImage, match="no such file"):
        read(tmp_path / "absent.jpg")


def test_names_that_steer_a_terminal_become_escapes():
    assert shown("a\x1b[31m\nb\u202egpj.exe") == "a\\x1b[31m\\nb\\u202egpj.exe"
    for name in ("plain.jpg", "ünï 😀\u200d.jpg", "日本\u3000.png"):
        assert shown(name) == name


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_read_or_the_package_is_named(brand, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic"
    (tmp_path / "a.heic").write_bytes(data)
    for source in (data, tmp_path / "a.heic"):
        with pytest.raises(UnreadableImage, match="pip install pillow-heif"):
            read(source)


def test_pipes_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path, "/dev/zero"):
        with pytest.raises(UnreadableImage, match="regular"):
            read(path)


def test_pillows_own_limit_is_as_before():
    before = Image.MAX_IMAGE_PIXELS
    read(WHOLE)
    with pytest.raises(UnreadableImage):
        read(b"no image")
    assert before == Image.MAX_IMAGE_PIXELS


def test_damaged_exif_is_no_reason_to_refuse_a_picture():
    data = saved(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert read(data).size == (8, 8)


def test_a_large_picture_takes_no_more_memory_than_its_pixels(tmp_path):
    Image.new("RGB", (6000, 4000), (90, 120, 30)).save(tmp_path / "large.png", compress_level=1)
    code = (
        "from comics.images import read; from comics.machine import peak_resident; "
        f"base = peak_resident(); picture = read({str(tmp_path / 'large.png')!r}, 1024); "
        "assert picture.size == (4000, 6000); print(peak_resident() - base)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 250 * 10**6  # 96 MB of pixels as pillow holds them, and the lines it reduces


def test_a_hundred_megapixels_are_read():
    assert images.MAX_PIXELS >= 100 * 10**6
    big = Image.new("L", (10000, 10000), 200)
    assert read(saved(big, compress_level=1), 64).pixels.shape == (64, 64, 3)
