"""Run what is missing of a stage, for a bounded number of rounds; done is what the shard's own file says."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import yaml

from pseudolabel.errors import IncompleteError, MachineError, PseudolabelError, StaleOutputError
from pseudolabel.pipelines.commit import (
    DamagedPartError,
    Footer,
    read_footer,
    sweep_temporaries,
    verify_part,
    write_text_atomically,
)
from pseudolabel.pipelines.device import resolve_device
from pseudolabel.pipelines.engines.base import ENGINES
from pseudolabel.pipelines.graph import load_stage
from pseudolabel.pipelines.job import Job, SetupError, expected_footer, make_job, may_retry, read_failure
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.progress import ShardProgress
from pseudolabel.pipelines.stage import Stage, StageConfig

ROUNDS = 3
_SCAN_THREADS = 8


class ShardState(StrEnum):
    """What the file of a shard says."""

    DONE = "done"
    MISSING = "missing"
    DAMAGED = "damaged"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class StageSummary:
    """How a stage ended."""

    stage: str
    shards: int
    attempted: int
    n_in: int
    n_ok: int
    n_rejected: int
    device: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a stage, none of which can change its result."""

    engine: str = "local"
    overwrite: bool = False
    shards: tuple[int, ...] | None = None  # only these; None = all


def run_stage(run: RunPaths, name: str, config: StageConfig, options: RunOptions | None = None) -> StageSummary:
    """Every missing shard of a stage, then its exports; a shard that is done is not touched.

    Raises:
        StaleOutputError: outputs of another config are there and `overwrite` is off.
        IncompleteError: shards failed, or the stage before this one is not complete.
        MachineError, SignalStopError: as they say.
    """
    options = options or RunOptions()
    _check_writable(run)
    device = resolve_device(config.device, load_stage(name).resources.gpu)
    job = make_job(run, name, config, device)
    stage = job.make_stage()
    wanted = list(options.shards) if options.shards is not None else list(range(job.plan.num_shards))
    expected = _expected(job, stage, wanted)
    states = _states(job, stage, expected)
    _refuse_stale(job, stage, states, expected, overwrite=options.overwrite)
    missing = [shard for shard in wanted if states[shard] is not ShardState.DONE]
    _save_config(job)
    with ShardProgress(name, total=len(wanted), done=len(wanted) - len(missing)) as progress:
        failed = _rounds(job, stage, missing, expected, options, config.workers, progress)
        seconds = progress.seconds
    _refuse_failed(job, failed)
    parts = [job.run.part(stage.writes, shard, job.plan.num_shards) for shard in range(job.plan.num_shards)]
    if all(part.exists() for part in parts):
        stage.finish(parts)
    return _summary(job, stage, wanted, len(missing), device, seconds)


def shard_states(job: Job) -> dict[int, ShardState]:
    """The state of every shard of a job; a shard whose input is not there is missing."""
    stage = job.make_stage()
    expected: dict[int, Footer | None] = {}
    for shard in range(job.plan.num_shards):
        try:
            expected[shard] = _expected(job, stage, [shard])[shard]
        except IncompleteError:
            expected[shard] = None
    known = {shard: footer for shard, footer in expected.items() if footer is not None}
    return dict.fromkeys(expected, ShardState.MISSING) | _states(job, stage, known)


def _rounds(
    job: Job,
    stage: Stage,
    missing: list[int],
    expected: Mapping[int, Footer],
    options: RunOptions,
    workers: int,
    progress: ShardProgress,
) -> list[int]:
    sweep_temporaries(job.run.table(stage.writes))
    engine = ENGINES.load(options.engine)(workers=workers)
    hopeless: list[int] = []
    for _ in range(ROUNDS):
        if not missing:
            break
        try:
            engine.run(job, missing, progress.ended)
        except SetupError as error:
            raise error.cause from None
        states = _states(job, stage, {shard: expected[shard] for shard in missing})
        missing = [shard for shard in missing if states[shard] is not ShardState.DONE]
        again = [shard for shard in missing if may_retry(job, shard)]
        if not again:
            break
        progress.retry(len(again))
        missing, hopeless = again, hopeless + [shard for shard in missing if shard not in set(again)]
    return sorted(missing + hopeless)


def _expected(job: Job, stage: Stage, shards: list[int]) -> dict[int, Footer]:
    inputs: dict[int, dict[str, Footer]] = {}
    absent: dict[str, list[int]] = {}
    for shard in shards:
        inputs[shard] = {}
        for table in stage.reads():
            try:
                inputs[shard][table] = read_footer(job.run.part(table, shard, job.plan.num_shards))
            except (FileNotFoundError, DamagedPartError):
                absent.setdefault(table, []).append(shard)
    if absent:
        table, gone = next(iter(absent.items()))
        raise IncompleteError(
            f"{job.stage} needs {table}, and {len(gone)} of its {job.plan.num_shards} shards are missing or damaged"
            f" ({compress(gone)}); run the stage that writes {table} first"
        )
    return {shard: expected_footer(job, stage, shard, inputs[shard]) for shard in shards}


