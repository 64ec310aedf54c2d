"""Which form a path or a value has, and what it holds."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pseudolabel.brought.base import Brought
from pseudolabel.brought.coco import read_coco
from pseudolabel.brought.pictures import read_pictures
from pseudolabel.brought.rows import read_row_files, read_table
from pseudolabel.brought.values import read_values
from pseudolabel.brought.yolo import read_yolo
from pseudolabel.errors import InputError
from pseudolabel.registry import no_such_file

ROW_SUFFIXES = (".parquet", ".arrow", ".feather")
FORMS = (
    "a COCO file of results or instances (.json), a folder of PNGs named by annotation id, rows (.parquet, .arrow, "
    ".feather, or a folder of them), or a folder of YOLO's .txt with polygons"
)


def read_masks(masks: Path | Mapping[int, Any] | pa.Table | Iterable[Mapping[str, Any]]) -> Iterator[Brought]:
    """Every mask that is brought, in the order of the file (of a folder: of the names).

    Args:
        masks: a path in one of `FORMS`; masks by annotation id (boolean or probability arrays of the image's size, or
            RLE; a list of them for several candidates); or rows, as `docs/formats.md` has them.

    Raises:
        InputError: no such path or form, or an entry that is damaged.
    """
    if isinstance(masks, Mapping):
        return read_values(masks)
    if isinstance(masks, str | Path):
        return _read_path(Path(masks))
    return read_table(masks if isinstance(masks, pa.Table) else _rows(masks), "rows")


def _rows(rows: Any) -> pa.Table:
    several = list(rows) if isinstance(rows, Iterable) else [rows]
    strange = next((one for one in several if not isinstance(one, Mapping)), None)
    if strange is not None or rows is None:
        raise InputError(
            f"masks: expected a path, masks by annotation id ({{17: mask}}), or rows, got {type(strange).__name__}"
            + (f" in {type(rows).__name__}" if strange is not rows else "")
        )
    names = dict.fromkeys(name for one in several for name in one)
    return pa.table({name: _column(name, [one.get(name) for one in several]) for name in names})


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"rows, column {name!r}: {str(error).splitlines()[0][:160]}") from None


def _read_path(path: Path) -> Iterator[Brought]:
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise InputError(f"--masks {no_such_file(path, 'file or folder')}")
    if path.suffix == ".json":
        return read_coco(path)
    if path.suffix in ROW_SUFFIXES:
        return read_row_files([path])
    raise InputError(f"--masks {path}: expected {FORMS}")


def _read_folder(folder: Path) -> Iterator[Brought]:
    """By the kind of files that are in it; two kinds are refused."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "_")))
    kinds = {
        "PNG": [path for path in files if path.suffix.lower() == ".png"],
        "rows": [path for path in files if path.suffix in ROW_SUFFIXES],
        "YOLO": [path for path in files if path.suffix == ".txt" and path.name != "classes.txt"],
    }
    there = [kind for kind, found in kinds.items() if found]
    if len(there) != 1:
        found = " and ".join(f"{len(kinds[kind])} {kind}" for kind in there) or "no such files"
        raise InputError(f"--masks {folder}: {found} in it; expected {FORMS}")
    if there == ["PNG"]:
        return read_pictures(kinds["PNG"])
    return read_row_files(kinds["rows"]) if there == ["rows"] else read_yolo(folder, kinds["YOLO"])
