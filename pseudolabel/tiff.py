"""TIFF files of several planes: which there are, and the pixels of one page and of one or three channels.

Pages of one picture each are Pillow's. OME's and ImageJ's stacks, samples that Pillow does not know and 16-bit colours
are read with tifffile, an optional dependency; without it stacks and unknown samples are refused with the words to
install it, and 16-bit colours keep their high bytes.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageFile

from pseudolabel.errors import RejectError
from pseudolabel.stretch import check_high_bytes

INSTALL = "install tifffile:  pip install 'pseudolabel[microscopy]'"
_MAX_STACK_BYTES = 4 << 30
_BITS, _DESCRIPTION, _ORIENTATION, _SUBFILE = 258, 270, 274, 254
# what tifffile raises for damaged files, besides its own error
_DAMAGE = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, OSError, RuntimeError),
    *(ZeroDivisionError, AssertionError, NotImplementedError, EOFError, struct.error, zlib.error),
)
_REDUCED = 1  # of a page: a smaller copy of another one


@dataclass(frozen=True, slots=True)
class Planes:
    """What a TIFF has.

    Args:
        height: of every plane, in pixels.
        width: likewise.
        pages: of which one is read; depths, times, or pages without a meaning.
        channels: of which one or three are read.
        is_color: the channels are red, green, blue (and alpha) and belong together.
        orientation: EXIF's, 1 to 8.
        upright: whether the planes come turned as the orientation says.
    """

    height: int
    width: int
    pages: int
    channels: int
    is_color: bool
    orientation: int
    upright: bool

    def note(self, page: int | None, channels: Sequence[int]) -> str:
        """What is read of several where nobody chose; empty where somebody did or there is one."""
        said = []
        if self.pages > 1 and page is None and not (channels and self.channels == 1):
            said.append(f"{self.pages} pages: page 1 is read; choose with --page, or up to three with --channels")
        if self.channels > 1 and not self.is_color and not channels:
            said.append(f"{self.channels} channels: channel 1 is read; choose one or three with --channels")
        return "; ".join(said)


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@cache
def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError:
        return None
    import logging

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read is told by what it raises
    return tifffile


def needs_planes(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow's picture of a TIFF is not all that it holds: several planes, or pixels without a white."""
    if image.format != "TIFF":
        return False
    return _is_stack(image) or image.mode in ("F", "I") or _has_deep_colors(image) or _frames(image) > 1


def _is_stack(image: ImageFile.ImageFile) -> bool:
    description = str(_tags(image).get(_DESCRIPTION, ""))[:2000]
    return "ImageJ=" in description or "<OME" in description


def _has_deep_colors(image: ImageFile.ImageFile) -> bool:
    return image.mode in ("RGB", "RGBA", "RGBX", "CMYK") and max(_tags(image).get(_BITS, (8,))) > 8


def _frames(image: ImageFile.ImageFile) -> int:
    return int(getattr(image, "n_frames", 1))


def _tags(image: ImageFile.ImageFile) -> Any:
    return getattr(image, "tag_v2", {})


def planes_of(data: bytes) -> Planes:
    """What is there to choose from.

    Raises:
        RejectError: `unsupported_format` or `undecodable`.
    """
    return _opened(data).planes


def read_planes(data: bytes, page: int | None, channels: Sequence[int]) -> tuple[Shaped[np.ndarray, "h w *c"], Planes]:
    """The pixels that were chosen, gray (h, w) or colours (h, w, 3), of whatever type they are.

    Args:
        page: from 1; None for the first.
        channels: from 1, one or three; where there is one channel alone, pages take their place. None for the first,
            or for the colours.

    Raises:
        RejectError: `unsupported_format`, there is no such page or channel; `undecodable`.
    """
    stack = _opened(data)
    planes = stack.planes
    as_channels = bool(channels) and planes.channels == 1 and planes.pages > 1
    _check(page or 1, planes.pages, "page")
    for channel in channels:
        _check(channel, planes.pages if as_channels else planes.channels, "channel")
    if planes.is_color and not channels:
        return stack.read(page or 1, None), planes
    if as_channels:
        chosen = [stack.read(channel, 1) for channel in channels]
    else:
        chosen = [stack.read(page or 1, channel) for channel in channels or (1,)]
    return (chosen[0] if len(chosen) == 1 else np.stack(chosen, axis=-1)), planes


def _check(number: int, count: int, what: str) -> None:
    if number > count:
        raise RejectError("unsupported_format", f"there is no {what} {number}: the file has {count}")


