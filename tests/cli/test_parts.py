"""Bare schedulers: the real command line under the environment variables that they set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

_SLURM = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_STEP": "1"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(12):
        Image.new("RGB", (8 + index, 6)).save(folder / f"{index:02d}.png")
    return folder


def _shard(run: Path, images: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PSEUDOLABEL_"))}
    command = [sys.executable, "-m", "pseudolabel.cli.main", "shard", str(run), "--images", str(images)]
    command += ["--shards", "5", "--engine", "inline", *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)


def _parts(run: Path) -> list[int]:
    return sorted(int(path.name[5:10]) for path in (run / "manifest").glob("part-*"))


@pytest.mark.parametrize(
    ("environment", "arguments", "shards", "origin"),
    [
        pytest.param({}, ("--shard-index", "1", "--num-shards", "3"), [1, 4], "--shard-index", id="options"),
        pytest.param(
            {"PSEUDOLABEL_SHARD_INDEX": "2", "PSEUDOLABEL_NUM_SHARDS": "3"}, (), [2], "--shard-index", id="our own"
        ),
        pytest.param(
            _SLURM | {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "3"},
            (),
            [0, 3],
            "SLURM_ARRAY_TASK_ID",
            id="whole slurm array",
        ),
        pytest.param(
            {"JOB_COMPLETION_INDEX": "4", "PSEUDOLABEL_NUM_SHARDS": "5"},
            (),
            [4],
            "JOB_COMPLETION_INDEX",
            id="kubernetes",
        ),
        pytest.param(
            {"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ARRAY_SIZE": "2"},
            (),
            [1, 3],
            "AWS_BATCH_JOB_ARRAY_INDEX",
            id="aws batch",
        ),
        pytest.param(
            {"CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "4"}, (), [1], "CLOUD_RUN_TASK_INDEX", id="cloud run"
        ),
        pytest.param({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "1"}, (), [0, 1, 2, 3, 4], None, id="no ranks"),
    ],
)
def test_a_worker_does_its_part_and_says_where_it_knows_it_from(
    tmp_path: Path, images: Path, environment: dict[str, str], arguments: tuple[str, ...], shards: list[int], origin
) -> None:
    done = _shard(tmp_path / "run", images, environment, *arguments)
    assert (done.returncode, _parts(tmp_path / "run")) == (0, shards), done.stderr
    assert (f"(from {origin}" in done.stderr) == (origin is not None)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param(
            _SLURM | {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2"}, "--num-shards", id="array 0,2"
        ),
        pytest.param({"JOB_COMPLETION_INDEX": "4"}, "spec.completions", id="kubernetes without the count"),
        pytest.param({"PSEUDOLABEL_SHARD_INDEX": "3", "PSEUDOLABEL_NUM_SHARDS": "3"}, "0..2", id="outside"),
    ],
)
def test_what_is_ambiguous_ends_with_code_2_and_no_work(
    tmp_path: Path, images: Path, environment: dict[str, str], words: str
) -> None:
    done = _shard(tmp_path / "run", images, environment)
    assert (done.returncode, words in done.stderr, _parts(tmp_path / "run")) == (2, True, [])


def test_parts_that_meet_on_a_new_folder_agree_and_leave_nothing_out(tmp_path: Path, images: Path) -> None:
    arguments = [("--shard-index", str(index), "--num-shards", "2") for index in range(2)]
    for argument in arguments:
        assert _shard(tmp_path / "run", images, {}, *argument).returncode == 0
    assert _parts(tmp_path / "run") == [0, 1, 2, 3, 4]
