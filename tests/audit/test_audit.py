"""`audit` as it is typed: the files that it writes, its exit code, and what it makes of damaged input."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pseudolabel import rle
from pseudolabel.cli.main import main
from pseudolabel.errors import InputError, QualityGateError
from pseudolabel.pipelines.api import Run
from pseudolabel.pipelines.tools.add_candidates import write_candidates

NAME = "a,\"b'.png"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One image with four boxes, the second of which is the first once more, and hangs over the image's edge."""
    boxes = {1: [10, 10, 40, 30], 2: [10, 10, 40, 30], 3: [70, 40, 30, 30], 4: [20, 45, 30, 12]}
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0, "area": 1}
        for number, box in boxes.items()
    ]
    images = [{"id": 1, "file_name": NAME, "width": 80, "height": 60}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "=cat"}]}
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((60, 80, 3), 120, dtype=np.uint8)).save(tmp_path / "images" / NAME)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path


def audited(data: Path, *options: str) -> tuple[Any, list[dict[str, str]]]:
    arguments = ["audit", str(data / "boxes.json"), "--images", str(data / "images"), "--out", str(data / "out")]
    result = CliRunner().invoke(main, [*arguments, *options])
    with (data / "out" / "issues.csv").open(newline="", encoding="utf-8") as file:
        return result, list(csv.DictReader(file))


def test_issues_stand_in_csv_and_json_worst_first_with_pictures(data: Path) -> None:
    result, rows = audited(data)
    assert result.exit_code == 0, result.exception
    assert list(rows[0])[:5] == ["file", "id", "issue", "score", "suggestion"]
    assert [(row["file"], row["id"], row["issue"], row["other"]) for row in rows] == [
        (NAME, "2", "doubled", "1"),
        (NAME, "3", "outside", ""),
    ]
    assert float(rows[1]["score"]) == pytest.approx(1 - 10 * 20 / 900, abs=1e-3)
    told = json.loads((data / "out" / "issues.json").read_text())
    assert [row["id"] for row in told] == [2, 3]
    assert told[1]["bbox"] == [70, 40, 10, 20]
    assert sorted(path.name for path in (data / "out" / "pictures").iterdir()) == ["000-doubled.png", "001-outside.png"]
    assert "1 doubled, 1 outside" in result.output


def test_fail_on_ends_with_code_5_after_everything_is_written(data: Path) -> None:
    result, rows = audited(data, "--fail-on", "doubled")
    assert isinstance(result.exception, QualityGateError)
    assert len(rows) == 2
    assert audited(data, "--fail-on", "tiny")[0].exit_code == 0
    assert audited(data, "--fail-on", "loose")[0].exit_code == 2  # a hint is no gate


def test_a_mask_that_differs_from_the_fused_one_is_told(data: Path) -> None:
    run = Run.create(data / "run", images=data / "images", boxes=data / "boxes.json", shards=1)
    masks = np.zeros((60, 80), dtype=bool)
    masks[46:57, 20:42] = True
    write_candidates(run.paths, "own", {4: masks}, knows_class=True)
    run.step("fuse", refine="none", score="mqs", keep_score=0.2, review_score=0.1, engine="inline")
    content = json.loads((data / "boxes.json").read_text())
    other = np.zeros((60, 80), dtype=bool)
    other[:40, :40] = True
    content["annotations"][3]["segmentation"] = rle.encode(other)
    (data / "boxes.json").write_text(json.dumps(content))
    _, rows = audited(data, "--run", str(data / "run"))
    found = {row["issue"]: row for row in rows if row["id"] == "4"}
    assert set(found) == {"bad_mask"}
    assert "IoU 0.00" in found["bad_mask"]["suggestion"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"bbox": [1, 2, 3]}, "(4)", id="box"),
        pytest.param({"category_id": 9}, "annotation 4", id="class"),
        pytest.param({"image_id": 9}, "annotation 4", id="image"),
    ],
)
def test_a_damaged_annotation_is_named(data: Path, change: dict[str, Any], said: str) -> None:
    content = json.loads((data / "boxes.json").read_text())
    content["annotations"][3] |= change
    (data / "boxes.json").write_text(json.dumps(content))
    result = CliRunner().invoke(main, ["audit", str(data / "boxes.json"), "--out", str(data / "out")])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
