"""Tables of a run as images with labels, as an export profile takes them: chosen, named, split and numbered."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Protocol

from pseudolabel import rle
from pseudolabel.candidates import is_usable
from pseudolabel.errors import InputError
from pseudolabel.formats.coco import ShardTables, checked_mask, label_attributes, shortest_number
from pseudolabel.formats.extras import image_extras, object_extras, with_object_extra
from pseudolabel.formats.file_names import Folded, clashing_names, safe_name, unlike_others
from pseudolabel.formats.profile import Category, ExportImage, ExportObject, Ids
from pseudolabel.sources.place import plain_name

Row = dict[str, Any]
_SPLITS = {"valid": "val", "validation": "val", "val": "val", "dev": "val", "test": "test", "testing": "test"}
_IMAGE_COLUMNS = ["image_key", "image_id", "file_name", "width", "height", "exif_orientation", "split"]
_OWN = ("score", "iscrowd", "attributes", "bbox", "area", "segmentation", "id", "image_id", "category_id")


class Pictures(Protocol):
    """Where the pictures of a run come from."""

    def stored(self, file_name: str) -> bytes:
        """The file as it is."""

    def upright_png(self, file_name: str) -> bytes:
        """The picture in the frame of the masks, as a PNG without a rotation of its own."""

    def path(self, file_name: str) -> str | None:
        """Where the file stands on this machine's disk; None where it stands elsewhere."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which labels go out.

    Args:
        decisions: of those that are no crowds.
        min_score: least score, on the calibrated scale where there is one.
        boxes: whether an object may go out with its box alone.
        crowds: whether crowds may.
    """

    decisions: Sequence[str]
    min_score: float
    boxes: bool
    crowds: bool

    def refusal(self, row: Row) -> str:
        """Why a label stays behind; empty where it goes out."""
        if row["iscrowd"]:
            return "" if self.crowds else "crowds"
        decision = decision_of(row)
        if decision not in self.decisions:
            return f"decision {decision}"
        if score_of(row) < self.min_score:
            return "a score below the limit"
        return "boxes without a mask" if decision == "box_only" and not self.boxes else ""


@dataclass
class ImageMaker:
    """Makes the images of shards; the same ones, in the same order, whenever it is made anew."""

    choice: Choice
    categories: Mapping[int, Category]  # by the ids of the tables
    naming: "Naming"
    pictures: Pictures
    left_out: Counter[str] = field(default_factory=Counter)
    _image_ids: int = 0
    _object_ids: int = 0

    def images(self, shards: Iterable[ShardTables]) -> Iterator[ExportImage]:
        """Images in the order of the tables, one shard in memory."""
        for manifest, pseudo in shards:
            labels = defaultdict(list)
            for row in pseudo.to_pylist():
                if row["status"] == "ok":
                    labels[row["image_key"]].append(row)
            extras, own = image_extras(manifest), object_extras(manifest)
            for row in image_rows(manifest):
                yield self._image(row, labels[row["image_key"]], extras.get(row["image_key"]) or {}, own)

    def _image(self, row: Row, labels: list[Row], extra: Row, own: Mapping[int, Row]) -> ExportImage:
        self._image_ids += 1
        kept = []
        for label in labels:
            why = self.choice.refusal(label)
            self.left_out[why] += bool(why)
            if not why:
                kept.append(self._object(label, row, own.get(label["annotation_id"]) or {}))
        turned = is_turned(row)
        load = self.pictures.upright_png if turned else self.pictures.stored
        return ExportImage(
            key=row["image_key"],
            id=self._image_ids if row["image_id"] is None else row["image_id"],
            name=self.naming.name(row),
            file_name=plain_name(row["file_name"]),
            size_hw=(row["height"], row["width"]),
            split=self.naming.split(row),
            objects=tuple(kept),
            extra=extra,
            load=partial(load, row["file_name"]),
            locate=partial(self._located, row),
        )

    def _located(self, row: Row) -> str | None:
        return None if is_turned(row) else self.pictures.path(row["file_name"])

    def _object(self, label: Row, image: Row, extra: Row) -> ExportObject:
        self._object_ids += 1
        score = score_of(label)
        known = {"iscrowd": int(bool(label["iscrowd"])), "score": score, "attributes": label_attributes(label, score)}
        record = with_object_extra(known, extra)
        alone = decision_of(label) == "box_only" and not label["iscrowd"]
        mask = None if alone else checked_mask(label, image)
        box = (label["source_bbox_xywh"] or label["bbox_xywh"]) if mask is None else rle.bbox_xywh(mask)
        return ExportObject(
            id=self._object_ids if label["annotation_id"] is None else label["annotation_id"],
            category=self._category(label),
            mask=mask,
            box_xywh=tuple(box),
            score=score,
            is_crowd=bool(label["iscrowd"]),
            attributes=record["attributes"],
            fields={name: value for name, value in record.items() if name not in _OWN},
        )

    def _category(self, label: Row) -> Category:
        if label["category_id"] not in self.categories:
            raise InputError(
                f"image {label['image_key']}, annotation {label['annotation_id']}: category {label['category_id']} is "
                "not among the categories"
            )
        return self.categories[label["category_id"]]


@dataclass(frozen=True)
class Naming:
    """Names and splits of images, each a function of the image's row alone.

    Args:
        clashing: what `clashing_names` found of all.
        train_share: of the images that are to learn from, the rest being `val`; None for the split of the data.
    """

    clashing: Folded
    train_share: float | None

    @classmethod
    def of(
        cls, shards: Iterable[ShardTables], train_share: float | None, *, wants_val: bool
    ) -> tuple["Naming", set[str]]:
        """The naming of all images, and the splits that occur; a pass over the manifests.

        Args:
            wants_val: without a `train_share`, and where the data have one split alone, nine in ten are to learn from.
        """
        owns: set[str] = set()
        drawn: set[str] = set()
        share = 0.9 if train_share is None else train_share
        clashing = clashing_names(_raw_names(shards, owns, drawn, share))
        takes_own = train_share is None and not (wants_val and len(owns) < 2)
        return (cls(clashing, None), owns) if takes_own else (cls(clashing, share), drawn)

    def name(self, row: Row) -> PurePosixPath:
        """The name of an image's file."""
        return unlike_others(_raw_name(row), row["image_key"], self.clashing)

    def split(self, row: Row) -> str:
        """`train`, `val` or `test`."""
        return _own_split(row) if self.train_share is None else _drawn_split(row, self.train_share)


