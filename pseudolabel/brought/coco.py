"""COCO's results (a list) and instances (an object with annotations)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pseudolabel.brought.base import Brought, said_id
from pseudolabel.brought.segmentations import painter_of
from pseudolabel.datasets.own_ids import Key, id_key
from pseudolabel.errors import InputError


def read_coco(path: Path) -> Iterator[Brought]:
    """Every entry with a segmentation. `annotation_id` says which object it is for, else `id` may.

    Of instances the file's own images say what an image is called; of results the id has to be the run's.

    Raises:
        InputError: no JSON of COCO's form; an entry without image or segmentation.
    """
    content = _content(path)
    if isinstance(content, list):
        return (_entry(path, f"result {place}", one, {}) for place, one in enumerate(content))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        names = {id_key(one["id"]): one["file_name"] for one in content.get("images") or [] if _is_named(one)}
        return (_entry(path, f"annotation {place}", one, names) for place, one in enumerate(content["annotations"]))
    raise InputError(f"{path}: expected COCO: a list of results, or an object with annotations")


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{path}: not usable: brackets are nested thousands deep") from None


def _is_named(image: Any) -> bool:
    return isinstance(image, dict) and isinstance(image.get("file_name"), str) and "id" in image


def _entry(path: Path, place: str, one: Any, names: Mapping[Key | None, str]) -> Brought:
    where = f"{path.name}, {place}"
    if not isinstance(one, dict):
        raise InputError(f"{where}: expected an object, got {type(one).__name__}")
    if one.get("segmentation") in (None, [], {}):
        raise InputError(f"{where}, segmentation: there is none; boxes alone are no masks")
    image = one.get("image_id")
    return Brought(
        where,
        painter_of(where, one["segmentation"]),
        annotation_id=said_id(f"{where}, annotation_id", one["annotation_id"])
        if "annotation_id" in one
        else id_key(one.get("id")),
        image=names.get(id_key(image), image if isinstance(image, str) else _whole(id_key(image))),
        category_id=_whole(id_key(one.get("category_id"))),
        score=score_of(where, one.get("score")),
        is_by_id="annotation_id" in one,
    )


def score_of(where: str, value: Any) -> float | None:
    """A score as a number of [0, 1]; None where there is none.

    Raises:
        InputError: it is no such number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{where}, score: expected a number in [0, 1], got {value!r}")
    return float(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
