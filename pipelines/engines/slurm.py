"""Shards as tasks of Slurm job arrays, by `sbatch`, `squeue` and `scontrol` alone.

Each submission is an own folder with what never changes afterwards: the job, the list of shards per task, the script.
An array's name is a hash of the job, so that a second driver sees what the first one has in the queue. Tasks are over
when squeue, having answered, does not list them; whether they did their work is not asked here.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pseudolabel.errors import ConfigError, MachineError, SignalStopError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.engines.base import EngineOptions, HandedOver
from pseudolabel.pipelines.engines.stop import StopSignals
from pseudolabel.pipelines.work.job import Job

SLURM_COMMANDS = ("sbatch", "squeue", "scontrol")
PATIENCE_S = 1800.0  # with a scheduler that does not answer
_FIRST_POLL_S, _LAST_POLL_S = 0.5, 15.0
_COMMAND_S = 60.0
_KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS")
_OURS = ("--array", "-a", "--job-name", "-J", "--comment", "--parsable", "--wait", "-W", "--wrap", "--output", "-o")
_SCRIPT = """#!/bin/sh
# {name}: entry $1 + $SLURM_ARRAY_TASK_ID of shards.json
exec {python} -P -m pseudolabel.cli.main run-shard {folder}/job.json {folder}/shards.json --stage {stage} \\
  --entry "$(($1 + SLURM_ARRAY_TASK_ID))" --cores "${{SLURM_CPUS_PER_TASK:-1}}"
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One task of an array that is in the queue."""

    array: str
    index: int
    state: str
    reason: str
    submission: str
    offset: int


class SlurmEngine:
    """`sbatch --array` over immutable lists of shards."""

    elsewhere: ClassVar[bool] = True

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        for argument in options.sbatch_args:
            if argument.split("=")[0] in _OURS:
                raise ConfigError(f"--sbatch-arg {argument}: pseudolabel gives {argument.split('=')[0]} itself")

    def run(self, job: Job, shards: list[int], on_end: Callable[[int], None]) -> None:
        name = array_name(job)
        with StopSignals() as stop:
            lists = _ShardLists(job)
            waiting = {shard for task in queued(name) for shard in lists.of(task)} & set(shards)
            if waiting:
                _say(f"{len(waiting)} shards are in the queue already, as {name}")
            ids = self._submit(job, name, [shard for shard in shards if shard not in waiting])
            if not self._options.wait:
                raise HandedOver(ids or (name,))
            _wait(lists, name, set(shards), on_end, stop)

    def _submit(self, job: Job, name: str, shards: list[int]) -> tuple[str, ...]:
        if not shards:
            return ()
        size = self._options.shards_per_task
        entries = [shards[start : start + size] for start in range(0, len(shards), size)]
        folder = _write_submission(job, name, entries)
        longest = max_array_size()
        return tuple(
            self._submit_array(name, folder, offset, min(longest, len(entries) - offset))
            for offset in range(0, len(entries), longest)
        )

    def _submit_array(self, name: str, folder: Path, offset: int, count: int) -> str:
        limit = f"%{self._options.workers}" if self._options.workers else ""
        command = [
            "sbatch", "--parsable", "--requeue", "--open-mode=append", f"--array=0-{count - 1}{limit}",
            f"--job-name={name}", f"--comment={folder.name}:{offset}", f"--output={folder}/%A_%a.log",
            *self._options.sbatch_args, f"{folder}/task.sh", str(offset),
        ]  # fmt: skip
        array = _answer(command, submit_environment(os.environ)).split(";")[0].strip()
        _say(f"submitted array {array}: {count} tasks, logs in {folder}")
        return array


def array_name(job: Job) -> str:
    """The name of all arrays of a job: the same for every driver that wants the same of the same run."""
    digest = hashlib.sha256(f"{job.plan.digest}\n{job.to_json()}".encode()).hexdigest()[:12]
    return f"pseudolabel-{re.sub('[^A-Za-z0-9-]', '-', job.stage)}-{digest}"


def queued(name: str) -> list[Task]:
    """The tasks of this name that are in the queue: waiting, running or ending.

    Raises:
        MachineError: squeue gave no answer; nothing is known then.
    """
    lines = _answer(["squeue", "--noheader", "--array", "--me", f"--name={name}", "--format=%F|%K|%T|%r|%k"])
    return [_parse_task(line) for line in lines.splitlines() if line.strip()]


def max_array_size() -> int:
    """Most tasks of one array on this cluster; their indexes lie below it.

    Raises:
        MachineError: scontrol does not tell.
    """
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _answer(["scontrol", "show", "config"]), re.MULTILINE)
    if not found:
        raise MachineError("scontrol show config does not name MaxArraySize")
    return int(found[1])


def submit_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for sbatch: what a surrounding Slurm job says of itself must not reach the new one."""
    return {
        name: value for name, value in environment.items() if name in _KEPT_VARIABLES or not name.startswith("SLURM_")
    }


