"""Untrusted images: one rule for what they show, limits before decoding, a reason for what is refused."""

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pseudolabel import images
from pseudolabel.errors import RejectError
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.records import REASONS

HEIGHT, WIDTH = 32, 48
ENCODINGS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "progressive jpeg": {"format": "JPEG", "quality": 95, "progressive": True, "subsampling": 0},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "quality": 95},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
    "tiff": {"format": "TIFF"},
    "tiff lzw": {"format": "TIFF", "compression": "tiff_lzw"},
}
each_encoding = pytest.mark.parametrize("encoding", [pytest.param(name, id=name) for name in ENCODINGS])


def scene() -> Image.Image:
    """48 x 32 pixels: red top left, green top right, blue below."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[:16, :24, 0] = pixels[:16, 24:, 1] = pixels[16:, :, 2] = 255
    return Image.fromarray(pixels)


def textured(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def saved(picture: Image.Image, encoding: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **{**ENCODINGS[encoding], **options})
    return buffer.getvalue()


def with_orientation(picture: Image.Image, encoding: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return saved(picture, encoding, exif=exif.tobytes())


def reason_of(data: bytes, **limits: Any) -> str:
    """The reason with which both ways of decoding refuse."""
    with pytest.raises(RejectError) as caught:
        images.decode(data, **limits)
    with pytest.raises(RejectError) as checked:
        images.check_decodes(data, **limits)
    assert checked.value.reason == caught.value.reason
    assert caught.value.reason in REASONS
    return caught.value.reason


@each_encoding
def test_every_format_is_decoded_to_the_picture(encoding: str) -> None:
    data = saved(scene(), encoding)
    assert images.has_known_signature(data[: images.SIGNATURE_BYTES])
    pixels = images.decode(data)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - np.array(scene()).astype(int))
    assert np.percentile(difference, 90) <= 3
    header = images.read_header(data)
    assert (header.width, header.height, header.orientation) == (WIDTH, HEIGHT, 1)
    images.check_decodes(data)


STORED_AS = {  # what a camera stores so that orientation n shows the picture upright
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["jpeg", "png", "lossless webp", "tiff", "tiff lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_shows_the_same_picture(encoding: str, orientation: int) -> None:
    method = STORED_AS[orientation]
    stored = scene().transpose(method) if method is not None else scene()
    data = with_orientation(stored, encoding, orientation)
    shown, raw = (images.decode(data, rule=PixelRule(rule)) for rule in ("transpose", "ignore"))
    np.testing.assert_allclose(shown.astype(int), np.array(scene()), atol=60)
    np.testing.assert_allclose(raw.astype(int), np.array(stored), atol=60)
    header = images.read_header(data, rule=PixelRule("transpose"))
    assert (header.size_hw, header.orientation) == ((HEIGHT, WIDTH), orientation)
    assert images.read_header(data, rule=PixelRule("ignore")).size_hw == (stored.height, stored.width)
    assert header.swaps_sides == (orientation >= 5)


def test_png_orientation_behind_the_pixels_counts_too() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    png = saved(scene().transpose(Image.Transpose.ROTATE_180))
    assert np.array_equal(images.decode(png[:-12] + chunk + png[-12:]), np.array(scene()))


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0garbage", id="garbage"),
        pytest.param(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\x80\0\0\0\0\x06\0\0", id="count of 2**31"),
        pytest.param(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0", id="orientation 99"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="directory beyond the end"),
    ],
)
def test_damaged_exif_counts_as_upright_and_the_image_is_kept(exif: bytes) -> None:
    data = saved(scene(), "jpeg", exif=exif)
    assert images.read_header(data).orientation == 1
    assert images.decode(data).shape == (HEIGHT, WIDTH, 3)


def test_a_damaged_colour_profile_does_not_matter() -> None:
    assert np.array_equal(images.decode(saved(scene(), icc_profile=b"no profile")), np.array(scene()))


@each_encoding
@pytest.mark.parametrize("percent", [5, 30, 60, 90, 95])
def test_a_truncated_file_is_refused(encoding: str, percent: int) -> None:
    data = saved(textured(), encoding)
    assert reason_of(data[: len(data) * percent // 100]) == "undecodable"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"\0", "unsupported_format", id="one byte"),
        pytest.param(bytes(1000), "unsupported_format", id="zeros"),
        pytest.param(b"\xff\xd8", "unsupported_format", id="start of a JPEG alone"),
        pytest.param(b"\xff\xd8\xff\xe0", "undecodable", id="a JPEG without contents"),
        pytest.param(b"<!DOCTYPE html><html>404</html>", "unsupported_format", id="a web page"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "unsupported_format", id="an LFS pointer"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format", id="svg"),
        pytest.param(b"%PDF-1.7\n", "unsupported_format", id="pdf"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format", id="eps"),
        pytest.param(b"8BPS\0\x01" + bytes(60), "unsupported_format", id="psd"),
        pytest.param(b"SIMPLE  =                    T" + bytes(99), "unsupported_format", id="fits"),
        pytest.param(b"\0\0\0\x18ftypheic" + bytes(99), "unsupported_format", id="heic"),
        pytest.param(b"P6 2 2 255\n" + bytes(12), "unsupported_format", id="ppm"),
    ],
)
def test_what_is_no_allowed_image_is_refused_by_content(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (2**31 - 1, 2**31 - 1), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    data = png_header(width, height) + struct.pack(">I", 9) + b"IDAT" + bytes(13)
    assert reason_of(data, max_pixels=120_000_000) == "too_many_pixels"


def test_text_that_inflates_to_gigabytes_is_refused_without_the_memory() -> None:
    packed = zlib.compress(bytes(80_000_000), 9)
    body = b"zTXtComment\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    png = saved(scene())
    assert reason_of(png[:33] + chunk + png[33:]) == "undecodable"


def test_only_the_limit_decides_how_many_pixels_are_decoded() -> None:
    data = saved(scene())
    assert images.decode(data, max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    assert reason_of(data, max_pixels=WIDTH * HEIGHT - 1) == "too_many_pixels"


@pytest.mark.parametrize("encoding", ["png", "tiff"])
def test_16_bit_gray_is_scaled_and_not_clipped(encoding: str) -> None:
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    pixels = images.decode(saved(Image.fromarray(values), encoding), rule=PixelRule(stretch="none"))
    expected = np.round(values / 257)
    assert np.abs(pixels - expected[..., None]).max() <= 0.5 + 1e-9
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)


def test_16_bit_colours_keep_their_high_byte() -> None:
    rows = b"".join(b"\0" + struct.pack(">HHH", 0x40FF, 0x8000, 0xFFFF) * 2 for _ in range(2))
    header = b"IHDR" + struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(rows)
    parts = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in (header, data, b"IEND")]
    assert images.decode(b"\x89PNG\r\n\x1a\n" + b"".join(parts))[0, 0].tolist() == [0x40, 0x80, 0xFF]


def test_gray_and_bilevel_pictures_have_three_equal_channels() -> None:
    gray = scene().convert("L")
    assert np.array_equal(images.decode(saved(gray)), np.repeat(np.array(gray)[..., None], 3, axis=2))
    bilevel = gray.point(lambda value: 255 * (value > 100)).convert("1")
    assert set(np.unique(images.decode(saved(bilevel)))) == {0, 255}


def test_a_palette_gives_its_colours() -> None:
    assert np.array_equal(images.decode(saved(scene().convert("P", palette=Image.Palette.ADAPTIVE))), np.array(scene()))


def test_what_is_transparent_lies_on_white() -> None:
    rgba = scene().convert("RGBA")
    alpha = np.repeat(np.array([[0, 128, 255]], dtype=np.uint8), 16, axis=1)  # three vertical bands
    rgba.putalpha(Image.fromarray(np.repeat(alpha, HEIGHT, axis=0)))
    pixels = images.decode(saved(rgba))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels[0, 20].astype(int) - [255, 127, 127]).max() <= 1
    assert pixels[0, 40].tolist() == [0, 255, 0]


def test_the_transparent_colour_of_a_palette_becomes_white() -> None:
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE)
    red = palette.getpixel((0, 0))
    pixels = images.decode(saved(palette, transparency=red))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 40].tolist() == [0, 255, 0]


def test_cmyk_has_the_right_colours() -> None:
    pixels = images.decode(saved(scene().convert("CMYK"), "jpeg")).astype(int)
    assert np.abs(pixels.mean((0, 1)) - np.array(scene()).mean((0, 1))).max() < 12
    assert np.abs(pixels[4, 4] - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_defined_white_are_refused(mode: str) -> None:
    wide = Image.fromarray(np.full((4, 4), 7, dtype=np.float32 if mode == "F" else np.int32))
    assert reason_of(saved(wide, "tiff"), rule=PixelRule(stretch="none")) == "unsupported_format"


def test_the_first_frame_counts() -> None:
    other = Image.new("RGB", (WIDTH, HEIGHT), "white")
    for encoding in ("gif", "png", "tiff", "lossless webp"):
        data = saved(scene(), encoding, save_all=True, append_images=[other])
        assert np.abs(images.decode(data).astype(int) - np.array(scene())).mean() < 3, encoding


def test_the_first_picture_of_an_mpo_counts() -> None:
    buffer = io.BytesIO()
    scene().save(buffer, "MPO", save_all=True, append_images=[scene().rotate(180)], quality=95)
    assert images.read_header(buffer.getvalue()).format == "JPEG"
    assert images.decode(buffer.getvalue())[2, 2, 0] > 200


def test_bytes_behind_the_end_do_not_matter() -> None:
    assert np.array_equal(images.decode(saved(scene()) + b"<?php ?>" * 50), np.array(scene()))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (60_000, 2)])
def test_odd_sizes_are_decoded(width: int, height: int) -> None:
    assert images.decode(saved(Image.new("RGB", (width, height)))).shape == (height, width, 3)


def test_mutated_images_are_decoded_or_refused_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    sound = [saved(textured(), encoding) for encoding in ENCODINGS if not encoding.startswith("tiff")]
    refused = 0
    for number in range(1500):
        data = bytearray(sound[number % len(sound)])
        for place in rng.integers(0, len(data), rng.integers(1, 6)) // rng.integers(1, 40):
            data[place] = rng.integers(256)
        try:
            images.decode(bytes(data), max_pixels=10**6)
        except RejectError:
            refused += 1
    assert 100 < refused < 1500


def test_no_memory_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", starved)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", starved)
    with pytest.raises(MemoryError):
        images.decode(saved(scene(), "bmp"))


def test_the_largest_picture_needs_less_than_two_gigabytes() -> None:
    program = (
        "import io, resource\n"
        "from PIL import Image\n"
        "from pseudolabel import images\n"
        "buffer = io.BytesIO(); Image.new('LA', (5000, 6000), (9, 128)).save(buffer, 'PNG', compress_level=1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(images.decode(buffer.getvalue()).shape)\n"
        "print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    shape, peaks = run.stdout.splitlines()
    before_kb, after_kb = map(int, peaks.split())
    assert shape == "(6000, 5000, 3)"
    picture_px = 30_000_000
    used = (after_kb - before_kb) * 1024 + 4 * picture_px  # making the file had held the picture once
    assert used / picture_px * 120_000_000 < 1_800_000_000


def test_a_large_picture_is_the_same_pixel_by_pixel() -> None:
    """It is copied in strips, of which the last one is not full."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (241, 171, 3), dtype=np.uint8)
    pixels = np.kron(small, np.ones((11, 11, 1), dtype=np.uint8))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    np.testing.assert_array_equal(images.decode(stream.getvalue()), pixels)
