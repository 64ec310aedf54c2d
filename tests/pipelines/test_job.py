import pyarrow as pa

from pseudolabel import records
from pseudolabel.pipelines.work.job import count_units, units_in, without_object_masks


def _object(annotation_id: int, iscrowd: bool) -> dict[str, object]:
    return {
        "annotation_id": annotation_id,
        "category_id": 1,
        "bbox_xywh": [0.0, 0.0, 4.0, 4.0],
        "iscrowd": iscrowd,
        "segmentation": f'"mask of {annotation_id}"',
    }


def _manifest() -> pa.Table:
    rows = [
        {"image_key": "a", "objects": [_object(1, False), _object(2, True)], **records.ok("shard")},
        {"image_key": "a", "annotation_id": 9, **records.rejected("shard", "bad_box")},
        {"image_key": "b", "objects": None, **records.rejected("shard", "undecodable")},
        {"image_key": "c", "objects": [], **records.ok("shard")},
        {"image_key": "d", "objects": [_object(3, False)], **records.ok("shard")},
    ]
    return records.table_from_rows(rows, records.MANIFEST)


def test_a_labelling_stage_sees_no_true_mask_but_the_crowds() -> None:
    for table in (_manifest(), pa.concat_tables([_manifest().slice(0, 2), _manifest().slice(2)])):
        stripped = without_object_masks(table)
        assert stripped.schema == table.schema
        objects = stripped["objects"].to_pylist()
        assert [one["segmentation"] for one in objects[0]] == [None, '"mask of 2"']
        assert objects[1] is None
        assert objects[2] is None
        assert objects[3] == []
        assert objects[4][0]["annotation_id"] == 3
        assert objects[4][0]["segmentation"] is None
        assert table["objects"].to_pylist()[0][0]["segmentation"] == '"mask of 1"'


def test_units_are_images_or_objects_and_rejected_annotations_are_neither() -> None:
    manifest = _manifest()
    assert units_in({"plan": manifest}, "image") == 4
    assert units_in({"manifest": manifest}, "image") == 3
    assert units_in({"manifest": manifest}, "object") == 3
    assert count_units(manifest, "image") == {"ok": 3, "rejected": 1}


def test_an_image_with_many_candidates_counts_once() -> None:
    rows = [
        {"image_key": "a", "annotation_id": 1, "source": "semantic", **records.ok("x")},
        {"image_key": "a", "annotation_id": 2, "source": "semantic", **records.ok("x")},
        {"image_key": "b", **records.empty("x")},
        {"image_key": "c", **records.rejected("x", "non_finite")},
    ]
    counts = count_units(records.table_from_rows(rows, records.CANDIDATES), "image")
    assert counts == {"ok": 1, "empty": 1, "rejected": 1}
