"""Untrusted images: opened without leaving their folder, limited before decoding, decoded to RGB by one rule.

* Content decides the format; only JPEG (MPO: its first picture), PNG, WebP, BMP, TIFF and GIF are decoded, and no
  other program is ever started. Of several frames or pages the first counts.
* `exif="transpose"` turns and mirrors the pixels as the EXIF orientation says, so that they are the picture that a
  viewer shows; `exif="ignore"` gives them as stored. An orientation that cannot be read counts as 1, upright.
* Gray becomes three equal channels; 16-bit gray is scaled by 255/65535, 16-bit colours keep their high byte; CMYK and
  YCCK are converted without a colour profile (no profile is applied to any image). What is transparent lies on white.
  32-bit and floating-point pixels, which have no defined white, are refused.

Faults of content raise `RejectError`; faults of the machine (EIO, ESTALE, EMFILE, no memory) pass through as the
`OSError` or `MemoryError` that they are, because trying again may cure them.
"""

import errno
import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from pseudolabel.crash_note import decoding
from pseudolabel.errors import RejectError

ExifRule = Literal["transpose", "ignore"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_BYTES = 1 << 30
MAX_PIXELS = 178_956_970  # where Pillow itself calls an image a bomb

_STRIP_PIXELS = 1 << 22

SIGNATURE_BYTES = 12
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)

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

_OPEN_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ELOOP: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.EISDIR: "not_a_file",
    errno.ENAMETOOLONG: "bad_name",
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says about its picture: size in pixels after the EXIF rule, EXIF orientation 1 to 8, format."""

    width: int
    height: int
    orientation: int
    format: str

    @property
    def size_hw(self) -> tuple[int, int]:
        return (self.height, self.width)

    @property
    def swaps_sides(self) -> bool:
        """Whether the two EXIF rules give this picture different sizes."""
        return self.orientation in _SWAPS_SIDES


def has_known_signature(first_bytes: bytes) -> bool:
    """Whether a file that begins so claims to be of one of `FORMATS`; `SIGNATURE_BYTES` are enough to tell."""
    is_webp = first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP"
    return is_webp or first_bytes.startswith(_SIGNATURES)


def check_name(file_name: object) -> str:
    """An untrusted file name as a plain relative POSIX path: the image key.

    Raises:
        RejectError: `bad_name` or `outside_root`.
    """
    if not isinstance(file_name, str) or not file_name.strip("/."):
        raise RejectError("bad_name", f"not a file name: {_shown(file_name)}")
    if "\0" in file_name or "\\" in file_name or "://" in file_name or not _is_text(file_name):
        raise RejectError("bad_name", f"not a relative path with forward slashes: {_shown(file_name)}")
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts:
        raise RejectError("outside_root", f"leads out of the folder of images: {_shown(file_name)}")
    if len(file_name.encode()) > 4096 or any(len(part.encode()) > 255 for part in path.parts):
        raise RejectError("bad_name", f"too long for a file name: {_shown(file_name)}")
    return str(path)


def read_file(root: Path, file_name: str, *, max_bytes: int = MAX_BYTES, first_bytes: int | None = None) -> bytes:
    """The bytes of a regular file below `root`; never blocks on a pipe, never follows a link out of `root`.

    Args:
        root: the folder of images.
        file_name: untrusted; a string, relative to `root`.
        max_bytes: a larger file is refused unread.
        first_bytes: read no more than these.

    Raises:
        RejectError: `missing`, `permission`, `not_a_file`, `outside_root`, `bad_name`, `empty_file` or `too_large`.
        OSError: the machine's fault; trying again may help.
    """
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, check_name(file_name)))
    if os.path.commonpath([real, real_root]) != real_root:
        raise RejectError("outside_root", f"a link leads out of the folder of images: {_shown(file_name)}")
    with _opened(real) as file:
        return _read_regular(file, max_bytes, first_bytes)


def read_header(data: bytes, *, exif: ExifRule = "transpose", max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Size and orientation, without decoding.

    Raises:
        RejectError: `unsupported_format`, `undecodable` or `too_many_pixels`.
    """
    with _damage_rejects(), _identified(data, max_pixels) as image:
        return _header(image, data, exif)