def _opened(data: bytes) -> "_ByTifffile | _ByPillow":
    """The TIFF by tifffile where Pillow does not have all of it, else by Pillow."""
    module = _tifffile()
    try:
        image = Image.open(io.BytesIO(data), formats=["TIFF"])
    except Image.UnidentifiedImageError:
        if module is None:
            raise RejectError("unsupported_format", f"a TIFF of pixels that Pillow does not know; {INSTALL}") from None
        return _ByTifffile(data, module)
    if _is_stack(image) and module is None and _frames(image) == 1:
        raise RejectError("unsupported_format", f"an OME or ImageJ TIFF, perhaps of several planes; {INSTALL}")
    if module is None or not (_is_stack(image) or _has_deep_colors(image)):
        return _ByPillow(image)
    return _ByTifffile(data, module)


@contextmanager
def _damage_rejects(damage: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turns what tifffile says of damaged data, or of a codec that is not installed, into a reject."""
    try:
        yield
    except damage as error:
        reason = "unsupported_format" if "imagecodecs" in str(error) else "undecodable"
        raise RejectError(reason, f"{type(error).__name__}: {error}") from None


class _ByTifffile:
    """The first series of a file."""

    def __init__(self, data: bytes, module: Any) -> None:
        self._damage = (module.TiffFileError, *_DAMAGE)
        with _damage_rejects(self._damage):
            self._series = module.TiffFile(io.BytesIO(data)).series[0]
            self._axes = str(self._series.axes)
            self._sizes = dict(zip(self._axes, self._series.shape, strict=True))
            page = self._series.keyframe
            tag = page.tags.get(_ORIENTATION)
            self._is_color = page.photometric.name in ("RGB", "YCBCR") and self._sizes.get("S", 1) in (3, 4)
        orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
        if not {"Y", "X"} <= self._sizes.keys() or len(self._sizes) != len(self._axes):
            raise RejectError("unsupported_format", f"a TIFF of axes {self._axes} is no picture")
        self.planes = self._planes(orientation)

    def _planes(self, orientation: int) -> Planes:
        sizes = self._sizes
        pages = math.prod(size for axis, size in sizes.items() if axis not in "YXSC")
        if self._is_color:
            return Planes(sizes["Y"], sizes["X"], pages * sizes.get("C", 1), sizes["S"], True, orientation, False)
        channels = sizes.get("S", 1) * sizes.get("C", 1)
        return Planes(sizes["Y"], sizes["X"], pages, channels, False, orientation, False)

    def read(self, page: int, channel: int | None) -> Shaped[np.ndarray, "h w *c"]:
        """A plane; without a channel, its colours."""
        values = self._array()
        order = [axis for axis in self._axes if axis not in "YXSC"]
        color = channel is None or self.planes.is_color
        inner = ["C"] if "C" in self._sizes else []
        samples = ["S"] if "S" in self._sizes else []
        wanted = [*order, *inner, "Y", "X", *samples] if color else [*order, *inner, *samples, "Y", "X"]
        values = values.transpose([self._axes.index(axis) for axis in wanted])
        if color:
            picture = values.reshape(-1, *values.shape[-3:])[page - 1]
            colors: Shaped[np.ndarray, "h w *c"] = picture[..., :3] if channel is None else picture[..., channel - 1]
            return colors
        planes = values.reshape(self.planes.pages, self.planes.channels, *values.shape[-2:])
        plane: Shaped[np.ndarray, "h w"] = planes[page - 1, (channel or 1) - 1]
        return plane

    def _array(self) -> Any:
        if self._series.nbytes > _MAX_STACK_BYTES:
            raise RejectError("too_large", f"the stack takes {self._series.nbytes / 2**30:.1f} GiB of memory")
        with _damage_rejects(self._damage):
            return self._series.asarray()


class _ByPillow:
    """The pages of one size, gray or colours of eight bits."""

    def __init__(self, image: ImageFile.ImageFile) -> None:
        self._image, size = image, image.size
        self._pages = [page for page in range(_frames(image)) if self._is_page(page, size)]
        image.seek(0)
        gray = image.mode in ("1", "L", "P", "F", "I", "LA") or image.mode.startswith("I;16")
        orientation = _tags(image).get(_ORIENTATION, 1)
        known = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
        self._deep = _has_deep_colors(image)
        self.planes = Planes(size[1], size[0], len(self._pages), 1 if gray else 3, not gray, known, True)

    def read(self, page: int, channel: int | None) -> Shaped[np.ndarray, "h w *c"]:
        self._image.seek(self._pages[page - 1])
        if self.planes.is_color:
            colors = np.asarray(self._image.convert("RGB"))
            if self._deep:
                check_high_bytes(colors, "auto", INSTALL)
            return colors if channel is None else colors[..., channel - 1]
        return np.asarray(self._image.convert("L") if self._image.mode in ("P", "LA") else self._image)

    def _is_page(self, page: int, size: tuple[int, int]) -> bool:
        self._image.seek(page)
        return self._image.size == size and not int(_tags(self._image).get(_SUBFILE, 0)) & _REDUCED
