"""Pixels of more than eight bits, and TIFFs of several planes: stretched by one rule, chosen or said, never lost."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pseudolabel import images, tiff
from pseudolabel.errors import RejectError
from pseudolabel.pixel_rule import PixelRule

tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 48, 64
# a ramp over all 3072 pixels, so that every percentile is known
RAMP = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)


def saved(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def gray(data: bytes, **rule: Any) -> Any:
    pixels = images.decode(data, rule=PixelRule(**rule))
    images.check_decodes(data, rule=PixelRule(**rule))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    return pixels[..., 0].astype(int)


def refused(data: bytes, **rule: Any) -> str:
    with pytest.raises(RejectError) as caught:
        images.decode(data, rule=PixelRule(**rule))
    assert caught.value.reason == "unsupported_format"
    return caught.value.detail


STRETCHED = np.clip((RAMP - 3.071) * 255 / (3067.929 - 3.071), 0, 255)  # 0.1 % and 99.9 % of 0 ... 3071


@pytest.mark.parametrize("encoding", ["png", "tiff"])
def test_dim_16_bit_gray_fills_the_range(encoding: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, encoding)
    data = buffer.getvalue()
    assert np.abs(gray(data) - STRETCHED).max() <= 0.5 + 1e-9
    assert np.array_equal(gray(data), gray(data, stretch="percentile"))
    assert gray(data, stretch="none").max() == round(3071 / 257)


def test_eight_bits_are_stretched_only_when_asked() -> None:
    buffer = io.BytesIO()
    Image.fromarray((RAMP // 64).astype(np.uint8)).save(buffer, "png")  # 0 to 47
    assert gray(buffer.getvalue()).max() == 47
    assert gray(buffer.getvalue(), stretch="percentile").max() == 255


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint32, np.int32])
def test_pixels_of_32_bits_and_more_are_read_stretched(kind: Any) -> None:
    scale = 1e-3 if np.issubdtype(kind, np.floating) else 1
    data = saved((RAMP * scale).astype(kind))
    assert np.abs(gray(data) - STRETCHED).max() <= 0.5 + 1e-3
    assert "--stretch percentile" in refused(data, stretch="none")


def test_pixels_that_are_not_finite_are_black_and_do_not_count() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[0, 1] = np.nan, -np.inf
    assert gray(saved(values))[0, :2].tolist() == [0, 0]
    assert np.abs(gray(saved(values)) - STRETCHED)[1:].max() <= 1
    with pytest.raises(RejectError, match="not one finite pixel"):
        images.decode(saved(np.full((8, 8), np.nan, dtype=np.float32)))


def test_an_image_of_one_value_is_black_and_no_fault() -> None:
    assert gray(saved(np.full((8, 8), 700, dtype=np.uint16))).max() == 0


def test_few_bright_pixels_on_an_even_ground_are_seen() -> None:
    values = np.full((100, 100), 500, dtype=np.uint16)
    values[50, 50] = 900
    shown = gray(saved(values))
    assert (shown[50, 50], shown[0, 0]) == (255, 0)


def stack(count: int) -> Any:
    return np.stack([np.full((HEIGHT, WIDTH), 10 * (place + 1), dtype=np.uint8) for place in range(count)])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(stack(3), photometric="minisblack"), id="pages"),
        pytest.param(saved(stack(3), imagej=True, metadata={"axes": "ZYX"}), id="ImageJ depth"),
        pytest.param(saved(stack(3), ome=True, metadata={"axes": "TYX"}, photometric="minisblack"), id="OME time"),
    ],
)
def test_of_several_pages_one_is_chosen_or_the_first_is_said(data: bytes) -> None:
    assert (gray(data) == 10).all()
    assert (gray(data, page=3) == 30).all()
    assert images.read_header(data).size_hw == (HEIGHT, WIDTH)
    assert images.read_header(data).note.startswith("3 pages: page 1 is read; choose with --page")
    assert images.read_header(data, rule=PixelRule(page=2)).note == ""
    assert "no page 4" in refused(data, page=4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(stack(5), imagej=True, metadata={"axes": "CYX"}), id="ImageJ"),
        pytest.param(saved(stack(5), ome=True, metadata={"axes": "CYX"}, photometric="minisblack"), id="OME"),
        pytest.param(
            saved(np.moveaxis(stack(5), 0, -1), photometric="minisblack", planarconfig="contig"), id="samples"
        ),
    ],
)
def test_of_several_channels_one_or_three_are_chosen_or_the_first_is_said(data: bytes) -> None:
    assert (gray(data) == 10).all()
    assert (gray(data, channels=(4,)) == 40).all()
    pixels = images.decode(data, rule=PixelRule(channels=(5, 1, 2)))
    assert pixels[3, 4].tolist() == [50, 10, 20]
    assert images.read_header(data).note == "5 channels: channel 1 is read; choose one or three with --channels"
    assert images.read_header(data, rule=PixelRule(channels=(1,))).note == ""
    assert "no channel 6" in refused(data, channels=(6,))


def test_pages_can_be_taken_for_channels() -> None:
    pixels = images.decode(saved(stack(4), photometric="minisblack"), rule=PixelRule(channels=(3, 2, 1)))
    assert pixels[0, 0].tolist() == [30, 20, 10]


def test_page_and_channel_of_a_stack_of_both_are_chosen() -> None:
    values = np.stack([stack(2), stack(2) + 100])  # z, c
    data = saved(values, imagej=True, metadata={"axes": "ZCYX"})
    assert (gray(data, page=2, channels=(2,)) == 120).all()
    assert "2 pages" in images.read_header(data).note
    assert "2 channels" in images.read_header(data).note


def test_smaller_copies_of_a_picture_are_no_pages() -> None:
    buffer = io.BytesIO()
    first, small = Image.new("L", (WIDTH, HEIGHT), 10), Image.new("L", (WIDTH // 2, HEIGHT // 2), 20)
    first.save(buffer, "TIFF", save_all=True, append_images=[small])
    assert images.read_header(buffer.getvalue()).note == ""


def test_16_bit_colours_keep_all_their_bits_and_their_hue() -> None:
    values = np.stack([RAMP, RAMP // 2, np.zeros_like(RAMP)], axis=-1)
    data = saved(values, photometric="rgb")
    pixels = images.decode(data)
    assert len(np.unique(pixels[..., 0])) == 256  # whose high bytes are 0 to 11
    assert pixels[40, 10, 1] == pytest.approx(pixels[40, 10, 0] / 2, abs=1)
    assert images.decode(data, rule=PixelRule(stretch="none")).max() == 12


def png_16_bit_rgb(red: int) -> bytes:
    rows = b"".join(b"\0" + struct.pack(">HHH", red, 0, 0) * 2 for _ in range(2))
    header = b"IHDR" + struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = [header, b"IDAT" + zlib.compress(rows), b"IEND"]
    packed = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_16_bit_colours_of_a_png_that_are_too_dim_for_their_high_bytes_are_refused() -> None:
    assert images.decode(png_16_bit_rgb(0x4000))[0, 0, 0] == 0x40
    assert "save it as TIFF" in refused(png_16_bit_rgb(0x0FFF))
    assert images.decode(png_16_bit_rgb(0x0FFF), rule=PixelRule(stretch="none"))[0, 0, 0] == 0x0F


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True], ids=["float by Pillow", "colours by tifffile"])
def test_planes_are_turned_as_their_orientation_says(orientation: int, deep: bool) -> None:
    values = np.stack([RAMP] * 3, axis=-1) if deep else RAMP.astype(np.float32)
    options = {"photometric": "rgb"} if deep else {}
    data = saved(values, extratags=[(ExifTags.Base.Orientation, 3, 1, orientation, True)], **options)
    upright = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "vt", 7: "hvt", 8: "ht"}[orientation]
    expected = images.decode(saved(values, **options))[..., 0]
    stored = images.decode(data, rule=PixelRule("ignore"))[..., 0]
    shown = images.decode(data, rule=PixelRule("transpose"))[..., 0]
    assert np.array_equal(stored, expected)
    for turn in upright:
        expected = {"h": np.fliplr, "v": np.flipud, "t": np.transpose}[turn](expected)
    assert np.array_equal(shown, expected)
    assert images.read_header(data, rule=PixelRule("transpose")).size_hw == expected.shape
    assert images.read_header(data, rule=PixelRule("ignore")).size_hw == (HEIGHT, WIDTH)


def test_without_tifffile_pages_are_read_and_stacks_are_refused_with_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "_tifffile", lambda: None)
    assert (gray(saved(stack(3), photometric="minisblack"), page=2) == 20).all()
    assert np.abs(gray(saved(RAMP)) - STRETCHED).max() <= 0.5 + 1e-9
    samples = saved(np.moveaxis(stack(5), 0, -1).astype(np.uint16), photometric="minisblack", planarconfig="contig")
    hyperstack = saved(stack(5), ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    dim = saved(np.stack([RAMP] * 3, axis=-1), photometric="rgb")
    for data in (samples, dim):
        assert "pip install 'pseudolabel[microscopy]'" in refused(data)
    assert images.read_header(hyperstack).note.startswith("5 pages: page 1 is read")


def test_damaged_stacks_are_refused_and_nothing_else_is_raised() -> None:
    data = bytearray(saved(stack(3), imagej=True, metadata={"axes": "ZYX"}))
    random = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data)
        for place in random.integers(0, 400, 4):
            broken[place] = int(random.integers(0, 256))
        try:
            images.decode(bytes(broken), rule=PixelRule(page=2), max_pixels=10**6)
        except RejectError:
            continue
