"""One annotation of a COCO file, checked."""

import json
from contextlib import suppress
from typing import Any

from pseudolabel import boxes
from pseudolabel.datasets.json_file import Raw
from pseudolabel.datasets.manifest import extra_json
from pseudolabel.datasets.own_ids import Key, id_key
from pseudolabel.errors import RejectError

_COLUMNS = frozenset(("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"))


# category id, box (x, y, width, height), is a crowd, and as JSON texts the segmentation and what else is said of it
Parts = tuple[Key, tuple[float, float, float, float], bool, str | None, str | None]


def object_parts(record: dict[str, Any], size_hw: tuple[int, int] | None) -> Parts:
    """The parts of an annotation.

    Raises:
        RejectError: `no_such_category`, `bad_box`, `empty_box` or `bad_crowd_flag`.
    """
    category = id_key(record.get("category_id"))
    if category is None:
        raise RejectError("no_such_category", f"category_id {ascii(record.get('category_id'))[:60]}")
    segmentation = record.get("segmentation")
    extra = None
    if not record.keys() <= _COLUMNS:
        extra = extra_json({name: value for name, value in record.items() if name not in _COLUMNS})
    bbox = record.get("bbox")
    bbox_xywh = _box_of_mask(segmentation, size_hw) if bbox is None or bbox == [] else _box(bbox)
    return category, bbox_xywh, _crowd(record.get("iscrowd")), _text(segmentation), extra


def _box(value: Any) -> tuple[float, float, float, float]:
    """A checked box; numbers may stand in quotes."""
    if type(value) is list and str in map(type, value):
        with suppress(ValueError):  # the check below says what stands there
            value = [float(number) if type(number) is str else number for number in value]
    return boxes.check_xywh(value)


def _box_of_mask(segmentation: Any, size_hw: tuple[int, int] | None) -> tuple[float, float, float, float]:
    """The box around a mask, for an annotation that has no other."""
    value = json.loads(segmentation) if type(segmentation) is Raw else segmentation
    try:
        if type(value) is dict and size_hw is not None:
            from pseudolabel import rle  # with its compiled loops: for the few files that lack boxes

            return boxes.check_xywh([float(side) for side in rle.bbox_xywh(rle.check_rle(value, size_hw))])
        if type(value) is list and value:
            return boxes.check_xywh(boxes.around_polygons(value if type(value[0]) is list else [value]))
    except RejectError as error:
        raise RejectError("bad_box", f"no bbox, and none around the segmentation: {error.detail}") from None
    raise RejectError("bad_box", "neither a bbox nor a segmentation that one could be drawn around")


def _crowd(flag: Any) -> bool:
    if flag is None or flag == 0 or flag == "0":
        return False
    if flag == 1 or flag == "1":
        return True
    raise RejectError("bad_crowd_flag", f"iscrowd is {ascii(flag)[:60]}, expected 0 or 1")


def _text(segmentation: Any) -> str | None:
    """A mask as JSON text. Whether it can be painted is left to the `shard` stage; what cannot be one is none."""
    if type(segmentation) is Raw:
        return str(segmentation) if len(segmentation) > 2 else None
    if type(segmentation) not in (list, dict) or not segmentation:
        return None
    return json.dumps(segmentation, separators=(",", ":"))
