"""Masks in memory, by annotation id."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from pseudolabel.brought.base import Brought, FullMask, Mask, Painter, said_id
from pseudolabel.brought.segmentations import painter_of
from pseudolabel.errors import InputError


def read_values(masks: Mapping[Any, Any]) -> Iterator[Brought]:
    """Arrays of the image's size (boolean, or probabilities), RLE or polygons; a list of arrays or RLE are several.

    Raises:
        InputError: a key that is no annotation id, or a value of another kind.
    """
    for key, value in masks.items():
        number = said_id("masks", int(key) if isinstance(key, np.integer) else key)
        if number is None:
            raise InputError("masks: expected annotation ids for keys, got None")
        several = isinstance(value, list) and value and isinstance(value[0], np.ndarray | dict)
        for place, one in enumerate(value if several else [value]):
            where = f"masks[{key!r}]" + (f"[{place}]" if several else "")
            yield Brought(where, _painter(where, one), annotation_id=number, is_by_id=True)


def _painter(where: str, value: Any) -> Painter:
    if isinstance(value, dict | list):
        return painter_of(where, value)
    if not isinstance(value, np.ndarray):
        raise InputError(f"{where}: expected an array, RLE or polygons, got {type(value).__name__}")

    def paint(size_hw: tuple[int, int]) -> Mask:
        return FullMask(0, 0, _checked(where, value, size_hw))

    return paint


def _checked(where: str, value: Shaped[np.ndarray, "..."], size_hw: tuple[int, int]) -> Any:
    if value.shape != size_hw:
        raise InputError(f"{where}: expected the image's height and width {size_hw}, got {value.shape}")
    if value.dtype == np.bool_:
        return value.astype(np.float32)
    if not np.issubdtype(value.dtype, np.floating):
        raise InputError(f"{where}: expected booleans, or probabilities as floats, got {value.dtype}")
    if not (np.isfinite(value).all() and value.min() >= 0 and value.max() <= 1):
        raise InputError(f"{where}: expected probabilities in [0, 1], got {value.min():.3g} to {value.max():.3g}")
    return value.astype(np.float32)
