"""`panoptic`: annotations/panoptic_SPLIT.json with a PNG per image beside it, as COCO's panoptic tools read them.

A pixel's segment is red + 256 green + 65536 blue; segments count from 1 on every image, 0 is no segment.
"""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8, UInt32
from PIL import Image

from pseudolabel import rle
from pseudolabel.files import atomic_file
from pseudolabel.formats.coco import JsonList, info_record, json_bytes
from pseudolabel.formats.extras import with_image_extra
from pseudolabel.formats.label_image import OVERLAPS, instance_numbers, masks_of_numbers, numbered_masks
from pseudolabel.formats.profile import About, ExportImage, ExportObject, ExportOptions, Profile


class PanopticProfile(Profile):
    """A JSON file per split and a picture per image."""

    takes_crowds: ClassVar[bool] = True
    one_owner: ClassVar[bool] = True
    about_loss: ClassVar[str] = f"{OVERLAPS}; boxes without a mask"

    def __init__(self, folder: Path, about: About, options: ExportOptions) -> None:
        super().__init__(folder, about, options)
        self._parts = {split: _Part(folder / "annotations" / f"panoptic_{split}.json", about) for split in about.splits}

    def add(self, image: ExportImage) -> None:
        drawn = _drawn(image)
        numbers = instance_numbers(drawn, image.size_hw)
        path = self._png(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(as_rgb(numbers)).save(path, format="PNG")
        bare = self.options.images == "none"
        masks = numbered_masks(numbers, len(drawn))
        pairs = enumerate(zip(drawn, masks, strict=True), 1)
        segments = [_segment(number, one, mask) for number, (one, mask) in pairs if mask]
        self._parts[image.split].add(image, image.file_name if bare else str(image.name), segments)

    def close(self) -> None:
        for part in self._parts.values():
            part.close()

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        with Image.open(self._png(image)) as picture:
            rgb = np.asarray(picture).astype(np.uint32)
        return masks_of_numbers(rgb @ np.array([1, 256, 65536], dtype=np.uint32), _drawn(image), image)

    def next_step(self, out: Path) -> str:
        where = f"{out / 'annotations' / f'panoptic_{self.about.splits[0]}.json'}"
        return f"python -m panopticapi.converters.panoptic2detection_coco_format --input_json_file {where} ..."

    def _png(self, image: ExportImage) -> Path:
        return self.folder / "annotations" / f"panoptic_{image.split}" / image.name.with_suffix(".png")


class _Part:
    """The JSON file of one split, open until `close`."""

    def __init__(self, path: Path, about: About) -> None:
        self._about, self._open = about, ExitStack()
        sink = self._open.enter_context(atomic_file(path))
        spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed with the stack
        self._images, self._annotations = JsonList(sink), JsonList(self._open.enter_context(spool))
        sink.write(b'{"info": ' + json_bytes(info_record({"info": about.info})))
        sink.write(b',\n"licenses": ' + json_bytes(about.licenses) + b',\n"images": ')

    def add(self, image: ExportImage, file_name: str, segments: list[dict[str, Any]]) -> None:
        record = {"id": image.id, "file_name": file_name, "width": image.size_hw[1], "height": image.size_hw[0]}
        self._images.add(with_image_extra(record, image.extra))
        png = str(image.name.with_suffix(".png"))
        self._annotations.add({"image_id": image.id, "file_name": png, "segments_info": segments})

    def close(self) -> None:
        self._images.end()
        self._annotations.end()
        sink, spool = self._images.sink, self._annotations.sink
        spool.seek(0)
        sink.write(b',\n"annotations": ')
        shutil.copyfileobj(spool, sink)
        known = [{**one.record, "id": one.id, "name": one.name, "isthing": 1} for one in self._about.categories]
        sink.write(b',\n"categories": ' + json_bytes(known) + b"}\n")
        self._open.close()


def as_rgb(numbers: UInt32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Numbers below 2**24 as the three bytes of a colour, the lowest first."""
    return np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16 & 255], axis=2).astype(np.uint8)


def _drawn(image: ExportImage) -> list[ExportObject]:
    return [one for one in image.objects if one.mask is not None]


def _segment(number: int, one: ExportObject, pixels: rle.Rle) -> dict[str, Any]:
    """What is said of a segment; its area and box are those of its pixels."""
    return {
        **one.fields,
        "id": number,
        "category_id": one.category.id,
        "area": rle.area(pixels),
        "bbox": list(rle.bbox_xywh(pixels)),
        "iscrowd": int(one.is_crowd),
        "score": one.score,
        "annotation_id": one.id,
        "attributes": one.attributes,
    }
