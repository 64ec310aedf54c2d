"""A student of images that came without annotations: its classes are those that the pseudo labels have."""

import json
from pathlib import Path

import pytest
import torch

from pseudolabel.errors import InputError
from pseudolabel.metrics.categories import file_ids, renumbered
from pseudolabel.pipelines.options.train_student import TrainStudentConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.evaluate import EvaluateConfig, format_figures, run_evaluation
from pseudolabel.pipelines.tools.export_model import ExportModelConfig, export_model
from pseudolabel.pipelines.tools.predict import PredictConfig, predict
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.pipelines.trainers.student import student_labels
from pseudolabel.students import condinst
from pseudolabel.students.condinst import full_masks
from pseudolabel.students.save import load_student

from .runs import labelled_run, write_classes

SMALL = {"backbone": "tiny", "backbone_weights": "none", "width": 40, "convs": 1, "image_px": 96, "device": "cpu"}
IDS = (1, 2, 4, 7, 11)  # of the drawn classes
FOUND = ["background", "disc", "ring", "a", "star", "b", "c", "blob", "d", "e", "f", "bar"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Made from a folder of images; the segmenter's indices of the five classes are the ids in the pseudo labels."""
    made = labelled_run(tmp_path_factory.mktemp("bare"), bare=True)
    assert read_plan(made).categories == []
    write_classes(made, FOUND)
    return made


@pytest.fixture(scope="module")
def truth(run: RunPaths) -> Path:
    """True masks under the same names and other ids."""
    data = run.root.parent / "data"
    content = json.loads((data / "instances.json").read_text())
    for row in (*content["categories"], *content["annotations"]):
        key = "category_id" if "category_id" in row else "id"
        row[key] = 200 - row[key]
    (data / "renumbered.json").write_text(json.dumps(content))
    return data / "renumbered.json"


def test_the_classes_are_the_segmenter_s(run: RunPaths) -> None:
    labels = student_labels(run, TrainStudentConfig(**SMALL))
    assert {row["id"]: row["name"] for row in labels.categories} == {i: name for i, name in enumerate(FOUND) if i}
    learned = {labels.categories[one.label]["id"] for image in labels.images for one in image.objects}
    assert learned <= set(IDS)
    assert len(learned) > 1


def test_without_a_segmenter_the_classes_are_those_that_occur(tmp_path: Path) -> None:
    run = labelled_run(tmp_path, bare=True)
    categories = student_labels(run, TrainStudentConfig(**SMALL)).categories
    assert [row["name"] for row in categories] == [str(row["id"]) for row in categories]
    assert {row["id"] for row in categories} <= set(IDS)


def test_where_nothing_was_found_there_is_nothing_to_learn(tmp_path: Path) -> None:
    run = labelled_run(tmp_path, bare=True, without=range(9))
    with pytest.raises(InputError, match="no object to learn from in 4 images"):
        student_labels(run, TrainStudentConfig(**SMALL))


def test_categories_meet_by_their_names_or_where_they_have_none_by_their_ids() -> None:
    truth = {5: "Motor Bike", 9: "cat", 3: "3"}
    ours = [{"id": 1, "name": "motorbike"}, {"id": 9, "name": "dog"}, {"id": 3, "name": "3"}]
    assert file_ids(ours, truth, where="t") == {1: 5, 3: 3}
    rows = [{"category_id": 1, "score": 0.5}, {"category_id": 9, "score": 0.4}]
    assert renumbered(rows, {1: 5, 3: 3}) == [{"category_id": 5, "score": 0.5}]
    with pytest.raises(InputError, match=r"none of its classes \(Motor Bike, cat, 3\) is one of ours \(dog\)"):
        file_ids(ours[1:2], truth, where="t")


def test_true_masks_under_the_ids_of_a_segmenter_have_an_ap_of_one(run: RunPaths, truth: Path, tmp_path: Path) -> None:
    content = json.loads((run.root.parent / "data" / "instances.json").read_text())
    content["info"] = {"pseudolabel": {"annotation_ids": "made"}}
    for row in content["annotations"]:
        row["score"] = 1.0
    (tmp_path / "instances.json").write_text(json.dumps(content))
    figures = run_evaluation(run, EvaluateConfig(ground_truth=truth, predictions=tmp_path / "instances.json"))
    assert figures["ap"] == pytest.approx(1.0)
    apart = {name: figures[name] for name in ("ap_any_class", "box_ap", "box_ap_any_class", "class_right")}
    assert apart == dict.fromkeys(apart, pytest.approx(1.0))
    assert "right class of the objects found: 1.000" in format_figures(figures)


@pytest.mark.slow
def test_it_is_trained_predicts_is_measured_and_exported(
    run: RunPaths, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainStudentConfig(**SMALL, epochs=1, batch_size=2, validation=truth)
    assert run_training(run, "train-student", config).trained
    weights = run.model("student")
    assert [row["name"] for row in load_student(weights).categories] == FOUND[1:]
    images = run.root.parent / "data" / "images"
    found = predict(weights, PredictConfig(images=images, out=tmp_path / "out", ground_truth=truth, device="cpu"))
    assert found["images"] == 4
    assert 0 <= found["figures"]["ap"] <= 1
    assert found["figures"]["ap"] <= found["figures"]["ap_any_class"] + 0.05
    with monkeypatch.context() as patched:  # after two steps masks are empty on some machines
        patched.setattr(condinst, "full_masks", lambda logits: full_masks(torch.ones_like(logits)))
        for asked, expected in (({"detections": 1}, 4), ({"detections": 2}, 8), ({"least_score": 1.0}, 0)):
            few = PredictConfig(images=images, out=tmp_path / "few", device="cpu", **({"least_score": 0.0} | asked))
            assert predict(weights, few)["instances"] == expected
    exported = export_model(weights, ExportModelConfig(onnx=tmp_path / "student.onnx"))
    assert exported["largest_difference"] < 0.01
