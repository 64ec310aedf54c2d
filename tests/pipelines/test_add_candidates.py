"""`add-candidates` and `write_candidates`: every form of masks, what is refused, and what `fuse` makes of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from pseudolabel import records
from pseudolabel.cli.main import main
from pseudolabel.datasets.manifest import image_row
from pseudolabel.errors import ConfigError, IncompleteError, InputError, StaleOutputError
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.planning.plan import PlanRequest, shard_of, write_plan
from pseudolabel.pipelines.run.commit import Footer, commit_table, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.tools.add_candidates import write_candidates
from pseudolabel.pipelines.verify import verify_run
from pseudolabel.records import soft_mask_from_struct
from pseudolabel.rle import encode

SIZE_HW = (60, 80)
# annotation id: image, box x, y, width, height
BOXES = {
    1: ("a.png", 10, 20, 40, 30),
    2: ("a.png", 55, 5, 20, 20),
    3: ("b.png", 0, 0, 30, 60),
    4: ("c.png", 5, 5, 9, 9),
}
IDS = {"a.png": 11, "b.png": 12, "c.png": 13}
SHARDS = 2


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """Three images with four boxes, in two shards."""
    run = RunPaths(tmp_path / "run")
    images = []
    for key, image_id in IDS.items():
        Image.fromarray(np.random.default_rng(image_id).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)).save(
            tmp_path / key
        )
        objects = [
            {"annotation_id": one, "category_id": 3, "bbox_xywh": [float(side) for side in box], "iscrowd": False,
             "segmentation": None}
            for one, (own, *box) in BOXES.items() if own == key
        ]  # fmt: skip
        images.append(image_row(key, image_id, file_name=key, size_hw=SIZE_HW, objects=objects))
    request = PlanRequest(tmp_path, "test", SHARDS, "transpose", [{"id": 3, "name": "cat"}], {}, [])
    write_plan(run, request, images)
    for shard in range(SHARDS):
        mine = [row for row in images if shard_of(row["image_key"], SHARDS) == shard]
        footer = Footer("shard", 1, f"manifest {shard}", shard, SHARDS, len(mine), len(mine), 0)
        commit_table(records.table_from_rows(mine, records.MANIFEST), run.part("manifest", shard, SHARDS), footer)
    return run


def ellipse(annotation_id: int) -> np.ndarray:
    """An ellipse that fills the object's box."""
    _, x, y, width, height = BOXES[annotation_id]
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    inside = ((columns - x - width / 2) / (width / 2)) ** 2 + ((rows - y - height / 2) / (height / 2)) ** 2 <= 1
    return np.asarray(inside)


def rows_of(run: RunPaths, name: str = "mine") -> dict[int | None, list[dict[str, Any]]]:
    found: dict[int | None, list[dict[str, Any]]] = {}
    for shard in range(SHARDS):
        for row in read_part(run.part(f"candidates/{name}", shard, SHARDS)).to_pylist():
            if row["status"] == "ok":
                found.setdefault(row["annotation_id"], []).append(row)
    return found


def painted(row: dict[str, Any]) -> np.ndarray:
    """The pixels of a mask whose cells are pixels."""
    mask = soft_mask_from_struct(row["mask"])
    full = np.zeros(SIZE_HW, dtype=bool)
    x0, y0 = int(mask.grid.x0), int(mask.grid.y0)
    assert (mask.grid.stride_x, mask.grid.stride_y) == (1, 1)
    full[y0 : y0 + mask.grid.height, x0 : x0 + mask.grid.width] = mask.probability >= 128
    return full


def check_ellipses(run: RunPaths) -> None:
    rows = rows_of(run)
    assert set(rows) == set(BOXES)
    for annotation_id, (row,) in rows.items():
        assert annotation_id is not None
        np.testing.assert_array_equal(painted(row), ellipse(annotation_id))
        assert row["image_key"] == BOXES[annotation_id][0]
        assert (row["category_id"], row["source"]) == (3, "mine")


