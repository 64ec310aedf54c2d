"""Workers that wait for the next stage, with real processes."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from own_stage import NAME, contents, make_run, own_config, wait_for

from pseudolabel.errors import IncompleteError, InputError
from pseudolabel.pipelines.engines.warm import let_go, warm_workers
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return make_run(tmp_path, images=40, shards=4)


def again(run: RunPaths, **values: object) -> None:
    run_stage(run, NAME, own_config(run, workers=1, **values), RunOptions(overwrite=True))


def workers(run: RunPaths) -> set[int]:
    """The processes that ever worked on the run."""
    return {int(path.name.split(".")[2]) for path in (run.root.parent / "journal").glob("attempt.*")}


def living(run: RunPaths) -> set[int]:
    return {child.pid for child in psutil.Process().children()} & workers(run)


def test_the_next_stage_is_done_by_the_same_process_to_the_same_end(run: RunPaths, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", images=40, shards=4)
    again(other, factor=3)
    with warm_workers():
        again(run, factor=2)
        again(run, factor=3)
        assert len(workers(run)) == 1
        assert living(run) == workers(run)
    assert not living(run)
    assert contents(run) == contents(other)


def test_without_a_next_stage_nobody_waits(run: RunPaths) -> None:
    again(run)
    assert workers(run)
    assert not living(run)


def test_a_block_within_a_block_does_not_send_them_home(run: RunPaths) -> None:
    with warm_workers():
        with warm_workers():
            again(run, factor=2)
        again(run, factor=3)
        assert len(workers(run)) == 1


def test_a_worker_that_died_while_it_waited_is_replaced(run: RunPaths) -> None:
    with warm_workers():
        again(run, factor=2)
        (waiting,) = living(run)
        os.kill(waiting, signal.SIGKILL)
        wait_for(lambda: psutil.Process(waiting).status() == psutil.STATUS_ZOMBIE)
        again(run, factor=3)
        assert len(workers(run)) == 2


def test_one_that_cannot_be_set_up_does_not_wait(run: RunPaths) -> None:
    with warm_workers():
        with pytest.raises(InputError, match="the model is not there"):
            again(run, fault="setup")
        again(run)
        assert len(living(run)) == 1


def test_one_whose_shard_failed_goes_on_with_the_next_stage(run: RunPaths) -> None:
    with warm_workers():
        with pytest.raises(IncompleteError):
            again(run, fault="refuse:1")
        again(run)
        assert len(workers(run)) == 1


def test_before_a_training_all_are_let_go(run: RunPaths) -> None:
    with warm_workers():
        again(run)
        assert living(run)
        let_go()
        assert not living(run)
