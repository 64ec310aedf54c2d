"""Options of `train-teacher` by method, the boxes and masks of a run, and small trainings of the CondInst teachers."""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.candidates import GivenBox
from pseudolabel.config import parse_config, result_relevant
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stages.shard import ShardStage
from pseudolabel.pipelines.trainers.base import TrainingSummary, run_training
from pseudolabel.pipelines.trainers.boxes import Images, masked_objects, true_masks
from pseudolabel.pipelines.trainers.images import BoxedImage, boxed_images, check_boxes
from pseudolabel.pipelines.trainers.teacher import config_class
from pseudolabel.registry import load_target
from pseudolabel.rle import encode
from pseudolabel.teachers.condinst.infer import InputSize
from pseudolabel.teachers.table import TRAINED, find_teacher, options_of
from pseudolabel.training.checkpoint import read_config

SMALL = {
    "backbone": "tiny",
    "backbone_weights": "none",
    "channels": 16,
    "convs": 1,
    "mask_branch_channels": 16,
    "image_px": 64,
    "epochs": 1.0,
    "device": "cpu",
    "threads": 1,
}


INLINE = RunOptions(EngineOptions(name="inline"))
OWN_METHOD = """
from pseudolabel.teachers.condinst.boxinst import BoxInst


class MyMethod(BoxInst):
    def losses(self, batch, *, progress):
        losses = super().losses(batch, progress=progress)
        return losses | {"projection": self.config.my_weight * losses["projection"]}
"""


def parsed(**values: Any) -> Any:
    return parse_config(config_class(values), values, where="train-teacher")


# --- options ----------------------------------------------------------------------------------------------------------


def test_what_is_not_said_takes_the_methods_own_default() -> None:
    assert (parsed().method, parsed().least_similarity, parsed().ema, parsed().learning_rate) == (
        "mal",
        0.1,
        0.995,
        2e-3,
    )
    seg = parsed(method="boxseg")
    assert (seg.least_similarity, seg.ema, seg.learning_rate) == (0.3, 0.999, 1e-3)
    assert (seg.copy_paste, seg.classification) == (True, "varifocal")
    assert not parsed(method="boxseg", copy_paste=False).copy_paste


@pytest.mark.parametrize(
    ("method", "option", "value", "methods"),
    [
        ("boxinst", "crop_px", 64, "mal"),
        ("boxinst", "teacher_from", 0.2, "mal, boxteacher, boxseg, sim"),
        ("boxteacher", "fusion", "vote", "boxseg, sim"),
        ("mal", "blur", True, "boxteacher, boxseg, sim"),
        ("mal", "image_px", 320, "boxinst, boxteacher, boxseg, sim"),
        ("boxseg", "prototypes", 5, "sim"),
    ],
    ids=lambda value: str(value),
)
def test_an_option_of_other_methods_is_refused_and_they_are_named(
    method: str, option: str, value: object, methods: str
) -> None:
    with pytest.raises(ConfigError, match=f"{option} does nothing with {method}; an option of {methods}$"):
        parsed(method=method, **{option: value})


def test_an_option_that_no_method_has_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown key 'crop_pix'; did you mean 'crop_px'"):
        parsed(crop_pix=64)


def test_an_unknown_method_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="no method of train-teacher called 'boxsge'; did you mean 'boxseg'"):
        parsed(method="boxsge")


def test_a_methods_config_takes_no_other_methods_name() -> None:
    with pytest.raises(ConfigError, match="method: "):
        parse_config(options_of("mal"), {"method": "boxinst"}, where="train-teacher")


