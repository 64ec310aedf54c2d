"""Processes that are killed at any moment, and disks that are full: nothing is lost, nothing is left, and it is said.

PSEUDOLABEL_KILLS sets how many kills are to land.
"""

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from own_chain import digests, draw_scenes, run_scenes
from own_stage import NAME, contents, drivers, make_run, own_config

from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.run.leftovers import sweep_run
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.verify import verify_run

KILLS = int(os.environ.get("PSEUDOLABEL_KILLS", "3"))


def _kill_somebody(driver: subprocess.Popen[str], moment: random.Random) -> bool:
    """Whether the driver or one of its workers was killed while the driver was alive."""
    time.sleep(moment.uniform(0.2, 3.0))
    if driver.poll() is not None:
        return False
    workers = [one for one in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    victim = moment.choice([driver, *workers])
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return True


@pytest.mark.timeout(120 + 40 * KILLS)
def test_kills_of_drivers_and_workers_lose_nothing_and_change_no_byte(tmp_path: Path) -> None:
    undisturbed = make_run(tmp_path / "undisturbed", images=60, shards=12)
    run_stage(undisturbed, NAME, own_config(undisturbed), RunOptions("inline"))
    run, moment, landed = make_run(tmp_path, images=60, shards=12), random.Random(KILLS), 0
    with drivers() as start:
        while landed < KILLS:
            driver = start(run, EngineOptions("local"), sleep_s=0.3)
            landed += _kill_somebody(driver, moment)
            driver.communicate(timeout=60)
            if driver.returncode == 0 and landed < KILLS:
                for part in run.table("own").glob("part-*"):
                    part.unlink()
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    assert contents(run) == contents(undisturbed)
    assert not list(run.root.rglob(".*.tmp"))


def test_leftovers_of_dead_processes_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=4, shards=1)
    run_stage(run, NAME, own_config(run), RunOptions("inline"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host, names = os.uname().nodename, []
    for folder in ("", "config", "pseudo", "models", "_known", "_seals/pseudo", "_failures/fuse"):
        place = run.root / folder
        place.mkdir(parents=True, exist_ok=True)
        for pid in (dead.pid, os.getpid()):
            names.append(place / f".x.json.{host}.{pid}.0123abcd.tmp")
            names[-1].touch()
    spool = run.root / f".spool.{host}.{dead.pid}.0123abcd.tmp"
    spool.mkdir()
    (spool / "00000").write_text("{}")
    assert sweep_run(run) == 8
    assert [name for name in names if name.exists()] == names[1::2]
    assert not spool.exists()


COMMANDS = {
    "shard": ["shard", "{run}", "--images", "{scenes}/images", "--annotations", "{scenes}/boxes.json", "--shards", "2"],
    "infer-colors": ["infer-colors", "{run}"],
    "fuse": ["fuse", "{run}"],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("scenes"), count=3)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_ends_a_command_with_code_4_and_the_same_command_goes_on(
    scenes: Path, tmp_path: Path, command: str
) -> None:
    """A limit on the size of files stands for the disk: the system refuses the write in the same place."""
    run = RunPaths(tmp_path / "run")
    for name, template in COMMANDS.items():
        line = [sys.executable, "-m", "pseudolabel.cli.main"]
        line += [part.format(run=run.root, scenes=scenes) for part in template] + ["--engine", "inline"]
        if name == command:
            full = _limited(line, most_bytes=600)
            assert full.returncode == 4, full.stderr
            assert "no space left" in full.stderr
            assert "Traceback" not in full.stderr
            assert not list(run.root.rglob(".*.tmp"))
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if name == command:
            break
    assert verify_run(run) == []


def _limited(line: list[str], *, most_bytes: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    environment = {**os.environ, "NUMBA_CACHE_DIR": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(line, preexec_fn=limit, env=environment, capture_output=True, text=True, check=False)


def test_a_run_that_a_full_disk_broke_off_ends_as_an_undisturbed_one(scenes: Path, tmp_path: Path) -> None:
    here = run_scenes(scenes, tmp_path / "here", shards=2)
    there = RunPaths(tmp_path / "there")
    line = [sys.executable, "-m", "pseudolabel.cli.main", "shard", str(there.root), "--engine", "inline"]
    line += ["--images", f"{scenes}/images", "--annotations", f"{scenes}/boxes.json", "--shards", "2"]
    for most_bytes in (100, 1000, 2500, 5000):
        _limited(line, most_bytes=most_bytes)
    run_scenes(scenes, there.root, shards=2)
    assert digests(there) == digests(here)