def image_rows(manifest: Any) -> Iterator[Row]:
    """The rows of images that can be worked on."""
    rows = manifest.select([*_IMAGE_COLUMNS, "status", "annotation_id"]).to_pylist()
    return (row for row in rows if is_usable(row))


def is_turned(row: Row) -> bool:
    """Whether a viewer turns the stored picture, so that a copy of the file might not lie under its masks."""
    return row["exif_orientation"] not in (None, 0, 1)


def numbered_categories(records: Sequence[Mapping[str, Any]], ids: Ids) -> dict[int, Category]:
    """The classes by their ids in the tables, in the order of those; `contiguous` counts from 1.

    A class that is numbered anew has its former id as `source_id`.

    Raises:
        InputError: an id occurs twice.
    """
    ordered = sorted(records, key=lambda record: record["id"])
    known = {}
    for place, record in enumerate(ordered):
        number = record["id"] if ids == "keep" else place + 1
        more = {} if number == record["id"] else {"source_id": record["id"]}
        known[record["id"]] = Category(number, place, str(record["name"]), {**record, **more})
    if len(known) != len(ordered):
        raise InputError("a category id occurs twice")
    return known


def decision_of(row: Row) -> str:
    """A label's decision; what nobody decided on, such as a student's finds, is kept."""
    return str(row["decision"] or "keep")


def score_of(row: Row) -> float:
    """The expected IoU of a mask, calibrated where `fuse` had a calibration."""
    calibrated = shortest_number(row, "calibrated_iou", optional=True)
    return float(shortest_number(row, "score") if calibrated is None else calibrated)


def _raw_names(shards: Iterable[ShardTables], owns: set[str], drawn: set[str], share: float) -> Iterator[PurePosixPath]:
    """The names, and on the way which splits there are by either rule."""
    for manifest, _ in shards:
        for row in image_rows(manifest):
            owns.add(_own_split(row))
            drawn.add(_drawn_split(row, share))
            yield _raw_name(row)


def _raw_name(row: Row) -> PurePosixPath:
    name = safe_name(plain_name(row["file_name"]))
    return name.with_suffix(".png") if is_turned(row) else name


def _own_split(row: Row) -> str:
    return _SPLITS.get(str(row["split"]).lower(), "train")


def _drawn_split(row: Row, train_share: float) -> str:
    key = row["image_key"].encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(b"split:" + key, digest_size=8).digest()
    return "train" if int.from_bytes(digest, "big") < train_share * 2**64 else "val"
