"""YOLO's polygons: a .txt for each image, `class x1 y1 x2 y2 ...` in shares of its sides."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from pseudolabel.brought.base import Brought, Mask, Painter
from pseudolabel.brought.segmentations import painter_of
from pseudolabel.errors import InputError

_LEAST_CORNERS = 3


def read_yolo(folder: Path, paths: Sequence[Path]) -> Iterator[Brought]:
    """One mask for each line; the image is the one of the file's name.

    Raises:
        InputError: a line that is no polygon, with file, line and column.
    """
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8 text") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path.relative_to(folder).as_posix()}, line {number}"
                yield Brought(where, _painter(where, _corners(where, line.split())), image=path.stem)


def _corners(where: str, fields: Sequence[str]) -> list[float]:
    """The shares of a line's polygon; an odd one at the end is a confidence, which YOLO's own results may have."""
    values = [_number(where, column, text) for column, text in enumerate(fields[1:], start=2)]
    if len(values) % 2:
        values = values[:-1]
    if len(values) < 2 * _LEAST_CORNERS:
        raise InputError(f"{where}: expected a class and the corners of a polygon, got {len(fields)} numbers")
    return values


def _number(where: str, column: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise InputError(f"{where}, column {column}: expected a share of the image's side in [0, 1], got {text!r}")
    return value


def _painter(where: str, shares: Sequence[float]) -> Painter:
    def paint(size_hw: tuple[int, int]) -> Mask:
        height, width = size_hw
        polygon = [share * (height if place % 2 else width) for place, share in enumerate(shares)]
        return painter_of(where, [polygon])(size_hw)

    return paint
