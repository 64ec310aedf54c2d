"""What the source of a run says of images and objects beyond the manifest's columns, on its way into the output."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel.datasets.own_ids import id_key, numbered

Row = dict[str, Any]


def image_extras(manifest: pa.Table) -> dict[str, Row]:
    """By image key: licence, addresses, dates and what else the source's image record has."""
    if "image_extra" not in manifest.column_names:
        return {}
    told = manifest.select(["image_key", "image_extra"]).filter(pc.is_valid(manifest["image_extra"]))
    return {row["image_key"]: json.loads(row["image_extra"]) for row in told.to_pylist()}


def object_extras(manifest: pa.Table) -> dict[int, Row]:
    """By annotation id: the object's own id, attributes and what else the source says of it."""
    if (
        "objects" not in manifest.column_names
        or manifest.schema.field("objects").type.value_type.get_field_index("extra") < 0
    ):
        return {}
    objects = manifest["objects"].combine_chunks().flatten()
    ids, extras = objects.field("annotation_id"), objects.field("extra")
    told = pc.is_valid(extras)
    pairs = zip(ids.filter(told).to_pylist(), extras.filter(told).to_pylist(), strict=True)
    return {number: json.loads(text) for number, text in pairs}


def own_ids(manifests: Iterable[pa.Table]) -> dict[int, int]:
    """The ids that annotations had in their source where a run numbered them anew, by those that they have now.

    Empty where the run kept its source's ids, or where those were no whole numbers, each of one annotation.
    """
    known = {
        number: extra["own_id"]
        for one in manifests
        for number, extra in object_extras(one).items()
        if "own_id" in extra
    }
    keys = [id_key(value) for value in known.values()]
    numbers = numbered(keys)
    return dict(zip(known, numbers, strict=True)) if numbers else {}


def with_image_extra(row: Row, extra: Mapping[str, Any]) -> Row:
    """An image record with what its source says of it; the record's own fields hold."""
    return {**extra, **row}


def with_object_extra(row: Row, extra: Mapping[str, Any]) -> Row:
    """An annotation with its source's own fields and, among its attributes, the source's.

    A name that is taken, such as a detector's `score`, becomes an attribute `own_score`; the annotation's own id in the
    source is the attribute `own_id`.
    """
    given = extra.get("attributes")
    attributes = given if isinstance(given, dict) else {}
    taken = {name: value for name, value in extra.items() if name in row and name != "attributes"}
    fields = {name: value for name, value in extra.items() if name not in row and name != "own_id"}
    ours = row["attributes"]
    theirs = {f"own_{name}" if name in ours else name: value for name, value in attributes.items()}
    theirs |= {f"own_{name}": value for name, value in taken.items()}
    theirs |= {"own_id": extra["own_id"]} if "own_id" in extra else {}
    return {**row, **fields, "attributes": {**theirs, **ours}}
