"""COCO files from the tables of a run, written as they are read: memory does not grow with the number of images.

`instances.json` has every processed image, one annotation per pseudo label, and the categories of the input;
`results.json` has the same masks in COCO's results form. The pixel extent and the area are taken from the mask itself.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pseudolabel.errors import InputError, RejectError
from pseudolabel.formats.extras import image_extras, object_extras, with_image_extra, with_object_extra
from pseudolabel.formats.files import atomic_sink
from pseudolabel.formats.unique_ids import UniqueIds
from pseudolabel.records import FORMAT_VERSION
from pseudolabel.rle_batch import Measured, measured
from pseudolabel.sources.place import plain_name

if TYPE_CHECKING:  # compiled loops, which take two seconds to load: only damaged masks and lists of counts need them
    from pseudolabel.rle import Rle

ShardTables = tuple[pa.Table, pa.Table]  # a shard's manifest and pseudo labels
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CocoOptions:
    """How the COCO file is spelled; the defaults are what most readers take.

    Args:
        category_ids: `keep` those of the input, or renumber from 0 or 1 without gaps.
        segmentation: RLE `compressed` to an ASCII string, or `uncompressed` to a list of run lengths.
        bbox: the exact extent of the `mask`, or the `source` box that the user gave.
    """

    category_ids: Literal["keep", "contiguous0", "contiguous1"] = "keep"
    segmentation: Literal["compressed", "uncompressed"] = "compressed"
    bbox: Literal["mask", "source"] = "mask"


@dataclass(frozen=True, slots=True)
class Written:
    """What went into the files."""

    images: int
    annotations: int
    category_map: dict[int, int]  # from ids of the input to ids of the file


def write_coco(
    shards: Iterable[ShardTables],
    header: Mapping[str, Any],
    instances: Path,
    results: Path | None = None,
    *,
    options: CocoOptions = CocoOptions(),
) -> Written:
    """Writes `instances`, and `results` if wanted, in one pass over the shards; no file is ever half there.

    Args:
        shards: manifest and pseudo table of one shard after the other; rows without status `ok` are no annotations.
        header: `categories`, and optionally `info` and `licenses`, of the input.
        instances: a name that ends in `.gz` is compressed; so for `results`.

    Raises:
        InputError: an id occurs twice, some rows have an id and others none, an image is unknown, or a value that
            must be a number is not one, a mask is empty or does not fit its image.
        MachineError: the folder or the disk refuses.
    """
    category_map = _category_map(header["categories"], options.category_ids)
    with ExitStack() as stack:
        into_instances = stack.enter_context(atomic_sink(instances))
        spool = stack.enter_context(tempfile.TemporaryFile(dir=instances.parent))
        into_results = stack.enter_context(atomic_sink(results)) if results else None
        ids = [
            UniqueIds(what, stack.enter_context(tempfile.TemporaryFile(dir=instances.parent)))
            for what in ("image", "annotation")
        ]
        writer = _Writer(into_instances, spool, into_results, category_map, options, *ids)
        writer.begin(header)
        for manifest, pseudo in shards:
            writer.add(manifest, pseudo)
        writer.end(header)
    return Written(writer.image_ids.count, writer.annotation_ids.count, category_map)


class _Writer:
    """Three open files, and what has to be known to go on writing them."""

    def __init__(
        self,
        instances: IO[bytes],
        spool: IO[bytes],
        results: IO[bytes] | None,
        category_map: dict[int, int],
        options: CocoOptions,
        image_ids: UniqueIds,
        annotation_ids: UniqueIds,
    ) -> None:
        self.images, self.annotations = JsonList(instances), JsonList(spool)
        self.results = JsonList(results) if results else None
        self.category_map, self.options = category_map, options
        self.image_ids, self.annotation_ids = image_ids, annotation_ids

    def begin(self, header: Mapping[str, Any]) -> None:
        self.images.sink.write(b'{"info": ' + json_bytes(info_record(header)))
        self.images.sink.write(b',\n"licenses": ' + json_bytes(header.get("licenses") or []) + b',\n"images": ')

    def add(self, manifest: pa.Table, pseudo: pa.Table) -> None:
        extras, object_extra = image_extras(manifest), object_extras(manifest)
        images = {
            row["image_key"]: with_image_extra(self._image(row), extras.get(row["image_key"], {}))
            for row in _processed(manifest)
        }
        for image in images.values():
            self.images.add(image)
        rows = [row for row in pseudo.to_pylist() if row["status"] == "ok"]
        shown = [image_of(row, images) for row in rows]
        for row, image, mask in zip(rows, shown, checked_masks(rows, shown), strict=True):
            self._annotation(row, image, mask, object_extra.get(row["annotation_id"]) or {})

    def end(self, header: Mapping[str, Any]) -> None:
        self.image_ids.check()
        self.annotation_ids.check()
        for rows in (self.images, self.annotations, self.results):
            if rows is not None:
                rows.end()
        self.annotations.sink.seek(0)
        self.images.sink.write(b',\n"annotations": ')
        shutil.copyfileobj(self.annotations.sink, self.images.sink)
        categories = [{**row, "id": self.category_map[row["id"]]} for row in header["categories"]]
        self.images.sink.write(b',\n"categories": ' + json_bytes(categories) + b"}\n")
        if self.results is not None:
            self.results.sink.write(b"\n")

    def _image(self, row: Row) -> Row:
        names = {"file_name": plain_name(row["file_name"]), "width": row["width"], "height": row["height"]}
        return {"id": self.image_ids.next(row["image_id"]), **names}

    def _annotation(self, row: Row, image: Row, mask: "CheckedMask", extra: Row) -> None:
        segmentation = self._spelled(mask.rle)
        common = {"image_id": image["id"], "category_id": self._category(row), "segmentation": segmentation}
        own_box = self.options.bbox == "source" and row["source_bbox_xywh"] is not None
        score = shortest_number(row, "score")
        annotation = {
            "id": self.annotation_ids.next(row["annotation_id"]),
            **common,
            "bbox": row["source_bbox_xywh"] if own_box else mask.bbox_xywh,
            "area": mask.area,
            "iscrowd": int(bool(row["iscrowd"])),
            "score": score,
            "attributes": label_attributes(row, score),
        }
        self.annotations.add(with_object_extra(annotation, extra))
        if self.results is not None:
            self.results.add({**common, "score": score})

    def _spelled(self, mask: "Rle") -> Row:
        plain = self.options.segmentation == "uncompressed"
        return {"size": mask["size"], "counts": run_lengths(mask) if plain else mask["counts"]}

    def _category(self, row: Row) -> int:
        if row["category_id"] not in self.category_map:
            raise InputError(f"{_name(row)}: category {row['category_id']} is not among the categories")
        return self.category_map[row["category_id"]]


class JsonList:
    """A JSON list that is written row by row, one row per line."""

    def __init__(self, sink: IO[bytes]) -> None:
        self.sink = sink
        self._before = b"[\n"

    def add(self, row: Row) -> None:
        self.sink.write(self._before + json_bytes(row))
        self._before = b",\n"

    def end(self) -> None:
        self.sink.write(b"[]" if self._before == b"[\n" else b"\n]")


def _category_map(categories: Iterable[Mapping[str, Any]], numbering: str) -> dict[int, int]:
    ids = [row["id"] for row in categories]
    if len(set(ids)) != len(ids):
        raise InputError("a category id occurs twice")
    first = 1 if numbering == "contiguous1" else 0
    return {old: old if numbering == "keep" else first + place for place, old in enumerate(sorted(ids))}


def info_record(header: Mapping[str, Any]) -> Row:
    """The source's, but for its description, which is not one of these masks."""
    info = dict(header.get("info") or {})
    if described := info.pop("description", None):
        info = {"description": "Instance masks by pseudolabel", "source_description": described, **info}
    ours = {"score_type": "expected_mask_iou", "format_version": FORMAT_VERSION, **info.get("pseudolabel", {})}
    return {**info, "pseudolabel": ours}