def _parse_task(line: str) -> Task:
    array, index, state, reason, comment = line.strip().split("|", 4)
    submission, _, offset = comment.partition(":")
    return Task(array, int(index), state, reason, submission, int(offset))


def _write_submission(job: Job, name: str, entries: list[list[int]]) -> Path:
    folder = job.run.submissions().resolve() / f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
    script = _SCRIPT.format(
        name=name, python=shlex.quote(sys.executable), folder=shlex.quote(str(folder)), stage=shlex.quote(job.stage)
    )
    write_text_atomically(folder / "job.json", job.to_json())
    write_text_atomically(folder / "shards.json", json.dumps(entries))
    write_text_atomically(folder / "task.sh", script)
    return folder


def _wait(lists: "_ShardLists", name: str, shards: set[int], on_end: Callable[[int], None], stop: StopSignals) -> None:
    poll_s, heard, told = _FIRST_POLL_S, time.monotonic(), ""
    while shards:
        try:
            tasks = queued(name)
        except MachineError as error:
            if time.monotonic() - heard > PATIENCE_S:
                raise
            _say(f"squeue does not answer ({error}); asking again")
        else:
            heard = time.monotonic()
            still = {shard for task in tasks for shard in lists.of(task)}
            for shard in sorted(shards - still):
                on_end(shard)
            shards &= still
            told = _tell_reasons(tasks, told)
        _sleep(poll_s if shards else 0.0, stop)
        poll_s = min(poll_s * 1.3, _LAST_POLL_S)
        if stop.received is not None:
            _say(f"what is in the queue goes on;  scancel --name={name}  ends it")
            raise SignalStopError(stop.received)


class _ShardLists:
    """The lists of the submissions, each read once."""

    def __init__(self, job: Job) -> None:
        self._folder = job.run.submissions()
        self._read: dict[str, list[list[int]]] = {}

    def of(self, task: Task) -> list[int]:
        """The task's shards; none where the submission was deleted with its run: such a task has nothing to do."""
        if task.submission not in self._read:
            try:
                text = (self._folder / task.submission / "shards.json").read_text(encoding="utf-8")
            except FileNotFoundError:
                _say(f"array {task.array} waits for a run that was deleted;  scancel {task.array}  ends it")
                text = "[]"
            self._read[task.submission] = json.loads(text)
        entries = self._read[task.submission]
        return entries[task.offset + task.index] if entries else []


def _tell_reasons(tasks: list[Task], told: str) -> str:
    """Say why tasks wait, when it changes; what was said."""
    reasons = sorted({task.reason for task in tasks if task.state == "PENDING"} - {"None", "Priority", "Resources"})
    text = ", ".join(reasons)
    if text and text != told:
        _say(f"tasks wait: {text}")
    return text


def _sleep(seconds: float, stop: StopSignals) -> None:
    end = time.monotonic() + seconds
    while stop.received is None and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))


def _answer(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except FileNotFoundError:
        raise MachineError(f"{command[0]} is not on this machine: --engine slurm needs Slurm's commands") from None
    except subprocess.TimeoutExpired:
        raise MachineError(f"{command[0]} gave no answer in {_COMMAND_S:g} s") from None
    if done.returncode:
        raise MachineError(f"{command[0]}: {' '.join((done.stderr or done.stdout).split())[:300]}")
    return done.stdout


def _say(text: str) -> None:
    print(f"slurm: {text}", file=sys.stderr, flush=True)
