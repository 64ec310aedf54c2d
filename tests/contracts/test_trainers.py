"""What holds for every training command: what decides its weights, and that each option is said once."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import pseudolabel.pipelines.trainers.base as base
from pseudolabel.config import parse_config
from pseudolabel.errors import StaleOutputError
from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo.scenes import CLASSES, write_dataset
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.graph import TRAINERS
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.trainers.base import run_training, training_identity
from pseudolabel.siseg.train import SisegMethod
from pseudolabel.students.augment import Augment
from pseudolabel.students.labels import labels_from_rows
from pseudolabel.students.method import StudentMethod
from pseudolabel.teachers.table import TRAINED
from pseudolabel.training.config import TrainConfig

TINY = {"backbone": "tiny", "backbone_weights": "none", "device": "cpu", "threads": 1}
BOXES = {**TINY, "channels": 16, "convs": 1, "mask_branch_channels": 16, "image_px": 64, "steps": 1}
# every command, and every method of one that has several, as small as it can be
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "siseg": ("train-siseg", {**TINY, "head_width": 64, "crop": 96, "radius": 5, "steps": 1, "batch_size": 2}),
    "mal": ("train-teacher", {**TINY, "crop_px": 32, "steps": 1, "batch_size": 2}),
    "boxinst": ("train-teacher", {**BOXES, "method": "boxinst"}),
    "boxteacher": ("train-teacher", {**BOXES, "method": "boxteacher"}),
    "boxseg": ("train-teacher", {**BOXES, "method": "boxseg"}),
    "sim": ("train-teacher", {**BOXES, "method": "sim"}),
    "student": ("train-student", {**TINY, "width": 40, "convs": 1, "image_px": 64, "steps": 1, "batch_size": 2}),
}
each_training = pytest.mark.parametrize("training", list(TRAININGS))


def parsed(training: str, **changes: Any) -> tuple[str, TrainConfig]:
    name, values = TRAININGS[training]
    values = values | changes
    return name, parse_config(TRAINERS[name].config_class(values), values, where=name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Two drawn scenes with label maps and pseudo labels."""
    folder = tmp_path_factory.mktemp("run")
    write_dataset(folder / "data", 2, 0, size_hw=(64, 64))
    data = folder / "data"
    sections = {
        "run": str(folder / "run"),
        "shard": {"images": str(data / "images"), "annotations": str(data / "boxes.json"), "shards": 1},
        "infer-semantic": {
            "model": f"labels:{data / 'labels'}",
            "label_format": "raw",
            "classes": ["background", *CLASSES],
            "ignore_index": 255,
        },
        "fuse": {},
    }
    list(run_chain(parse_chain(sections, where="test"), RunOptions(EngineOptions(name="inline"))))
    return RunPaths(folder / "run")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the trainings that were begun; a trainer only notes its folder and writes weights and a card."""
    begun: list[Path] = []

    def note(run: RunPaths, config: TrainConfig, folder: Path) -> Path:
        begun.append(folder)
        weights = run.model(TRAINERS[_name_of(config)].model)
        weights.parent.mkdir(exist_ok=True)
        weights.write_bytes(len(begun).to_bytes(1, "big"))
        weights.with_suffix(".yaml").write_text("{}")
        return weights

    def noted(target: str) -> Callable[..., Path]:
        assert target in {trainer.function for trainer in TRAINERS.values()}
        return note

    monkeypatch.setattr(base, "load_target", noted)
    return begun


def _name_of(config: TrainConfig) -> str:
    return next(name for name, values in TRAININGS.values() if isinstance(config, TRAINERS[name].config_class(values)))


def raised(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Another release, whose trainer gives other weights."""
    trainer = TRAINERS[name]
    monkeypatch.setitem(TRAINERS, name, replace(trainer, version=trainer.version + 1))


def test_every_training_command_and_method_is_here() -> None:
    assert {name for name, _ in TRAININGS.values()} == set(TRAINERS)
    assert {values.get("method", "mal") for name, values in TRAININGS.values() if name == "train-teacher"} == {*TRAINED}


@each_training
def test_a_training_writes_its_model_and_the_same_command_does_nothing(run: RunPaths, training: str) -> None:
    name, config = parsed(training)
    first = run_training(run, name, config, overwrite=True)
    assert (first.trained, Path(first.model).is_file()) == (True, True)
    again = run_training(run, name, config)
    assert (again.trained, again.sha256) == (False, first.sha256)
    folder = training_identity(run, name, config)["fingerprint"][:12]
    assert (run.logs(name) / folder).is_dir()


