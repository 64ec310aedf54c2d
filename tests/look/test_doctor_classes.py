"""`doctor`: boxes of each class, and which of them a segmenter knows."""

import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pseudolabel.pipelines.doctor.patient as patient
from pseudolabel.cli.main import main
from pseudolabel.pipelines.doctor.classes import BoxesOf, asked_segmenter
from pseudolabel.pipelines.doctor.patient import data_checks, run_checks
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import SavedConfig, save_config
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.steps import make_step
from tests.look.made_runs import Made, make_run, many


def found(run: RunPaths) -> dict[str, Any]:
    return {check.name: check for check in run_checks(run)}


def test_rare_classes_are_named(tmp_path: Path) -> None:
    images = {"a.png": [Made((5, 5, 20, 20), "common")] * 12 + [Made((9, 9, 20, 20), "rare")]}
    check = found(make_run(tmp_path, images, shards=1).paths)["classes"]
    assert check.state == "warn"
    assert check.found == "2 with boxes, 0 without: common 12, rare 1; 1 with fewer than 10"
    assert check.todo.endswith(": rare 1")


def voc(folder: Path, **more: Any) -> InferSemanticConfig:
    (folder / "labels").mkdir(exist_ok=True)
    return InferSemanticConfig(model=f"labels:{folder / 'labels'}", label_format="voc", **more)


def boxes_of(**counts: int) -> BoxesOf:
    """Categories 1, 2, ... with so many boxes."""
    numbered = list(enumerate(counts.items(), 1))
    names = {number: name for number, (name, _) in numbered}
    return BoxesOf(names, Counter({number: count for number, (_, count) in numbered}))


def test_classes_and_boxes_that_a_segmenter_knows_are_counted(tmp_path: Path) -> None:
    """Person and Potted-Plant are VOC's, cup and fork are not; no box is a kite, so that it is not named."""
    known = boxes_of(person=7, cup=3, potted_Plant=2, fork=4, kite=0)
    opened, check = asked_segmenter(voc(tmp_path), known, RunPaths(tmp_path / "mine"))
    assert (opened.name, opened.state) == ("segmenter", "ok")
    assert opened.found.endswith(": 21 classes, works on the CPU")
    assert check.state == "warn"
    assert check.found == (
        "2 of 5 categories and 9 of 16 boxes have a class of the segmenter, by identical names; none for fork 4, cup 3"
    )
    assert "from box and colours alone" in check.todo
    assert check.todo.endswith(f"  pseudolabel train-teacher {tmp_path / 'mine'}")


def test_of_many_unknown_classes_the_most_frequent_are_named(tmp_path: Path) -> None:
    known = boxes_of(person=1, **{f"thing{number}": number for number in range(1, 9)})
    _, check = asked_segmenter(voc(tmp_path), known)
    assert check.found.endswith("; none for thing8 8, thing7 7, thing6 6, thing5 5, thing4 4, ... (3 more)")


@pytest.mark.parametrize(
    ("options", "counts", "state", "said"),
    [
        pytest.param({}, {"person": 3, "kite": 0}, "ok", "", id="all boxes known"),
        pytest.param({}, {"nucleus": 3}, "warn", "pseudolabel infer-colors RUN; ", id="none known"),
        pytest.param(
            {"unknown_classes": "none"}, {"person": 1, "cup": 3}, "warn", "--unknown-classes colors", id="no candidates"
        ),
        pytest.param({"masks": "region"}, {"person": 1, "cup": 3}, "warn", "no candidates", id="bare regions"),
        pytest.param({"name": "second"}, {"person": 1, "cup": 3}, "ok", "", id="a further segmenter"),
    ],
)
def test_what_becomes_of_unknown_classes_is_said(
    options: dict[str, Any], counts: dict[str, int], state: str, said: str, tmp_path: Path
) -> None:
    _, check = asked_segmenter(voc(tmp_path, **options), boxes_of(**counts))
    assert (check.state, said in check.todo) == (state, True)


def test_a_segmenter_that_does_not_open_fails_in_the_words_of_infer_semantic(tmp_path: Path) -> None:
    (check,) = asked_segmenter(InferSemanticConfig(model=str(tmp_path / "none.onnx")), boxes_of(person=1))
    assert (check.name, check.state) == ("segmenter", "fail")
    assert "no such ONNX file" in check.found


