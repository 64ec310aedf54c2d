"""What a scheduler's task does: some shards of a job, in supervised processes of their own."""

import json
from pathlib import Path

from pseudolabel.errors import InputError, PseudolabelError, SignalStopError
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.engines.local import LocalEngine
from pseudolabel.pipelines.graph import load_stage
from pseudolabel.pipelines.work.attempts import read_failure, write_failure
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.pipelines.work.job import Job, SetupError
from pseudolabel.yaml_file import read_small_text

_LIST_BYTES = 64 << 20  # a list of shards of the largest arrays


def read_job(path: Path) -> Job:
    """The job of a submission.

    Raises:
        InputError: there is none.
    """
    try:
        return Job.from_json(read_small_text(path))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a job file ({error})") from None


def read_entry(path: Path, entry: int) -> list[int]:
    """The shards of one task: the file holds a list of shards per task.

    Raises:
        InputError: no such file or no such entry.
    """
    try:
        entries = json.loads(read_small_text(path, most_bytes=_LIST_BYTES))
        return _entry(path, entries, entry)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a list of shards ({error})") from None


def _entry(path: Path, entries: list[list[int]], entry: int) -> list[int]:
    if not 0 <= entry < len(entries):
        raise InputError(f"{path}: entry {entry} is outside 0..{len(entries) - 1}")
    return [int(shard) for shard in entries[entry]]


def run_task(job: Job, shards: list[int], *, cores: int) -> list[int]:
    """The shards whose attempt failed; why is written down beside the run.

    Args:
        cores: worker processes where the work runs on the CPU; on GPUs it is one each.

    Raises:
        PseudolabelError: no shard can be done here at all, or a signal asked to stop.
    """
    device = resolve_device(job.device, load_stage(job.stage).resources.gpu)
    engine = LocalEngine(EngineOptions(workers=0 if device.startswith("cuda") else cores))
    try:
        engine.run(job, shards, lambda _: None)
    except SignalStopError:
        raise
    except (SetupError, PseudolabelError) as error:
        cause = error.cause if isinstance(error, SetupError) else error
        for shard in shards:
            write_failure(job.run, job.stage, shard, cause, at_setup=isinstance(error, SetupError))
        raise cause from None
    return [shard for shard in shards if read_failure(job.run, job.stage, shard)]
