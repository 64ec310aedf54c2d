"""One COCO file of an export, written image by image and read again in the same order."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from pseudolabel import rle
from pseudolabel.files import atomic_file
from pseudolabel.formats.coco import JsonList, info_record, json_bytes, run_lengths
from pseudolabel.formats.extras import with_image_extra
from pseudolabel.formats.profile import About, ExportImage, ExportObject, ExportOptions, object_rings

Row = dict[str, Any]
_ANNOTATIONS = b'"annotations": ['


class CocoPart:
    """A COCO file that is open for writing until `close`.

    Args:
        path: of the file.
        about: classes, info and licences.
        options: `segmentation`, and for polygons `holes`.
    """

    def __init__(self, path: Path, about: About, options: ExportOptions) -> None:
        self.path, self._about, self._options = path, about, options
        self._open = ExitStack()
        sink = self._open.enter_context(atomic_file(path))
        self._images = JsonList(sink)
        spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed with the stack
        self._annotations = JsonList(self._open.enter_context(spool))
        self._lines: Iterator[bytes] | None = None
        self.open_again: Callable[[], IO[bytes]] = lambda: path.open("rb")
        header = {"info": about.info}
        sink.write(b'{"info": ' + json_bytes(info_record(header)) + b',\n"licenses": ' + json_bytes(about.licenses))
        sink.write(b',\n"images": ')

    def add(self, image: ExportImage, file_name: str) -> None:
        """Write an image under a name of its file, and its annotations."""
        height, width = image.size_hw
        record = {"id": image.id, "file_name": file_name, "width": width, "height": height}
        self._images.add(with_image_extra(record, image.extra))
        for one in image.objects:
            self._annotations.add(self._annotation(one, image))

    def close(self) -> None:
        """Put annotations and categories behind the images."""
        sink, spool = self._images.sink, self._annotations.sink
        self._images.end()
        self._annotations.end()
        spool.seek(0)
        sink.write(b',\n"annotations": ')
        shutil.copyfileobj(spool, sink)
        categories = [{**one.record, "id": one.id, "name": one.name} for one in self._about.categories]
        sink.write(b',\n"categories": ' + json_bytes(categories) + b"}\n")
        self._open.close()

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        """The masks of the next image, which has to be the one that followed in `add`."""
        if self._lines is None:
            self._lines = self._annotation_lines()
        rows = [json.loads(next(self._lines).rstrip(b",\n")) for _ in image.objects]
        return [
            rle.from_segmentation(row["segmentation"], image.size_hw) if row["segmentation"] else None for row in rows
        ]

    def _annotation(self, one: ExportObject, image: ExportImage) -> Row:
        record = {
            "id": one.id,
            "image_id": image.id,
            "category_id": one.category.id,
            "segmentation": segmentation_of(one, self._options),
            "bbox": list(one.box_xywh),
            "area": rle.area(one.mask) if one.mask else one.box_xywh[2] * one.box_xywh[3],
            "iscrowd": int(one.is_crowd),
            "score": one.score,
        }
        return {**one.fields, **record, "attributes": one.attributes}

    def _annotation_lines(self) -> Iterator[bytes]:
        with self.open_again() as file:
            for line in file:
                if line.startswith(_ANNOTATIONS):
                    break
            yield from file


def segmentation_of(one: ExportObject, options: ExportOptions) -> Any:
    """A mask as COCO has it; an empty list for a box alone. A crowd is run lengths where others are polygons."""
    if one.mask is None:
        return []
    if options.segmentation == "rle":
        return one.mask
    if options.segmentation == "uncompressed" or one.is_crowd:
        return {"size": one.mask["size"], "counts": run_lengths(one.mask)}
    rings = object_rings(one.mask, parts="split", holes=options.holes)
    return [np.round(ring, 2).ravel().tolist() for ring in rings]