def test_boolean_arrays_by_annotation_id(run: RunPaths) -> None:
    added = write_candidates(run, "mine", {one: ellipse(one) for one in BOXES})
    assert (added.masks, added.candidates, added.objects, added.objects_with_mask) == (4, 4, 4, 4)
    check_ellipses(run)
    assert verify_run(run) == [
        f"{run.part('plan', shard, SHARDS)}: missing"
        for shard in range(SHARDS)
        if not run.part("plan", shard, SHARDS).exists()
    ]


def test_probabilities_stay_soft_and_rle_is_read(run: RunPaths) -> None:
    write_candidates(run, "mine", {1: ellipse(1) * 0.75, 2: encode(ellipse(2))})
    assert set(np.unique(soft_mask_from_struct(rows_of(run)[1][0]["mask"]).probability)) == {0, 191}
    np.testing.assert_array_equal(painted(rows_of(run)[2][0]), ellipse(2))


def test_a_list_is_several_candidates_of_one_object(run: RunPaths) -> None:
    write_candidates(run, "mine", {1: [ellipse(1), ellipse(1) * 0.6]})
    assert len(rows_of(run)[1]) == 2


def test_without_a_score_how_well_the_extent_meets_the_box_is_the_score(run: RunPaths) -> None:
    half = ellipse(1) & (np.arange(SIZE_HW[1]) < 30)  # x from 10 to 30 of 10 to 50
    write_candidates(run, "mine", {1: half})
    (row,) = rows_of(run)[1]
    assert row["box_iou"] == pytest.approx(0.5)
    assert row["box_score"] == pytest.approx(0.5)
    assert row["box_xyxy"] == [10, 20, 30, 50]


def test_what_reaches_beyond_the_box_is_cut_and_counts_against_it(run: RunPaths) -> None:
    whole = np.ones(SIZE_HW, dtype=bool)
    added = write_candidates(run, "mine", {1: whole})
    (row,) = rows_of(run)[1]
    assert row["box_iou"] == pytest.approx(40 * 30 / (60 * 80))
    assert soft_mask_from_struct(row["mask"]).grid == Grid(10, 20, 1, 1, 30, 40)
    assert added.far_from_box == 1


def _coco(folder: Path, annotations: list[dict[str, Any]], images: Any = None) -> Path:
    path = folder / "masks.json"
    content: Any = annotations
    if images is not None:
        content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}
    path.write_text(json.dumps(content))
    return path


def _entry(one: int, /, **more: Any) -> dict[str, Any]:
    image = BOXES[one][0]
    return {"image_id": IDS[image], "category_id": 3, "segmentation": encode(ellipse(one)), **more}


def test_coco_results_with_annotation_ids(run: RunPaths, tmp_path: Path) -> None:
    write_candidates(run, "mine", _coco(tmp_path, [_entry(one, annotation_id=one, score=0.8) for one in BOXES]))
    check_ellipses(run)
    assert rows_of(run)[1][0]["box_score"] == pytest.approx(0.8)


def test_coco_instances_with_the_runs_own_ids_and_other_image_ids(run: RunPaths, tmp_path: Path) -> None:
    images = [{"id": image_id + 100, "file_name": key} for key, image_id in IDS.items()]
    entries = [_entry(one, id=one) | {"image_id": IDS[BOXES[one][0]] + 100} for one in BOXES]
    added = write_candidates(run, "mine", _coco(tmp_path, entries, images))
    assert added.by == "annotation id"
    check_ellipses(run)


def test_numbers_that_a_file_gave_its_own_annotations_are_not_taken_for_ids(run: RunPaths, tmp_path: Path) -> None:
    """All of them are ids of the run, too, of other objects."""
    entries = [_entry(one, id=5 - one) for one in BOXES]
    added = write_candidates(run, "mine", _coco(tmp_path, entries, [{"id": i, "file_name": k} for k, i in IDS.items()]))
    assert added.by.startswith("overlap with the box")
    check_ellipses(run)


def test_coco_results_without_ids_find_their_boxes_one_to_one(run: RunPaths, tmp_path: Path) -> None:
    twice = [_entry(1), _entry(1), _entry(3), {**_entry(2), "segmentation": [[70, 40, 79, 40, 79, 59, 70, 59]]}]
    added = write_candidates(run, "mine", _coco(tmp_path, twice))
    assert (added.candidates, set(rows_of(run))) == (2, {1, 3})
    assert len(added.without_box) == 2
    assert "masks.json, result 3" in added.without_box