def test_a_run_s_segmenter_is_matched_as_its_stage_matched_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line of the stage's log and doctor's agree; the folder of label maps may be gone by then."""
    images = {"a.png": [Made((5, 5, 20, 20), "Person"), Made((30, 9, 20, 20), "cup"), Made((9, 30, 20, 20), "cup")]}
    made = make_run(tmp_path, images, shards=1)
    shutil.rmtree(made.paths.table("candidates/colors"))
    config = voc(tmp_path)
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "labels" / "a.png")
    caplog.set_level(logging.INFO, "pseudolabel")
    list(make_step("infer-semantic", config).run(made.paths, RunOptions("inline", overwrite=True)))
    shutil.rmtree(tmp_path / "labels")
    assert "1 of 2 categories matched by identical names" in caplog.messages
    check = found(made.paths)["class map"]
    assert check.found.startswith(
        "1 of 2 categories and 1 of 3 boxes have a class of the segmenter, by identical names"
    )
    assert check.found.endswith("; none for cup 2")
    assert check.state == "warn"
    (made.paths.table("candidates/teacher") / "part-00000-of-00001.parquet").parent.mkdir()
    (made.paths.table("candidates/teacher") / "part-00000-of-00001.parquet").touch()
    check = found(made.paths)["class map"]
    assert (check.state, check.found.endswith("; none for cup 2: left to teacher")) == ("ok", True)
    assert "segmenter" not in found(made.paths)


def test_before_there_are_label_maps_the_recorded_model_is_asked(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": [Made((5, 5, 20, 20), "person")]}, shards=1)
    config = voc(tmp_path).model_dump(mode="json")
    save_config(made.paths, SavedConfig("infer-semantic", "semantic", "cpu", config, {}))
    checks = found(made.paths)
    assert checks["class map"].found.startswith("1 of 1 categories and 1 of 1 boxes")
    shutil.rmtree(tmp_path / "labels")
    assert found(made.paths)["segmenter"].state == "fail"


def test_a_segmenter_is_tried_on_data_on_a_run_and_alone(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": many(10), "b.png": many(10)})
    (tmp_path / "labels").mkdir()
    asked = ["--model", f"labels:{tmp_path / 'labels'}", "--label-format", "voc", "--json"]
    images, boxes = made.paths.root.parent / "images", made.paths.root.parent / "boxes.json"
    for typed in ([str(boxes), "--images", str(images)], [str(made.paths.root)], []):
        result = CliRunner().invoke(main, ["doctor", *typed, *asked])
        assert result.exit_code == 0, result.output
        checks = {one["name"]: one for one in json.loads(result.output)}
        assert checks["segmenter"]["found"].endswith(": 21 classes, works on the CPU")
        assert ("class map" in checks) == bool(typed)


def test_classes_are_counted_over_all_data_though_a_sample_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "_SAMPLE", 1)
    cup, fork = Made((5, 5, 20, 20), "cup"), Made((30, 30, 20, 20), "fork")
    make_run(tmp_path, {"a.png": [cup] * 7, "b.png": [cup] * 5 + [fork] * 11})
    checks = {one.name: one for one in data_checks(str(tmp_path / "images"), tmp_path / "boxes.json", voc(tmp_path))}
    assert checks["classes"].found == "2 with boxes, 0 without: cup 12, fork 11"
    assert "0 of 2 categories and 0 of 23 boxes have a class" in checks["class map"].found


def test_crowds_and_pictures_turned_by_exif_are_counted(tmp_path: Path) -> None:
    """Two images, one of them stored on its side; three objects and two crowds, one of whose classes is a crowd's."""
    for name, orientation in (("a.jpg", 1), ("b.jpg", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (80, 60), "gray").save(tmp_path / name, exif=exif)
    given = [(1, 1, 0), (1, 1, 0), (1, 2, 0), (1, 1, 1), (2, 3, 1)]  # image, category, crowd
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": [5 * number, 9, 20, 20], "iscrowd": crowd}
        for number, (image, category, crowd) in enumerate(given, 1)
    ]
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 80, "height": 60},
            {"id": 2, "file_name": "b.jpg", "width": 60, "height": 80},
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(("person", "cup", "fork"), 1)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    checks = {one.name: one for one in data_checks(str(tmp_path), tmp_path / "boxes.json", voc(tmp_path))}
    assert checks["turned by EXIF"].found == "1 of 2"
    assert checks["crowd regions"].found == "2 of 5"
    assert checks["classes"].found.startswith("2 with boxes, 1 without: person 2, cup 1; ")
    assert checks["class map"].found == (
        "1 of 3 categories and 2 of 3 boxes have a class of the segmenter, by identical names; none for cup 1"
    )
