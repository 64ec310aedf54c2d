"""Laws that every registered stage and trainer keeps; a new one is picked up by its name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pseudolabel.config import Config
from pseudolabel.pipelines.graph import COMMANDS, ORDER, STAGES, Configured, Planner, configured, load_stage
from pseudolabel.pipelines.options.base import StageConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Stage
from pseudolabel.pipelines.steps import parse_step
from pseudolabel.registry import load_target

_STATUS = {"status", "reason", "detail", "stage"}
_OPTIONS = [name for name, entry in COMMANDS.items() if isinstance(entry, Configured)]
_REQUIRED = {  # what must be said, by name
    "model": "labels:masks",
    "images": "images",
    "ground_truth": "truth.json",
    "out": "out",
    "base": "before",
}


def _values(config_class: type[Config]) -> dict[str, Any]:
    return {name: _REQUIRED[name] for name, field in config_class.model_fields.items() if field.is_required()}


def _made(name: str, run: Path) -> Stage[Any]:
    stage = load_stage(name)
    return stage(stage.config_class(**_values(stage.config_class)), RunPaths(run))


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_says_what_it_is(name: str) -> None:
    stage = load_stage(name)
    assert stage.name == name
    assert stage.version >= 1
    assert stage.unit in ("image", "object")
    assert issubclass(stage.config_class, StageConfig)
    assert isinstance(stage.schema, pa.Schema)
    assert set(stage.schema.names) >= _STATUS


@pytest.mark.parametrize("name", list(STAGES))
def test_the_table_names_the_config_that_the_stage_reads(name: str) -> None:
    entry, stage = configured(name), load_stage(name)
    config_class = entry.config_class({})
    assert issubclass(config_class, stage.config_class) if isinstance(entry, Planner) else True
    assert isinstance(entry, Planner) or config_class is stage.config_class


@pytest.mark.parametrize("name", _OPTIONS)
def test_every_option_says_what_it_is_and_where_it_stands(name: str) -> None:
    for key, field in configured(name).config_class({}).model_fields.items():
        extra = field.json_schema_extra
        assert field.description, f"{name}: {key}"
        assert isinstance(extra, dict), f"{name}: {key} is not made by `option`"
        assert extra["group"] in ("main", "more", "paper", "machine")


@pytest.mark.parametrize("name", list(STAGES))
def test_where_a_stage_runs_is_no_matter_of_its_result(name: str) -> None:
    fields = load_stage(name).config_class.model_fields
    machine = {key for key, field in fields.items() if field.json_schema_extra["group"] == "machine"}  # type: ignore[index, call-overload]
    assert machine >= {"workers", "device", "max_reject_rate"}
    assert not {key for key in machine if fields[key].json_schema_extra["changes_result"]}  # type: ignore[index, call-overload]


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_reads_tables_that_some_stage_writes(name: str, tmp_path: Path) -> None:
    table = tmp_path / "candidates" / "semantic"  # what `fuse` reads are the candidate tables that are there
    table.mkdir(parents=True)
    (table / "part-00000-of-00001.parquet").touch()
    written = {_made(other, tmp_path).writes for other in STAGES} | {"plan"}
    assert _made(name, tmp_path).reads()
    assert set(_made(name, tmp_path).reads()) <= written


@pytest.mark.parametrize("name", list(STAGES))
def test_importing_a_stage_imports_nothing_that_takes_seconds(name: str) -> None:
    """The driver of a run, a scheduler's login node and `status` make stages and never set them up."""
    code = (
        "import sys\nfrom pseudolabel.pipelines.graph import load_stage\n"
        f"load_stage({name!r})\n"
        "assert not {'torch', 'onnxruntime', 'scipy', 'numba', 'matplotlib'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", _OPTIONS)
def test_what_a_command_calls_is_there(name: str) -> None:
    entry = configured(name)
    targets = [entry.function, *(getattr(entry, key, "") for key in ("show", "check", "variants"))]
    assert all(callable(load_target(target)) for target in targets if target)


@pytest.mark.parametrize("name", ORDER)
def test_a_section_of_a_run_file_becomes_the_step_of_its_command(name: str) -> None:
    step = parse_step(name, _values(configured(name).config_class({})))
    assert step.name == name
    assert isinstance(step.config, configured(name).config_class({}))


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(["shard", "infer-semantic", "train-siseg", "infer-siseg", "fuse", "train-student"], id="siseg"),
        pytest.param(["shard", "infer-semantic", "train-teacher", "infer-teacher", "fuse", "evaluate"], id="teacher"),
        pytest.param(["shard", "infer-colors", "fuse"], id="colours"),
    ],
)
def test_the_steps_of_a_run_follow_the_data(way: list[str]) -> None:
    assert [name for name in ORDER if name in way] == way
