"""Untrusted images: opened without leaving their folder, limited before decoding, decoded to RGB by one rule.

* Content decides the format; only JPEG (MPO: its first picture), PNG, WebP, BMP, TIFF and GIF are decoded, and no
  other program is ever started. Of several frames the first counts; of a TIFF's pages and channels those that the rule
  chooses (`pseudolabel.tiff`).
* `exif="transpose"` (and `auto`) turns and mirrors the pixels as the EXIF orientation says, so that they are the
  picture that a viewer shows; `exif="ignore"` gives them as stored. An orientation that cannot be read counts as 1,
  upright.
* Gray becomes three equal channels; pixels of more than eight bits become bytes as `pseudolabel.stretch` says; CMYK and
  YCCK are converted without a colour profile (no profile is applied to any image). What is transparent lies on white.

Faults of content raise `RejectError`; faults of the machine (EIO, ESTALE, EMFILE, no memory) pass through as the
`OSError` or `MemoryError` that they are, because trying again may cure them.
"""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from pseudolabel.crash_note import decoding
from pseudolabel.errors import RejectError
from pseudolabel.pixel_rule import ExifRule, PixelRule, Stretch
from pseudolabel.sources import ImagesRoot, open_source
from pseudolabel.sources.names import SIGNATURE_BYTES, has_known_signature
from pseudolabel.stretch import check_high_bytes, eight_bits
from pseudolabel.tiff import is_tiff, needs_planes, planes_of, read_planes

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_BYTES = 1 << 30
MAX_PIXELS = 178_956_970  # where Pillow itself calls an image a bomb

