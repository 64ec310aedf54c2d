"""Laws that every registered engine keeps; a new one is picked up by its name.

Slurm and Ray need a cluster of theirs: tests/engines starts one and asks the same of them.
"""

from pathlib import Path

import pytest
from own_stage import NAME, attempts, contents, make_run, own_config

from pseudolabel.errors import IncompleteError, InputError
from pseudolabel.pipelines.engines.base import ENGINES, EngineOptions, make_engine
from pseudolabel.pipelines.runner import RunOptions, run_stage

HERE = [name for name in ENGINES if name not in ("slurm", "ray")]


@pytest.mark.parametrize("name", HERE)
def test_an_engine_attempts_every_shard_once_and_tells_of_each(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, images=6, shards=3)
    summary = run_stage(run, NAME, own_config(run, workers=1), RunOptions(name))
    assert (summary.attempted, summary.n_ok) == (3, 6)
    assert attempts(tmp_path / "journal") == [0, 1, 2]
    assert (tmp_path / "journal" / "finished").read_text() == "3"


@pytest.mark.parametrize("name", HERE)
def test_the_bytes_do_not_depend_on_the_engine(name: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = make_run(tmp_path / "one", images=6, shards=2), make_run(tmp_path / "two", images=6, shards=2)
    run_stage(one, NAME, own_config(one, workers=1), RunOptions("inline"))
    run_stage(two, NAME, own_config(two, workers=1), RunOptions(name))
    assert list(contents(one)) == list(contents(two))
    parts = [[data for key, data in contents(run).items() if key.endswith(".parquet")] for run in (one, two)]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("name", HERE)
def test_a_shard_that_fails_leaves_the_others_done(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, images=6, shards=3)
    with pytest.raises(IncompleteError, match=r"1 shards failed \(1\)"):
        run_stage(run, NAME, own_config(run, workers=1, fault="refuse:1"), RunOptions(name))
    assert set(attempts(tmp_path / "journal")) == {0, 1, 2}
    assert len([key for key in contents(run) if key.endswith(".parquet")]) == 2


@pytest.mark.parametrize("name", HERE)
def test_a_stage_that_cannot_be_set_up_is_told_once(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, images=6, shards=3)
    with pytest.raises(InputError, match="the model is not there"):
        run_stage(run, NAME, own_config(run, workers=1, fault="setup"), RunOptions(name))


@pytest.mark.parametrize("name", HERE)
def test_an_engine_says_whether_it_works_elsewhere(name: str) -> None:
    assert make_engine(EngineOptions(name)).elsewhere is False