def _processed(manifest: pa.Table) -> Iterator[Row]:
    columns = ["image_key", "image_id", "file_name", "width", "height", "status"]
    return (row for row in manifest.select(columns).to_pylist() if row["status"] != "rejected")


def image_of(row: Row, images: Mapping[str, Row]) -> Row:
    if row["image_key"] not in images:
        raise InputError(f"image {row['image_key']}: has pseudo labels, but is not among the processed images")
    return images[row["image_key"]]


@dataclass(frozen=True, slots=True)
class CheckedMask:
    """A mask that fits its image and covers a pixel of it."""

    rle: "Rle"
    area: int
    bbox_xywh: list[int]


def checked_masks(rows: Sequence[Row], images: Sequence[Row]) -> Iterator[CheckedMask]:
    """The rows' masks, each of which has to fit its image and to cover a pixel of it.

    Raises:
        InputError: one does not, when it is its turn.
    """
    found = _measured(rows, images)
    numbers = zip(found.sound.tolist(), found.area.tolist(), found.bbox_xywh.tolist(), strict=True)
    for row, image, (sound, area, bbox_xywh) in zip(rows, images, numbers, strict=True):
        if sound and area:
            yield CheckedMask(row["segmentation"], area, bbox_xywh)
        else:
            yield _looked_into(row, image)


