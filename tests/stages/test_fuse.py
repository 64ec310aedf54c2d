"""`fuse` as a stage: every object gets a row, whatever its candidates are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel import records
from pseudolabel.datasets.manifest import object_cell
from pseudolabel.errors import InputError
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.plan import PlanRequest, write_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage
from pseudolabel.rle import area, decode, encode

from .fusing import BOX, SIZE_HW, Row, candidate, ellipse, fuse, image, table


def test_a_good_candidate_becomes_a_kept_mask_under_the_id_of_its_box(tmp_path: Path) -> None:
    row = fuse(tmp_path, [image(object_cell(7, 3, BOX))], table(candidate(annotation_id=7)))[7]
    expected = np.zeros(SIZE_HW, dtype=bool)
    expected[20:50, 10:50] = ellipse(BOX).probability > 127
    np.testing.assert_array_equal(decode(row["segmentation"]), expected)
    assert (row["status"], row["decision"], row["decision_reason"]) == ("ok", "keep", "good_score")
    assert row["score"] == pytest.approx(np.sqrt(0.9), rel=1e-6)
    assert (row["box_quality"], row["pixel_quality"]) == (pytest.approx(0.9), pytest.approx(1.0))
    assert row["area"] == expected.sum()
    assert row["bbox_xywh"] == row["source_bbox_xywh"] == list(BOX)
    assert (row["candidates_used"], row["sources"], row["agreement"]) == (1, ["teacher"], None)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no candidate"),
        pytest.param([candidate(box_iou=0.2)], id="box too far off"),
        pytest.param([candidate(box_score=0.05)], id="score below the threshold"),
        pytest.param([candidate(annotation_id=99)], id="candidate of another object"),
        pytest.param([candidate(annotation_id=None, category_id=4)], id="free candidate of another class"),
        pytest.param([candidate(mask=SoftMask(ellipse(BOX).grid, np.zeros((30, 40), np.uint8)))], id="empty mask"),
    ],
)
def test_an_object_without_a_usable_candidate_keeps_its_box(tmp_path: Path, rows: list[Row]) -> None:
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(*rows))[1]
    assert (row["status"], row["decision"]) == ("ok", "box_only")
    assert row["area"] == 40 * 30
    assert row["bbox_xywh"] == list(BOX)
    assert row["score"] == 0


def test_a_free_candidate_serves_every_object_of_its_class_that_it_fits(tmp_path: Path) -> None:
    shifted = (12.0, 20.0, 40.0, 30.0)
    objects = [object_cell(1, 3, BOX), object_cell(2, 3, shifted), object_cell(3, 4, BOX)]
    rows = fuse(tmp_path, [image(*objects)], table(candidate(annotation_id=None, box_iou=None)))
    assert [rows[i]["decision"] for i in (1, 2, 3)] == ["keep", "keep", "box_only"]


def test_a_crowd_passes_through_as_a_region_to_ignore(tmp_path: Path) -> None:
    drawn = np.zeros(SIZE_HW, dtype=bool)
    drawn[5:9, 30:50] = True
    objects = [
        object_cell(1, 3, (30.0, 5.0, 20.0, 4.0), iscrowd=True, segmentation=json.dumps(encode(drawn))),
        object_cell(2, 3, (0.0, 0.0, 5.0, 6.0), iscrowd=True),
    ]
    rows = fuse(tmp_path, [image(*objects)], table())
    np.testing.assert_array_equal(decode(rows[1]["segmentation"]), drawn)
    assert rows[2]["area"] == 30
    for row in rows.values():
        assert (row["iscrowd"], row["decision"], row["decision_reason"]) == (True, "ignore", "crowd")


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((79.0, 59.0, 1.0, 1.0), id="one pixel in the corner"),
        pytest.param((10.3, 10.3, 0.2, 0.2), id="smaller than a pixel"),
        pytest.param((0.0, 0.0, 80.0, 60.0), id="the whole image"),
        pytest.param((5.0, 0.0, 1.0, 60.0), id="one pixel wide"),
    ],
)
def test_tiny_and_huge_objects_get_a_mask_on_the_image(tmp_path: Path, box: tuple[float, ...]) -> None:
    mask = SoftMask(Grid(box[0], box[1], box[2] / 8, box[3] / 8, 8, 8), np.full((8, 8), 255, np.uint8))
    row = fuse(tmp_path, [image(object_cell(1, 3, box))], table(candidate(mask=mask, box_xywh=box)))[1]
    assert row["status"] == "ok"
    assert row["segmentation"]["size"] == list(SIZE_HW)
    assert row["area"] >= 1
    assert row["decision"] == ("box_only" if row["area"] < 4 else "keep")


def test_holes_and_parts_survive(tmp_path: Path) -> None:
    cells = np.zeros((30, 40), dtype=np.uint8)
    cells[:, :16] = 255
    cells[10:20, 4:12] = 0  # a real hole
    cells[:, 24:] = 255
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate(mask=SoftMask(ellipse(BOX).grid, cells))))[1]
    np.testing.assert_array_equal(decode(row["segmentation"])[20:50, 10:50], cells > 0)


@pytest.mark.parametrize(
    ("exclusive", "category", "share"),
    [("none", 3, True), ("class", 3, False), ("class", 4, True), ("all", 4, False)],
)
def test_masks_share_pixels_only_where_they_may(tmp_path: Path, exclusive: str, category: int, share: bool) -> None:
    second = (30.0, 20.0, 40.0, 30.0)
    rows = fuse(
        tmp_path,
        [image(object_cell(1, 3, BOX), object_cell(2, category, second))],
        table(candidate(), candidate(annotation_id=2, box_xywh=second, category_id=category)),
        exclusive=exclusive,
    )
    first_mask, second_mask = decode(rows[1]["segmentation"]), decode(rows[2]["segmentation"])
    assert (first_mask & second_mask).any() == share
    assert area(rows[1]["segmentation"]) + area(rows[2]["segmentation"]) > 1.3 * area(rows[1]["segmentation"])
    assert area(rows[1]["segmentation"]) + area(rows[2]["segmentation"]) > 1.3 * area(rows[1]["segmentation"])


@pytest.mark.parametrize(
    ("knows", "options", "yields"),
    [
        pytest.param((True, True), {}, True, id="both classes known"),
        pytest.param((True, True), {"score": "expected"}, True, id="with a score that asks no witnesses"),
        pytest.param((True, False), {}, False, id="one known"),
        pytest.param((None, None), {}, False, id="a table that does not say"),
        pytest.param((True, True), {"class_margin": 0.6}, False, id="a larger margin"),
        pytest.param((True, True), {"class_margin": 1}, False, id="never"),
        pytest.param((True, True), {"exclusive": "none"}, False, id="nothing is exclusive"),
    ],
)
def test_an_object_yields_what_the_segmenter_sees_as_another_class(
    tmp_path: Path, knows: tuple[bool | None, bool | None], options: dict[str, Any], yields: bool
) -> None:
    """The teacher gives the car all of its box; the segmenter, which sees the rider on the right half, does not."""
    rider = (30.0, 20.0, 20.0, 30.0)
    car_grid, rider_grid = Grid(10.0, 20.0, 1.0, 1.0, 30, 40), Grid(30.0, 20.0, 1.0, 1.0, 30, 20)
    car, seen_car = (SoftMask(car_grid, np.full((30, 40), 250, np.uint8)) for _ in range(2))
    seen_car.probability[:, 20:] = 50  # 0.59 on average with the teacher's, beside the rider's 0.98
    on_top = SoftMask(rider_grid, np.full((30, 20), 250, np.uint8))
    of_rider = {"annotation_id": 2, "category_id": 4, "box_xywh": rider, "mask": on_top}
    rows = fuse(
        tmp_path,
        [image(object_cell(1, 3, BOX), object_cell(2, 4, rider))],
        table(
            candidate(mask=seen_car, source="semantic", knows_class=knows[0]),
            candidate(**of_rider, source="semantic", knows_class=knows[1]),
        ),
        table(candidate(mask=car), candidate(**of_rider)),
        tau_pixel=0.5,
        **options,
    )
    assert rows[1]["area"] == (600 if yields else 1200)
    assert rows[2]["area"] == 600


def test_rows_do_not_depend_on_the_number_of_shards(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, rows = [], []
    for number in range(1, 7):
        key = f"{number}.png"
        box = (float(random.integers(0, 30)), float(random.integers(0, 20)), 33.3, 27.7)
        images.append(image(object_cell(number, 3, box), key=key, image_id=number))
        for source in ("semantic", "teacher"):
            cells = random.integers(0, 256, (12, 9), dtype=np.uint8)
            mask = SoftMask(Grid(box[0], box[1], 3.7, 2.4, 12, 9), cells)
            rows.append(candidate(key, number, mask=mask, source=source, box_score=0.7, box_xywh=box))
    one = fuse(tmp_path / "one", images, table(*rows))
    three = fuse(tmp_path / "three", images, table(*rows), num_shards=3)
    assert one == three


def test_without_boxes_the_sources_agree_on_objects(tmp_path: Path) -> None:
    other = (55.0, 5.0, 20.0, 12.0)
    near = (11.0, 20.0, 40.0, 30.0)
    free = {"annotation_id": None, "box_iou": None}
    rows = [
        candidate(**free), candidate(**free, box_xywh=near, source="semantic"),
        candidate(**free, box_xywh=other, box_score=0.6),
    ]  # fmt: skip
    run = RunPaths(tmp_path / "run")
    write_plan(run, PlanRequest(tmp_path, "test", 1, "transpose", [{"id": 3, "name": "cat"}], {}, []), [image()])
    stage = FuseStage(FuseConfig(refine="none"), run)
    stage.setup("cpu")
    inputs = {"manifest": records.table_from_rows([image()], records.MANIFEST), "candidates/a": table(*rows)}
    first, second = stage.run(Shard(0, 1, tmp_path, "transpose"), inputs).to_pylist()
    assert first["annotation_id"] is second["annotation_id"] is None
    assert first["sources"] == ["semantic", "teacher"]
    np.testing.assert_allclose(first["source_bbox_xywh"], [10.5, 20, 40, 30], atol=1e-5)
    assert second["bbox_xywh"] == list(other)


def test_an_image_without_objects_is_seen_to_be_there(tmp_path: Path) -> None:
    images = [image(object_cell(1, 3, BOX)), image(key="b.png", image_id=2)]
    rows = fuse(tmp_path, images, table(candidate("b.png", None, box_iou=None)))
    assert (rows[None]["image_key"], rows[None]["status"]) == ("b.png", "empty")


def planned(folder: Path, *objects: Any) -> RunPaths:
    """A run of one image, planned and no more."""
    request = PlanRequest(folder, "test", 1, "transpose", [{"id": 3, "name": "cat"}], {}, [])
    write_plan(RunPaths(folder), request, [image(*objects)])
    return RunPaths(folder)


def test_a_run_without_candidates_says_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="infer-semantic"):
        FuseStage(FuseConfig(), planned(tmp_path, object_cell(1, 3, BOX))).reads()


def test_a_run_without_boxes_is_not_sent_to_a_command_that_needs_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train-siseg .*the run has no boxes") as caught:
        FuseStage(FuseConfig(), planned(tmp_path)).reads()
    assert "infer-colors" not in str(caught.value)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    run = planned(tmp_path, object_cell(1, 3, BOX))
    (tmp_path / "candidates" / "semantic").mkdir(parents=True)
    (tmp_path / "candidates" / "semantic" / "part-00000-of-00001.parquet").touch()
    with pytest.raises(InputError, match=r"candidates/teacher .*there: candidates/semantic"):
        FuseStage(FuseConfig(sources=["teacher"]), run).reads()
