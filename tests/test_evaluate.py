"""`evaluate`: figures by hand, the baseline's known figures on real photographs, and what is refused."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as codec

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.metrics.mask_iou import box_mask
from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.planning.make_plan import make_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.evaluate import EvaluateConfig, evaluate, format_figures, run_evaluation

VOC = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "couch", "cow", "dining table",
    "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "train", "tv",
)  # fmt: skip


def disc(size: int = 100, radius: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + 0.5 - size / 2
    return (rows**2 + columns**2 < radius**2).astype(np.uint8)


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = codec.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def truth() -> dict[str, Any]:
    """A disc of radius 40 and one of radius 10 on two images, a class each, and a crowd."""
    rows = [
        {"id": 11, "image_id": 1, "category_id": 1, "segmentation": rle(disc()), "bbox": [10, 10, 80, 80]},
        {"id": 12, "image_id": 2, "category_id": 5, "segmentation": rle(disc(radius=10)), "bbox": [40, 40, 20, 20]},
        {"id": 13, "image_id": 2, "category_id": 5, "segmentation": rle(disc()), "iscrowd": 1},
    ]  # fmt: skip
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 100, "width": 100} for n in (1, 2)]
    names = [{"id": 1, "name": "plate"}, {"id": 5, "name": "coin"}]
    return {"images": images, "annotations": rows, "categories": names}


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def figures(tmp_path: Path, predictions: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    found = saved(tmp_path / "found.json", {**truth(), "annotations": predictions})
    return evaluate(found, saved(tmp_path / "truth.json", truth()), **options)


def scored(place: int, score: float = 0.5, **more: Any) -> dict[str, Any]:
    return {**truth()["annotations"][place], "score": score, **more}


def test_true_masks_score_one_and_their_boxes_a_quarter_of_pi(tmp_path: Path) -> None:
    result = figures(tmp_path, [scored(0), scored(1)])
    assert (result["n"], result["mean_iou"], result["iou_over_50"], result["iou_over_75"]) == (2, 1.0, 1.0, 1.0)
    assert (result["ap"], result["ap50"], result["ap75"]) == (1.0, 1.0, 1.0)
    box = result["baseline_box"]
    assert box["mean_iou"] == pytest.approx(np.pi / 4, abs=0.01)
    assert box["per_class"]["plate"]["n"] == 1
    assert box["ap"] == pytest.approx(0.6)  # of the ten thresholds, 0.50 to 0.75 lie below pi / 4


def test_a_missing_mask_counts_zero_and_scores_are_measured_on_the_others(tmp_path: Path) -> None:
    result = figures(tmp_path, [scored(0, score=0.9)])
    assert (result["mean_iou"], result["iou_over_50"]) == (0.5, 0.5)
    assert result["per_class"]["coin"]["mean_iou"] == 0.0
    assert result["per_size"]["small"] == {"n": 1, "mean_iou": 0.0, "iou_over_50": 0.0, "iou_over_75": 0.0, "ap": 0.0}
    assert result["ece"] == pytest.approx(0.1)
    assert result["spearman"] is None


def test_objects_are_restricted_by_class_and_area_with_the_masks_that_belong_to_them(tmp_path: Path) -> None:
    wrong_coin = scored(1, segmentation=rle(disc()))
    by_area = figures(tmp_path, [scored(0), wrong_coin], min_area_px=1000)
    by_class = figures(tmp_path, [scored(0), wrong_coin], categories=("plate",))
    for result in (by_area, by_class):
        assert (result["n"], result["mean_iou"], result["ap"], list(result["per_class"])) == (1, 1.0, 1.0, ["plate"])
        assert result["baseline_box"]["n"] == 1


def test_the_baseline_takes_the_box_that_a_mask_says_it_came_from(tmp_path: Path) -> None:
    loose = scored(0, attributes={"source_bbox": "0,0,100,100"})
    result = figures(tmp_path, [loose], categories=("plate",))
    assert result["baseline_box"]["mean_iou"] == pytest.approx(disc().sum() / 100**2)


def test_masks_with_ids_of_their_own_are_measured_by_ap_alone(tmp_path: Path) -> None:
    made = {**truth(), "info": {"pseudolabel": {"annotation_ids": "made"}}, "annotations": [scored(0, id=12)]}
    result = evaluate(saved(tmp_path / "found.json", made), saved(tmp_path / "truth.json", truth()))
    assert (result["mean_iou"], result["spearman"]) == (None, None)
    assert result["ap"] == pytest.approx(0.5)
    assert result["baseline_box"]["mean_iou"] == pytest.approx(np.pi / 4, abs=0.01)
    assert "plate" in format_figures(result)


def bare(names: list[str], ids: list[int]) -> dict[str, Any]:
    """What a run of bare images says of these: a perfect plate on the first one."""
    images = [
        {**truth()["images"][0], "id": number, "file_name": name} for number, name in zip(ids, names, strict=True)
    ]
    info = {"pseudolabel": {"annotation_ids": "made"}}
    return {**truth(), "info": info, "images": images, "annotations": [scored(0, id=12, image_id=ids[0])]}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(["a.png", "b.png"], ["b.png", "a.png"], id="the ids of another order"),
        pytest.param(["x/a.png", "y/a.png"], ["y/a.png", "x/a.png"], id="one name in two folders"),
        pytest.param(["a.png", "b.png"], ["val/B.png", "val/A.png"], id="other folders"),
    ],
)
def test_images_without_given_ids_meet_the_truth_by_file_name(
    tmp_path: Path, ours: list[str], theirs: list[str]
) -> None:
    true = truth()
    true["images"] = [{**true["images"][0], "id": number, "file_name": theirs[number - 1]} for number in (1, 2)]
    true["annotations"] = [{**true["annotations"][0], "image_id": 2}]
    found = saved(tmp_path / "found.json", bare(ours, [1, 2]))
    result = evaluate(found, saved(tmp_path / "truth.json", true))
    assert (result["n"], result["ap"]) == (1, pytest.approx(1.0))
    sampled = evaluate(found, saved(tmp_path / "truth.json", true), images=frozenset({1}))
    assert (sampled["n"], sampled["ap"]) == (1, pytest.approx(1.0))


def test_masks_on_images_that_the_truth_lacks_do_not_count_where_ids_are_made(tmp_path: Path) -> None:
    content = bare(["a.png", "b.png"], [1, 2])
    content["annotations"].append({**content["annotations"][0], "id": 13, "image_id": 2, "score": 1.0})
    true = truth()
    true["images"] = [{**true["images"][0], "id": 70, "file_name": "a.png"}]
    true["annotations"] = [{**true["annotations"][0], "image_id": 70}]
    result = evaluate(saved(tmp_path / "found.json", content), saved(tmp_path / "truth.json", true))
    assert (result["n_predictions"], result["ap"]) == (1, pytest.approx(1.0))


def test_a_truth_of_other_images_is_refused_where_ids_are_made(tmp_path: Path) -> None:
    true = truth()
    true["images"] = [{**true["images"][0], "file_name": "other.png"}]
    with pytest.raises(InputError, match=r"none of its 1 images has the file name .*'a.png' here.*'other.png' there"):
        evaluate(saved(tmp_path / "found.json", bare(["a.png"], [1])), saved(tmp_path / "truth.json", true))


def test_masks_beyond_the_limit_of_detections_do_not_count_for_ap(tmp_path: Path) -> None:
    content = truth()
    content["annotations"] = [{**content["annotations"][0], "id": n} for n in range(1, 4)]
    found = saved(tmp_path / "found.json", {**content, "annotations": [
        {**row, "score": 0.5} for row in content["annotations"]
    ]})  # fmt: skip
    true = saved(tmp_path / "truth.json", content)
    assert evaluate(found, true, detections=3)["ap"] == pytest.approx(1.0)
    assert evaluate(found, true, detections=1)["ap"] == pytest.approx(34 / 101)  # recalls 0 to 0.33
    assert "class_right" not in evaluate(found, true)  # with a given box its class is given


def test_a_run_folder_is_read_like_its_file_and_gz_like_plain(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    saved(run.table("pseudo") / "instances.json", {**truth(), "annotations": [scored(0)]})
    packed = tmp_path / "truth.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(truth()).encode()))
    result = run_evaluation(run, EvaluateConfig(ground_truth=packed, categories=["plate"]))
    assert result == evaluate(run.root, packed, categories=("plate",))
    assert result["mean_iou"] == 1.0


def test_figures_are_plain_json(tmp_path: Path) -> None:
    result = figures(tmp_path, [scored(0), scored(1)])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_damaged_true_mask_is_left_out_and_said(tmp_path: Path) -> None:
    content = truth()
    content["annotations"][1]["segmentation"] = [[float("nan")] * 6]
    found = saved(tmp_path / "found.json", {**truth(), "annotations": [scored(0)]})
    result = evaluate(found, saved(tmp_path / "truth.json", content))
    assert (result["n"], sum(result["left_out"].values())) == (1, 1)
    assert "left out of the truth: 1 x a polygon's points" in format_figures(result)


def test_the_table_shows_every_group_beside_the_box(tmp_path: Path) -> None:
    lines = format_figures(figures(tmp_path, [scored(0, score=0.9), scored(1)])).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["all", "small", "medium", "coin", "plate"]
    assert lines[1].split()[1:3] == ["2", "1.000"]
    assert len({len(line) for line in lines[:6]}) == 1


BAD = {
    "a run without masks": ({"annotations": [scored(0, id=99)]}, "none of its 1 annotations has the id"),
    "a run of other boxes": (
        {"annotations": [scored(0, attributes={"source_bbox": "0,0,20,20"})]}, "median IoU of 1 given boxes .* is 0.01"
    ),
    "a damaged mask": ({"annotations": [scored(0, segmentation={**rle(disc()), "counts": "05"})]}, "annotation 11"),
    "another image size": ({"annotations": [scored(0, segmentation=rle(disc(90)))]}, "size is .90, 90."),
    "no score": ({"annotations": [truth()["annotations"][0]]}, "the score is None"),
    "a score above one": ({"annotations": [scored(0, score=1.5)]}, "the score is 1.5"),
    "an unknown image": ({"annotations": [scored(0, image_id=7)]}, "image 7 is not in the ground truth"),
    "no lists": ({"images": None, "annotations": []}, "lists 'images'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=list(BAD))
def test_a_file_that_cannot_be_measured_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    found = saved(tmp_path / "found.json", {**truth(), **change})
    with pytest.raises(InputError, match=message):
        evaluate(found, saved(tmp_path / "truth.json", truth()))


def test_a_missing_file_a_broken_file_and_an_unknown_class_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json: line 1, column 2"):
        evaluate(tmp_path / "broken.json", tmp_path / "broken.json")
    with pytest.raises(InputError, match=r"nothing\.json: cannot be read"):
        evaluate(tmp_path / "nothing.json", tmp_path / "nothing.json")
    with pytest.raises(InputError, match="pseudolabel fuse"):
        run_evaluation(RunPaths(tmp_path), EvaluateConfig(ground_truth=tmp_path / "truth.json"))
    with pytest.raises(ConfigError, match="did you mean 'plate'"):
        figures(tmp_path, [], categories=("plates",))


def test_a_sample_is_measured_over_its_own_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for row in truth()["images"]:
        Image.new("RGB", (100, 100)).save(tmp_path / "images" / row["file_name"])
    file, run = saved(tmp_path / "truth.json", truth()), RunPaths(tmp_path / "run")
    make_plan(run, PlanConfig(images=str(tmp_path / "images"), annotations=file, sample=1))
    (drawn,) = {*read_part(run.part("plan", 0, 1), ["image_id"])["image_id"].to_pylist()}
    kept = scored(0 if drawn == 1 else 1)  # the one object of each image that is no crowd
    saved(run.table("pseudo") / "instances.json", {**truth(), "annotations": [kept]})
    for result in (run_evaluation(run, EvaluateConfig(ground_truth=file)), evaluate(run.root, file)):
        assert (result["n"], result["mean_iou"]) == (1, 1.0)
        assert result["left_out"]["an object on another image"] == (2 if drawn == 1 else 1)


def coco_dev() -> Path:
    checkout = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("PSEUDOLABEL_SHARED", checkout.parent / "shared")) / "data" / "coco-dev"
    if not folder.is_dir():
        pytest.skip("REAL DATA ABSENT: set PSEUDOLABEL_SHARED to the folder that holds data/coco-dev")
    return folder


def test_the_boxes_of_real_photographs_have_the_known_iou(tmp_path: Path) -> None:
    boxes = json.loads((coco_dev() / "boxes.json").read_text())
    sizes = {row["id"]: (row["height"], row["width"]) for row in boxes["images"]}
    for row in boxes["annotations"]:
        row |= {"segmentation": box_mask(tuple(row["bbox"]), sizes[row["image_id"]]), "score": 0.5}
    found = saved(tmp_path / "boxes.json", boxes)
    everything = evaluate(found, coco_dev() / "instances.json")
    assert (everything["n"], round(everything["mean_iou"], 3)) == (1302, 0.598)
    voc32 = evaluate(found, coco_dev() / "instances.json", categories=VOC, min_area_px=1024)
    assert (voc32["n"], round(voc32["mean_iou"], 3)) == (371, 0.553)
    assert voc32["mean_iou"] == voc32["baseline_box"]["mean_iou"]
    ellipses = [round(one["baseline_ellipse"]["mean_iou"], 3) for one in (everything, voc32)]
    assert ellipses == [0.629, 0.583]


@pytest.mark.parametrize("without", [{}, {"segmentation": []}, {"segmentation": None}], ids=["absent", "empty", "null"])
def test_objects_of_the_truth_that_are_boxes_alone_are_left_out_and_counted(
    tmp_path: Path, without: dict[str, Any]
) -> None:
    content = truth()
    del content["annotations"][1]["segmentation"]
    content["annotations"][1] |= without
    found = saved(tmp_path / "found.json", {**truth(), "annotations": [scored(0), scored(1)]})
    result = evaluate(found, saved(tmp_path / "truth.json", content))
    assert (result["n"], result["mean_iou"]) == (1, 1.0)
    assert result["left_out"] == {"a box without a mask": 1}
    assert "left out of the truth: 1 x a box without a mask" in format_figures(result)


@pytest.mark.parametrize("own", [(0, 1), (7, 0)], ids=["from 0", "0 among others"])
def test_annotations_that_a_run_numbered_meet_the_truth_by_their_own_ids(tmp_path: Path, own: tuple[int, int]) -> None:
    content = truth()
    for row, number in zip(content["annotations"], (*own, 99), strict=True):
        row["id"] = number
    masks = [scored(place, id=place + 1, attributes={"own_id": own[place]}) for place in (1, 0)]
    found = saved(tmp_path / "found.json", {**truth(), "annotations": masks})
    result = evaluate(found, saved(tmp_path / "truth.json", content))
    assert (result["n"], result["mean_iou"]) == (2, 1.0)


def test_a_truth_whose_ids_are_texts_meets_the_run_made_from_it(tmp_path: Path) -> None:
    content = truth()
    for row in content["images"]:
        row["id"] = str(row["id"])
    for row in content["annotations"]:
        row |= {name: str(row[name]) for name in ("id", "image_id", "category_id")}
    for row in content["categories"]:
        row["id"] = str(row["id"])
    found = saved(tmp_path / "found.json", {**truth(), "annotations": [scored(0), scored(1)]})
    result = evaluate(found, saved(tmp_path / "truth.json", content))
    assert (result["n"], result["mean_iou"]) == (2, 1.0)
