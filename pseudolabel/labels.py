"""Pseudo labels as arrays, pictures, COCO and Arrow: what a run holds, or one picture in memory."""

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Self, get_args, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image
from pydantic import Field

from pseudolabel import records, rle
from pseudolabel.boxes import xywh_to_xyxy
from pseudolabel.candidates import ManifestImage
from pseudolabel.config import Config, parse_config
from pseudolabel.errors import ConfigError
from pseudolabel.formats.coco import write_coco
from pseudolabel.fusion.decisions import Decision
from pseudolabel.registry import did_you_mean
from pseudolabel.report.overlay import (
    DrawnObject,
    contact_sheet,
    even_places,
    fitting_scale,
    object_picture,
    overlay_picture,
    sheet_layout,
)

Row = dict[str, Any]
Pixels = UInt8[np.ndarray, "h w 3"]
STAGE = "labels"
_OBJECT_PX = 640  # side of the picture of one object


class _Filter(Config):
    """The arguments of `Labels.filter`."""

    decision: list[str] | None
    min_score: float | None
    class_name: str | None
    image: str | None


class _Shown(Config):
    """The arguments of `Labels.show`."""

    image: str | None
    object: int | None
    scale: float | None = Field(gt=0, le=64)
    objects: int = Field(ge=1)


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """One object with its mask and what is known of it."""

    image: str
    annotation_id: int | None
    class_name: str
    score: float  # expected IoU of the mask with the true one
    decision: str | None  # keep, review, box_only or ignore; None of a student's own finds
    box_xyxy: tuple[float, float, float, float]  # the mask's tight box
    rle: rle.Rle

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """At the size of its image."""
        return rle.decode(self.rle)


