"""Given boxes and candidates as rows of tables and back."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pseudolabel import records
from pseudolabel.candidates import Candidate, GivenBox, candidates_by_image, usable_images, with_classes
from pseudolabel.masks import Grid, SoftMask

MASK = SoftMask(Grid(2.0, 3.0, 0.5, 4.0, 2, 3), np.arange(6, dtype=np.uint8).reshape(2, 3))
CANDIDATE = Candidate("teacher", 7, 3, (1.0, 2.0, 3.5, 4.0), 0.5, 0.25, MASK, knows_class=True)


def _object(number: int, *, is_crowd: bool = False) -> dict[str, object]:
    box = [1.0, 2.0, 10.0, 20.0]
    return {"annotation_id": number, "category_id": 3, "bbox_xywh": box, "iscrowd": is_crowd, "segmentation": None}


def _manifest(*rows: dict[str, object]) -> pa.Table:
    size = {"width": 80, "height": 60, "annotation_id": None, "file_name": "f.jpg"}
    return records.table_from_rows([size | row for row in rows], records.MANIFEST)


def test_a_candidate_goes_through_a_table_and_comes_back_equal() -> None:
    table = records.table_from_rows([{"image_key": "a", **CANDIDATE.to_row(), **records.ok("t")}], records.CANDIDATES)
    ((back,),) = candidates_by_image([table]).values()
    np.testing.assert_array_equal(back.mask.probability, MASK.probability)
    assert replace(back, mask=MASK) == CANDIDATE
    assert back.mask.grid == MASK.grid


@pytest.mark.parametrize(
    "change", [{"box_score": float("nan")}, {"box_score": 1.5}, {"box_iou": -0.1}], ids=["nan", "above", "below"]
)
def test_a_score_that_is_no_share_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        Candidate.from_row(CANDIDATE.to_row() | change)


def test_rejected_images_and_refused_annotations_are_no_usable_images() -> None:
    manifest = _manifest(
        {"image_key": "b", "objects": [_object(2), _object(1, is_crowd=True)], **records.ok("shard")},
        {"image_key": "a", "objects": None, **records.ok("shard")},
        {"image_key": "c", "objects": [], **records.rejected("shard", "missing")},
        {"image_key": "b", "objects": None, **records.rejected("shard", "empty_box"), "annotation_id": 9},
    )
    images = usable_images(manifest)
    assert [(image.key, image.size_hw) for image in images] == [("a", (60, 80)), ("b", (60, 80))]
    assert [box.annotation_id for box in images[1].boxes] == [2, 1]
    assert [box.annotation_id for box in images[1].objects] == [2]
    assert images[1].objects[0].box_xyxy == (1.0, 2.0, 11.0, 22.0)


def test_a_crowd_has_no_class_and_a_box_that_of_its_category() -> None:
    box = GivenBox.from_xyxy(1, 3, (0, 0, 4, 5))
    found = with_classes([box, replace(box, is_crowd=True), replace(box, category_id=4)], {3: 12})
    assert [one.class_index for one in found] == [12, None, None]
    assert box.bbox_xywh == (0.0, 0.0, 4.0, 5.0)
