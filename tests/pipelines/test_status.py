import json
import os
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from own_stage import NAME, make_run, own_config

from pseudolabel.cli.status import duration, status
from pseudolabel.errors import IncompleteError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.status import TableStatus, run_status
from pseudolabel.pipelines.verify import verify_run
from pseudolabel.pipelines.work.attempts import running_note


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return make_run(tmp_path, images=160, shards=4)


def _only(run: RunPaths) -> TableStatus:
    (table,) = run_status(run)
    return table


def _cli(run: RunPaths, *arguments: str) -> str:
    result = CliRunner().invoke(status, [str(run.root), *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_stage_of_which_nothing_came_out_is_shown_with_the_reasons(run: RunPaths) -> None:
    for shard in range(4):
        with pytest.raises(IncompleteError):
            run_stage(run, NAME, own_config(run, fault=f"refuse:{shard}"), RunOptions("inline", shards=(shard,)))
    table = _only(run)
    assert (table.table, table.stage, table.done, table.missing) == ("own", NAME, 0, [0, 1, 2, 3])
    assert table.failures == dict.fromkeys(range(4), "this content will never do")
    assert "shard 00003 failed: this content will never do" in _cli(run)


def test_done_missing_damaged_and_failed_shards_are_told_apart(run: RunPaths) -> None:
    with pytest.raises(IncompleteError):
        run_stage(run, NAME, own_config(run, fault="refuse:1"), RunOptions("inline"))
    run.part("own", 0, 4).unlink()
    run.part("own", 3, 4).write_bytes(b"PAR1")
    table = _only(run)
    assert (table.done, table.missing, table.damaged, list(table.failures)) == (1, [0, 1], [3], [1])
    assert _cli(run, "--missing", "own") == "0-1,3\n"
    assert _cli(run, "--missing", "own", "--format", "slurm-array") == "0-1,3\n"
    assert _cli(run, "--missing", "own", "--format", "lines") == "0\n1\n3\n"
    assert len(verify_run(run)) == 3


def test_a_failure_of_a_shard_that_is_done_now_is_not_told(run: RunPaths) -> None:
    with pytest.raises(IncompleteError):
        run_stage(run, NAME, own_config(run, fault="refuse:1"), RunOptions("inline"))
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    assert (_only(run).failures, _only(run).done, verify_run(run)) == ({}, 4, [])
    assert _cli(run, "--missing", "own") == ""


def test_running_shards_are_told_with_host_and_process(run: RunPaths) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline", shards=(0, 1)))
    with running_note(run, NAME, 2):
        assert _only(run).running == {2: f"{socket.gethostname()}:{os.getpid()}"}
        assert f"running 2: {socket.gethostname()}:{os.getpid()}" in _cli(run)
    assert _only(run).running == {}


def test_a_note_of_a_dead_process_here_is_not_running_and_one_from_elsewhere_may_be(run: RunPaths) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline", shards=(0,)))
    folder = run.running(NAME)
    folder.mkdir(parents=True, exist_ok=True)
    for shard, host in ((1, socket.gethostname()), (2, "another-host")):
        note = {"host": host, "pid": 4_194_999, "since": 0}
        (folder / f"{shard:05d}.{host}.4194999.json").write_text(json.dumps(note))
    assert _only(run).running == {2: "another-host:4194999"}


def test_speed_and_time_left_follow_from_the_times_of_the_parts(run: RunPaths) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline", shards=(0, 1, 2)))
    now = time.time()
    for shard, age_s in ((0, 40), (1, 30), (2, 20)):
        os.utime(run.part("own", shard, 4), (now - age_s, now - age_s))
    table = _only(run)
    assert table.images_per_s == pytest.approx(2 * 40 / 20, rel=1e-6)  # two shards of 160 / 4 images in 20 s
    assert table.eta_s == pytest.approx(40 / 4, rel=1e-6)
    assert "10 s" in _cli(run).splitlines()[1]


def test_a_run_that_nobody_works_on_has_no_speed(run: RunPaths) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline", shards=(0, 1)))
    for shard in (0, 1):
        os.utime(run.part("own", shard, 4), (1000.0 + shard, 1000.0 + shard))
    assert (_only(run).images_per_s, _only(run).eta_s) == (None, None)


def test_rejects_are_counted_by_reason(run: RunPaths) -> None:
    run_stage(run, NAME, own_config(run, fault="segv:0042.jpg", max_reject_rate=0.1))
    content = json.loads(_cli(run, "--json"))["tables"][0]
    assert (content["rejects"], content["n_rejected"], content["n_ok"]) == ({"decoder_crash": 1}, 1, 159)
    assert "rejected 1: decoder_crash" in _cli(run)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [pytest.param(42, "42 s", id="s"), pytest.param(600, "10 min", id="min"), pytest.param(9000, "2.5 h", id="h")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
