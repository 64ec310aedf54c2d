"""Label Studio's own JSON: a list of tasks, boxes in per cent of the picture.

Rectangles (turned ones by their extent), ellipses and polygons are objects; brushes, key points and choices are not. Of
several annotations of one task the first that was not cancelled counts; a file without any annotation is read by its
predictions. Per cent become pixels by the size of the picture itself.
"""

import math
from pathlib import Path
from typing import Any

from pseudolabel import boxes
from pseudolabel.datasets.json_file import read_array
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.sheets import Drawn, Sheet, SheetDataset
from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources.names import named_like_image

Row = dict[str, Any]
_KINDS = {
    "rectanglelabels": "rectangle",
    "rectangle": "rectangle",
    "polygonlabels": "polygon",
    "polygon": "polygon",
    "ellipselabels": "ellipse",
    "ellipse": "ellipse",
}
_NO_OBJECTS = ("choices", "labels", "textarea", "rating", "relation", "taxonomy", "number", "datetime", "pairwise")


class LabelStudioDataset(SheetDataset):
    """A project's export in the format "JSON"."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Reads the file.

        Raises:
            InputError: it is not a list of tasks.
        """
        if annotations is None:
            raise InputError("the Label Studio reader needs a file: --annotations FILE.json")
        tasks: list[Any] = []
        read_array(annotations, lambda _, task: tasks.append(task))
        drawn = any(_results(task, "annotations") for task in tasks)
        member = "annotations" if drawn else "predictions"
        notes = [] if drawn else [f"{annotations}: no task has annotations; its predictions are read"]
        several = sum(len(_usable(task, member)) > 1 for task in tasks)
        notes += [f"{several} tasks have several {member}; of each the first is read"] if several else []
        sheets = [_sheet(place, task, member) for place, task in enumerate(tasks)]
        super().__init__(images_root, sheets, options, notes)


def _usable(task: Any, member: str) -> list[Row]:
    listed = task.get(member) if isinstance(task, dict) else None
    rows = listed if isinstance(listed, list) else []
    return [row for row in rows if isinstance(row, dict) and not row.get("was_cancelled")]


def _results(task: Any, member: str) -> list[Any]:
    usable = _usable(task, member)
    results = usable[0].get("result") if usable else None
    return results if isinstance(results, list) else []


def _sheet(place: int, task: Any, member: str) -> Sheet:
    sheet = Sheet(f"task[{place}]", in_fractions=True)
    data = task.get("data") if isinstance(task, dict) else None
    name = _image_of(data if isinstance(data, dict) else {})
    if not name:
        sheet.error = RejectError("bad_record", f"task[{place}].data names no image")
        return sheet
    sheet.file_name = name
    regions = [one for one in _results(task, member) if isinstance(one, dict) and one.get("type") not in _NO_OBJECTS]
    sheet.objects = [_object(one) for one in regions]
    sheet.extra = {"own_id": task["id"]} if isinstance(task.get("id"), int) else {}
    return sheet


def _image_of(data: Row) -> str:
    """The value that looks like an image's name; `image` first, whatever it looks like."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    named = [value for value in texts.values() if named_like_image(value.partition("?")[0]) or "?d=" in value]
    return texts.get("image") or next(iter(named), "")


def _object(region: Row) -> Drawn | RejectError:
    try:
        kind = _KINDS.get(str(region.get("type")))
        if kind is None:
            raise RejectError("bad_annotation", f"a region of type {str(region.get('type'))[:40]} is no box or polygon")
        value = region.get("value")
        outline = _outline(kind, value if isinstance(value, dict) else {}, _aspect(region))
        polygons = [outline] if kind == "polygon" else []
        extra = {"score": region["score"]} if isinstance(region.get("score"), int | float) else {}
        return Drawn(_label(region), boxes.around_polygons([outline]), polygons, extra)
    except RejectError as error:
        return error


def _label(region: Row) -> str:
    value = region.get("value") or {}
    lists = [
        value.get(key)
        for key in (str(region.get("type")), "rectanglelabels", "polygonlabels", "ellipselabels", "labels")
    ]
    labels = next((one for one in lists if isinstance(one, list) and one), None)
    if labels is None:
        raise RejectError("no_such_category", "a region without label")
    return str(labels[0])


def _aspect(region: Row) -> float:
    """Height of the picture by its width; a rectangle is turned in pixels."""
    sides = [region.get("original_height"), region.get("original_width")]
    height, width = (side if isinstance(side, int | float) and side > 0 else None for side in sides)
    return height / width if height and width else 1.0


def _outline(kind: str, value: Row, aspect: float) -> list[float]:
    """Points in fractions of the picture."""
    try:
        if kind == "polygon":
            return [float(number) / 100 for point in value["points"] for number in point]
        x, y = float(value["x"]) / 100, float(value["y"]) / 100
        if kind == "ellipse":
            rx, ry = float(value["radiusX"]) / 100, float(value["radiusY"]) / 100
            return [x - rx, y - ry, x + rx, y + ry]
        return [x, y, *_far_corners(x, y, value, aspect)]
    except (KeyError, TypeError, ValueError) as error:
        raise RejectError("bad_box", f"{kind}: bad or missing {error}") from None


def _far_corners(x: float, y: float, value: Row, aspect: float) -> list[float]:
    """The other corners of a rectangle, turned clockwise around its first one."""
    width, height = float(value["width"]) / 100, float(value["height"]) / 100
    degrees = float(value.get("rotation") or 0)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners: list[float] = []
    for along, down in ((width, 0.0), (width, height), (0.0, height)):
        corners += [x + along * cos - down * aspect * sin, y + along / aspect * sin + down * cos]
    return corners
