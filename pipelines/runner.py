"""Run what is missing of a stage, for a bounded number of rounds; done is what the shard's own file says."""

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pseudolabel.errors import IncompleteError, InputError, MachineError, PseudolabelError, StaleOutputError
from pseudolabel.files import sweep_temporaries, write_text_atomically
from pseudolabel.pipelines.engines.base import Engine, EngineOptions, HandedOver, make_engine
from pseudolabel.pipelines.graph import STAGES, load_stage
from pseudolabel.pipelines.makers import maker_of
from pseudolabel.pipelines.planning.plan import Plan
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, read_footer
from pseudolabel.pipelines.run.conservation import total
from pseudolabel.pipelines.run.known_parts import KnownParts, Look
from pseudolabel.pipelines.run.leftovers import sweep_run
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.seals import is_current, seal
from pseudolabel.pipelines.run.stage_config import SavedConfig, save_config
from pseudolabel.pipelines.stage import Stage, StageConfig
from pseudolabel.pipelines.typed import typed_command
from pseudolabel.pipelines.work.acceptance import Acceptance
from pseudolabel.pipelines.work.attempts import clear_failures, may_retry, read_failure, running, sweep_running
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.pipelines.work.job import Job, SetupError, expected_fingerprint, expected_footer, make_job
from pseudolabel.pipelines.work.progress import ShardProgress
from pseudolabel.pipelines.work.rejects import example

_LOG = logging.getLogger(__name__)
ROUNDS = 3
_LOOKS = 3  # at a folder of another machine, whose caches may hide a new file for a moment
_LOOK_AGAIN_S = 1.0


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
    counts: dict[str, Any]  # images and objects, as `conservation.Counts`, with the reasons of what was rejected
    example: str = ""  # one of the rejected ones: file, annotation, what was found
    outputs: tuple[str, ...] = ()  # files beside the parts that are for others
    handed_over: tuple[str, ...] = ()  # ids of the scheduler, where nobody waited for the end

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a stage, none of which can change its result."""

    engine: str | EngineOptions = "local"
    overwrite: bool = False
    shards: tuple[int, ...] | None = None  # only these; None = all

    @property
    def engine_options(self) -> EngineOptions:
        return EngineOptions(self.engine) if isinstance(self.engine, str) else self.engine


def run_stage(run: RunPaths, name: str, config: StageConfig, options: RunOptions | None = None) -> StageSummary:
    """Every missing shard of a stage, then its exports; a shard that is done is not touched.

    Raises:
        StaleOutputError: outputs of another config are there and `overwrite` is off.
        IncompleteError: shards failed, too much was rejected, or the stage before this one is not complete.
        InputError: of all boxes that were given not one can be used, or the stage cannot be set up.
        MachineError, SignalStopError: as they say.
    """
    options = options or RunOptions()
    STAGES.trust(name)
    _check_writable(run)
    engine = make_engine(replace(options.engine_options, workers=config.workers))
    device = config.device if engine.elsewhere else resolve_device(config.device, load_stage(name).resources.gpu)
    job = make_job(run, name, config, device)
    stage = job.make_stage()
    stage.prepare()
    wanted = list(options.shards) if options.shards is not None else list(range(job.plan.num_shards))
    expected = _expected(job, stage, wanted)
    known = KnownParts(run, stage.writes, job.plan.num_shards)
    states = _states(known.verified(expected), expected)
    acceptance = Acceptance(job, stage.writes, "manifest" if "manifest" in stage.reads() else "plan")
    _refuse_stale(job, stage, states, overwrite=options.overwrite)
    missing = [shard for shard in wanted if states[shard] is not ShardState.DONE]
    sweep_run(run)
    save_config(run, SavedConfig(name, stage.writes, job.device, job.config, job.weights))
    handed_over: tuple[str, ...] = ()
    failed: list[int] = []
    images = job.plan.n_images * len(wanted) // job.plan.num_shards
    with ShardProgress(name, total=len(wanted), done=len(wanted) - len(missing), images=images) as progress:
        try:
            failed = _rounds(job, known, missing, expected, engine, _Watch(progress, acceptance, job, known, engine))
        except HandedOver as ids:
            handed_over = ids.where
        seconds = progress.seconds
    known.look_again()
    known.remember()
    _refuse_failed(job, failed)
    outputs = () if handed_over else _finish(job, stage, known, acceptance)
    return _summary(job, known, wanted, len(missing), seconds, handed_over, outputs)


def shard_states(job: Job) -> dict[int, ShardState]:
    """The state of every shard of a job; a shard whose input is not there is missing, and one for which something waits
    to be brought in is stale.
    """
    stage = job.make_stage()
    shards = range(job.plan.num_shards)
    prints = {shard: found for shard, found in _prints(job, stage, shards).items() if isinstance(found, str)}
    looks = KnownParts(job.run, stage.writes, job.plan.num_shards).verified(prints)
    states = dict.fromkeys(shards, ShardState.MISSING) | _states(looks, prints)
    return states | {shard: ShardState.STALE for shard in stage.waiting() if states[shard] is ShardState.DONE}


def _rounds(
    job: Job,
    known: KnownParts,
    missing: list[int],
    expected: Mapping[int, str],
    engine: Engine,
    watch: "_Watch",
) -> list[int]:
    """The shards that are still not done after the last round."""
    if not missing:
        return []
    sweep_temporaries(known.folder)
    sweep_running(job.run, job.stage)
    clear_failures(job.run, job.stage, missing)
    hopeless: list[int] = []
    for _ in range(ROUNDS):
        try:
            engine.run(job, missing, watch.ended)
        except SetupError as error:
            raise error.cause from None
        missing = _still_missing(job, known, {shard: expected[shard] for shard in missing}, engine)
        again = [shard for shard in missing if may_retry(job.run, job.stage, shard)]
        hopeless += sorted(set(missing) - set(again))
        missing = again
        if not missing:
            break
        watch.progress.retry(len(again))
    return sorted(missing + hopeless)


@dataclass(frozen=True, slots=True)
class _Watch:
    """What is done when an attempt at a shard is over."""

    progress: ShardProgress
    acceptance: Acceptance
    job: Job
    known: KnownParts
    engine: Engine

    def ended(self, shard: int) -> None:
        """Counts the shard; on this machine, a run that rejects too much is ended at once.

        Raises:
            IncompleteError: the limit of rejects cannot be met any more.
        """
        self.progress.ended(shard)
        if self.engine.elsewhere:
            return
        try:
            footer = read_footer(self.job.run.part(self.known.table, shard, self.job.plan.num_shards))
        except (FileNotFoundError, DamagedPartError):
            return  # the next look at the folder says so
        self.acceptance.add(footer)


def _still_missing(job: Job, known: KnownParts, expected: Mapping[int, str], engine: Engine) -> list[int]:
    """Shards without a part of theirs; pages are not read again, the commit has just done it."""
    missing = list(expected)
    for look in range(_LOOKS if engine.elsewhere else 1):
        known.look_again()
        states = _states(known.committed(missing), expected)
        missing = [shard for shard in missing if states[shard] is not ShardState.DONE]
        if all(read_failure(job.run, job.stage, shard) for shard in missing):
            break
        if look < _LOOKS - 1 and engine.elsewhere:
            time.sleep(_LOOK_AGAIN_S)
    return missing


def _expected(job: Job, stage: Stage, shards: list[int]) -> dict[int, str]:
    """The fingerprint that each shard's part must carry."""
    prints: dict[int, str] = {}
    absent: dict[str, list[int]] = {}
    for shard, found in _prints(job, stage, shards).items():
        if isinstance(found, str):
            prints[shard] = found
        else:
            absent.setdefault(found.table, []).append(shard)
    if absent:
        table, gone = next(iter(absent.items()))
        raise IncompleteError(
            f"{job.stage} needs {table}, and {len(gone)} of its {job.plan.num_shards} shards are missing or damaged"
            f" ({compress(gone)}); {maker_of(job.run, table)}"
        )
    return prints


