"""What attempts at shards leave behind beside their parts: who works now, why one failed, what killed a decoder.

None of this decides whether a shard is done. It is for people, for `status`, and for the choice of what to try again.
"""

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pseudolabel.errors import PassingFaultError, PseudolabelError
from pseudolabel.files import process_is_alive, write_text_atomically
from pseudolabel.pipelines.run.paths import RunPaths

DEATHS_THAT_CONVICT = 2
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class WorkerDeathError(PassingFaultError):
    """The process that worked on a shard died; another attempt may live."""


def write_failure(run: RunPaths, stage: str, shard: int, error: BaseException, *, at_setup: bool = False) -> None:
    """Put down why a shard failed, for `status` and for the driver's summary.

    Args:
        at_setup: no shard can be done, here or elsewhere.
    """
    content = {
        "error": describe(error),
        "kind": type(error).__name__,
        "exit_code": getattr(error, "exit_code", 1),
        "retry": not isinstance(error, PseudolabelError) or isinstance(error, PassingFaultError),
        "at_setup": at_setup,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "traceback": "".join(traceback.format_exception(error)),
    }
    write_text_atomically(run.failure(stage, shard), json.dumps(content, indent=1))


def write_death(run: RunPaths, stage: str, shard: int, exit_code: int | None) -> None:
    """Put down that the process working on a shard died."""
    cause = f"signal {signal.Signals(-exit_code).name}" if exit_code is not None and exit_code < 0 else f"{exit_code}"
    hint = "; out of memory? use fewer --workers" if cause == "signal SIGKILL" else ""
    write_failure(run, stage, shard, WorkerDeathError(f"the worker process died ({cause}){hint}"))


def read_failure(run: RunPaths, stage: str, shard: int) -> dict[str, Any] | None:
    """What the last failed attempt said, None where there was none."""
    content = _read_json(run.failure(stage, shard))
    sound = isinstance(content, dict) and {"error", "exit_code", "retry"} <= content.keys()
    return content if sound else None


def failures(run: RunPaths, stage: str) -> dict[int, dict[str, Any]]:
    """What the last failed attempts at a stage's shards said."""
    found = {shard: read_failure(run, stage, shard) for shard in _numbered(run.failure(stage, 0).parent)}
    return {shard: failure for shard, failure in found.items() if failure is not None}


def clear_failures(run: RunPaths, stage: str, shards: list[int]) -> None:
    """Forget what earlier runs said about shards that are tried anew."""
    wanted = set(shards)
    for shard in _numbered(run.failure(stage, 0).parent):
        if shard in wanted:
            run.failure(stage, shard).unlink(missing_ok=True)


def may_retry(run: RunPaths, stage: str, shard: int) -> bool:
    """Whether another attempt at a failed shard can end otherwise: not where our own check refused its content."""
    failure = read_failure(run, stage, shard)
    return failure is None or bool(failure["retry"])


def describe(error: BaseException) -> str:
    """One line about an error: ours as they stand, others with their type."""
    text = str(error).strip().replace("\n", " ")[:300]
    return text if isinstance(error, PseudolabelError) else f"{type(error).__name__}: {text}"


@contextmanager
def running_note(run: RunPaths, stage: str, shard: int) -> Iterator[None]:
    """While the block runs, a file says who works on the shard; it stays where the process is killed."""
    path = run.running(stage) / f"{shard:05d}.{socket.gethostname()}.{os.getpid()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running(run: RunPaths, stage: str) -> dict[int, list[dict[str, Any]]]:
    """Who works on which shard, as far as the notes tell: processes of this host that are gone are left out."""
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(run.running(stage).glob("*.json")):
        note = _read_json(path)
        shard = path.name.split(".")[0]
        if isinstance(note, dict) and {"host", "pid"} <= note.keys() and shard.isdigit() and _may_live(note):
            found.setdefault(int(shard), []).append(note)
    return found


def sweep_running(run: RunPaths, stage: str) -> None:
    """Remove the notes of this host's dead processes."""
    for path in run.running(stage).glob("*.json"):
        note = _read_json(path)
        if isinstance(note, dict) and not _may_live(note):
            path.unlink(missing_ok=True)


def deadly(run: RunPaths, stage: str, shard: int, versions: Mapping[str, str]) -> list[str]:
    """Digests of images whose decoding killed a process often enough, with these versions of the libraries."""
    found = _deaths(run, stage, shard, versions)
    return sorted(digest for digest, deaths in found.items() if deaths >= DEATHS_THAT_CONVICT)


def note_crash(run: RunPaths, stage: str, shard: int, versions: Mapping[str, str], digest: str) -> int:
    """Count a death while decoding the image of this digest; how many there were in the shard, of all images."""
    deaths = _deaths(run, stage, shard, versions)
    deaths[digest] = deaths.get(digest, 0) + 1
    content = {"versions": dict(versions), "deaths": deaths}
    write_text_atomically(run.crashes(stage, shard), json.dumps(content, indent=1, sort_keys=True))
    return sum(deaths.values())


def _deaths(run: RunPaths, stage: str, shard: int, versions: Mapping[str, str]) -> dict[str, int]:
    content = _read_json(run.crashes(stage, shard))
    deaths = content.get("deaths") if isinstance(content, dict) and content.get("versions") == dict(versions) else None
    if not isinstance(deaths, dict):
        return {}
    return {str(digest): count for digest, count in deaths.items() if isinstance(count, int)}


def _may_live(note: dict[str, Any]) -> bool:
    pid = note.get("pid")
    return note.get("host") != socket.gethostname() or (isinstance(pid, int) and process_is_alive(pid))


def _numbered(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a note for people, which may be lost
        return None
