"""A small run in memory, to export: two shards of images with all that a label can be."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pseudolabel import records
from pseudolabel.formats.export import Exportable, ExportRequest, export
from pseudolabel.formats.profile import ExportOptions
from tests.formats.tables import HEADER, image, label, pieces, ring

SIZE_HW = (24, 32)


class DrawnPictures:
    """Pictures of one colour, in memory."""

    def stored(self, file_name: str) -> bytes:
        return _picture("JPEG" if file_name.endswith("jpg") else "PNG")

    def upright_png(self, file_name: str) -> bytes:
        return _picture("PNG")

    def path(self, file_name: str) -> str | None:
        return None


def _picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (SIZE_HW[1], SIZE_HW[0]), (10, 200, 30)).save(stream, format=kind)
    return stream.getvalue()


def square(y: int, x: int, side: int = 5) -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def tables(names: Iterable[str] = ("a.jpg", "b/a.jpg"), **more: Any) -> list[tuple[pa.Table, pa.Table]]:
    """A shard for each image; the first image has all kinds of labels, the others one."""
    shards = []
    for number, name in enumerate(names, 1):
        labels = [label(name, 100 * number, 17, square(2, 3), score=0.5)]
        if number == 1:
            labels += [
                label(name, 1, 3, ring(SIZE_HW)),
                label(name, 2, 17, pieces(SIZE_HW), decision="review", score=0.75),
                label(name, 3, 3, square(9, 9), decision="box_only"),
                label(name, 4, 3, square(12, 20), decision="ignore", decision_reason="covered_by_others"),
                label(name, 5, 3, square(14, 2), decision="ignore", decision_reason="crowd", iscrowd=True),
            ]
        manifest = records.table_from_rows([image(name, number, SIZE_HW, **more)], records.MANIFEST)
        shards.append((manifest, records.table_from_rows(labels, records.PSEUDO)))
    return shards


def exported(shards: list[tuple[pa.Table, pa.Table]], to: str, out: Path, **chosen: Any) -> dict[str, Any]:
    """Export tables; `chosen` are fields of the request or of its options."""
    own = {name: chosen.pop(name) for name in ("images", "segmentation", "parts", "holes", "ids") if name in chosen}
    request = ExportRequest(to, **chosen, options=ExportOptions(**own))
    return export(Exportable(lambda: shards, HEADER, DrawnPictures()), out, request)
