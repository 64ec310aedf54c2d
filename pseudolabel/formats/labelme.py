"""`labelme`: a JSON file beside every image, with masks as labelme has them, or as polygons.

A mask is a PNG of its box; a polygon of several parts is a shape for each, with a group of their own.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from pseudolabel import rle
from pseudolabel.formats.profile import ExportImage, ExportObject, Profile, filled, object_rings
from pseudolabel.masks import PixelMask

Row = dict[str, Any]
_VERSION = "5.5.0"  # the first that has masks and descriptions as they are here is 5.3


class LabelmeProfile(Profile):
    """A file per image; a shape of a mask is its box with a picture, or polygons."""

    takes_boxes: ClassVar[bool] = True
    about_loss: ClassVar[str] = "crowds; holes of polygons where they are filled"

    def add(self, image: ExportImage) -> None:
        path = self._json(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        shapes = [shape for one in image.objects for shape in self._shapes(one)]
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": image.name.name,
            "imageData": None,
            "imageHeight": image.size_hw[0],
            "imageWidth": image.size_hw[1],
            "source": {"file_name": image.file_name, **image.extra},
        }
        with path.open("x", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=1)

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        shapes: dict[int, list[Row]] = {}
        for shape in json.loads(self._json(image).read_text(encoding="utf-8"))["shapes"]:
            shapes.setdefault(shape["group_id"], []).append(shape)
        return [_mask(shapes[one.id], image.size_hw) for one in image.objects]

    def next_step(self, out: Path) -> str:
        return f"labelme {out / 'images'}"

    def _json(self, image: ExportImage) -> Path:
        return self.folder / "images" / image.name.with_suffix(".json")

    def _shapes(self, one: ExportObject) -> list[Row]:
        told = {
            "label": one.category.name,
            "group_id": one.id,
            "description": f"{one.score:.3f} {one.attributes.get('decision', '')}".strip(),
            "flags": {},
            "attributes": {**one.fields, **one.attributes},
        }
        if one.mask is None:
            x, y, width, height = one.box_xywh
            return [{**told, "shape_type": "rectangle", "points": [[x, y], [x + width, y + height]]}]
        if self.options.segmentation == "polygon":
            rings = object_rings(one.mask, parts="split", holes=self.options.holes)
            return [{**told, "shape_type": "polygon", "points": np.round(ring, 2).tolist()} for ring in rings]
        crop = rle.decode_crop(one.mask)
        height, width = crop.pixels.shape
        corners = [[crop.x0, crop.y0], [crop.x0 + width - 1, crop.y0 + height - 1]]  # of pixels, both ends inside
        return [{**told, "shape_type": "mask", "points": corners, "mask": _png(crop)}]


def _png(crop: PixelMask) -> str:
    stream = io.BytesIO()
    Image.fromarray(crop.pixels).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _mask(shapes: list[Row], size_hw: tuple[int, int]) -> rle.Rle | None:
    first = shapes[0]
    if first["shape_type"] == "rectangle":
        return None
    if first["shape_type"] == "polygon":
        return filled([np.array(shape["points"]).ravel().tolist() for shape in shapes], size_hw)
    (x, y), _ = first["points"]
    with Image.open(io.BytesIO(base64.b64decode(first["mask"]))) as picture:
        return rle.encode_crop(PixelMask(x, y, np.asarray(picture).astype(bool)), size_hw)