def decode(data: bytes, *, exif: ExifRule = "transpose", max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """The picture as RGB, by the rules of this module.

    Raises:
        RejectError: `unsupported_format`, `undecodable` (a truncated file, too) or `too_many_pixels`.
        MemoryError: passes through.
    """
    with _damage_rejects(), _identified(data, max_pixels) as image:
        header = _header(image, data, exif)
        upright_already = image.format == "TIFF"  # Pillow turns TIFF alone, and while decoding
        image.load()
        rgb = _turned(_to_rgb(image), header.orientation, exif, upright_already)
        pixels: UInt8[np.ndarray, "h w 3"] = np.array(rgb)
    if pixels.shape[:2] != header.size_hw:
        raise RejectError("undecodable", f"the header says {header.size_hw}, the data {pixels.shape[:2]}")
    return pixels


def check_decodes(data: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
    """Pass if `decode` would give a picture; of a JPEG only the coefficients are decoded, which finds what is cut off.

    Raises:
        RejectError: as for `decode`.
    """
    with _damage_rejects(), _identified(data, max_pixels) as image:
        _check_mode(image)
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def load_image(
    root: Path, file_name: str, *, exif: ExifRule, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a file below `root`: `read_file`, then `decode`, with what they raise."""
    return decode(read_file(root, file_name, max_bytes=max_bytes), exif=exif, max_pixels=max_pixels)


def _shown(name: object) -> str:
    return ascii(name)[:120]


def _is_text(name: str) -> bool:
    """False for the half characters by which Python spells bytes that are not UTF-8; no table can hold them."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        reason = _OPEN_REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise RejectError(reason, os.strerror(error.errno or 0)) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_regular(descriptor: int, max_bytes: int, first_bytes: int | None) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RejectError("not_a_file", "not a regular file")
    if status.st_size > max_bytes and first_bytes is None:
        raise RejectError("too_large", f"{status.st_size} bytes, at most {max_bytes} are read")
    wanted = status.st_size if first_bytes is None else min(first_bytes, status.st_size)
    data = os.read(descriptor, wanted)
    while len(data) < wanted and (more := os.read(descriptor, wanted - len(data))):
        data += more
    if not data:
        raise RejectError("empty_file", "0 bytes")
    return data


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
def _identified(data: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    with decoding(data), _opened_image(data, max_pixels) as image:
        yield image


@contextmanager
def _opened_image(data: bytes, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        if has_known_signature(data[:SIGNATURE_BYTES]):
            raise RejectError("undecodable", "the header is damaged or cut off") from None
        formats = ", ".join(FORMATS)
        raise RejectError("unsupported_format", f"none of {formats}; it begins with {data[:12]!r}") from None
    with image:
        if image.width < 1 or image.height < 1:
            raise RejectError("undecodable", f"the header says {image.width}x{image.height} px")
        if image.width * image.height > max_pixels:
            raise RejectError("too_many_pixels", f"{image.width}x{image.height} px, at most {max_pixels} are decoded")
        yield image


def _header(image: ImageFile.ImageFile, data: bytes, exif: ExifRule) -> ImageHeader:
    orientation = _orientation(image, data)
    shown_by_pillow = image.format == "TIFF"
    swap = orientation in _SWAPS_SIDES and (exif == "ignore" if shown_by_pillow else exif == "transpose")
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
    if orientation == 1 or upright_already == (exif == "transpose"):
        return rgb
    return rgb.transpose((_INVERSE if upright_already else _UPRIGHT)[orientation])


def _check_mode(image: Image.Image) -> None:
    known = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr")
    if image.mode not in known and not image.mode.startswith("I;16"):
        raise RejectError("unsupported_format", f"pixels of mode {image.mode} have no defined white")


def _to_rgb(image: Image.Image) -> Image.Image:
    _check_mode(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(_scaled_16_bit(image)).convert("RGB")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _scaled_16_bit(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    scaled = np.empty((image.height, image.width), dtype=np.uint8)
    values = np.asarray(image)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        scaled[top : top + rows] = (values[top : top + rows].astype(np.uint32) * 255 + 32767) // 65535
    return scaled


def _on_white(image: Image.Image) -> Image.Image:
    flat = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):  # in strips, to hold few copies of a large picture
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        if strip.getchannel("A").getextrema() != (255, 255):
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        flat.paste(strip.convert("RGB"), (0, top))
    return flat