@dataclass(frozen=True, slots=True)
class _Absent:
    table: str


def _prints(job: Job, stage: Stage, shards: Iterable[int]) -> dict[int, str | _Absent]:
    """The expected fingerprint of each shard, or which of its input tables is not there."""
    shards = list(shards)
    inputs = {table: KnownParts(job.run, table, job.plan.num_shards).footers(shards) for table in stage.reads()}
    return {shard: _print(job, stage, {table: looks[shard] for table, looks in inputs.items()}) for shard in shards}


def _print(job: Job, stage: Stage, inputs: Mapping[str, Look]) -> str | _Absent:
    prints: dict[str, str] = {}
    for table, look in inputs.items():
        if not isinstance(look, Footer):
            return _Absent(table)
        prints[table] = look.identity
    return expected_fingerprint(job, stage, prints)


def _states(looks: Mapping[int, Look], expected: Mapping[int, str]) -> dict[int, ShardState]:
    return {shard: _state(look, expected[shard]) for shard, look in looks.items()}


def _state(look: Look, expected: str) -> ShardState:
    if look is None:
        return ShardState.MISSING
    if not isinstance(look, Footer):
        return ShardState.DAMAGED
    return ShardState.DONE if look.fingerprint == expected else ShardState.STALE


def _finish(job: Job, stage: Stage, known: KnownParts, acceptance: Acceptance) -> tuple[str, ...]:
    """Paths of the exports, made by whichever process sees all parts of this config there and finds them wanting."""
    num_shards = job.plan.num_shards
    parts = [look for look in known.footers(range(num_shards)).values() if isinstance(look, Footer)]
    if len(parts) < num_shards or not all(_is_of_job(part, job, stage) for part in parts):
        return ()
    acceptance.check(parts)
    paths, made_of = exports(job.run, stage), export_origin(job.plan, parts)
    if paths and all(is_current(job.run, path, made_of) for path in paths):
        return tuple(map(str, paths))
    entries = stage.finish([job.run.part(stage.writes, shard, num_shards) for shard in range(num_shards)]) or {}
    for path in paths:
        seal(job.run, path, made_of=made_of, entries=entries.get(path.name))
    return tuple(map(str, paths))


