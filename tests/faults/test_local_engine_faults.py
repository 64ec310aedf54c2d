"""The local engine and the driver under signals and deaths, with real processes."""

import functools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from own_stage import NAME, attempts, contents, drivers, make_run, own_config, wait_for

from pseudolabel.errors import IncompleteError, MachineError
from pseudolabel.files import process_is_alive
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.work import attempts as notes
from pseudolabel.pipelines.work.job import library_versions


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return make_run(tmp_path, images=160, shards=4)


@pytest.fixture
def journal(run: RunPaths) -> Path:
    return run.root.parent / "journal"


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, bytes]:
    run = make_run(tmp_path / "undisturbed", images=160, shards=4)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    return contents(run)


@pytest.fixture
def start(run: RunPaths) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    with drivers() as begin:
        yield functools.partial(begin, run, EngineOptions("local"))


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_a_killed_worker_costs_one_attempt_and_nothing_else(
    run: RunPaths, journal: Path, undisturbed: dict[str, bytes]
) -> None:
    assert run_stage(run, NAME, own_config(run, fault="kill-once:2")).n_ok == 160
    assert attempts(journal) == [0, 1, 2, 2, 3]
    assert contents(run) == undisturbed


def test_a_shard_that_always_kills_is_named_with_the_signal(run: RunPaths, journal: Path) -> None:
    with pytest.raises(MachineError, match=r"shards failed \(3\).*worker process died \(signal SIGKILL\); out of mem"):
        run_stage(run, NAME, own_config(run, fault="kill:3"))
    assert attempts(journal) == [0, 1, 2, 3, 3, 3]


def test_an_image_that_crashes_the_decoder_is_one_reject_and_the_rest_comes_out(run: RunPaths, journal: Path) -> None:
    config = own_config(run, fault="segv:0042.jpg", max_reject_rate=0.1)
    summary = run_stage(run, NAME, config)
    assert (summary.n_in, summary.n_ok, summary.n_rejected) == (160, 159, 1)
    rows = [row for shard in range(4) for row in read_part(run.part("own", shard, 4)).to_pylist()]
    crashed = [(row["image_key"], row["reason"]) for row in rows if row["status"] == "rejected"]
    assert crashed == [("0042.jpg", "decoder_crash")]
    assert len(attempts(journal)) == 4 + notes.DEATHS_THAT_CONVICT
    assert notes.failures(run, NAME) == {}


def test_a_crash_is_remembered_for_these_libraries_alone(run: RunPaths, journal: Path) -> None:
    config = own_config(run, fault="segv:0042.jpg", max_reject_rate=0.1)
    run_stage(run, NAME, config)
    shard = next(shard for shard in range(4) if notes.deadly(run, NAME, shard, library_versions()))
    assert notes.deadly(run, NAME, shard, library_versions() | {"Pillow": "0"}) == []
    first = contents(run)
    run.part("own", shard, 4).unlink()
    before = len(attempts(journal))
    run_stage(run, NAME, config)
    assert (contents(run), len(attempts(journal))) == (first, before + 1)


def test_a_driver_that_is_killed_leaves_no_process_and_the_next_one_does_the_rest(
    run: RunPaths, journal: Path, start, undisturbed: dict[str, bytes]
) -> None:
    driver = start(fault="hang-once:3")
    wait_for(lambda: attempts(journal) == [0, 1, 2, 3] and len(_parts(run)) == 3)
    workers = _children(driver)
    assert workers
    driver.kill()
    wait_for(lambda: not [worker for worker in workers if process_is_alive(worker.pid)], seconds=10)
    assert notes.running(run, NAME) == {}
    again = start()
    output, _ = again.communicate(timeout=60)
    assert (again.returncode, json.loads(output)["attempted"]) == (0, 1)
    assert attempts(journal) == [0, 1, 2, 3, 3]
    assert contents(run) == undisturbed


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 75, id="SIGTERM"),
        pytest.param(signal.SIGUSR1, 75, id="SIGUSR1"),
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
    ],
)
def test_a_signal_to_the_whole_group_ends_the_run_after_the_shards_in_work(
    run: RunPaths, journal: Path, start, number: signal.Signals, code: int
) -> None:
    driver = start(sleep_s=1.0)
    wait_for(lambda: len(attempts(journal)) >= 2)
    workers = _children(driver)
    os.killpg(driver.pid, number)
    _, errors = driver.communicate(timeout=25)
    assert (driver.returncode, f"stopped by {number.name}" in errors) == (code, True)
    assert "Traceback" not in errors
    # Python's resource tracker is a child, too, and leaves a moment after the driver
    wait_for(lambda: not [worker for worker in workers if process_is_alive(worker.pid)])
    assert sorted(contents(run)) == [f"part-{shard:05d}-of-00004.parquet" for shard in (0, 1)]
    assert run_stage(run, NAME, own_config(run)).attempted == 2


def test_a_second_signal_ends_the_run_at_once(run: RunPaths, journal: Path, start) -> None:
    driver = start(sleep_s=60.0)
    wait_for(lambda: len(attempts(journal)) >= 2)
    began = time.monotonic()
    driver.terminate()
    time.sleep(0.3)
    driver.terminate()
    _, errors = driver.communicate(timeout=25)
    assert (driver.returncode, time.monotonic() - began < 8) == (75, True), errors
    assert _parts(run) == set()


def test_a_signal_before_any_work_ends_the_run(run: RunPaths, start) -> None:
    driver = start(sleep_s=60.0)
    wait_for(lambda: (run.root / "config").exists() and bool(_children(driver)))
    os.killpg(driver.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=25)
    assert driver.returncode == 130
    # a child that Python itself is still starting may say that it was interrupted; the last word is the driver's
    assert errors.rstrip().endswith("stopped by SIGINT; the same command goes on from here")


def test_two_drivers_at_once_both_end_well_with_one_set_of_parts(
    run: RunPaths, start, undisturbed: dict[str, bytes]
) -> None:
    drivers = [start(sleep_s=0.3), start(sleep_s=0.3)]
    for driver in drivers:
        output, errors = driver.communicate(timeout=60)
        assert driver.returncode == 0, errors
        assert json.loads(output)["n_ok"] == 160
    assert contents(run) == undisturbed


def test_many_kills_never_undo_what_was_done(run: RunPaths, journal: Path, start) -> None:
    done: set[str] = set()
    for _ in range(4):
        driver = start(sleep_s=0.1, workers=1)
        count = len(done)
        wait_for(lambda driver=driver, count=count: driver.poll() is not None or len(_parts(run)) > count)
        driver.kill()
        driver.communicate()
        assert _parts(run) >= done
        done = _parts(run)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    assert len(contents(run)) == 4
    assert len(attempts(journal)) <= 4 + 4


def _parts(run: RunPaths) -> set[str]:
    folder = run.table("own")
    return {path.name for path in folder.glob("part-*")} if folder.is_dir() else set()


def test_a_reject_rate_above_the_limit_ends_the_run_with_its_reasons(run: RunPaths) -> None:
    config = own_config(run, fault="segv:0042.jpg", max_reject_rate=0.0)
    with pytest.raises(
        IncompleteError,
        match=r"1 of 160 images were rejected \(decoder_crash 1\), such as 0042\.jpg: .* more than --max-reject",
    ):
        run_stage(run, NAME, config)
