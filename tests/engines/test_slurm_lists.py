"""What the driver reads of earlier submissions; this needs no Slurm."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pseudolabel.pipelines.engines.slurm import Task, _ShardLists
from pseudolabel.pipelines.run.paths import RunPaths


def _lists(run: RunPaths) -> _ShardLists:
    job: Any = SimpleNamespace(run=run)
    return _ShardLists(job)


def test_a_task_has_the_entry_at_its_offset_and_index(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    folder = run.submissions() / "first"
    folder.mkdir(parents=True)
    (folder / "shards.json").write_text(json.dumps([[0, 1], [2], [5, 6]]))
    assert _lists(run).of(Task("7", 1, "PENDING", "None", "first", 1)) == [5, 6]


def test_a_task_of_a_deleted_run_has_no_shard_and_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = _lists(RunPaths(tmp_path))
    assert [lists.of(Task("9", index, "PENDING", "None", "gone", 0)) for index in range(3)] == [[], [], []]
    assert capsys.readouterr().err == "slurm: array 9 waits for a run that was deleted;  scancel 9  ends it\n"