def exports(run: RunPaths, stage: Stage | type[Stage], table: str = "") -> list[Path]:
    """The files that a stage writes beside its parts, for others."""
    return [run.table(table or stage.writes) / name for name in stage.exports]


def export_origin(plan: Plan, parts: Iterable[Footer]) -> str:
    """One hash of all that exports are made of."""
    content = [plan.sha256, *(part.identity for part in sorted(parts, key=lambda part: part.shard))]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _is_of_job(footer: Footer, job: Job, stage: Stage) -> bool:
    made_by = (footer.stage, footer.stage_version, footer.config, footer.weights)
    return made_by == (job.stage, stage.version, job.result_config, dict(job.weights))


def _refuse_stale(job: Job, stage: Stage, states: Mapping[int, ShardState], *, overwrite: bool) -> None:
    stale = [shard for shard, state in states.items() if state is ShardState.STALE]
    pairs = [] if overwrite else [_found_and_wanted(job, stage, shard) for shard in stale]
    refused = [pair for pair in pairs if not (stage.made_again and _differ_by_input_alone(*pair))]
    table = job.run.table(stage.writes)
    if refused:
        raise StaleOutputError(
            f"{table} holds {len(refused)} shards made otherwise: {'; '.join(differences(*refused[0]))}: "
            f"use --overwrite, or another run folder.\n"
            f"To make them again:  {typed_command(job.stage, job.run, job.plan, job.config, '--overwrite')}"
        )
    if pairs:
        _LOG.info("%s: %s is made again: %s", job.stage, table, "; ".join(differences(*pairs[0])))


def _found_and_wanted(job: Job, stage: Stage, shard: int) -> tuple[Footer, Footer]:
    num_shards = job.plan.num_shards
    found = read_footer(job.run.part(stage.writes, shard, num_shards))
    inputs = {table: read_footer(job.run.part(table, shard, num_shards)) for table in stage.reads()}
    return found, expected_footer(job, stage, shard, inputs)


def _differ_by_input_alone(found: Footer, wanted: Footer) -> bool:
    made_by = [(one.stage, one.stage_version, one.config, one.weights) for one in (found, wanted)]
    return made_by[0] == made_by[1]


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
    failures = {shard: read_failure(job.run, job.stage, shard) for shard in failed}
    codes = {failure["exit_code"] for failure in failures.values() if failure}
    reasons = [f"shard {shard:05d}: {failure_reason(job, shard)}" for shard in failed[:3]]
    text = f"{job.stage}: {len(failed)} shards failed ({compress(failed)}); " + "; ".join(reasons)
    if codes == {MachineError.exit_code}:
        raise MachineError(text)
    if codes == {InputError.exit_code} and all(failure and failure.get("at_setup") for failure in failures.values()):
        raise InputError(text)
    raise IncompleteError(text + f"; tracebacks are in {job.run.failure(job.stage, failed[0]).parent}")


def failure_reason(job: Job, shard: int) -> str:
    """Why a shard is not done, as far as anybody wrote it down."""
    failure = read_failure(job.run, job.stage, shard)
    if failure:
        return str(failure["error"])
    begun = running(job.run, job.stage).get(shard)
    if begun:
        return f"an attempt began on {begun[-1]['host']} (process {begun[-1]['pid']}) and never ended; was it killed?"
    return "no attempt ended"


def _summary(
    job: Job,
    known: KnownParts,
    wanted: list[int],
    attempted: int,
    seconds: float,
    handed_over: tuple[str, ...],
    outputs: tuple[str, ...],
) -> StageSummary:
    footers = [look for look in known.footers(wanted).values() if isinstance(look, Footer)]
    counts = total(footer.counted for footer in footers)
    return StageSummary(
        stage=job.stage,
        shards=len(wanted),
        attempted=attempted,
        n_in=sum(footer.n_in for footer in footers),
        n_ok=sum(footer.n_ok for footer in footers),
        n_rejected=sum(footer.n_rejected for footer in footers),
        device=job.device,
        seconds=round(seconds, 2),
        counts=counts.as_dict(),
        example=example(job.run, known.table, footers),
        outputs=outputs,
        handed_over=handed_over,
    )


def _check_writable(run: RunPaths) -> None:
    probe = run.root / "config"
    try:
        probe.mkdir(parents=True, exist_ok=True)
        write_text_atomically(probe / ".writable", "")
        (probe / ".writable").unlink(missing_ok=True)  # another driver may have begun in the same moment
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
