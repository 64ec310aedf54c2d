"""A part that was read to its last page is not opened again, and one that was touched is."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_stage import NAME, make_run, own_config

from pseudolabel.pipelines.run import commit, known_parts
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer
from pseudolabel.pipelines.run.known_parts import KnownParts
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage

SHARDS = 4


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    run = make_run(tmp_path, images=12, shards=SHARDS)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that are read to their last page."""
    names: list[str] = []
    real = commit.verify_part

    def counted(path: Path) -> Footer:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(known_parts, "verify_part", counted)
    return names


def part(run: RunPaths, shard: int) -> Path:
    return run.part("own", shard, SHARDS)


def test_a_second_run_opens_no_part_of_its_table(
    run: RunPaths, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    footers: list[str] = []

    def counted(path: Path) -> Footer:
        footers.append(path.parent.name)
        return commit.read_footer(path)

    monkeypatch.setattr(known_parts, "read_footer", counted)
    assert run_stage(run, NAME, own_config(run), RunOptions("inline")).attempted == 0
    assert (opened, "own" in footers) == ([], False)


def test_one_flipped_bit_is_found_and_that_part_alone_is_read(run: RunPaths, opened: list[str]) -> None:
    content = bytearray(part(run, 2).read_bytes())
    content[40] ^= 1
    part(run, 2).write_bytes(content)
    looks = KnownParts(run, "own", SHARDS).verified(range(SHARDS))
    assert [type(looks[shard]) for shard in range(SHARDS)] == [Footer, Footer, DamagedPartError, Footer]
    assert opened == [part(run, 2).name]
    assert run_stage(run, NAME, own_config(run), RunOptions("inline")).attempted == 1


def test_setting_back_the_time_of_a_write_does_not_hide_it(run: RunPaths, opened: list[str]) -> None:
    before = part(run, 1).stat()
    content = bytearray(part(run, 1).read_bytes())
    content[40] ^= 1
    time.sleep(0.02)
    part(run, 1).write_bytes(content)
    os.utime(part(run, 1), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert isinstance(KnownParts(run, "own", SHARDS).verified([1])[1], DamagedPartError)


def test_a_part_that_is_gone_is_missing_whatever_was_written_down(run: RunPaths) -> None:
    part(run, 3).unlink()
    looks = KnownParts(run, "own", SHARDS).verified(range(SHARDS))
    assert [look is None for look in looks.values()] == [False, False, False, True]


@pytest.mark.parametrize("content", ["", "{", '{"kinds": []}', "[]", '{"kinds": [], "parts": [{"kind": 3}]}'])
@pytest.mark.parametrize("digest", [False, True])
def test_a_note_that_cannot_be_read_costs_a_reading_and_nothing_else(
    run: RunPaths, opened: list[str], content: str, digest: bool
) -> None:
    run.known("own").write_text(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}" if digest else content)
    looks = KnownParts(run, "own", SHARDS).verified(range(SHARDS))
    assert all(isinstance(look, Footer) for look in looks.values())
    assert len(opened) == SHARDS


def test_what_is_remembered_is_what_the_footers_say(run: RunPaths) -> None:
    KnownParts(run, "own", SHARDS).remember()
    looks = KnownParts(run, "own", SHARDS).verified(range(SHARDS))
    assert looks == {shard: commit.read_footer(part(run, shard)) for shard in range(SHARDS)}


def test_ten_thousand_known_parts_are_looked_at_in_two_seconds(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=4, shards=1)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    footer: Any = commit.read_footer(run.part("own", 0, 1))
    content = run.part("own", 0, 1).read_bytes()
    table = RunPaths(tmp_path / "large")
    table.table("own").mkdir(parents=True)
    for shard in range(10_000):
        table.part("own", shard, 10_000).write_bytes(content)
    known = KnownParts(table, "own", 10_000)
    for shard in range(10_000):
        known._sound[shard] = replace(footer, shard=shard, num_shards=10_000)
    known.remember()
    began = time.process_time()
    looks = KnownParts(table, "own", 10_000).verified(range(10_000))
    assert time.process_time() - began < 2
    assert len(looks) == 10_000
    assert looks[7_777] == replace(footer, shard=7_777, num_shards=10_000)
    assert len(json.loads(table.known("own").read_text().partition("\n")[2])["kinds"]) == 1