@pytest.mark.parametrize("method", TRAINED)
def test_a_printed_config_can_be_read_back(method: str) -> None:
    config = parsed(method=method)
    assert parsed(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("method", TRAINED)
def test_a_methods_class_takes_the_config_of_the_command_line(method: str) -> None:
    """There is no second declaration: what the library's class is made with is what `--method` chooses."""
    method_class = load_target(find_teacher(method).method)
    own = inspect.get_annotations(method_class).get("config")  # BoxSeg is made as BoxTeacher is
    taken = own or inspect.signature(method_class.__init__).parameters["config"].annotation
    assert taken is options_of(method)


@pytest.mark.parametrize("method", TRAINED)
def test_the_options_that_matter_are_few_and_begin_with_the_method(method: str) -> None:
    fields = options_of(method).model_fields
    main = [name for name, field in fields.items() if field.json_schema_extra["group"] == "main"]
    assert main[:3] == ["method", "backbone", "backbone_weights"]
    assert 6 <= len(main) <= 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "boxinst", "supervision": "masks", "pairwise_weight": 2.0}, "without supervision boxes or mixed"),
        ({"method": "boxinst", "mask_classes": ["cat"]}, "without supervision mixed"),
        ({"method": "boxinst", "varifocal_alpha": 0.25}, "without classification varifocal"),
        ({"method": "boxteacher", "copy_paste_probability": 0.2}, "without copy_paste"),
        ({"method": "boxteacher", "blur": True, "strong": False}, "without strong"),
        ({"method": "boxseg", "ranking": "bpma", "fusion": "vote"}, "without ranking bqr"),
        ({"method": "boxseg", "detections": 50}, "without ranking bpma"),
        ({"guided_from": 1}, "without guides"),
        ({"last_crop_px": 64}, "without rounds of 2 or more"),
        ({"label_weight": 1.0}, "without rounds of 2 or more, or guides"),
        ({"steps": 10, "epochs": 2.0}, "without steps 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_an_option_that_does_nothing_beside_the_others_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"does nothing {message}"):
        parsed(**values)


def test_an_option_that_does_nothing_is_no_part_of_the_fingerprint() -> None:
    assert "blur" not in result_relevant(parsed(method="boxteacher", strong=False))
    assert "blur" in result_relevant(parsed(method="boxteacher"))
    assert "detections" in result_relevant(parsed(method="boxteacher"))  # whose ranking is no option


def test_steps_stand_for_the_epochs_where_they_are_given() -> None:
    assert parsed(steps=7).steps_for(1000) == 7
    assert parsed(epochs=3, batch_size=8, least_steps=1).steps_for(40) == 15
    assert parsed(epochs=3, batch_size=8, devices=2, least_steps=1).steps_for(40) == 8  # 7.5


def test_few_objects_are_seen_more_often() -> None:
    assert parsed(epochs=3, batch_size=8).steps_for(40) == 400
    assert parsed(epochs=3, batch_size=8).steps_for(2000) == 750
    assert parsed(preset="small").steps_for(40) == 200


def test_copy_paste_of_mal_is_on_unless_it_is_turned_off() -> None:
    assert parsed(rounds=2).paste_probability == 0.5
    assert parsed(rounds=2, copy_paste=False).paste_probability == 0


@pytest.mark.parametrize("others", [{"rounds": 2, "copy_paste": False}, {"rounds": 1}], ids=["off", "one round"])
def test_a_probability_of_pastes_that_never_come_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="copy_paste_probability does nothing without"):
        parsed(copy_paste_probability=0.3, **others)
    assert parsed(copy_paste_probability=0.3, rounds=2).copy_paste_probability == 0.3


# --- boxes and masks --------------------------------------------------------------------------------------------------


def image(box_xyxy: list[float], segmentation: str | None = None) -> BoxedImage:
    given = replace(GivenBox.from_xyxy(17, 3, box_xyxy), segmentation=segmentation)
    return BoxedImage("cat", 0, "cat.jpg", (50, 60), (given,))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5.0, 5, 5, 9], "has no area"),
        ([9.0, 5, 3, 9], "has no area"),
        ([math.nan, 0, 5, 5], "is not finite"),
        ([0.0, 0, math.inf, 5], "is not finite"),
        ([60.0, 0, 80, 5], "lies off the image of 60x50 px"),
        ([1.0, -9, 5, 0], "lies off the image"),
    ],
    ids=["flat", "inverted", "nan", "infinite", "right", "above"],
)
def test_a_degenerate_box_is_refused_by_the_name_of_its_image_and_annotation(box: list[float], message: str) -> None:
    with pytest.raises(InputError, match=f"cat.jpg: the box of annotation 17 {message}"):
        check_boxes([image([1.0, 1, 5, 5]), image(box)])


