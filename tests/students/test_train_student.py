"""`train-student` on a run: from tables to weights, to predictions, and on after a stop."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pseudolabel.config import parse_config
from pseudolabel.errors import ConfigError, SignalStopError
from pseudolabel.images import load_image
from pseudolabel.pipelines.options.train_student import TrainStudentConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.predict import PredictConfig, predict
from pseudolabel.pipelines.trainers import student
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.students import evaluation
from pseudolabel.students.base import make_student
from pseudolabel.students.config import AugmentConfig, RecipeConfig, StudentConfig
from pseudolabel.students.method import StudentMethod
from pseudolabel.students.save import load_student
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

from .runs import labelled_run
from .scenes import sample

SMALL = {"backbone": "tiny", "backbone_weights": "none", "width": 40, "convs": 1, "image_px": 96, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunPaths:
    return labelled_run(tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_a_student_of_a_run_is_trained_saved_and_predicts(run, tmp_path):
    config = TrainStudentConfig(**SMALL, epochs=2, batch_size=2)
    summary = run_training(run, "train-student", config)
    assert summary.trained
    card = run.model("student").with_suffix(".md").read_text()
    assert "- ignored: 1" in card
    assert "disc, ring, star, blob, bar" in card
    images = run.root.parent / "data" / "images"
    truth = run.root.parent / "data" / "instances.json"
    found = predict(run.model("student"), PredictConfig(images=images, out=tmp_path, ground_truth=truth, device="cpu"))
    assert found["images"] == 4
    assert 0 <= found["figures"]["ap"] <= 1
    assert isinstance(json.loads((tmp_path / "results.json").read_text()), list)
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4
    assert not run_training(run, "train-student", config).trained


@pytest.mark.slow
def test_a_validation_is_read_as_the_images_of_the_training_and_its_ap_is_said(tmp_path, monkeypatch, caplog):
    run, rules = labelled_run(tmp_path), []
    plan = replace(read_plan(run), stretch="percentile")
    monkeypatch.setattr(student, "read_plan", lambda run: plan)

    def noted(root, file_name, *, rule):
        rules.append(rule)
        return load_image(root, file_name, rule=rule)

    monkeypatch.setattr(evaluation, "load_image", noted)
    config = TrainStudentConfig(**SMALL, steps=1, validation=tmp_path / "data" / "instances.json", validate_every=1)
    with caplog.at_level("INFO"):
        student.train_student(run, config, tmp_path / "logs")
    assert {rule.stretch for rule in rules} == {"percentile"}
    assert load_student(run.model("student")).rule.stretch == "percentile"
    assert "train-student: validation_ap 0." in caplog.text
    assert re.search(r"it learns from (\d+) of the \1 images of instances.json: its AP there is not", caplog.text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patience": 2}, "patience does nothing without validation"),
        (
            {"validation": "a.json", "validate_every": 0, "patience": 2},
            "patience does nothing without validate_every",
        ),
        ({"validate_every": 10}, "validate_every does nothing without validation"),
        ({"validation_images": "images"}, "validation_images does nothing without validation"),
        ({"model": "query", "finest_px": 20}, "finest_px does nothing without model condinst"),
        ({"views": "plain", "smallest_scale": 0.2}, "does nothing without views weak or strong or strong_blur"),
        ({"given_masks": False, "unsure": "learned"}, "unsure does nothing without given_masks"),
        ({"smallest_scale": 2.0}, "smallest_scale must not exceed largest_scale"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_options_that_do_nothing_or_contradict_each_other_are_refused(values, message):
    with pytest.raises(ConfigError, match=f"train-student: .*{message}$"):
        parse_config(TrainStudentConfig, values, where="train-student")


def fitted(folder, *, stop_at: int | None = None, **recipe):
    """A few steps on drawn scenes, as a state dict; stopped by SIGTERM's exception after `stop_at` steps."""
    torch.manual_seed(0)
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1), 2)
    augment = AugmentConfig(image_px=96)
    method = StudentMethod(student, augment, RecipeConfig(**recipe), journal=folder / "validation.jsonl")
    folder.mkdir(exist_ok=True)
    config = FitConfig(steps=6, batch_size=2, checkpoint_every=2)

    def load(places):
        return [sample(place) for place in places]

    if stop_at is not None:
        real = method.after_step

        def after_step(step):
            real(step)
            if step + 1 == stop_at:
                raise KeyboardInterrupt

        method.after_step = after_step
        with pytest.raises((KeyboardInterrupt, SignalStopError, SystemExit)):
            fit(method, load, 3, folder, config)
    else:
        fit(method, load, 3, folder, config)
    return method


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path):
    whole = fitted(tmp_path / "whole").model_state()
    fitted(tmp_path / "parts", stop_at=5)
    resumed = fitted(tmp_path / "parts").model_state()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_average_follows_and_starts_at_the_first_step():
    torch.manual_seed(0)
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1), 2)
    method = StudentMethod(student, AugmentConfig(image_px=96), RecipeConfig(ema=0.9))
    name = "network.head.scales"
    with torch.no_grad():
        student.network.head.scales.fill_(3.0)
    method.after_step(0)
    assert method.model_state()[name].tolist() == [3.0] * 5
    with torch.no_grad():
        student.network.head.scales.fill_(5.0)
    method.after_step(99)
    assert method.model_state()[name].tolist() == pytest.approx([0.9 * 3 + 0.1 * 5] * 5)


@pytest.mark.slow
def test_a_training_ends_when_the_validations_gain_nothing(tmp_path):
    torch.manual_seed(0)
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1), 2)
    aps = iter([0.2, 0.3, 0.1, 0.3, 0.9])
    method = StudentMethod(
        student,
        AugmentConfig(image_px=96),
        RecipeConfig(validate_every=1, patience=2),
        validate=lambda _: next(aps),
        journal=tmp_path / "validation.jsonl",
    )
    fit(method, lambda places: [sample(0)], 1, tmp_path, FitConfig(steps=20, batch_size=1))
    lines = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [line["ap"] for line in lines] == [0.2, 0.3, 0.1, 0.3]
    assert float(method.best_ap) == pytest.approx(0.3)


def test_saved_weights_are_the_average(run, tmp_path):
    torch.manual_seed(0)
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1), 2)
    method = StudentMethod(student, AugmentConfig(image_px=96), RecipeConfig())
    from pseudolabel.students.save import save_student

    path = tmp_path / "s.safetensors"
    save_student(path, method.average, student.config, [{"id": 1, "name": "a"}], image_px=96, about={})
    stored = load_file(path)
    assert set(stored) == set(method.model_state())
    assert all(np.array_equal(stored[name].numpy(), value.numpy()) for name, value in method.model_state().items())