def _measured(rows: Sequence[Row], images: Sequence[Row]) -> Measured:
    sizes = [(image["height"], image["width"]) for image in images]
    masks = [row["segmentation"] or {"size": None, "counts": ""} for row in rows]
    fitting = [mask["size"] == list(size) for mask, size in zip(masks, sizes, strict=True)]
    return measured([mask["counts"] if fits else "" for mask, fits in zip(masks, fitting, strict=True)], sizes)


def _looked_into(row: Row, image: Row) -> CheckedMask:
    """The mask of a row that is not as we write them: nearly always an error that says why."""
    from pseudolabel import rle

    mask = checked_mask(row, image)
    return CheckedMask(mask, rle.area(mask), list(rle.bbox_xywh(mask)))


def checked_mask(row: Row, image: Row) -> "Rle":
    """The row's mask, which has to fit its image and to cover a pixel of it."""
    from pseudolabel import rle

    try:
        mask = rle.check_rle(row["segmentation"], (image["height"], image["width"]))
    except RejectError as error:
        raise InputError(f"{_name(row)}: {error.detail}") from None
    if rle.area(mask) == 0:
        raise InputError(f"{_name(row)}: the mask is empty")
    return mask


def run_lengths(mask: "Rle") -> list[int]:
    """The counts of a checked mask as the list that COCO calls uncompressed."""
    from pseudolabel.rle_codec import parse_counts

    text = np.frombuffer(mask["counts"].encode("ascii"), dtype=np.uint8)
    counts: list[int] = parse_counts(text, mask["size"][0] * mask["size"][1])[0].tolist()
    return counts


def label_attributes(row: Row, score: float) -> Row:
    """Flat extras, strings and numbers only: what CVAT and Datumaro take. What is not known is left out."""
    known = {
        "score": score,
        "box_quality": shortest_number(row, "box_quality", optional=True),
        "mask_quality": shortest_number(row, "pixel_quality", optional=True),
        "calibrated_iou": shortest_number(row, "calibrated_iou", optional=True),
        "agreement": shortest_number(row, "agreement", optional=True),
        "candidates_used": row["candidates_used"],
        "source": "+".join(row["sources"] or []) or None,
        "decision": row["decision"],
        "decision_reason": row["decision_reason"],
        "reasons": ",".join(row.get("reasons") or ()) or None,
        "provenance_id": row["provenance_id"],
        "source_bbox": _box_text(row["source_bbox_xywh"]),
    }
    return {key: value for key, value in known.items() if value is not None}


def _box_text(box_xywh: list[float] | None) -> str | None:
    return None if box_xywh is None else ",".join(f"{value:.10g}" for value in box_xywh)


def shortest_number(row: Row, column: str, *, optional: bool = False) -> Any:
    """A float32 cell as the shortest decimal that reads back to the same float32."""
    value = row[column]
    if value is None and optional:
        return None
    if value is None or not np.isfinite(value):
        raise InputError(f"{_name(row)}: {column} is {value}, no number")
    return float(str(np.float32(value)))


def _name(row: Row) -> str:
    return f"image {row['image_key']}, annotation {row['annotation_id']}"


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