def test_the_sixth_degenerate_box_is_only_counted() -> None:
    with pytest.raises(InputError, match=r"\(and 2 more\)"):
        check_boxes([image([5.0, 5, 5, 9])] * 7)


def test_true_masks_stand_on_the_grid_of_the_resized_image() -> None:
    full = torch.zeros(50, 60, dtype=torch.bool)
    full[10:30, 20:50] = True
    text = json.dumps(encode(full.numpy()))
    found = true_masks(image([20.0, 10, 50, 30], text), [True], (100, 120))
    assert found.shape == (1, 25, 30)
    rows, columns = found[0].nonzero(as_tuple=True)  # pixel 4 i + 2 of an image twice as large
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 10, 24)
    assert found.sum() == 10 * 15
    assert not true_masks(image([20.0, 10, 50, 30], text), [False], (100, 120)).any()


# --- trainings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 2, 0, size_hw=(64, 64))
    return folder


def run_of(scenes: Path, folder: Path, annotations: str) -> RunPaths:
    run = RunPaths(folder)
    make_plan(run, PlanConfig(images=str(scenes / "images"), annotations=scenes / annotations, shards=1))
    run_stage(run, "shard", ShardStage.config_class(), INLINE)
    return run


def train(run: RunPaths, **values: Any) -> TrainingSummary:
    return run_training(run, "train-teacher", parsed(**values), overwrite=True)


def test_a_trained_teacher_says_its_method_and_classes_by_name(scenes: Path, tmp_path: Path) -> None:
    run = run_of(scenes, tmp_path, "boxes.json")
    train(run, method="boxseg", **SMALL)
    about = read_config(run.model("teacher"))
    assert about["method"] == "boxseg"
    assert about["categories"] == [{"id": row["id"], "name": row["name"]} for row in read_plan(run).categories]
    assert about["model"]["least_similarity"] == 0.3


def test_mixed_supervision_hands_on_the_masks_of_the_named_classes_alone(scenes: Path, tmp_path: Path) -> None:
    run = run_of(scenes, tmp_path, "instances.json")
    plan = read_plan(run)
    images = boxed_images(run, plan)
    chosen = [row["id"] for row in plan.categories].index(images[0].category_ids[0])
    config = parsed(method="boxinst", supervision="mixed", mask_classes=[plan.categories[chosen]["name"]])
    loader = Images(
        plan,
        images,
        InputSize(short_px=64, long_px=128),
        masked=masked_objects(images, plan, config),
    )
    for one in loader.load([0, 1]).targets:
        assert one.masks is not None
        assert one.has_mask is not None
        assert torch.equal(one.has_mask, one.labels == chosen)
        assert torch.equal(one.masks.flatten(1).any(dim=1), one.has_mask)


def test_mixed_supervision_trains_and_refuses_an_unknown_class(scenes: Path, tmp_path: Path) -> None:
    run = run_of(scenes, tmp_path, "instances.json")
    mixed = {"method": "boxteacher", "supervision": "mixed", **SMALL}
    assert train(run, copy_paste=True, **mixed).trained
    with pytest.raises(ConfigError, match="no class 'unicorn'"):
        train(run, mask_classes=["unicorn"], **mixed)


@pytest.mark.parametrize("supervision", ["masks", "mixed"])
def test_masks_are_asked_for_before_training_where_there_are_none(
    scenes: Path, tmp_path: Path, supervision: str
) -> None:
    run = run_of(scenes, tmp_path, "boxes.json")
    with pytest.raises(InputError, match=f"objects have no mask, and --supervision {supervision} needs"):
        train(run, method="boxinst", supervision=supervision, **SMALL)


@pytest.mark.parametrize("method", ["boxteacher", "boxseg", "sim"])
def test_the_reference_with_masks_has_no_teacher(method: str) -> None:
    with pytest.raises(ConfigError, match=r"supervision: .*'boxes' or 'mixed'"):
        parsed(method=method, supervision="masks")
