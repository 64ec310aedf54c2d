import os
from pathlib import Path

import pytest
from own_stage import NAME, attempts, contents, make_run, own_config, setups

from pseudolabel.errors import IncompleteError, InputError, MachineError, StaleOutputError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, compress, run_stage
from pseudolabel.pipelines.work import attempts as notes


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return make_run(tmp_path)


@pytest.fixture
def journal(run: RunPaths) -> Path:
    return run.root.parent / "journal"


def _stamps(run: RunPaths) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in run.table("own").iterdir()}


def test_every_shard_is_done_once_and_exported(run: RunPaths, journal: Path) -> None:
    summary = run_stage(run, NAME, own_config(run))
    assert (summary.shards, summary.attempted, summary.n_in, summary.n_ok, summary.n_rejected) == (4, 4, 80, 80, 0)
    assert attempts(journal) == [0, 1, 2, 3]
    assert (journal / "finished").read_text() == "4"
    rows = [row for shard in range(4) for row in read_part(run.part("own", shard, 4)).to_pylist()]
    assert sorted((row["image_key"], row["width"]) for row in rows) == [
        (f"{i:04d}.jpg", 2 * (10 + i)) for i in range(80)
    ]


def test_a_second_run_starts_no_attempt_and_touches_no_part(run: RunPaths, journal: Path) -> None:
    run_stage(run, NAME, own_config(run))
    before, started = _stamps(run), attempts(journal)
    summary = run_stage(run, NAME, own_config(run))
    assert (summary.attempted, summary.n_ok) == (0, 80)
    assert (_stamps(run), attempts(journal), setups(journal)) == (before, started, 2)


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_one_and_two_workers_write_the_same_bytes(tmp_path: Path, engine: str) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    run_stage(one, NAME, own_config(one, workers=1), RunOptions(engine="inline"))
    run_stage(two, NAME, own_config(two, workers=2), RunOptions(engine=engine))
    assert contents(one) == contents(two)


def test_a_changed_key_is_refused_by_its_name_and_values(run: RunPaths, journal: Path) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    before = _stamps(run)
    with pytest.raises(StaleOutputError, match=r"holds 4 shards made otherwise: factor 2 -> 3: use --overwrite"):
        run_stage(run, NAME, own_config(run, factor=3), RunOptions("inline"))
    assert _stamps(run) == before
    summary = run_stage(run, NAME, own_config(run, factor=3), RunOptions("inline", overwrite=True))
    assert (summary.attempted, read_footer(run.part("own", 0, 4)).config["factor"]) == (4, 3)


def test_a_key_that_cannot_change_the_result_resumes(run: RunPaths, journal: Path) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    assert run_stage(run, NAME, own_config(run, label="new", workers=1), RunOptions("inline")).attempted == 0


def test_parts_of_two_configs_are_not_exported(run: RunPaths, journal: Path) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    (journal / "finished").unlink()
    run_stage(run, NAME, own_config(run, factor=3), RunOptions("inline", overwrite=True, shards=(0, 1)))
    assert not (journal / "finished").exists()
    run_stage(run, NAME, own_config(run, factor=3), RunOptions("inline", overwrite=True, shards=(2, 3)))
    assert (journal / "finished").exists()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], id="one bit flipped"),
        pytest.param(lambda data: b"", id="empty"),
    ],
)
def test_a_damaged_part_alone_is_made_again(run: RunPaths, journal: Path, damage) -> None:
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    good = contents(run)
    part = run.part("own", 2, 4)
    part.write_bytes(damage(part.read_bytes()))
    assert run_stage(run, NAME, own_config(run), RunOptions("inline")).attempted == 1
    assert contents(run) == good
    assert attempts(journal) == [0, 1, 2, 2, 3]


def test_a_shard_that_always_fails_stops_nobody_and_is_named(run: RunPaths, journal: Path) -> None:
    with pytest.raises(IncompleteError, match=r"1 shards failed \(2\).*shard 00002: RuntimeError: this shard never"):
        run_stage(run, NAME, own_config(run, fault="raise:2"))
    assert sorted(contents(run)) == [f"part-{shard:05d}-of-00004.parquet" for shard in (0, 1, 3)]
    assert attempts(journal).count(2) == 3
    assert not (journal / "finished").exists()
    assert "own_stage.py" in notes.read_failure(run, NAME, 2)["traceback"]
    assert run_stage(run, NAME, own_config(run)).attempted == 1
    assert notes.failures(run, NAME) == {}


def test_content_that_we_refuse_is_not_tried_again(run: RunPaths, journal: Path) -> None:
    with pytest.raises(IncompleteError, match="this content will never do"):
        run_stage(run, NAME, own_config(run, fault="refuse:1"), RunOptions("inline"))
    assert attempts(journal) == [0, 1, 2, 3]


def test_an_old_refusal_does_not_keep_a_shard_from_being_tried_anew(run: RunPaths, journal: Path) -> None:
    with pytest.raises(IncompleteError):
        run_stage(run, NAME, own_config(run, fault="refuse:1"), RunOptions("inline"))
    assert run_stage(run, NAME, own_config(run, fault="kill-once:1")).n_ok == 80


def test_a_stage_that_cannot_be_set_up_ends_at_once(run: RunPaths, journal: Path) -> None:
    with pytest.raises(InputError, match="the model is not there"):
        run_stage(run, NAME, own_config(run, fault="setup"))
    assert attempts(journal) == []


def test_a_part_of_the_work_touches_no_other_shard(run: RunPaths, journal: Path) -> None:
    assert run_stage(run, NAME, own_config(run), RunOptions("inline", shards=(1, 3))).shards == 2
    assert attempts(journal) == [1, 3]
    assert not (journal / "finished").exists()


def test_a_missing_input_names_the_table_and_the_shards(run: RunPaths) -> None:
    run.part("plan", 1, 4).unlink()
    run.part("plan", 2, 4).unlink()
    with pytest.raises(IncompleteError, match=r"needs plan, and 2 of its 4 shards are missing or damaged \(1-2\)"):
        run_stage(run, NAME, own_config(run))


def test_a_driver_whose_probe_another_one_took_away_goes_on(run: RunPaths, monkeypatch) -> None:
    """Two that begin in the same moment write and remove the same file."""

    def write_and_lose(path: Path, text: str) -> None:
        write_text_atomically(path, text)
        if path.name == ".writable":
            path.unlink()

    monkeypatch.setattr("pseudolabel.pipelines.runner.write_text_atomically", write_and_lose)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    assert len(contents(run)) == 4


def test_a_folder_that_cannot_be_written_is_said_before_any_work(run: RunPaths, monkeypatch) -> None:
    from pseudolabel.pipelines import runner

    def refuse(path: Path, text: str) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(runner, "write_text_atomically", refuse)
    with pytest.raises(MachineError, match="Read-only file system"):
        run_stage(run, NAME, own_config(run))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        pytest.param([3, 17, 18, 19], "3,17-19", id="mixed"),
        pytest.param([], "", id="none"),
        pytest.param([2, 0, 1, 1], "0-2", id="unsorted with a double"),
    ],
)
def test_indexes_are_written_as_slurm_reads_them(numbers: list[int], text: str) -> None:
    assert compress(numbers) == text
