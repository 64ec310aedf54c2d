"""Rows of candidates that another program wrote, as `docs/formats.md` describes them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from pseudolabel import records
from pseudolabel.brought.base import BoxXyxy, Brought, Mask, Painter, said_id
from pseudolabel.brought.segmentations import painter_of
from pseudolabel.datasets.own_ids import id_key
from pseudolabel.errors import InputError
from pseudolabel.records import soft_mask_from_struct
from pseudolabel.registry import did_you_mean

_COLUMNS = (*records.CANDIDATES.names, "segmentation", "score")
_BATCH_ROWS = 1024


def read_row_files(paths: Sequence[Path]) -> Iterator[Brought]:
    """The rows of Parquet, Arrow or Feather files.

    Raises:
        InputError: a file that is none of these, or a row that is not what it should be.
    """
    for path in paths:
        yield from read_table(_table(path), path.name)


def read_table(table: pa.Table, name: str) -> Iterator[Brought]:
    """The rows of a table whose status, where they have one, is ok.

    Raises:
        InputError: unknown columns, none with masks, or a bad cell, with its row and column.
    """
    for column in table.column_names:
        if column not in _COLUMNS:
            raise InputError(f"{name}: unknown column {column!r}{did_you_mean(column, _COLUMNS)}")
    masks = [column for column in ("mask", "segmentation") if column in table.column_names]
    if len(masks) != 1 or not {"annotation_id", "image_key"} & set(table.column_names):
        raise InputError(
            f"{name}: expected columns annotation_id (or image_key) and one of mask and segmentation, got "
            + ", ".join(table.column_names)
        )
    row_number = 0
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            if row.get("status", "ok") == "ok":
                yield _brought(f"{name}, row {row_number}", row, masks[0])
            row_number += 1


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None) if path.suffix == ".parquet" else feather.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as {path.suffix[1:]} ({str(error).splitlines()[0][:160]})") from None


def _brought(where: str, row: Mapping[str, Any], masks: str) -> Brought:
    if row.get("source") is not None and not isinstance(row["source"], str):
        raise _bad(where, "source", "a name", row["source"])
    if row.get("knows_class") not in (None, True, False):
        raise _bad(where, "knows_class", "true or false", row["knows_class"])
    scores = [column for column in ("box_score", "score") if column in row]
    return Brought(
        where,
        _soft_painter(where, row["mask"]) if masks == "mask" else _rle_painter(where, row["segmentation"]),
        annotation_id=said_id(f"{where}, annotation_id", row.get("annotation_id")),
        image=_image(where, row.get("image_key")),
        category_id=_category(where, row),
        score=_share(where, scores[0], row[scores[0]]) if scores else None,
        box_xyxy=None if row.get("box_xyxy") is None else _box(where, row["box_xyxy"]),
        knows_class=row.get("knows_class") or False,
        source=row.get("source"),
        is_by_id=True,
    )


def _category(where: str, row: Mapping[str, Any]) -> int | None:
    value = row.get("category_id")
    key = id_key(value)
    if value is not None and not isinstance(key, int):
        raise _bad(where, "category_id", "a whole number", value)
    return key if isinstance(key, int) else None


def _image(where: str, value: Any) -> str | int | None:
    key = value if isinstance(value, str) else id_key(value)
    if key is None and value is not None:
        raise _bad(where, "image_key", "a key, a file name or an id", value)
    return key


def _soft_painter(where: str, cell: Any) -> Painter:
    def paint(size_hw: tuple[int, int]) -> Mask:
        try:
            mask = soft_mask_from_struct(cell)
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{where}, mask: {error or 'no such field'}") from None
        grid = mask.grid
        left, top, right, bottom = grid.extent_xyxy
        finite = all(math.isfinite(side) for side in (left, top, right, bottom))
        if not finite or right <= 0 or bottom <= 0 or left >= size_hw[1] or top >= size_hw[0]:
            raise InputError(
                f"{where}, mask: it covers {[left, top, right, bottom]}, its image is {size_hw[1]}x{size_hw[0]}"
            )
        return mask

    if not isinstance(cell, Mapping):
        raise _bad(where, "mask", "a mask", cell)
    return paint


def _rle_painter(where: str, cell: Any) -> Painter:
    if not isinstance(cell, Mapping):
        raise _bad(where, "segmentation", "RLE as {size, counts}", cell)
    return painter_of(where, dict(cell))


def _share(where: str, column: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _bad(where, column, "a number in [0, 1]", value)
    return float(value)


def _box(where: str, value: Any) -> BoxXyxy:
    numbers = isinstance(value, Sequence) and len(value) == 4 and all(isinstance(one, int | float) for one in value)
    if not numbers or not all(math.isfinite(one) for one in value) or value[2] <= value[0] or value[3] <= value[1]:
        raise _bad(where, "box_xyxy", "left, top, right, bottom with an area", value)
    return (float(value[0]), float(value[1]), float(value[2]), float(value[3]))


def _bad(where: str, column: str, wanted: str, got: Any) -> InputError:
    shown = "null" if got is None else repr(got)[:60]
    return InputError(f"{where}, {column}: expected {wanted}, got {shown}")
