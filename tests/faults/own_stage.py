"""A stage of our own for tests of runner and engines: no model, and faults on demand.

Named `own_stage:OwnStage`, so a worker has to find this folder on its path: `pythonpath` in pyproject.toml.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from pseudolabel import records
from pseudolabel.config import option
from pseudolabel.crash_note import decoding
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.planning.plan import PlanRequest, write_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard, Stage, StageConfig

NAME = "own_stage:OwnStage"


class OwnConfig(StageConfig):
    factor: int = option(2, "what every width is multiplied with")
    label: str = option("", "a key that cannot change a result", changes_result=False)
    fault: str = option("", "WHAT or WHAT:SHARD", changes_result=False)
    journal: Path = option(..., "folder that gets one file per attempt", changes_result=False)
    sleep_s: float = option(0.0, "time that every shard takes", changes_result=False)


class OwnStage(Stage[OwnConfig]):
    name = NAME
    version = 1
    config_class = OwnConfig
    schema = records.MANIFEST
    writes = "own"

    def reads(self) -> tuple[str, ...]:
        return ("plan",)

    def setup(self, device: str) -> None:
        if self.config.fault == "setup":
            raise InputError("the model is not there")
        (self.config.journal / f"setup.{os.getpid()}").touch()

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        attempt = self._note_attempt(shard.index)
        time.sleep(self.config.sleep_s)
        self._fail(shard.index, attempt)
        rows = [self._row(row) for row in inputs["plan"].to_pylist()]
        return records.table_from_rows(rows, records.MANIFEST)

    def finish(self, paths: list[Path]) -> None:
        (self.config.journal / "finished").write_text(str(len(paths)))

    def _note_attempt(self, shard: int) -> int:
        """How many attempts at the shard there were, this one with them."""
        before = len(list(self.config.journal.glob(f"attempt.{shard:05d}.*")))
        (self.config.journal / f"attempt.{shard:05d}.{os.getpid()}.{time.monotonic_ns()}").touch()
        return before + 1

    def _fail(self, shard: int, attempt: int) -> None:
        what, _, where = self.config.fault.partition(":")
        if where != str(shard):
            return
        if what == "raise":
            raise RuntimeError("this shard never works")
        if what == "refuse":
            raise InputError("this content will never do")
        if what == "kill" or (what == "kill-once" and attempt == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang-once" and attempt == 1:
            time.sleep(600)

    def _row(self, row: dict) -> dict:
        try:
            with decoding(row["image_key"].encode()):
                if self.config.fault == f"segv:{row['image_key']}":
                    os.kill(os.getpid(), signal.SIGSEGV)
        except RejectError as error:
            return row | {"objects": None} | records.rejected(NAME, error.reason, error.detail)
        return row | {"width": row["width"] * self.config.factor, **records.ok(NAME)}


def make_run(folder: Path, *, images: int = 80, shards: int = 4) -> RunPaths:
    """A run folder with a plan and, beside it, an empty journal."""
    run = RunPaths(folder / "run")
    request = PlanRequest(folder, "made up", shards, "ignore", [{"id": 1, "name": "cat"}], {}, [])
    write_plan(run, request, (_plan_row(index) for index in range(images)))
    (folder / "journal").mkdir(exist_ok=True)
    return run


def _plan_row(index: int) -> dict:
    name = f"{index:04d}.jpg"
    row = {"image_key": name, "image_id": index, "file_name": name, "width": 10 + index, "height": 10, "objects": []}
    return row | records.ok("shard")


def own_config(run: RunPaths, **values) -> OwnConfig:
    return OwnConfig(journal=run.root.parent / "journal", device="cpu", **{"workers": 2, **values})


def contents(run: RunPaths) -> dict[str, bytes]:
    """What the run's parts hold, by name; hidden files too."""
    return {path.name: path.read_bytes() for path in sorted(run.table("own").iterdir())}


def attempts(journal: Path) -> list[int]:
    """Shards that were worked on, once per attempt, sorted."""
    return sorted(int(path.name.split(".")[1]) for path in journal.glob("attempt.*"))


def setups(journal: Path) -> int:
    """How many processes set the stage up."""
    return len(list(journal.glob("setup.*")))


@contextmanager
def drivers() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a driver in a process group of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(run: RunPaths, engine: EngineOptions, **values: object) -> subprocess.Popen[str]:
        settings = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        driver = str(Path(__file__).with_name("driver.py"))
        command = [sys.executable, driver, str(run.root), json.dumps(asdict(engine)), *settings]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        )
        return started[-1]

    try:
        yield begin
    finally:
        for process in started:
            process.kill()
            process.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Until the condition holds, checked twenty times a second."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
