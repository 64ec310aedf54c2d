"""labelme (and X-AnyLabeling, AnyLabeling): one JSON file per image, with `shapes`.

Rectangles, rotated ones, polygons, circles and masks are objects, with the box around them; points and lines are not.
Shapes of one label and one `group_id` are the parts of one object.
"""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pseudolabel import boxes
from pseudolabel.datasets.json_file import read_object
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.own_ids import id_key
from pseudolabel.datasets.sheets import Drawn, Sheet, SheetDataset
from pseudolabel.datasets.xml_file import printable_name
from pseudolabel.errors import InputError, RejectError

Row = dict[str, Any]
_AREAS = ("rectangle", "polygon", "rotation", "circle", "mask")


class LabelmeDataset(SheetDataset):
    """A folder of labelme files, or one of them."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Reads every JSON file.

        Raises:
            InputError: no such file, or one that is damaged.
        """
        if annotations is None:
            raise InputError("the labelme reader needs a folder of JSON files: --annotations DIR")
        folder = annotations if annotations.is_dir() else annotations.parent
        paths = sorted(annotations.rglob("*.json")) if annotations.is_dir() else [annotations]
        if not paths:
            raise InputError(f"{annotations}: holds no JSON files")
        super().__init__(images_root, [_read_sheet(folder, path) for path in paths], options)


def _read_sheet(folder: Path, path: Path) -> Sheet:
    name = path.relative_to(folder).as_posix()
    sheet = Sheet(printable_name(name), stem=str(PurePosixPath(name).with_suffix("")))
    try:
        content = read_object(path, {})
    except InputError as error:
        sheet.error = RejectError("bad_record", str(error))
        return sheet
    if not isinstance(content.get("shapes"), list):
        sheet.error = RejectError("bad_record", "no labelme file: 'shapes' is not a list")
        return sheet
    sheet.file_name = str(content.get("imagePath") or "")
    sheet.size_hw = _size_hw(content)
    sheet.objects = _objects(content["shapes"])
    flags = {flag: on for flag, on in (content.get("flags") or {}).items() if on}
    sheet.extra = {"flags": flags} if flags else {}
    return sheet


def _size_hw(content: Row) -> tuple[int, int] | None:
    height, width = id_key(content.get("imageHeight")), id_key(content.get("imageWidth"))
    return (height, width) if type(height) is int and type(width) is int and height and width else None


def _objects(shapes: Sequence[Any]) -> list[Drawn | RejectError]:
    """One object for every shape, or for all shapes of a label and group together."""
    found: dict[Any, Drawn | RejectError] = {}
    for place, shape in enumerate(shapes):
        group = shape.get("group_id") if isinstance(shape, dict) else None
        key = (shape.get("label"), str(group)) if group is not None else place
        try:
            one = _drawn(shape)
        except RejectError as error:
            found[(place, "refused")] = error
            continue
        earlier = found.get(key)
        found[key] = _joined(earlier, one) if isinstance(earlier, Drawn) else one
    return list(found.values())


def _drawn(shape: Any) -> Drawn:
    if not isinstance(shape, dict) or not str(shape.get("label") or "").strip():
        raise RejectError("no_such_category", "a shape without label")
    kind = shape.get("shape_type") or "polygon"
    if kind not in _AREAS:
        raise RejectError("bad_annotation", f"a {str(kind)[:40]} is no object with a box")
    points = _points(shape.get("points"))
    if kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(points[0], points[1])
        points = [[x - radius, y - radius], [x + radius, y + radius]]
    if kind == "mask":  # its points are its first and its last pixel
        points = [points[0], [points[-1][0] + 1, points[-1][1] + 1]]
    outline = [value for point in points for value in point]
    polygons = [outline] if kind in ("polygon", "rotation") and len(points) > 2 else []
    extra = {name: shape[name] for name in ("group_id", "description", "flags", "attributes") if shape.get(name)}
    return Drawn(str(shape["label"]).strip(), boxes.around_polygons([outline]), polygons, extra)


def _points(points: Any) -> list[list[float]]:
    try:
        pairs = [[float(x), float(y)] for x, y in points]
    except (TypeError, ValueError):
        raise RejectError("bad_box", f"points are {ascii(points)[:80]}") from None
    if len(pairs) < 2:
        raise RejectError("bad_box", f"{len(pairs)} points are no box")
    return pairs


def _joined(first: Drawn, second: Drawn) -> Drawn:
    corners = [[x, y, x + width, y + height] for x, y, width, height in (first.bbox_xywh, second.bbox_xywh)]
    polygons = [*first.polygons, *second.polygons] if first.polygons and second.polygons else []
    return Drawn(first.label, boxes.around_polygons(corners), polygons, first.extra)
