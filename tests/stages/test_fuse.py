"""`fuse` as a stage: every object gets a row, whatever its candidates are."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pseudolabel import records
from pseudolabel.datasets.manifest import image_row, object_cell
from pseudolabel.errors import InputError
from pseudolabel.fusion.calibration import fit_calibration
from pseudolabel.fusion.labels import unsure_pixels
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.pipelines.commit import FOOTER_KEY, Footer
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import PlanRequest, write_plan
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseConfig, FuseStage
from pseudolabel.rle import area, decode, encode

Row = dict[str, Any]
SIZE_HW = (60, 80)
TABLE = "0"  # under which the first table of candidates lies; its rows call their source otherwise
FOOTER = Footer("infer-teacher", 1, "0", 0, 1, 1, 1, 0, learned_from={TABLE: 2})
BOX = (10.0, 20.0, 40.0, 30.0)  # x, y, width, height


def ellipse(box_xywh: tuple[float, ...], *, shrink: float = 1.0) -> SoftMask:
    """A certain ellipse that touches the sides of its box, one cell per pixel."""
    x, y, width, height = box_xywh
    rows = (np.arange(int(height)) + 0.5) / height * 2 - 1
    columns = (np.arange(int(width)) + 0.5) / width * 2 - 1
    inside = rows[:, None] ** 2 + columns[None, :] ** 2 <= shrink
    return SoftMask(Grid(x, y, 1.0, 1.0, int(height), int(width)), (inside * 255).astype(np.uint8))


def candidate(
    key: str = "a.png",
    annotation_id: int | None = 1,
    *,
    mask: SoftMask | None = None,
    source: str = "teacher",
    category_id: int | None = 3,
    box_score: float = 0.9,
    box_iou: float | None = 0.95,
    box_xywh: tuple[float, ...] = BOX,
) -> Row:
    x, y, width, height = box_xywh
    return {
        "image_key": key, "annotation_id": annotation_id, "source": source, "category_id": category_id,
        "box_xyxy": [x, y, x + width, y + height], "box_score": box_score, "box_iou": box_iou,
        "mask": records.soft_mask_to_struct(mask or ellipse(box_xywh)), **records.ok("test"),
    }  # fmt: skip


def image(*objects: Row, key: str = "a.png", image_id: int = 1) -> Row:
    return image_row(key, image_id, file_name=key, size_hw=SIZE_HW, objects=list(objects))


def table(*rows: Row) -> pa.Table:
    return records.table_from_rows(list(rows), records.CANDIDATES)


def fuse(
    tmp_path: Path, images: list[Row], *tables: pa.Table, num_shards: int = 1, **options: Any
) -> dict[int | None, Row]:
    """All rows by annotation id, from as many shards as asked for."""
    run = RunPaths(tmp_path / "run")
    request = PlanRequest(tmp_path, "test", num_shards, "transpose", [{"id": 3, "name": "cat"}], {}, [])
    write_plan(run, request, images)
    stage = FuseStage(FuseConfig(**{"refine": "none", "score": "mqs"} | options), run)
    stage.setup("cpu")
    rows: list[Row] = []
    for shard in range(num_shards):
        mine = [row for i, row in enumerate(images) if i % num_shards == shard]
        keys = [row["image_key"] for row in mine]
        inputs = {"manifest": records.table_from_rows(mine, records.MANIFEST)}
        for number, one in enumerate(tables):
            kept = [row for row in one.to_pylist() if row["image_key"] in keys]
            part = records.table_from_rows(kept, records.CANDIDATES)
            inputs[f"candidates/{number}"] = part.replace_schema_metadata(one.schema.metadata)
        result = stage.run(Shard(shard, num_shards, tmp_path, "transpose"), inputs)
        assert result.schema == stage.schema
        rows += result.to_pylist()
    return {row["annotation_id"]: row for row in rows}


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


def test_the_score_is_the_masks_own_expected_iou_where_boxes_are_given(tmp_path: Path) -> None:
    """Half of the box at 0.8, the rest at 0.2, odds 4 and 1/4; a threshold of 0.6 makes odds of 8/3 and 1/6 of them,
    probabilities 8/11 and 1/7: expected is 8/11 / (1 + 1/7).
    """
    grid = Grid(10.0, 20.0, 2.0, 2.0, 15, 20)
    soft = np.full((15, 20), 51, dtype=np.uint8)
    soft[:, :10] = 204
    row = fuse(tmp_path, [image(object_cell(7, 3, BOX))], table(candidate(annotation_id=7, mask=SoftMask(grid, soft))),
               score="auto", tau_pixel=0.6)[7]  # fmt: skip
    assert row["expected_iou"] == pytest.approx(
        8 / 11 / (8 / 7), abs=0.03
    )  # the step between the halves is interpolated
    assert row["score"] == pytest.approx(np.sqrt(row["pixel_quality"] * row["expected_iou"]), rel=1e-6)


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


def test_sources_count_the_same_however_many_candidates_they_have(tmp_path: Path) -> None:
    def flat(level: int) -> SoftMask:
        return SoftMask(ellipse(BOX).grid, np.full((30, 40), level, np.uint8))

    many = [candidate(mask=flat(90), box_score=0.8) for _ in range(4)]
    other = candidate(mask=flat(230), source="semantic", box_score=0.8)
    images = [image(object_cell(1, 3, BOX))]
    assert fuse(tmp_path / "a", images, table(*many), table(other), scale="raw")[1]["decision"] == "keep"
    alone = fuse(tmp_path / "b", images, table(*many), table(other), scale="raw", balance=False)[1]
    assert alone["decision_reason"] == "empty_mask"


def test_a_source_that_another_one_has_heard_twice_counts_half_beside_it(tmp_path: Path) -> None:
    """Certain of all against certain of nothing: 1 part in 2, and 1 in 3 where the others learned from its table."""
    grid = ellipse(BOX).grid
    full, empty = (SoftMask(grid, np.full((30, 40), level, np.uint8)) for level in (255, 0))
    images = [image(object_cell(1, 3, BOX))]
    guide = table(candidate(source="semantic", mask=full, box_score=0.9))
    teacher = table(candidate(mask=empty, box_score=0.9))
    heard = teacher.replace_schema_metadata({FOOTER_KEY: json.dumps(asdict(FOOTER)).encode()})
    limits = {"tau_pixel": 0.4, "scale": "raw"}
    assert fuse(tmp_path / "a", images, guide, teacher, **limits)[1]["area"] == 40 * 30
    assert fuse(tmp_path / "b", images, guide, heard, **limits)[1]["decision_reason"] == "empty_mask"
    assert fuse(tmp_path / "c", images, guide, heard, share_guides=False, **limits)[1]["area"] == 40 * 30


@pytest.mark.parametrize(
    ("hint", "seen"), [pytest.param(38, False, id="0.575 of two"), pytest.param(64, True, id="0.625 of two")]
)
def test_of_two_sources_the_other_has_to_see_a_hint_unless_it_was_heard(tmp_path: Path, hint: int, seen: bool) -> None:
    """Certain against 0.15 or 0.25; heard twice, the hint weighs half beside it, and 0.55 is enough."""
    grid = ellipse(BOX).grid
    sure, guess = (SoftMask(grid, np.full((30, 40), level, np.uint8)) for level in (255, hint))
    images = [image(object_cell(1, 3, BOX))]
    guide = table(candidate(source="semantic", mask=guess, box_score=0.9))
    teacher = table(candidate(mask=sure, box_score=0.9))
    heard = teacher.replace_schema_metadata({FOOTER_KEY: json.dumps(asdict(FOOTER)).encode()})
    assert (fuse(tmp_path / "a", images, guide, teacher)[1]["decision_reason"] != "empty_mask") is seen
    assert fuse(tmp_path / "b", images, guide, heard)[1]["decision_reason"] != "empty_mask"
    assert (
        fuse(tmp_path / "c", images, guide, heard, share_guides=False)[1]["decision_reason"] != "empty_mask"
    ) is seen


@pytest.mark.parametrize(
    ("choice", "seen"),
    [({"ranking": "bqr"}, False), ({"ranking": "bpma"}, True), ({"fusion": "best"}, True), ({"fusion": "vote"}, True)],
)
def test_only_a_mean_of_sources_needs_more_than_one_half(tmp_path: Path, choice: dict[str, str], seen: bool) -> None:
    """Both 0.55 sure: too little for a mean of two, which is read at 0.6, enough for one mask alone and for votes."""
    guess = SoftMask(ellipse(BOX).grid, np.full((30, 40), 140, np.uint8))
    two = [table(candidate(source=name, mask=guess, box_score=0.9)) for name in ("semantic", "teacher")]
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], *two, **choice)[1]
    assert (row["decision_reason"] != "empty_mask") is seen


def test_agreement_is_the_iou_between_the_sources(tmp_path: Path) -> None:
    half = ellipse(BOX).probability.copy()
    half[:15] = 0
    lower = candidate(source="semantic", mask=SoftMask(ellipse(BOX).grid, half))
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate()), table(lower))[1]
    assert row["agreement"] == pytest.approx(0.5)
    assert row["sources"] == ["semantic", "teacher"]


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
    ("keep", "review", "expected"),
    [
        pytest.param(0.9, 0.5, "keep", id="good"),
        pytest.param(0.97, 0.5, "review", id="doubtful"),
        pytest.param(0.99, 0.97, "box_only", id="bad"),
    ],
)
def test_decisions_follow_the_score(tmp_path: Path, keep: float, review: float, expected: str) -> None:
    options = {"keep_score": keep, "review_score": review}
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate()), **options)[1]
    assert row["decision"] == expected
    assert (row["area"] == 1200) == (expected == "box_only")


def test_one_tau_stands_for_both_thresholds(tmp_path: Path) -> None:
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate(box_score=0.6)), tau=0.7)[1]
    assert row["decision_reason"] == "no_candidate"


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


def test_calibration_is_applied_and_decides(tmp_path: Path) -> None:
    source = fuse(tmp_path / "before", [image(object_cell(1, 3, BOX))], table(candidate()))[1]
    learned = [source | {"image_key": f"{i}.png", "score": 0.5 + i / 100} for i in range(40)]
    calibration = fit_calibration(learned, np.linspace(0.2, 0.4, 40), bootstraps=10)
    path = tmp_path / "calibration.json"
    path.write_text(calibration.to_json())
    row = fuse(tmp_path / "after", [image(object_cell(1, 3, BOX))], table(candidate()), calibration=path)[1]
    assert row["score"] == source["score"]
    assert 0.2 <= row["calibrated_iou"] <= 0.4 + 1e-6
    assert row["decision"] == "review"


def test_the_calibrated_iou_of_a_box_that_replaced_a_mask_is_the_boxs(tmp_path: Path) -> None:
    source = fuse(tmp_path / "before", [image(object_cell(1, 3, BOX))], table(candidate()))[1]
    boxes = source | {"decision": "box_only", "area": 1200}
    learned = [(boxes if i % 2 else source) | {"image_key": f"{i}.png"} for i in range(40)]
    calibration = fit_calibration(learned, np.tile([0.2, 0.1], 20), bootstraps=10)
    path = tmp_path / "calibration.json"
    path.write_text(calibration.to_json())
    row = fuse(tmp_path / "after", [image(object_cell(1, 3, BOX))], table(candidate()), calibration=path)[1]
    assert (row["decision"], row["area"]) == ("box_only", 1200)
    assert row["calibrated_iou"] == pytest.approx(calibration.expected_iou([row])[0], abs=1e-6)
    assert row["calibrated_iou"] < calibration.expected_iou([source])[0] - 0.02


def halves(tmp_path: Path, **options: Any) -> Row:
    """The row of a box of 30 x 40 px, the left half at 0.8, the rest at 0.2."""
    soft = np.full((30, 40), 51, dtype=np.uint8)
    soft[:, :20] = 204
    mask = SoftMask(Grid(10.0, 20.0, 1.0, 1.0, 30, 40), soft)
    return fuse(tmp_path, [image(object_cell(7, 3, BOX))], table(candidate(annotation_id=7, mask=mask)), **options)[7]


@pytest.mark.parametrize(
    ("band", "unsure_px"),
    [
        pytest.param(0.35, 30 * 40, id="0.8 and 0.2 are nearer to one half than 0.35"),
        pytest.param(0.25, 0, id="and farther than 0.25"),
        pytest.param(0.0, None, id="none is noted"),
    ],
)
def test_pixels_are_unsure_whose_probability_is_near_one_half(
    tmp_path: Path, band: float, unsure_px: int | None
) -> None:
    row = halves(tmp_path, unsure_band=band, tau_pixel=0.5)
    assert row["area"] == 30 * 20
    assert (None if row["unsure"] is None else area(row["unsure"])) == unsure_px


@pytest.mark.parametrize(
    ("options", "level", "expected"),
    [
        pytest.param({"score": "expected"}, 245, "keep", id="sure"),
        pytest.param({"score": "expected"}, 190, "review", id="our own score is high for nearly all masks"),
        pytest.param({"score": "expected"}, 165, "box_only", id="hardly more than nothing"),
        pytest.param({"score": "mqs"}, 190, "keep", id="the papers' scores are lower"),
        pytest.param({"score": "expected", "keep_score": 0.5}, 190, "keep", id="said otherwise"),
    ],
)
def test_limits_belong_to_the_scores_scale(tmp_path: Path, options: Row, level: int, expected: str) -> None:
    flat = SoftMask(ellipse(BOX).grid, np.full((30, 40), level, np.uint8))
    row = fuse(tmp_path, [image(object_cell(1, 3, BOX))], table(candidate(mask=flat, box_score=0.8)), **options)[1]
    assert row["decision"] == expected


def test_a_mask_of_several_tables_is_scored_by_all_of_them_a_mask_of_one_by_itself(tmp_path: Path) -> None:
    images, one = [image(object_cell(1, 3, BOX))], table(candidate())
    half = ellipse(BOX).probability.copy()
    half[:15] = 0
    same, other = (table(candidate(source="semantic", mask=SoftMask(ellipse(BOX).grid, mask)))
                   for mask in (ellipse(BOX).probability, half))  # fmt: skip
    scores = {
        (name, score): fuse(tmp_path / f"{name}-{score}", images, *tables, score=score)[1]["score"]
        for name, tables in {"one": [one], "same": [one, same], "other": [one, other]}.items()
        for score in ("auto", "consensus", "expected")
    }
    assert scores["one", "auto"] == scores["one", "expected"]
    assert scores["same", "auto"] == scores["same", "consensus"]
    assert scores["other", "auto"] == scores["other", "consensus"] < scores["other", "expected"]
    assert scores["other", "consensus"] < scores["same", "consensus"] - 0.1


def test_a_box_that_stands_in_for_a_mask_has_no_unsure_pixels(tmp_path: Path) -> None:
    assert halves(tmp_path, review_score=1.0, keep_score=1.0)["decision"] == "box_only"
    assert halves(tmp_path / "b", review_score=1.0, keep_score=1.0)["unsure"] is None
    assert fuse(tmp_path / "c", [image(object_cell(7, 3, BOX))], table())[7]["unsure"] is None


def test_a_crumb_that_was_dropped_is_unsure() -> None:
    """Probabilities 0.9 and 0.1; the mask is the large part alone, and the pixel at 0.9 outside of it is unsure."""
    probability = np.full((6, 8), 0.1, dtype=np.float32)
    probability[1:5, 1:5] = probability[3, 7] = 0.9
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:5, 1:5] = True
    assert np.argwhere(unsure_pixels(probability, mask, 0.35)).tolist() == [[3, 7]]


def test_a_run_without_candidates_says_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="infer-semantic"):
        FuseStage(FuseConfig(), RunPaths(tmp_path)).reads()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "candidates" / "semantic").mkdir(parents=True)
    (tmp_path / "candidates" / "semantic" / "part-00000-of-00001.parquet").touch()
    with pytest.raises(InputError, match=r"candidates/teacher .*there: candidates/semantic"):
        FuseStage(FuseConfig(sources=["teacher"]), RunPaths(tmp_path)).reads()
