"""What went into a shard and what came out of it, in images and in objects: nothing vanishes between the two."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel import records
from pseudolabel.candidates import COLORS
from pseudolabel.errors import InputError

Unit = Literal["image", "object"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many went in, came out and were rejected, and the rejected ones by reason."""

    n_in: int = 0
    n_ok: int = 0
    n_rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        return self.n_in == self.n_ok + self.n_rejected and sum(self.reasons.values()) == self.n_rejected


@dataclass(frozen=True, slots=True)
class Counts:
    """Images and objects of one shard or of many; `notes` counts what was used and still deserves a word."""

    images: Count = field(default_factory=Count)
    objects: Count = field(default_factory=Count)
    notes: dict[str, int] = field(default_factory=dict)

    def of(self, unit: Unit) -> Count:
        return self.images if unit == "image" else self.objects

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Counts":
        """The inverse of `as_dict`.

        Raises:
            TypeError, KeyError: it is none.
        """
        return cls(Count(**values["images"]), Count(**values["objects"]), dict(values["notes"]))


def total(counts: Iterable[Counts]) -> Counts:
    """The sum over shards."""
    several = list(counts)
    return Counts(
        _summed([one.images for one in several]),
        _summed([one.objects for one in several]),
        dict(sum((Counter(one.notes) for one in several), Counter())),
    )


def count_shard(table: pa.Table, inputs: Mapping[str, pa.Table], unit: Unit) -> Counts:
    """The counts of a stage's table.

    Args:
        table: what the stage gave; its schema's metadata may hold notes, see `records.with_notes`.
        inputs: what it read: the manifest, or (as `shard` does) the plan.
        unit: whether the table has a row for each object.
    """
    notes = records.notes_of(table)
    images, n_objects = _images(table, images_in(inputs)), objects_in(inputs)
    if unit == "object":
        return Counts(images, _object_rows(table, n_objects), notes)
    if "manifest" not in inputs:
        return Counts(images, _planned_objects(table, n_objects), notes)
    if "source" not in table.column_names:
        return Counts(images, Count(), notes)
    lost = _on_rejected_images(table, inputs["manifest"])
    n_lost = sum(lost.values())
    objects = Count(n_objects, n_objects - n_lost, n_lost, dict(lost))
    return Counts(images, objects, notes | _candidate_notes(table, inputs["manifest"]))


def images_in(inputs: Mapping[str, pa.Table]) -> int:
    """How many images the manifest (or, for `shard`, the plan) asks for."""
    table, planned = _asked(inputs)
    images = table.filter(pc.is_null(table["annotation_id"]))
    return int(images.num_rows if planned else images.filter(pc.equal(images["status"], "ok")).num_rows)


def objects_in(inputs: Mapping[str, pa.Table]) -> int:
    """How many objects: of the plan those that its reader refused, too, of the manifest those on usable images."""
    table, planned = _asked(inputs)
    refused = table.filter(pc.is_valid(table["annotation_id"])).num_rows if planned else 0
    return refused + _listed_objects(table)


def without_object_masks(manifest: pa.Table) -> pa.Table:
    """The manifest as labelling stages see it: true masks of ordinary objects are gone, crowd regions stay."""
    lists = manifest["objects"].combine_chunks()
    objects = lists.values
    fields = [objects.field(index) for index in range(objects.type.num_fields)]
    place = objects.type.get_field_index("segmentation")
    fields[place] = pc.if_else(objects.field("iscrowd"), fields[place], pa.scalar(None, pa.string()))
    stripped = pa.StructArray.from_arrays(fields, fields=list(objects.type))
    rebuilt = pa.ListArray.from_arrays(lists.offsets, stripped, type=lists.type, mask=lists.is_null())
    return manifest.set_column(manifest.schema.get_field_index("objects"), manifest.schema.field("objects"), rebuilt)


def _asked(inputs: Mapping[str, pa.Table]) -> tuple[pa.Table, bool]:
    table = inputs.get("manifest", inputs.get("plan"))
    if table is None:
        raise InputError("a stage reads the manifest or the plan")
    return table, "manifest" not in inputs


def _images(table: pa.Table, n_in: int) -> Count:
    """Every image once, whichever rows it has; rejected annotations that stand beside the images are no images."""
    rows = table.filter(pc.is_null(table["annotation_id"])) if "objects" in table.column_names else table
    reason_of = dict(zip(rows["image_key"].to_pylist(), _reasons(rows), strict=True))
    return _count(n_in, reason_of.values())


def _object_rows(table: pa.Table, n_in: int) -> Count:
    return _count(n_in, _reasons(table.filter(pc.is_valid(table["annotation_id"]))))


def _planned_objects(table: pa.Table, n_in: int) -> Count:
    refused = table.filter(pc.is_valid(table["annotation_id"]))
    return _count(n_in, [*_reasons(refused), *[None] * _listed_objects(table)])


def _listed_objects(manifest: pa.Table) -> int:
    images = manifest.filter(pc.equal(manifest["status"], "ok"))
    return int(pc.sum(pc.fill_null(pc.list_value_length(images["objects"]), 0)).as_py() or 0)


def _on_rejected_images(table: pa.Table, manifest: pa.Table) -> Counter[str]:
    """Objects of usable images that the stage rejected, by its reason for the image."""
    rejected = table.filter(pc.equal(table["status"], "rejected"))
    reason_of = dict(zip(rejected["image_key"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    usable = manifest.filter(pc.equal(manifest["status"], "ok"))
    lengths = pc.fill_null(pc.list_value_length(usable["objects"]), 0).to_pylist()
    lost: Counter[str] = Counter()
    for key, length in zip(usable["image_key"].to_pylist(), lengths, strict=True):
        if key in reason_of and length:
            lost[reason_of[key]] += length
    return lost


def _candidate_notes(table: pa.Table, manifest: pa.Table) -> dict[str, int]:
    """How many objects of images that the stage took have no candidate, and how many one of box and colours alone."""
    found = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["annotation_id"])))
    of_colors = found.filter(pc.equal(found["source"], COLORS))
    rejected = set(table.filter(pc.equal(table["status"], "rejected"))["image_key"].to_pylist())
    usable = manifest.filter(pc.equal(manifest["status"], "ok"))
    wanted = {
        one["annotation_id"]
        for key, several in zip(usable["image_key"].to_pylist(), usable["objects"].to_pylist(), strict=True)
        for one in several or ()
        if key not in rejected and not one["iscrowd"]
    }
    notes = {
        "without_candidate": len(wanted - set(found["annotation_id"].to_pylist())),
        "box_and_colors": pc.count_distinct(of_colors["annotation_id"]).as_py(),
    }
    return {name: count for name, count in notes.items() if count}


def _reasons(rows: pa.Table) -> list[str | None]:
    """The reason of each rejected row, None of any other."""
    pairs = zip(rows["status"].to_pylist(), rows["reason"].to_pylist(), strict=True)
    return [reason if status == "rejected" else None for status, reason in pairs]


def _count(n_in: int, reasons: Iterable[str | None]) -> Count:
    several = list(reasons)
    rejected = Counter(reason for reason in several if reason is not None)
    return Count(n_in, len(several) - rejected.total(), rejected.total(), dict(rejected))


def _summed(several: list[Count]) -> Count:
    reasons = sum((Counter(one.reasons) for one in several), Counter())
    return Count(
        sum(one.n_in for one in several),
        sum(one.n_ok for one in several),
        sum(one.n_rejected for one in several),
        dict(reasons.most_common()),
    )
