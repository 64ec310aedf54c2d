"""Laws that every registered stage keeps; a new one is picked up by its name."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pseudolabel.pipelines.graph import COMMANDS, ORDER, STAGES, TRAINERS, load_stage, load_target
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import StageConfig

_STATUS = {"status", "reason", "detail", "stage"}


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_says_what_it_is(name: str) -> None:
    stage = load_stage(name)
    assert stage.name == name
    assert isinstance(stage.version, int)
    assert stage.version >= 1
    assert stage.unit in ("image", "object")
    assert issubclass(stage.config_class, StageConfig)
    assert isinstance(stage.schema, pa.Schema)
    assert set(stage.schema.names) >= _STATUS


@pytest.mark.parametrize("name", list(STAGES))
def test_every_option_of_a_stage_has_a_help_text(name: str) -> None:
    for key, field in load_stage(name).config_class.model_fields.items():
        assert field.description, f"{name}: {key}"
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"{name}: {key} is not made by `option`"
        assert "changes_result" in extra


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_of_a_worker_reads_tables_that_some_stage_writes(name: str, tmp_path: Path) -> None:
    stage_class = load_stage(name)
    table = tmp_path / "candidates" / "semantic"  # what `fuse` reads are the candidate tables that are there
    table.mkdir(parents=True)
    (table / "part-00000-of-00001.parquet").touch()
    required = {
        key: _example(key) for key, field in stage_class.config_class.model_fields.items() if field.is_required()
    }
    stage = stage_class(stage_class.config_class(**required), RunPaths(tmp_path))
    assert stage.writes in ("manifest", "semantic", "pseudo") or stage.writes.startswith("candidates/")
    assert stage.reads()
    assert all(table in ("plan", "manifest", "semantic") or table.startswith("candidates/") for table in stage.reads())


def _example(key: str) -> object:
    return {"model": "labels:masks"}[key]


@pytest.mark.parametrize("name", list(STAGES))
def test_importing_a_stage_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys\nfrom pseudolabel.pipelines.graph import load_stage\n"
        f"load_stage({name!r})\n"
        "assert not {'torch', 'onnxruntime', 'scipy', 'numba', 'matplotlib'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", list(TRAINERS))
def test_every_option_of_a_trainer_has_a_help_text(name: str) -> None:
    config_class = load_target(TRAINERS[name].config)
    assert all(field.description for field in config_class.model_fields.values())


def test_every_step_of_a_run_is_a_command() -> None:
    assert set(ORDER) <= set(COMMANDS)
