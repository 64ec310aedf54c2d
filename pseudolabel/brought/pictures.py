"""PNGs named by annotation id: one mask of the image's size each."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from pseudolabel.brought.base import Brought, FullMask, Mask, Painter, said_id
from pseudolabel.errors import InputError


def read_pictures(paths: Sequence[Path]) -> Iterator[Brought]:
    """One mask for each file: black is background, white foreground, and gray a probability between.

    A picture whose only values are 0 and 1 is a mask of these.

    A name is the id as the boxes file has it, a number or a text.

    Raises:
        InputError: a name that is no annotation id.
    """
    for path in paths:
        yield Brought(path.name, _painter(path), annotation_id=said_id(str(path), path.stem), is_by_id=True)


def _painter(path: Path) -> Painter:
    def paint(size_hw: tuple[int, int]) -> Mask:
        values = _values(path)
        if values.shape != size_hw:
            raise InputError(
                f"{path}: is {values.shape[1]}x{values.shape[0]}, its image {size_hw[1]}x{size_hw[0]}; "
                "masks are of the image as the run's EXIF rule turns it"
            )
        return FullMask(0, 0, values)

    return paint


def _values(path: Path) -> Float32[np.ndarray, "h w"]:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            if image.mode not in ("1", "L", "P"):
                raise InputError(f"{path}: expected a gray or two-valued PNG, got mode {image.mode}")
            cells: UInt8[np.ndarray, "h w"] = np.array(image.convert("L") if image.mode == "1" else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable PNG ({error})") from None
    if image.mode == "P" or cells.max() <= 1:  # indices: 0 is background
        return (cells > 0).astype(np.float32)
    return cells.astype(np.float32) / 255