def test_the_least_overlap_is_an_option(run: RunPaths, tmp_path: Path) -> None:
    half = ellipse(1) & (np.arange(SIZE_HW[1]) < 30)
    path = _coco(tmp_path, [{**_entry(1), "segmentation": encode(half)}])
    with pytest.raises(InputError, match="not one of 1 masks is for an object of this run"):
        write_candidates(run, "mine", path, min_iou=0.6)
    write_candidates(run, "mine", path, min_iou=0.4)


def test_pictures_named_by_annotation_id(run: RunPaths, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for one in BOXES:
        values = ellipse(one).astype(np.uint8) * (1 if one == 2 else 255)
        image = Image.fromarray(values)
        (image.convert("1") if one == 3 else image).save(folder / f"{one}.png")
    write_candidates(run, "mine", folder)
    check_ellipses(run)


def _table(**columns: list[Any]) -> pa.Table:
    masks = []
    for one in columns["annotation_id"]:
        _, x, y, width, height = BOXES[one]
        cells = ellipse(one)[y : y + height, x : x + width].astype(np.uint8) * 255
        masks.append(records.soft_mask_to_struct(SoftMask(Grid(x, y, 1, 1, height, width), cells)))
    fields = {"mask": pa.array(masks, records.SOFT_MASK)} | {name: pa.array(values) for name, values in columns.items()}
    return pa.table(fields)


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
def test_rows_of_a_file(run: RunPaths, tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"rows.{suffix}", _table(annotation_id=list(BOXES), box_score=[0.9, 0.8, 0.7, 0.6])
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        feather.write_feather(table, path)
    write_candidates(run, "mine", path)
    check_ellipses(run)
    assert rows_of(run)[4][0]["box_score"] == pytest.approx(0.6)


def test_rows_in_memory_and_rle_in_rows(run: RunPaths) -> None:
    write_candidates(run, "mine", [{"annotation_id": one, "segmentation": encode(ellipse(one))} for one in BOXES])
    check_ellipses(run)


def test_a_row_without_annotation_id_is_free(run: RunPaths) -> None:
    cell = records.soft_mask_to_struct(SoftMask(Grid(3, 4, 2, 2, 2, 3), np.full((2, 3), 200, np.uint8)))
    row = {"image_key": "b.png", "annotation_id": None, "category_id": 3, "box_score": 0.7, "mask": cell}
    write_candidates(run, "mine", [row])
    (free,) = rows_of(run)[None]
    assert (free["image_key"], free["box_xyxy"], free["box_iou"]) == ("b.png", [3, 4, 9, 8], None)


def test_yolo_polygons(run: RunPaths, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    # the box of object 1 as a polygon, and that of object 2 with a confidence behind it
    (folder / "a.txt").write_text(
        "0 0.125 0.3333333333 0.625 0.3333333333 0.625 0.8333333333 0.125 0.8333333333\n"
        "0 0.6875 0.0833333333 0.9375 0.0833333333 0.9375 0.4166666667 0.6875 0.4166666667 0.87\n"
    )
    added = write_candidates(run, "mine", folder)
    assert added.candidates == 2
    assert painted(rows_of(run)[1][0])[20:50, 10:50].all()
    assert painted(rows_of(run)[2][0])[5:25, 55:75].all()


def test_text_and_whole_floats_are_ids_and_images_as_in_the_file_of_boxes(run: RunPaths, tmp_path: Path) -> None:
    entries = [_entry(one, annotation_id=f"{one}" if one % 2 else float(one)) for one in BOXES]
    entries = [one | {"image_id": f"{one['image_id']}"} for one in entries]
    write_candidates(run, "mine", _coco(tmp_path, entries))
    check_ellipses(run)
    without = [{name: value for name, value in one.items() if name != "annotation_id"} for one in entries]
    assert write_candidates(run, "other", _coco(tmp_path, without)).objects_with_mask == len(BOXES)


@pytest.mark.parametrize("said", [True, 1.5, [1], {}])
def test_an_annotation_id_that_is_none_is_refused_and_makes_no_free_candidate(
    run: RunPaths, tmp_path: Path, said: Any
) -> None:
    with pytest.raises(InputError, match="result 1, annotation_id: expected an annotation id, a number or a text"):
        write_candidates(run, "mine", _coco(tmp_path, [_entry(1, annotation_id=1), _entry(2, annotation_id=said)]))


@pytest.fixture(params=[pytest.param(0, id="from 0"), pytest.param("box ", id="texts")])
def numbered(run: RunPaths, request: pytest.FixtureRequest) -> dict[int, Any]:
    """The run as if it had numbered its annotations anew: the source's ids by the run's."""
    begin = request.param
    own = {one: one - 1 if begin == 0 else f"{begin}{one}" for one in BOXES}
    for shard in range(SHARDS):
        path = run.part("manifest", shard, SHARDS)
        footer, rows = read_footer(path), read_part(path).to_pylist()
        for row in rows:
            for one in row["objects"] or []:
                one["extra"] = json.dumps({"own_id": own[one["annotation_id"]]})
        commit_table(records.table_from_rows(rows, records.MANIFEST), path, footer)
    return own


@pytest.mark.parametrize("name", ["annotation_id", "id"])
def test_ids_of_the_source_are_understood_where_a_run_numbered_them_anew(
    run: RunPaths, tmp_path: Path, numbered: dict[int, Any], name: str
) -> None:
    """From 0, every id but one is an id of the run, too, of another object."""
    added = write_candidates(run, "mine", _coco(tmp_path, [_entry(one, **{name: numbered[one]}) for one in BOXES]))
    assert added.by == "annotation id of the source, which the run numbered anew"
    assert not added.foreign_ids
    check_ellipses(run)


@pytest.mark.parametrize("form", ["pictures", "parquet", "rows", "arrays"])
def test_every_form_takes_ids_as_the_file_of_boxes_has_them(
    run: RunPaths, tmp_path: Path, numbered: dict[int, Any], form: str
) -> None:
    table = _table(annotation_id=list(BOXES))
    table = table.set_column(1, "annotation_id", pa.array([str(numbered[one]) for one in BOXES]))
    (tmp_path / "masks").mkdir()
    for one in BOXES:
        Image.fromarray(ellipse(one).astype(np.uint8) * 255).save(tmp_path / "masks" / f"{numbered[one]}.png")
    pq.write_table(table, tmp_path / "rows.parquet")
    masks = {
        "pictures": tmp_path / "masks",
        "parquet": tmp_path / "rows.parquet",
        "rows": table.to_pylist(),
        "arrays": {numbered[one]: ellipse(one) for one in BOXES},
    }[form]
    assert not write_candidates(run, "mine", masks).foreign_ids
    check_ellipses(run)


def test_text_and_whole_floats_of_rows_are_the_numbers_that_they_say(run: RunPaths) -> None:
    rows = [{"annotation_id": float(one), "segmentation": encode(ellipse(one)), "category_id": "3"} for one in BOXES]
    write_candidates(run, "mine", rows)
    check_ellipses(run)


def test_a_column_that_later_rows_alone_have_is_read(run: RunPaths) -> None:
    rows: list[dict[str, Any]] = [{"annotation_id": one, "segmentation": encode(ellipse(one))} for one in BOXES]
    rows[3]["source"] = "other"
    write_candidates(run, "mine", rows)
    assert [rows_of(run)[one][0]["source"] for one in BOXES] == ["mine", "mine", "mine", "other"]


def test_ids_of_the_run_still_hold_where_it_numbered_its_sources_anew(
    run: RunPaths, tmp_path: Path, numbered: dict[int, Any]
) -> None:
    assert write_candidates(run, "mine", {one: ellipse(one) for one in BOXES}).by == "annotation id"
    check_ellipses(run)


def test_an_empty_mask_is_left_out_and_named_in_every_form(run: RunPaths, tmp_path: Path) -> None:
    nothing = encode(np.zeros(SIZE_HW, dtype=bool))
    entries = [_entry(1, annotation_id=1), _entry(2, annotation_id=2) | {"segmentation": nothing}]
    path = _coco(tmp_path, entries)
    assert write_candidates(run, "a", path).empty_masks == ["masks.json, result 1"]
    assert write_candidates(run, "b", {1: ellipse(1), 2: ellipse(3)}).empty_masks == ["masks[2]"]
    result = CliRunner().invoke(main, ["add-candidates", str(run.root), "--name", "c", "--masks", str(path)])
    assert "1 are empty in the box of their object (masks.json, result 1)" in result.output
    with pytest.raises(InputError, match=r"nothing of 1 of 1 masks is in the box of their object: masks\[2\]"):
        write_candidates(run, "d", {2: nothing})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../pseudo"}, "add-candidates: name"),
        ({"name": "Mine"}, "add-candidates: name"),
        ({"match": "boxes"}, "add-candidates: match"),
        ({"min_iou": 5}, "add-candidates: min_iou"),
    ],
)
def test_options_are_checked_in_python_as_on_the_command_line(
    run: RunPaths, options: dict[str, Any], message: str
) -> None:
    before = sorted(run.root.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        write_candidates(run, **({"name": "mine", "masks": {1: ellipse(1)}} | options))
    assert sorted(run.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("masks", "got"), [(None, "NoneType"), ([np.ones(SIZE_HW, bool)], "ndarray in list"), (7, "int")]
)
def test_what_is_no_form_of_masks_at_all_is_an_input_error(run: RunPaths, masks: Any, got: str) -> None:
    with pytest.raises(InputError, match=f"masks: expected a path, masks by annotation id .*, or rows, got {got}"):
        write_candidates(run, "mine", masks)


def test_a_score_of_rows_may_be_called_score(run: RunPaths) -> None:
    rows = [{"annotation_id": one, "segmentation": encode(ellipse(one)), "score": 0.6} for one in BOXES]
    write_candidates(run, "mine", rows)
    assert rows_of(run)[4][0]["box_score"] == pytest.approx(0.6)
    with pytest.raises(InputError, match=r"row 0, score: expected a number in \[0, 1\], got nan"):
        write_candidates(run, "mine", [rows[0] | {"score": float("nan")}], overwrite=True)
    with pytest.raises(InputError, match="row 0, knows_class: expected true or false, got 'no'"):
        write_candidates(run, "mine", [rows[0] | {"knows_class": "no"}], overwrite=True)


def test_foreign_ids_are_counted_and_named(run: RunPaths) -> None:
    added = write_candidates(run, "mine", {1: ellipse(1), 2: ellipse(2), 77: ellipse(1), 78: ellipse(1)})
    assert (added.candidates, added.foreign_ids) == (2, [77, 78])


def test_masks_of_no_object_at_all_are_an_error_that_shows_both_sides(run: RunPaths) -> None:
    with pytest.raises(InputError, match=r"not one of 2 masks.*theirs: 77, 78; the run's annotation ids begin 1, 2, 3"):
        write_candidates(run, "mine", {77: ellipse(1), 78: ellipse(1)})
    assert not run.table("candidates/mine").exists()


def _row(**changes: Any) -> dict[str, Any]:
    cell = records.soft_mask_to_struct(SoftMask(Grid(10, 20, 1, 1, 30, 40), np.full((30, 40), 255, np.uint8)))
    return {"annotation_id": 1, "box_score": 0.9, "mask": cell} | changes


_SHORT = _row()["mask"] | {"probability": b"123"}
_FAR = _row()["mask"] | {"x0": 500.0}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([_row(), _row(box_score=None)], r"rows, row 1, box_score: expected a number in \[0, 1\], got null"),
        ([_row(box_score=1.5)], r"rows, row 0, box_score: expected a number in \[0, 1\], got 1.5"),
        ([_row(box_score=float("nan"))], "row 0, box_score: expected a number"),
        ([_row(mask=_SHORT)], "row 0, mask: expected 30 x 40 bytes, got 3"),
        ([_row(mask=_FAR)], "row 0, mask: it covers .* its image is 80x60"),
        ([_row(box_xyxy=[5.0, 5, 5, 9])], "row 0, box_xyxy: expected left, top, right, bottom with an area"),
        ([_row(annotation_id=1.5)], "row 0, annotation_id: expected an annotation id, a number or a text, got 1.5"),
        ([_row(category_id="cat")], "row 0, category_id: expected a whole number, got 'cat'"),
        ([_row(image_key=[1])], r"row 0, image_key: expected a key, a file name or an id, got \[1\]"),
        ([_row(annotation_id="a"), _row()], "rows, column 'annotation_id': "),
        ([{**_row(), "box_scores": 0.5}], "unknown column 'box_scores'; did you mean 'box_score'"),
        ([{"annotation_id": 1, "box_score": 0.5}], "one of mask and segmentation, got annotation_id, box_score"),
        ({1: np.zeros((10, 10), dtype=bool)}, "expected the image's height and width .60, 80., got .10, 10."),
        ({1: np.full(SIZE_HW, 1.5)}, r"masks\[1\]: expected probabilities in \[0, 1\]"),
        ({1: np.zeros(SIZE_HW, dtype=np.uint8)}, "expected booleans, or probabilities as floats, got uint8"),
        ({1.5: ellipse(1)}, "masks: expected an annotation id, a number or a text, got 1.5"),
        ({1: {"size": [60, 80], "counts": [5]}}, r"masks\[1\], segmentation: "),
    ],
)  # fmt: skip
def test_a_damaged_entry_is_named_with_row_and_column_and_nothing_is_written(
    run: RunPaths, masks: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_candidates(run, "mine", masks)
    assert not run.table("candidates/mine").exists()


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("masks.json", "[1, 2", "masks.json: line 1, column 6"),
        ("masks.json", '{"a": 1}', "expected COCO: a list of results, or an object with annotations"),
        ("masks.json", '[{"image_id": 11, "bbox": [1, 2, 3, 4]}]', "masks.json, result 0, segmentation: there is none"),
        (
            "masks.json",
            '[{"image_id": 11, "annotation_id": 1, "segmentation": [[1, 2, 3]]}]',
            "result 0, segmentation: ",
        ),
        (
            "masks.json",
            '[{"annotation_id": 1, "score": 7, "segmentation": [[1,1,9,1,9,9]]}]',
            "result 0, score: .* got 7",
        ),
        ("rows.parquet", "no parquet", "not readable as parquet"),
        ("masks.csv", "1,2", "expected a COCO file of results or instances"),
    ],
)
def test_a_damaged_file_is_named_with_its_place(
    run: RunPaths, tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_candidates(run, "mine", _write(tmp_path / "in" / name, content))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "0 0.1 0.2 x 0.4 0.5 0.6"}, "a.txt, line 1, column 4: expected a share .* got 'x'"),
        ({"a.txt": "\n0 0.1 0.2 0.3 0.4"}, "a.txt, line 2: expected a class and the corners of a polygon, got 5"),
        ({"cat.png": b""}, "not one of 1 masks is for an object .* theirs: cat; .* annotation ids begin 1, 2, 3"),
        ({"1.png": b"nothing"}, "not a readable PNG"),
        ({"1.png": b"", "a.txt": ""}, "1 PNG and 1 YOLO in it"),
        ({}, "no such files in it"),
    ],
)
def test_a_damaged_folder_is_named_with_its_place(
    run: RunPaths, tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in files.items():
        _write(folder / name, content)
    with pytest.raises(InputError, match=message):
        write_candidates(run, "mine", folder)


def test_a_picture_of_another_size_says_both(run: RunPaths, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    Image.fromarray(np.full((60, 70), 255, np.uint8)).save(folder / "1.png")
    with pytest.raises(InputError, match=r"1\.png: is 70x60, its image 80x60"):
        write_candidates(run, "mine", folder)


def _fused(run: RunPaths, **options: Any) -> dict[int, Any]:
    run_stage(run, "fuse", FuseConfig(workers=1), RunOptions(engine="inline", **options))
    parts = [read_part(run.part("pseudo", shard, SHARDS)).to_pylist() for shard in range(SHARDS)]
    return {
        row["annotation_id"]: row["segmentation"]["counts"] for part in parts for row in part if row["annotation_id"]
    }


def test_other_masks_make_fuse_go_again_and_the_same_ones_do_nothing(run: RunPaths) -> None:
    write_candidates(run, "mine", {one: ellipse(one) for one in BOXES})
    first = _fused(run)
    before = [run.part("candidates/mine", shard, SHARDS).stat().st_mtime_ns for shard in range(SHARDS)]
    again = write_candidates(run, "mine", {one: ellipse(one) for one in BOXES})
    assert again.shards_written == 0
    assert [run.part("candidates/mine", shard, SHARDS).stat().st_mtime_ns for shard in range(SHARDS)] == before
    left = {one: ellipse(one) & (np.arange(SIZE_HW[1]) < BOXES[one][1] + 0.8 * BOXES[one][3]) for one in BOXES}
    with pytest.raises(StaleOutputError, match="holds other masks: use --overwrite, or another --name"):
        write_candidates(run, "mine", left)
    assert write_candidates(run, "mine", left, overwrite=True).shards_written == SHARDS
    assert _fused(run) != first


def test_fuse_does_not_go_on_without_a_source_whose_parts_are_gone(run: RunPaths) -> None:
    for name in ("mine", "others"):
        write_candidates(run, name, {one: ellipse(one) for one in BOXES})
    for shard in range(SHARDS):
        run.part("candidates/others", shard, SHARDS).unlink()
    with pytest.raises(IncompleteError, match=r"needs candidates/others, and 2 of its 2 shards are missing"):
        _fused(run)


def test_images_without_a_mask_have_an_empty_row_and_the_footer_counts_all(run: RunPaths) -> None:
    write_candidates(run, "mine", {1: ellipse(1)})
    footers = [read_footer(run.part("candidates/mine", shard, SHARDS)) for shard in range(SHARDS)]
    assert sum(footer.n_in for footer in footers) == sum(footer.n_ok for footer in footers) == 3
    assert {footer.stage for footer in footers} == {"add-candidates"}


def test_the_table_of_a_stage_is_not_replaced(run: RunPaths) -> None:
    table = records.table_from_rows([], records.CANDIDATES)
    commit_table(table, run.part("candidates/mine", 0, SHARDS), Footer("infer-siseg", 1, "x", 0, SHARDS, 0, 0, 0))
    with pytest.raises(StaleOutputError, match="was written by infer-siseg; give another --name"):
        write_candidates(run, "mine", {1: ellipse(1)}, overwrite=True)


def test_a_run_whose_manifest_is_not_complete_says_what_to_type(run: RunPaths) -> None:
    run.part("manifest", 1, SHARDS).unlink()
    with pytest.raises(IncompleteError, match="run  pseudolabel shard  first"):
        write_candidates(run, "mine", {1: ellipse(1)})


def test_files_that_were_laid_there_by_hand_are_told_of_the_command(run: RunPaths) -> None:
    run.table("candidates/own").mkdir(parents=True)
    pq.write_table(_table(annotation_id=[1]), run.part("candidates/own", 0, SHARDS))
    with pytest.raises(IncompleteError) as told:
        _fused(run)
    assert f"or bring own masks by  pseudolabel add-candidates {run.typed} --name own --masks FILE" in str(told.value)


def test_a_damaged_table_is_told_of_with_the_whole_line_and_brought_again(run: RunPaths) -> None:
    masks = {one: ellipse(one) for one in BOXES}
    write_candidates(run, "own", masks)
    path = run.part("candidates/own", 0, SHARDS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IncompleteError) as told:
        _fused(run)
    assert f"pseudolabel add-candidates {run.typed} --name own --masks FILE" in str(told.value)
    assert write_candidates(run, "own", masks).shards_written == 1
    _fused(run)


def test_the_command_says_what_was_left_out(run: RunPaths, tmp_path: Path) -> None:
    path = _coco(tmp_path, [*(_entry(one, annotation_id=one) for one in BOXES), _entry(1, annotation_id=99)])
    arguments = ["add-candidates", str(run.root), "--name", "mine", "--masks", str(path)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.output.splitlines() == [
        "add-candidates: candidates/mine: 4 of 5 masks, for 4 of 4 objects, matched by annotation id",
        "1 are of no object of the run (annotation ids 99)",
        f"next: pseudolabel fuse {run.root}",
    ]
    as_json = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(as_json.output)["shards_written"] == 0