@each_training
def test_a_raised_version_trains_again(run: RunPaths, training: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true trainer: a checkpoint of the version before is there, complete, and is not gone on from."""
    name, config = parsed(training, seed=1)
    run_training(run, name, config, overwrite=True)
    folders = set(run.logs(name).iterdir())
    raised(monkeypatch, name)
    before = TRAINERS[name].version - 1
    with pytest.raises(StaleOutputError, match=f"trained otherwise: version {before} -> {before + 1}: use --overwrite"):
        run_training(run, name, config)
    assert run_training(run, name, config, overwrite=True).trained
    (new,) = set(run.logs(name).iterdir()) - folders
    assert list(new.rglob("*.ckpt"))


@each_training
def test_a_changed_option_is_refused_by_its_name(run: RunPaths, training: str, trainings: list[Path]) -> None:
    name, config = parsed(training)
    run_training(run, name, config, overwrite=True)
    with pytest.raises(StaleOutputError, match=r"trained otherwise: seed 0 -> 7: use --overwrite"):
        run_training(run, name, parsed(training, seed=7)[1])
    assert run_training(run, name, parsed(training, seed=7)[1], overwrite=True).trained
    assert len(set(trainings)) == 2


@each_training
def test_where_it_runs_is_no_part_of_a_training(run: RunPaths, training: str, trainings: list[Path]) -> None:
    name, config = parsed(training)
    run_training(run, name, config, overwrite=True)
    elsewhere = parsed(training, threads=2, device="auto", checkpoint_every=7, log_every=3)[1]
    assert not run_training(run, name, elsewhere).trained
    assert len(trainings) == 1


@each_training
def test_other_weights_to_start_from_are_another_training(
    run: RunPaths, training: str, trainings: list[Path], tmp_path: Path
) -> None:
    import torch

    file = tmp_path / "encoder.safetensors"
    save_file({"weight": torch.zeros(1)}, file)
    name, config = parsed(training, backbone_weights=str(file))
    run_training(run, name, config, overwrite=True)
    save_file({"weight": torch.ones(1)}, file)
    with pytest.raises(StaleOutputError, match="weights backbone changed"):
        run_training(run, name, config)
    assert len(trainings) == 1


# --- options ----------------------------------------------------------------------------------------------------------


@each_training
def test_every_option_says_what_it_is_for_and_where_help_lists_it(training: str) -> None:
    fields = type(parsed(training)[1]).model_fields
    main = [name for name, field in fields.items() if field.json_schema_extra["group"] == "main"]
    assert 6 <= len(main) <= 10
    assert {"backbone", "backbone_weights", "batch_size", "learning_rate"} <= set(main)
    assert all(field.description for field in fields.values())


@each_training
def test_of_several_bases_the_first_says_an_option(training: str) -> None:
    """As in any class of Python: pydantic alone would take a later base's option for a nearer class's own."""
    config = type(parsed(training)[1])
    for name, field in config.model_fields.items():
        owner = next(base for base in config.__mro__ if name in inspect.get_annotations(base))
        declared = owner.model_fields[name]
        assert (field.default, field.description) == (declared.default, declared.description), (name, owner)


def test_siseg_has_an_encoder_that_the_segmenters_at_hand_can_lend_as_every_other_training() -> None:
    assert TRAINERS["train-siseg"].config_class({})().backbone == "mobilenet_v2"
    assert TRAINERS["train-teacher"].config_class({})().backbone == "mobilenet_v2"


@each_training
def test_what_an_option_needs_is_an_option(training: str) -> None:
    fields = type(parsed(training)[1]).model_fields
    unknown = {
        (name, other)
        for name, field in fields.items()
        for other in field.json_schema_extra["needs"]
        if other not in fields
    }
    # a base's option that needs one which only some of its children have
    assert unknown <= {(name, other) for name in ("detections", "mcs") for other in ("ranking",)} | {
        ("smallest_scale", "views"),
        ("largest_scale", "views"),
    }


def test_one_name_has_one_meaning_in_all_trainings() -> None:
    """A name may have other defaults and limits, but no other kind of value."""
    kinds: dict[str, set[str]] = {}
    for training in TRAININGS:
        for name, field in type(parsed(training)[1]).model_fields.items():
            kinds.setdefault(name, set()).add(str(field.annotation))
    several = {name for name, found in kinds.items() if len(found) > 1}
    assert several == {"supervision"}  # which true masks alone have no teacher for


@pytest.mark.parametrize(
    ("owner", "parameter", "training"),
    [
        (SisegMethod, "recipe", "siseg"),
        (StudentMethod, "recipe", "student"),
        (StudentMethod, "augment", "student"),
        (Augment, "config", "student"),
        (labels_from_rows, "config", "student"),
    ],
    ids=["siseg", "recipe", "augment", "views", "labels"],
)
def test_the_librarys_parts_take_the_commands_own_config(owner: Any, parameter: str, training: str) -> None:
    """There is no second declaration; for teachers see tests/pipelines/test_train_teacher.py."""
    taken = inspect.signature(owner).parameters[parameter].annotation
    assert isinstance(parsed(training)[1], taken)