@dataclass(frozen=True)
class Labels:
    """The pseudo labels of some images, in the order of the run's tables.

    Args:
        table: rows of `records.PSEUDO`.
        images: by key; those without a label are there, too.
        categories: `{"id", "name"}` of every class.
        load_pixels: the picture of an image's key, for `show`.
        header: `info` and `licenses` of the data, for COCO.
    """

    table: pa.Table
    images: Mapping[str, ManifestImage]
    categories: Sequence[Mapping[str, Any]]
    load_pixels: Callable[[str], Pixels] | None = None
    header: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_image(cls, rows: Sequence[Row], rgb: Pixels, categories: Sequence[Mapping[str, Any]]) -> Self:
        """The labels of one picture in memory, from rows of `records.PSEUDO` without image key and status."""
        image = ManifestImage("image", "image", (rgb.shape[0], rgb.shape[1]), (), 1)
        full = [{**row, "image_key": image.key, **records.ok(STAGE)} for row in rows]
        table = records.table_from_rows(full, records.PSEUDO)
        return cls(table, {image.key: image}, categories, lambda _: rgb)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[PseudoLabel]:
        return (self._one(row) for row in self.table.to_pylist())

    @overload
    def __getitem__(self, place: int) -> PseudoLabel: ...

    @overload
    def __getitem__(self, place: slice) -> "Labels": ...

    def __getitem__(self, place: int | slice) -> "PseudoLabel | Labels":
        """The label at a place, or those of a slice."""
        places = range(len(self))
        if isinstance(place, slice):
            return self._part(self.table.take(pa.array(places[place], pa.int64())), self.images)
        return self._one(self.table.slice(places[place], 1).to_pylist()[0])

    def __repr__(self) -> str:
        counts = Counter(self.decisions)
        told = ", ".join(f"{count} {decision or 'undecided'}" for decision, count in counts.most_common())
        return f"<Labels: {len(self)} objects on {len(self.images)} images{': ' if told else ''}{told}>"

    @property
    def boxes(self) -> Float64[np.ndarray, "n 4"]:
        """Tight boxes of the masks: left, top, right, bottom in pixels, ends exclusive."""
        return self._corners("bbox_xywh")

    @property
    def given_boxes(self) -> Float64[np.ndarray, "n 4"]:
        """The boxes that were given, or agreed on where none were; NaN for a student's own finds."""
        return self._corners("source_bbox_xywh")

    @property
    def scores(self) -> Float32[np.ndarray, " n"]:
        """Expected IoU of each mask with the true one, calibrated where `fuse` had a calibration."""
        column = pc.coalesce(self.table["calibrated_iou"], self.table["score"])
        return np.asarray(column.to_numpy(), dtype=np.float32)

    @property
    def decisions(self) -> list[str | None]:
        """`keep`, `review`, `box_only` or `ignore`; None for a student's own finds."""
        decisions: list[str | None] = self.table["decision"].to_pylist()
        return decisions

    @property
    def class_names(self) -> list[str]:
        """The class of every object."""
        return [self._names[number] for number in self.table["category_id"].to_pylist()]

    @property
    def annotation_ids(self) -> list[int | None]:
        """The ids of the boxes file; None where objects were found without boxes."""
        ids: list[int | None] = self.table["annotation_id"].to_pylist()
        return ids

    def masks(self, image: str | None = None) -> Bool[np.ndarray, "n h w"]:
        """The masks on one image, at its size.

        Args:
            image: its key; may be left out where there is one image alone.

        Raises:
            ConfigError: no such image, or none is named and there are several.
        """
        key = self._key(image)
        found = self._of(key)["segmentation"].to_pylist()
        size_hw = self.images[key].size_hw
        return np.stack([rle.decode(mask) for mask in found]) if found else np.zeros((0, *size_hw), dtype=np.bool_)

    def filter(
        self,
        *,
        decision: str | Sequence[str] | None = None,
        min_score: float | None = None,
        class_name: str | None = None,
        image: str | None = None,
    ) -> "Labels":
        """The labels for which all that is said is true.

        Raises:
            ConfigError: an unknown decision, class or image, or a value of another type.
        """
        decision = [decision] if isinstance(decision, str) else decision
        asked = {"decision": decision, "min_score": min_score, "class_name": class_name, "image": image}
        min_score = parse_config(_Filter, asked, where="filter").min_score
        chosen = np.ones(len(self), dtype=bool)
        if decision is not None:
            chosen &= np.isin(np.array(self.decisions, dtype=object).astype(str), _decisions(decision))
        if min_score is not None:
            chosen &= self.scores >= min_score
        if class_name is not None:
            _check_known("class", class_name, self._names.values())
            chosen &= np.array(self.class_names, dtype=object) == class_name
        images = self.images
        if image is not None:
            images = {self._key(image): images[image]}
            chosen &= self.table["image_key"].to_numpy() == image
        return self._part(self.table.filter(pa.array(chosen)), images)

    def _part(self, table: pa.Table, images: Mapping[str, ManifestImage]) -> "Labels":
        return Labels(table, images, self.categories, self.load_pixels, self.header)

    def to_arrow(self) -> pa.Table:
        """All columns, as docs/formats.md describes them."""
        return self.table

    def to_coco(self) -> Row:
        """COCO's annotation format with scores and decisions: what `fuse` writes to instances.json."""
        manifest = records.table_from_rows([_image_row(image) for image in self.images.values()], records.MANIFEST)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "instances.json"
            write_coco([(manifest, self.table)], {**self.header, "categories": self.categories}, path)
            content: Row = json.loads(path.read_bytes())
        return content

    def show(
        self, image: str | None = None, *, object: int | None = None, scale: float | None = None, objects: int = 36
    ) -> Image.Image:
        """The picture of one image with outlines, classes and scores, of one object, or a sheet of objects.

        Args:
            image: its key; where none is named and there are several images, the picture is a sheet of objects at even
                steps from the worst score to the best.
            object: the annotation id of the one object to show, large.
            scale: pixels of the picture per pixel of the image; None for at most 2 and 1600 pixels along a side.
            objects: how many there are on a sheet, at most.

        Raises:
            ConfigError: no such image or object, nothing to show, a value of another type or out of its range, or the
                labels know no pixels.
        """
        asked = {"image": image, "object": object, "scale": scale, "objects": objects}
        wanted = parse_config(_Shown, asked, where="show")
        if self.load_pixels is None:
            raise ConfigError("these labels know no pixels: make them by a run or by label_image")
        if wanted.object is not None:
            return self._object(wanted.object)
        if image is None and len(self.images) != 1:
            return self._sheet(wanted.objects)
        key = self._key(image)
        drawn = [self._drawn(row) for row in self._of(key).to_pylist() if not row["iscrowd"]]
        pixels = self.load_pixels(key)
        return Image.fromarray(overlay_picture(pixels, drawn, scale=wanted.scale or fitting_scale(pixels.shape[:2])))

    def _object(self, number: int) -> Image.Image:
        rows = self.table.filter(pc.equal(self.table["annotation_id"], number)).to_pylist()
        if not rows:
            raise ConfigError(f"no object has the annotation id {number}")
        return Image.fromarray(object_picture(self._pixels(rows[0]), self._drawn(rows[0]), side_px=_OBJECT_PX))

    def _sheet(self, count: int) -> Image.Image:
        """Objects by score; the images are opened one after the other."""
        places = [place for place in np.argsort(self.scores, kind="stable") if not self.table["iscrowd"][place].as_py()]
        chosen = [int(places[at]) for at in even_places(len(places), count)]
        if not chosen:
            raise ConfigError("there is no object to show")
        columns, side_px = sheet_layout(len(chosen))
        rows = self.table.take(chosen).to_pylist()
        cells: dict[int, Pixels] = {}
        for key, of_image in groupby(sorted(enumerate(rows), key=lambda one: one[1]["image_key"]), _key_of):
            pixels = self._pixels({"image_key": key})
            cells |= {at: object_picture(pixels, self._drawn(row), side_px=side_px) for at, row in of_image}
        return Image.fromarray(contact_sheet([cells[at] for at in sorted(cells)], columns=columns))

    def _pixels(self, row: Row) -> Pixels:
        assert self.load_pixels is not None, "show has looked"
        return self.load_pixels(row["image_key"])

    def _drawn(self, row: Row) -> DrawnObject:
        return drawn_label(row, self._names[row["category_id"]])

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows of a single image; of several it shows `repr`."""
        if len(self.images) != 1 or self.load_pixels is None:
            return None
        stream = io.BytesIO()
        self.show().save(stream, format="PNG")
        return stream.getvalue()

    @cached_property
    def _names(self) -> dict[int, str]:
        return {row["id"]: str(row["name"]) for row in self.categories}

    def _one(self, row: Row) -> PseudoLabel:
        x, y, width, height = row["bbox_xywh"]
        return PseudoLabel(
            image=row["image_key"],
            annotation_id=row["annotation_id"],
            class_name=self._names[row["category_id"]],
            score=row["score"] if row["calibrated_iou"] is None else row["calibrated_iou"],
            decision=row["decision"],
            box_xyxy=(x, y, x + width, y + height),
            rle=row["segmentation"],
        )

    def _corners(self, column: str) -> Float64[np.ndarray, "n 4"]:
        rows = [row or [np.nan] * 4 for row in self.table[column].to_pylist()]
        return xywh_to_xyxy(np.array(rows, dtype=np.float64).reshape(-1, 4))

    def _of(self, key: str) -> pa.Table:
        return self.table.filter(pc.equal(self.table["image_key"], key))

    def _key(self, image: str | None) -> str:
        if image is None and len(self.images) == 1:
            return next(iter(self.images))
        if image is None:
            raise ConfigError(f"there are {len(self.images)} images: name one, such as {next(iter(self.images), '')!r}")
        _check_known("image", image, self.images)
        return image


def _key_of(entry: tuple[int, Row]) -> str:
    return str(entry[1]["image_key"])


def drawn_label(row: Row, class_name: str) -> DrawnObject:
    """A row of `records.PSEUDO` with the text that stands beside it in pictures."""
    x, y, width, height = row["source_bbox_xywh"] or row["bbox_xywh"]
    decision = "" if row["decision"] in ("keep", None) else f" {row['decision']}"
    text = f"{class_name} {row['score']:.2f}{decision}"
    return DrawnObject(row["segmentation"], text, (x, y, x + width, y + height))


def _image_row(image: ManifestImage) -> Row:
    height, width = image.size_hw
    row = {"image_key": image.key, "image_id": image.image_id, "file_name": image.file_name}
    return row | {"width": width, "height": height, **records.ok(STAGE)}


def _decisions(names: Sequence[str]) -> list[str]:
    for name in names:
        _check_known("decision", name, get_args(Decision))
    return list(names)


def _check_known(what: str, name: str, known: Any) -> None:
    if not isinstance(name, str):
        raise ConfigError(f"{what}: expected a name, got {name!r:.60}")
    if name not in known:
        raise ConfigError(f"no {what} is called {name!r}{did_you_mean(name, list(known))}")
