"""What went in comes out, in images and in objects; and what a labelling stage may see."""

import pyarrow as pa
import pytest

from pseudolabel import records
from pseudolabel.pipelines.api import Run
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.run.conservation import Count, count_shard, images_in, objects_in, without_object_masks
from pseudolabel.pipelines.summary import whole_notes


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


def test_images_and_objects_are_counted_apart_and_what_the_reader_refused_is_among_the_objects() -> None:
    manifest = _manifest()
    assert (images_in({"plan": manifest}), objects_in({"plan": manifest})) == (4, 4)
    assert (images_in({"manifest": manifest}), objects_in({"manifest": manifest})) == (3, 3)
    counts = count_shard(manifest, {"plan": manifest}, "image")
    assert counts.images == Count(4, 3, 1, {"undecodable": 1})
    assert counts.objects == Count(4, 3, 1, {"bad_box": 1})


def test_an_image_with_many_candidates_counts_once_and_an_object_without_one_is_noted() -> None:
    rows = [
        {"image_key": "a", "annotation_id": 1, "source": "semantic", **records.ok("x")},
        {"image_key": "a", "annotation_id": 1, "source": "colors", **records.ok("x")},
        {"image_key": "c", **records.empty("x")},
        {"image_key": "d", **records.rejected("x", "non_finite")},
    ]
    table = records.table_from_rows(rows, records.CANDIDATES)
    counts = count_shard(table, {"manifest": _manifest()}, "image")
    assert counts.images == Count(3, 2, 1, {"non_finite": 1})
    assert counts.objects == Count(3, 2, 1, {"non_finite": 1})  # object 3 went with its image
    assert counts.notes == {"box_and_colors": 1}  # object 2 is a crowd, nobody's candidate
    nothing = records.table_from_rows([{"image_key": key, **records.empty("x")} for key in "acd"], records.CANDIDATES)
    assert count_shard(nothing, {"manifest": _manifest()}, "image").notes == {"without_candidate": 2}


def test_masks_expected_to_be_good_do_not_depend_on_the_number_of_shards(tmp_path):
    write_dataset(tmp_path, 12, 0, size_hw=(96, 96))
    told = set()
    for shards in (1, 12):
        run = Run.create(
            tmp_path / str(shards), images=tmp_path / "images", boxes=tmp_path / "boxes.json", shards=shards
        )
        run.infer_colors().fuse()
        [told_of] = [table.counts["notes"] for table in run.status() if table.table == "pseudo"]
        told.add(whole_notes(told_of)["good"])
    assert len(told) == 1


@pytest.mark.parametrize(
    ("notes", "good"),
    [
        pytest.param({"keep": 6, "good_thousandths": 2400}, 2, id="six shards of 0.4"),
        pytest.param({"keep": 6, "good": 3, "good_thousandths": 1600}, 5, id="some of an earlier version"),
        pytest.param({"keep": 6, "good": 4}, 4, id="all of an earlier version"),
    ],
)
def test_masks_expected_to_be_good_are_told_whole(notes, good):
    assert whole_notes(notes) == {"keep": 6, "good": good}
