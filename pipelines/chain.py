"""A whole run from one file: its sections say which commands run and how, the table says in which order."""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pseudolabel.config import Config, narrowed
from pseudolabel.encoders.config import PretrainedConfig
from pseudolabel.errors import ConfigError, InputError, PseudolabelError
from pseudolabel.pipelines.doctor.before import need_extras
from pseudolabel.pipelines.engines.warm import warm_workers
from pseudolabel.pipelines.forecast import Forecast, Size, planned_size, total
from pseudolabel.pipelines.graph import COMMANDS, ORDER
from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.rounds import (
    REPEATED,
    begin_round,
    format_rounds,
    parse_rounds,
    round_config,
    round_figures,
    with_gains,
)
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.steps import Step, Summary, make_step, parse_step, step_line
from pseudolabel.registry import did_you_mean, no_such_file

_BROUGHT = ("ground_truth", "validation_images")  # of what people bring; further what decides a training's result


@dataclass(frozen=True, slots=True)
class Chain:
    """A run file, checked as a whole before anything runs."""

    run: RunPaths
    steps: tuple[Step, ...]
    rounds: int = 1  # of self-training


def parse_chain(values: Mapping[str, Any], *, where: str) -> Chain:
    """The chain of a run file's sections.

    Raises:
        ConfigError: every problem of every section at once.
    """
    sections = {key: value for key, value in values.items() if key not in ("run", "rounds")}
    if not isinstance(values.get("run"), str):
        raise ConfigError(f"{where}: 'run:' must name the run folder")
    problems = [_unknown(name, values["run"]) for name in sections if name not in ORDER]
    steps = []
    for name in ORDER:
        if name in sections:
            try:
                steps.append(parse_step(name, _keys(name, sections[name] or {})))
            except PseudolabelError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    rounds = parse_rounds(values.get("rounds", 1), sections, where=where)
    return Chain(RunPaths(Path(values["run"])), tuple(steps), rounds)


def _unknown(name: str, run: str) -> str:
    if name in COMMANDS:
        return f"{name!r} is no section of a run file; type it afterwards:  pseudolabel {name} {shlex.quote(run)}"
    return f"unknown section {name!r}{did_you_mean(name, ORDER)}"


def run_chain(chain: Chain, options: RunOptions) -> Iterator[Summary]:
    """Run every step in order, giving each one's summary as it ends; of several rounds, their figures last.

    Raises:
        InputError: before the first step, a file that one of them reads is not there.
    """
    run, steps, rounds = chain.run, chain.steps, []
    _need_files(steps)
    for step in steps:  # before the first one has worked for an hour
        need_extras(step.name, step.config, options.engine_options.name)
    for number in range(1, chain.rounds + 1):
        if number > 1:
            before, run = run, begin_round(chain.run, number)
            steps = _steps_of_round(chain, before)
        evaluation = None
        for summary in _run_steps(run, steps, options):
            evaluation = summary.get("figures", evaluation)
            yield summary if number == 1 else {**summary, "round": number}
        if chain.rounds > 1:
            rounds.append(round_figures(run, number, evaluation))
    if rounds:
        yield {"stage": "rounds", "rounds": with_gains(rounds)}


def summary_line(summary: Mapping[str, Any]) -> str:
    """One line for people about a step that ended, or about all rounds."""
    return format_rounds(summary["rounds"]) if summary["stage"] == "rounds" else step_line(summary)


def plan_lines(chain: Chain) -> list[str]:
    """What a dry run tells: on how much, each step, how much of it is there, and what it will take.

    Raises:
        InputError: the images or annotations are missing or damaged, or another file that a step reads is not there.
    """
    _need_files(chain.steps)
    planning = [narrowed(step.config, PlanConfig) for step in chain.steps if isinstance(step.config, PlanConfig)]
    size = planned_size(chain.run, planning[0] if planning else None)
    lines = [f"run folder {chain.run.root}" + (f": {size}" if size else "")]
    outlooks = [step.outlook(chain.run) for step in chain.steps]
    foreseen = [
        _still_taken(step, outlook.left, size) if size else None
        for step, outlook in zip(chain.steps, outlooks, strict=True)
    ]
    for outlook, taken in zip(outlooks, foreseen, strict=True):
        lines.append(f"{outlook.text}{f'; {taken}' if taken and taken.seconds else ''}")
    if size:
        lines.append(total([taken for step, taken in zip(chain.steps, foreseen, strict=True) if step.works]))
    lines += [f"round {number}: in {chain.run.round(number).root}" for number in range(2, chain.rounds + 1)]
    place = next(
        folder for folder in (chain.run.root.absolute(), *chain.run.root.absolute().parents) if folder.is_dir()
    )
    return [*lines, f"{shutil.disk_usage(place).free / 1e9:.1f} GB free in {place}"]


def _still_taken(step: Step, left: float, size: Size) -> Forecast | None:
    """What the rest of a step takes: nothing where it is done, None where nobody measured it."""
    taken = step.forecast(size)
    if not left:
        return Forecast(0, 0, 0)
    if taken is None:
        return None
    return replace(taken, seconds=left * taken.seconds, disk_bytes=round(left * taken.disk_bytes))


def _files_of(config: Config) -> Iterator[Path]:
    yield from (path for name in _BROUGHT if (path := getattr(config, name, None)) is not None)
    if isinstance(config, PretrainedConfig):
        yield from config.weight_files().values()


def _need_files(steps: tuple[Step, ...]) -> None:
    """Look for what people bring to a later step, before the first one has worked for an hour."""
    brought = [(step.name, path) for step in steps for path in _files_of(step.config)]
    missing = [f"{step}: {no_such_file(path)}" for step, path in brought if not path.exists()]
    if missing:
        raise InputError("; ".join(missing))


def _run_steps(run: RunPaths, steps: tuple[Step, ...], options: RunOptions) -> Iterator[Summary]:
    with warm_workers():
        for step in steps:
            step.prepare(run)
            yield from step.run(run, options)


def _steps_of_round(chain: Chain, before: RunPaths) -> tuple[Step, ...]:
    """What a further round does, the student of the round before being a teacher."""
    known = {step.name: step.config for step in chain.steps}
    known.setdefault("infer-teacher", parse_step("infer-teacher", {}).config)
    return tuple(make_step(name, round_config(name, known[name], before)) for name in REPEATED if name in known)


def _keys(name: str, values: Any) -> dict[str, Any]:
    """A section's values by the names that a config has."""
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected keys and values, got {values!r}")
    return {str(key).replace("-", "_"): value for key, value in values.items()}
