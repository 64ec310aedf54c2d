"""CVAT for images 1.1: one XML file with an `<image>` for every picture.

Boxes, polygons, ellipses and masks are objects, with the box around them; a turned box counts by its extent. Points,
polylines, cuboids and skeletons are not. Tracks belong to CVAT for video, which is refused.
"""

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from pseudolabel import boxes
from pseudolabel.datasets.options import ReadOptions
from pseudolabel.datasets.own_ids import id_key
from pseudolabel.datasets.sheets import Drawn, Sheet, SheetDataset
from pseudolabel.datasets.xml_file import printable_name, read_xml
from pseudolabel.errors import InputError, RejectError

_MAX_XML_BYTES = 1 << 30
_SHAPES = ("box", "polygon", "ellipse", "mask", "polyline", "points", "cuboid", "skeleton")


class CvatDataset(SheetDataset):
    """CVAT's XML file, or a folder with such files."""

    def __init__(
        self, images_root: Path | None, annotations: Path | None, options: ReadOptions = ReadOptions()
    ) -> None:
        """Reads the file.

        Raises:
            InputError: it is not CVAT's XML of images.
        """
        if annotations is None:
            raise InputError("the CVAT reader needs its XML: --annotations annotations.xml")
        files = sorted(annotations.rglob("*.xml")) if annotations.is_dir() else [annotations]
        if not files:
            raise InputError(f"{annotations}: holds no XML files")
        super().__init__(images_root, [sheet for file in files for sheet in _sheets(file)], options)


def _sheets(path: Path) -> list[Sheet]:
    try:
        root = read_xml(path.parent, path.name, max_bytes=_MAX_XML_BYTES)
    except RejectError as error:
        raise InputError(f"{path}: {error.detail}") from None
    if root.find("track") is not None:
        raise InputError(f"{path}: this is CVAT for video; export the task as 'COCO 1.0' or 'CVAT for images 1.1'")
    if root.tag != "annotations" or root.find("image") is None:
        raise InputError(f"{path}: not CVAT's XML of images: no <image> in <{root.tag[:60]}>")
    return [_sheet(path, image) for image in root.iterfind("image")]


def _sheet(path: Path, image: ET.Element) -> Sheet:
    sizes = [id_key(image.get(side)) for side in ("height", "width")]
    size_hw = (sizes[0], sizes[1]) if type(sizes[0]) is int and type(sizes[1]) is int else None
    sheet = Sheet(f"{printable_name(path.name)} image {image.get('id')}", image.get("name", ""), size_hw=size_hw)
    sheet.objects = [_object(shape) for shape in image if shape.tag in _SHAPES]
    return sheet


def _object(shape: ET.Element) -> Drawn | RejectError:
    try:
        label = shape.get("label", "").strip()
        if not label:
            raise RejectError("no_such_category", f"a {shape.tag} without label")
        outline = _outline(shape)
        polygons = [outline] if shape.tag == "polygon" else []
        return Drawn(label, boxes.around_polygons([outline]), polygons, _extra(shape))
    except RejectError as error:
        return error


def _outline(shape: ET.Element) -> list[float]:
    if shape.tag == "box":
        left, top, right, bottom = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
        return _turned([left, top, right, top, right, bottom, left, bottom], float(shape.get("rotation") or 0))
    if shape.tag == "polygon":
        return [number for point in shape.get("points", "").split(";") for number in _pair(point)]
    if shape.tag == "ellipse":
        x, y, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
        return [x - rx, y - ry, x + rx, y + ry]
    if shape.tag == "mask":
        left, top, width, height = _numbers(shape, "left", "top", "width", "height")
        return [left, top, left + width, top + height]
    raise RejectError("bad_annotation", f"a {shape.tag} is no object with a box")


def _turned(corners: list[float], degrees: float) -> list[float]:
    """The corners of a box turned clockwise around its centre, as CVAT does."""
    if not degrees:
        return corners
    x0, y0 = (corners[0] + corners[4]) / 2, (corners[1] + corners[5]) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = zip(corners[::2], corners[1::2], strict=True)
    return [
        value
        for x, y in points
        for value in (x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos)
    ]


def _numbers(shape: ET.Element, *names: str) -> list[float]:
    try:
        return [float(shape.get(name, "")) for name in names]
    except ValueError:
        raise RejectError("bad_box", f"{', '.join(names)} are {[shape.get(name) for name in names]}") from None


def _pair(point: str) -> tuple[float, float]:
    try:
        x, y = point.split(",")
        return float(x), float(y)
    except ValueError:
        raise RejectError("bad_box", f"a point of a polygon is {point[:60]!r}") from None


def _extra(shape: ET.Element) -> dict[str, Any]:
    own = {str(item.get("name")): (item.text or "").strip() for item in shape.iterfind("attribute")}
    flags = {name: shape.get(name) for name in ("occluded", "group_id") if shape.get(name) not in (None, "0")}
    return {"attributes": own | flags} if own or flags else {}