_STRIP_PIXELS = 1 << 22

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INVERSE = {**_UPRIGHT, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_SWAPS_SIDES = (5, 6, 7, 8)

# What Pillow's decoders raise for damaged data that is already in memory. Anything else is our bug, or theirs, and
# has to be seen.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says about its picture: size in pixels after the EXIF rule, EXIF orientation 1 to 8, format."""

    width: int
    height: int
    orientation: int
    format: str
    note: str = ""  # what is read of several planes

    @property
    def size_hw(self) -> tuple[int, int]:
        return (self.height, self.width)

    @property
    def swaps_sides(self) -> bool:
        """Whether the two EXIF rules give this picture different sizes."""
        return self.orientation in _SWAPS_SIDES


def read_file(root: ImagesRoot, file_name: str, *, max_bytes: int = MAX_BYTES, first_bytes: int | None = None) -> bytes:
    """The bytes of an image of a source; from a folder, never those of a pipe or of a link out of it.

    Args:
        root: where the images are: a folder, a store, archives; see `pseudolabel.sources`.
        file_name: untrusted; as the source names it.
        max_bytes: a larger file is refused unread.
        first_bytes: read no more than these.

    Raises:
        RejectError: `missing`, `permission`, `not_a_file`, `outside_root`, `bad_name`, `empty_file`, `too_large`,
            `changed_since_plan`, `duplicate_image` or `undecodable` (cut off in its archive).
        OSError, MachineError: the machine's or the store's fault; trying again may help.
    """
    return open_source(root).read(file_name, max_bytes=max_bytes, first_bytes=first_bytes)


def read_header(data: bytes, *, rule: PixelRule = PixelRule(), max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Size and orientation, without decoding.

    Raises:
        RejectError: `unsupported_format`, `undecodable` or `too_many_pixels`.
    """
    with _damage_rejects(), _identified(data, max_pixels) as image:
        return _planes_header(data, rule, max_pixels) if image is None else _header(image, data, rule)


def decode(data: bytes, *, rule: PixelRule = PixelRule(), max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as RGB, by the rules of this module.

    Raises:
        RejectError: `unsupported_format`, `undecodable` (a truncated file, too) or `too_many_pixels`.
        MemoryError: passes through.
    """
    with _damage_rejects(), _identified(data, max_pixels) as image:
        if image is None:
            return _decoded_planes(data, rule, max_pixels)
        header = _header(image, data, rule)
        upright_already = image.format == "TIFF"  # Pillow turns TIFF alone, and while decoding
        image.load()
        rgb = _turned(_to_rgb(image, data, rule.stretch), header.orientation, rule.exif, upright_already)
        pixels = _array(rgb)
    if pixels.shape[:2] != header.size_hw:
        raise RejectError("undecodable", f"the header says {header.size_hw}, the data {pixels.shape[:2]}")
    return pixels


def check_decodes(data: bytes, *, rule: PixelRule = PixelRule(), max_pixels: int = MAX_PIXELS) -> None:
    """Pass if `decode` would give a picture; of a JPEG only the coefficients are decoded, which finds what is cut off.

    Raises:
        RejectError: as for `decode`.
    """
    with _damage_rejects(), _identified(data, max_pixels) as image:
        if image is None or _more_than_eight_bits(image, data):
            decode(data, rule=rule, max_pixels=max_pixels)
            return
        _check_mode(image)
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def load_image(
    root: ImagesRoot,
    file_name: str,
    *,
    rule: PixelRule = PixelRule(),
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    digest: str | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a file of a source: `read_file`, then `decode`, with what they raise.

    Args:
        digest: the `content_digest` that the file has to have, None for any.

    Raises:
        RejectError: `changed_since_plan`, where it has another one, too.
    """
    data = read_file(root, file_name, max_bytes=max_bytes)
    if digest is not None and content_digest(data) != digest:
        raise RejectError("changed_since_plan", "the file has another content than when shard read it")
    return decode(data, rule=rule, max_pixels=max_pixels)


def content_digest(data: bytes) -> str:
    """A name for the content of a file: BLAKE2b, 128 bits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _planes_header(data: bytes, rule: PixelRule, max_pixels: int) -> ImageHeader:
    planes = planes_of(data)
    _check_size(planes.width, planes.height, max_pixels)
    swap = planes.orientation in _SWAPS_SIDES and planes.upright == (rule.exif == "ignore")
    width, height = (planes.height, planes.width) if swap else (planes.width, planes.height)
    return ImageHeader(width, height, planes.orientation, "TIFF", planes.note(rule.page, rule.channels))


def _decoded_planes(data: bytes, rule: PixelRule, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    _planes_header(data, rule, max_pixels)
    values, planes = read_planes(data, rule.page, rule.channels)
    pixels = eight_bits(values, rule.stretch, jointly=planes.is_color and not rule.channels)
    picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    return _array(_turned(picture, planes.orientation, rule.exif, planes.upright))


def _array(rgb: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The picture's pixels; of a large one in strips, as numpy would hold all of them twice."""
    if rgb.width * rgb.height <= _STRIP_PIXELS:
        return np.array(rgb)
    pixels = np.empty((rgb.height, rgb.width, 3), dtype=np.uint8)
    rows = max(1, _STRIP_PIXELS // 16 // rgb.width)
    for top in range(0, rgb.height, rows):
        bottom = min(top + rows, rgb.height)
        pixels[top:bottom] = np.asarray(rgb.crop((0, top, rgb.width, bottom)))
    return pixels


@contextmanager
def _damage_rejects() -> Iterator[None]:
    """Turns what Pillow says of damaged data into a reject; its warnings (bombs below our limit, odd EXIF) are moot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Image.DecompressionBombError as error:
            raise RejectError("too_many_pixels", str(error)) from None
        except _DAMAGE as error:
            raise RejectError("undecodable", f"{type(error).__name__}: {error}") from None


@contextmanager
def _identified(data: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile | None]:
    """The file as Pillow has it; None for a TIFF that `pseudolabel.tiff` reads."""
    with decoding(data), _opened_image(data, max_pixels) as image:
        yield image


@contextmanager
def _opened_image(data: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile | None]:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        if is_tiff(data):
            yield None
            return
        if has_known_signature(data[:SIGNATURE_BYTES]):
            raise RejectError("undecodable", "the header is damaged or cut off") from None
        formats = ", ".join(FORMATS)
        raise RejectError("unsupported_format", f"none of {formats}; it begins with {data[:12]!r}") from None
    with image:
        if image.width < 1 or image.height < 1:
            raise RejectError("undecodable", f"the header says {image.width}x{image.height} px")
        _check_size(image.width, image.height, max_pixels)
        yield None if needs_planes(image) else image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RejectError("too_many_pixels", f"{width}x{height} px, at most {max_pixels} are decoded")


def _header(image: ImageFile.ImageFile, data: bytes, rule: PixelRule) -> ImageHeader:
    orientation = _orientation(image, data)
    shown_by_pillow = image.format == "TIFF"
    swap = orientation in _SWAPS_SIDES and shown_by_pillow == (rule.exif == "ignore")
    width, height = (image.height, image.width) if swap else (image.width, image.height)
    return ImageHeader(width, height, orientation, "JPEG" if image.format == "MPO" else str(image.format))


def _orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF orientation; decodes the rare PNG with an EXIF chunk, which may stand behind the pixels."""
    if image.format == "PNG" and b"eXIf" in data:
        image.load()
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)  # PNG's own `getexif` always decodes
    except (*_DAMAGE, KeyError, TypeError, AttributeError):  # damaged EXIF has no say over a sound picture
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _turned(rgb: Image.Image, orientation: int, exif: ExifRule, upright_already: bool) -> Image.Image:
    if orientation == 1 or upright_already == (exif != "ignore"):
        return rgb
    return rgb.transpose((_INVERSE if upright_already else _UPRIGHT)[orientation])


def _check_mode(image: Image.Image) -> None:
    known = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr")
    if image.mode not in known and not image.mode.startswith("I;16"):
        raise RejectError("unsupported_format", f"pixels of mode {image.mode} have no defined white")


def _more_than_eight_bits(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether it takes all pixels to say if the picture can be used."""
    return image.mode.startswith("I;16") or _is_16_bit_color_png(image, data)


def _is_16_bit_color_png(image: ImageFile.ImageFile, data: bytes) -> bool:
    return image.format == "PNG" and image.mode in ("RGB", "RGBA") and data[24:25] == b"\x10"


def _to_rgb(image: ImageFile.ImageFile, data: bytes, stretch: Stretch) -> Image.Image:
    _check_mode(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(eight_bits(np.asarray(image), stretch)).convert("RGB")
    if _is_16_bit_color_png(image, data):
        check_high_bytes(np.asarray(image)[..., :3], stretch, "save it as TIFF")
    rgb = _eight_bit_rgb(image)
    return Image.fromarray(eight_bits(np.asarray(rgb), stretch, jointly=True)) if stretch == "percentile" else rgb


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    flat = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):  # in strips, to hold few copies of a large picture
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        if strip.getchannel("A").getextrema() != (255, 255):
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        flat.paste(strip.convert("RGB"), (0, top))
    return flat