def _states(job: Job, stage: Stage, expected: Mapping[int, Footer]) -> dict[int, ShardState]:
    def look(shard: int) -> ShardState:
        try:
            found = verify_part(job.run.part(stage.writes, shard, job.plan.num_shards))
        except FileNotFoundError:
            return ShardState.MISSING
        except DamagedPartError:
            return ShardState.DAMAGED
        return ShardState.DONE if found.fingerprint == expected[shard].fingerprint else ShardState.STALE

    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        return dict(zip(expected, pool.map(look, expected), strict=True))


def _refuse_stale(
    job: Job, stage: Stage, states: Mapping[int, ShardState], expected: Mapping[int, Footer], *, overwrite: bool
) -> None:
    stale = [shard for shard, state in states.items() if state is ShardState.STALE]
    if not stale or overwrite:
        return
    found = read_footer(job.run.part(stage.writes, stale[0], job.plan.num_shards))
    changes = "; ".join(differences(found, expected[stale[0]]))
    raise StaleOutputError(
        f"{job.run.table(stage.writes)} holds {len(stale)} shards made otherwise: {changes}: "
        "use --overwrite, or another run folder"
    )


def differences(found: Footer, wanted: Footer) -> list[str]:
    """What changed between two footers of a shard, by name: `score_threshold 0.5 -> 0.6`."""
    changes = []
    if found.stage != wanted.stage:
        changes.append(f"stage {found.stage} -> {wanted.stage}")
    if found.stage_version != wanted.stage_version:
        changes.append(f"version of {wanted.stage} {found.stage_version} -> {wanted.stage_version}")
    for key in sorted(found.config | wanted.config):
        old, new = found.config.get(key, "(not there)"), wanted.config.get(key, "(not there)")
        if old != new:
            changes.append(f"{key} {old} -> {new}")
    changes += _changed(found.weights, wanted.weights, "the content of {}")
    changes += _changed(found.inputs, wanted.inputs, "the input table {}")
    return changes or ["the fingerprint"]


def _changed(found: Mapping[str, str], wanted: Mapping[str, str], form: str) -> list[str]:
    names = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
    return [
        form.format(name)
        + (" changed" if name in found and name in wanted else " is new" if name in wanted else " is gone")
        for name in names
    ]


def _refuse_failed(job: Job, failed: list[int]) -> None:
    if not failed:
        return
    failures = {shard: read_failure(job, shard) for shard in failed}
    codes = {failure["exit_code"] for failure in failures.values() if failure}
    lines = [
        f"shard {shard:05d}: {failure['error'] if failure else 'no attempt ended'}"
        for shard, failure in list(failures.items())[:3]
    ]
    text = f"{job.stage}: {len(failed)} shards failed ({compress(failed)}); " + "; ".join(lines)
    if codes == {MachineError.exit_code}:
        raise MachineError(text)
    raise IncompleteError(text + f"; tracebacks are in {job.run.failure(job.stage, failed[0]).parent}")


def _summary(job: Job, stage: Stage, wanted: list[int], attempted: int, device: str, seconds: float) -> StageSummary:
    footers = [read_footer(job.run.part(stage.writes, shard, job.plan.num_shards)) for shard in wanted]
    return StageSummary(
        stage=job.stage,
        shards=len(wanted),
        attempted=attempted,
        n_in=sum(footer.n_in for footer in footers),
        n_ok=sum(footer.n_ok for footer in footers),
        n_rejected=sum(footer.n_rejected for footer in footers),
        device=device,
        seconds=round(seconds, 2),
    )


def _save_config(job: Job) -> None:
    values = {"stage": job.stage, "device": job.device, "config": dict(job.config), "weights": dict(job.weights)}
    write_text_atomically(job.run.config(job.stage), yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=True))


def _check_writable(run: RunPaths) -> None:
    probe = run.root / "config"
    try:
        probe.mkdir(parents=True, exist_ok=True)
        write_text_atomically(probe / ".writable", "")
        (probe / ".writable").unlink()
    except PseudolabelError:
        raise
    except OSError as error:
        raise MachineError(f"cannot write {run.root}: {error.strerror}") from None


def compress(numbers: list[int]) -> str:
    """Sorted indexes as Slurm writes them: `3,17-19`."""
    pieces: list[list[int]] = []
    for number in sorted(set(numbers)):
        if pieces and number == pieces[-1][1] + 1:
            pieces[-1][1] = number
        else:
            pieces.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in pieces)
