"""Options of `train-teacher` by method, the boxes and masks of a run, and small trainings of the CondInst teachers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.config import parse_config
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.run.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.runner import run_stage
from pseudolabel.pipelines.stages.shard import ShardStage
from pseudolabel.pipelines.trainers.boxed_images import BoxedImage, boxed_images, check_boxes
from pseudolabel.pipelines.trainers.boxes import Images, masked_objects, model_values, true_masks
from pseudolabel.pipelines.trainers.teacher import OWN_DEFAULTS, TrainTeacherConfig, methods_of, train_teacher
from pseudolabel.rle import encode
from pseudolabel.teachers.condinst.boxinst import BoxInstConfig
from pseudolabel.teachers.condinst.boxseg import BoxSegConfig
from pseudolabel.teachers.condinst.boxteacher import BoxTeacherConfig
from pseudolabel.teachers.condinst.infer import InputSize
from pseudolabel.training.checkpoint import read_config

CONFIGS = {"boxinst": BoxInstConfig, "boxteacher": BoxTeacherConfig, "boxseg": BoxSegConfig}
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


def parsed(**values: Any) -> TrainTeacherConfig:
    return parse_config(TrainTeacherConfig, values, where="train-teacher")


# --- options ----------------------------------------------------------------------------------------------------------


def test_what_is_not_said_takes_the_methods_own_default() -> None:
    assert (parsed().tau, parsed().ema, parsed().learning_rate) == (0.1, 0.995, 2e-3)
    seg = parsed(method="boxseg")
    assert (seg.tau, seg.ema, seg.learning_rate, seg.copy_paste, seg.classification) == (
        *(0.3, 0.999, 1e-3, True),
        "varifocal",
    )
    assert parsed(method="boxseg", tau=0.1, copy_paste=False).tau == 0.1
    assert not parsed(method="boxseg", copy_paste=False).copy_paste


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("boxinst", "crop_px", 64),
        ("boxinst", "teacher_from", 0.2),
        ("boxinst", "ema", 0.9),
        ("boxteacher", "fusion", "vote"),
        ("boxteacher", "max_objects", 5),
        ("mal", "tau_box", 0.2),
    ],
    ids=lambda value: str(value),
)
def test_an_option_that_does_nothing_for_the_method_is_refused(method: str, option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option}: does nothing with {method}; an option of"):
        parsed(method=method, **{option: value})


@pytest.mark.parametrize("method", ["mal", "boxinst", "boxteacher", "boxseg"])
def test_a_printed_config_can_be_read_back(method: str) -> None:
    config = parsed(method=method)
    assert parsed(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("method", list(CONFIGS))
def test_every_option_of_a_method_is_known_to_its_own_config(method: str) -> None:
    values = model_values(parsed(method=method))
    assert set(values) <= set(CONFIGS[method].model_fields)
    own = CONFIGS[method](**values)
    assert (own.tau, own.lr, own.warmup) == (0.3, 1e-3, 0.5)


def test_boxseg_can_be_trained_in_the_released_codes_variants() -> None:
    variant = {"fusion": "vote", "score": "code", "candidates": 20, "box_score": "sqrt_iacs_ctr"}
    own = BoxSegConfig(**model_values(parsed(method="boxseg", varifocal_alpha=0.25, **variant)))
    assert {name: getattr(own, name) for name in variant} == variant
    assert own.varifocal_alpha == 0.25


def test_copy_paste_alone_is_one_option_away_from_boxinst() -> None:
    config = parsed(method="boxinst", copy_paste=True, ema=0.99, copy_paste_probability=0.25)
    own = BoxTeacherConfig(**model_values(config))
    assert own.copy_paste
    assert (own.pixel_weight, own.affinity_weight, own.strong, own.result) == (0, 0, False, "student")
    assert (own.ema, own.copy_paste_probability) == (0.99, 0.25)


def test_copy_paste_of_mal_is_on_unless_it_is_turned_off() -> None:
    from pseudolabel.pipelines.trainers.mal import mal_configs

    assert parsed(method="mal").copy_paste
    assert mal_configs(parsed(method="mal", rounds=2))[1].copy_paste_probability == 0.5
    assert mal_configs(parsed(method="mal", rounds=2, copy_paste=False))[1].copy_paste_probability == 0


@pytest.mark.parametrize("others", [{"rounds": 2, "copy_paste": False}, {"rounds": 1}])
def test_a_probability_of_pastes_that_never_come_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="copy_paste_probability does nothing without copy_paste"):
        parsed(method="mal", copy_paste_probability=0.3, **others)
    assert parsed(method="mal", copy_paste_probability=0.3, rounds=2).copy_paste_probability == 0.3


def test_own_defaults_name_options_that_their_method_looks_at() -> None:
    for method, values in OWN_DEFAULTS.items():
        for name in values:
            looking = methods_of(name)
            assert not looking or {method, f"{method}+"} & set(looking)


# --- boxes and masks --------------------------------------------------------------------------------------------------


def image(box_xyxy: list[float], segmentation: str | None = None) -> BoxedImage:
    return BoxedImage("cat.jpg", 50, [box_xyxy], [0], 60, [17], [segmentation])


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
    run_stage(run, "shard", ShardStage.config_class(workers=1))
    return run


def test_a_trained_teacher_says_its_method_and_classes_by_name(scenes: Path, tmp_path: Path) -> None:
    run = run_of(scenes, tmp_path, "boxes.json")
    weights = train_teacher(run, parsed(method="boxseg", **SMALL))
    about = read_config(weights)
    assert about["method"] == "boxseg"
    assert about["categories"] == [{"id": row["id"], "name": row["name"]} for row in read_plan(run).categories]
    assert about["model"]["tau"] == 0.3


def test_mixed_supervision_hands_on_the_masks_of_the_named_classes_alone(scenes: Path, tmp_path: Path) -> None:
    run = run_of(scenes, tmp_path, "instances.json")
    plan = read_plan(run)
    images = boxed_images(run, plan, [row["id"] for row in plan.categories])
    chosen = images[0].labels[0]
    config = parsed(method="boxinst", supervision="mixed", mask_classes=[plan.categories[chosen]["name"]])
    loader = Images(
        plan,
        images,
        InputSize(short_px=64, long_px=128),
        num_classes=len(plan.categories),
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
    assert train_teacher(run, parsed(copy_paste=True, **mixed)).exists()
    with pytest.raises(ConfigError, match="no class 'unicorn'"):
        train_teacher(run, parsed(mask_classes=["unicorn"], **mixed))


@pytest.mark.parametrize("supervision", ["masks", "mixed"])
def test_masks_are_asked_for_before_training_where_there_are_none(
    scenes: Path, tmp_path: Path, supervision: str
) -> None:
    run = run_of(scenes, tmp_path, "boxes.json")
    with pytest.raises(InputError, match=f"objects have no mask, and --supervision {supervision} needs"):
        train_teacher(run, parsed(method="boxinst", supervision=supervision, **SMALL))


def test_the_reference_with_masks_has_no_teacher(scenes: Path, tmp_path: Path) -> None:
    run = run_of(scenes, tmp_path, "instances.json")
    with pytest.raises(ConfigError, match="--method boxinst alone"):
        train_teacher(run, parsed(method="boxseg", supervision="masks", **SMALL))
