"""Nothing vanishes from a count: what is not used is counted, named, and ends a run where it must."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from own_chain import draw_scenes
from PIL import Image

from pseudolabel.cli.main import main
from pseudolabel.errors import IncompleteError, InputError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.verify import verify_run

SOUND = [2, 3, 10, 10]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images of 40 x 30."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (40, 30), (number * 50, 90, 160)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def _annotate(folder: Path, *boxes: dict[str, Any], images: int = 4) -> Path:
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(images)],
        "annotations": [{"id": n + 1, "image_id": n % 4, "category_id": 1, **box} for n, box in enumerate(boxes)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def _shard(folder: Path, *more: object) -> Result:
    command = ["shard", folder / "run", "--images", folder / "images", "--annotations", folder / "boxes.json"]
    return _run(*command, "--shards", 2, "--engine", "inline", *more)


def test_refused_boxes_on_whole_images_are_told_by_shard_status_and_verify(data: Path) -> None:
    boxes = [{"bbox": SOUND}] * 60
    _annotate(data, *boxes, {"bbox": [-500, 0, 9, 9]}, {"bbox": [1, 1, 0, 5]}, {"bbox": SOUND, "category_id": 7})
    told = _shard(data, "--max-reject-rate", "0.1").output
    assert "shard: 4 images, 60 boxes used, 3 refused (empty_box 2, no_such_category 1), e.g. " in told
    assert ".png id 6" in told
    status = json.loads(_run("status", data / "run", "--json").output)["tables"][0]
    assert status["rejects"] == {"empty_box": 2, "no_such_category": 1}
    assert status["counts"]["objects"]["n_in"] == 63
    assert "rejected 2: empty_box" in _run("status", data / "run").output
    rows = list(csv.DictReader(io.StringIO(_run("status", data / "run", "--rejected", "--csv").output)))
    rows.sort(key=lambda row: row["annotation_id"])
    assert [(row["file"], row["annotation_id"], row["reason"]) for row in rows] == [
        ("0.png", "61", "empty_box"),
        ("1.png", "62", "empty_box"),
        ("2.png", "63", "no_such_category"),
    ]
    assert "lies beside the image" in rows[0]["detail"]
    assert verify_run(RunPaths(data / "run")) == []


def test_boxes_of_which_not_one_can_be_used_are_an_error_with_an_example(data: Path) -> None:
    _annotate(data, *[{"bbox": [500, 0, 5, 5]}] * 4)  # what only a look at the image tells
    failed = _shard(data).exception
    assert isinstance(failed, InputError)
    assert "boxes can be used (empty_box" in str(failed)
    assert ".png id " in str(failed)


@pytest.mark.parametrize("boxes", [[], [{"bbox": SOUND, "category_id": 9}] * 4], ids=["none", "of no category"])
def test_annotations_without_one_usable_box_make_no_run(data: Path, boxes: list[dict[str, Any]]) -> None:
    _annotate(data, *boxes)
    failed = _shard(data).exception
    assert isinstance(failed, InputError)
    assert failed.exit_code == 2
    assert "not one usable box on 4 images" in str(failed)
    assert not boxes or "4 no_such_category, such as 0.png id 1: category_id 9" in str(failed)
    assert not (data / "run" / "plan.json").exists()


def test_images_of_which_not_one_can_be_used_are_told_with_an_example(data: Path) -> None:
    _annotate(data, {"bbox": SOUND})
    content = json.loads((data / "boxes.json").read_text())
    for image in content["images"]:
        image["file_name"] = image["id"]
    (data / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"not one usable image \(rejected: 4 bad_name, such as images\[0\].*is 0"):
        raise _shard(data).exception or AssertionError("no error")


def test_the_limit_of_rejects_holds_for_the_run_from_its_first_image_on(data: Path) -> None:
    _annotate(data, *[{"bbox": SOUND}] * 4)
    for number in range(4):
        (data / "images" / f"{number}.png").unlink()
    failed = _shard(data).exception
    assert isinstance(failed, IncompleteError)
    assert "images were rejected (missing" in str(failed)


def test_the_limit_counts_boxes_too_and_over_all_shards(data: Path) -> None:
    _annotate(data, *[{"bbox": SOUND}] * 18, *[{"bbox": [1, 1, 0, 0]}] * 2)
    failed = _shard(data, "--max-reject-rate", "0.09").exception
    assert isinstance(failed, IncompleteError)
    assert "2 of 20 objects were rejected (empty_box 2)" in str(failed)
    assert _shard(data, "--max-reject-rate", "0.1").exit_code == 0


def test_clipped_doubled_and_crowd_boxes_are_noted(data: Path) -> None:
    _annotate(
        data, {"bbox": [-5, 0, 10, 10]}, {"bbox": SOUND}, {"bbox": SOUND, "image_id": 1}, {"bbox": SOUND, "iscrowd": 1}
    )
    told = _shard(data).output
    assert "4 boxes used" in told
    for words in ("1 boxes cut to their image", "1 boxes given twice", "1 crowd regions"):
        assert words in told


def test_nothing_but_crowds_is_said(data: Path) -> None:
    _annotate(data, *[{"bbox": SOUND, "iscrowd": 1}] * 3)
    assert "3 crowd regions, which nothing labels, so there is nothing to label" in _shard(data).output


def test_fuse_says_what_it_decided_and_where_the_files_are(data: Path) -> None:
    _annotate(data, *[{"bbox": SOUND}] * 4)
    _shard(data)
    colors = _run("infer-colors", data / "run", "--engine", "inline").output
    assert "infer-colors: 4 images, 4 boxes used, 4 with a mask of box and colours alone" in colors
    told = _run("fuse", data / "run", "--engine", "inline").output
    assert "fuse: 4 objects: " in told
    assert f"-> {data / 'run' / 'pseudo' / 'instances.json'}; " in told
    decided = json.loads(_run("fuse", data / "run", "--engine", "inline", "--json").output)["stages"][0]["counts"][
        "notes"
    ]
    content = json.loads((data / "run" / "pseudo" / "instances.json").read_text())["annotations"]
    decisions = [one["attributes"]["decision"] for one in content]
    assert {name: decided.get(name, 0) for name in set(decisions)} == {
        name: decisions.count(name) for name in decisions
    }
    assert {one["attributes"]["source"] for one in content} == {"colors"}


def test_label_maps_that_belong_to_no_image_are_an_error_with_an_example(data: Path) -> None:
    _annotate(data, {"bbox": SOUND})
    _shard(data)
    labels = draw_scenes(data / "scenes", count=1) / "labels"
    options = ["--label-format", "raw", "--classes", "background", "--classes", "cell", "--ignore-index", 255]
    failed = _run(
        "infer-semantic", data / "run", "--model", f"labels:{labels}", *options, "--engine", "inline"
    ).exception
    assert isinstance(failed, InputError)
    assert "no label map belongs to any of the" in str(failed)


def test_label_maps_that_changed_make_the_table_stale(data: Path) -> None:
    _annotate(data, {"bbox": SOUND})
    _shard(data)
    (data / "labels").mkdir()
    for number in range(4):
        Image.new("L", (40, 30), 1).save(data / "labels" / f"{number}.png")
    options = ["--label-format", "raw", "--classes", "background", "--classes", "cell", "--ignore-index", 255]
    command = ["infer-semantic", data / "run", "--model", f"labels:{data / 'labels'}", *options, "--engine", "inline"]
    assert _run(*command).exit_code == 0
    Image.new("L", (40, 30), 0).save(data / "labels" / "3.png")
    assert "the content of label maps changed" in str(_run(*command).exception)
