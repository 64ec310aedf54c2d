"""A whole run from one file: its sections say which stages run and how, the graph says in which order."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.config import Config, parse_config, split_values
from pseudolabel.errors import ConfigError, PseudolabelError
from pseudolabel.pipelines.graph import ORDER, STAGES, TRAINERS, load_stage
from pseudolabel.pipelines.rounds import (
    REPEATED,
    begin_round,
    parse_rounds,
    round_config,
    round_figures,
    with_gains,
)
from pseudolabel.pipelines.run.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.runner import RunOptions, run_stage, shard_states
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.tools.evaluate import EvaluateConfig, run_evaluation
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.pipelines.work.job import make_job
from pseudolabel.registry import did_you_mean
from pseudolabel.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Step:
    """One section of a run file, checked."""

    name: str
    config: Config
    plan: PlanConfig | None = None  # of `shard` alone

    def as_dict(self) -> dict[str, Any]:
        """The effective values, as a run file would have them."""
        plan = self.plan.model_dump(mode="json") if self.plan else {}
        return plan | self.config.model_dump(mode="json")


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
    problems = [f"unknown section {name!r}{did_you_mean(name, ORDER)}" for name in sections if name not in ORDER]
    steps = []
    for name in ORDER:
        if name in sections:
            try:
                steps.append(_parse_step(name, sections[name] or {}))
            except PseudolabelError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    rounds = parse_rounds(values.get("rounds", 1), sections, where=where)
    return Chain(RunPaths(Path(values["run"])), tuple(steps), rounds)


def run_chain(chain: Chain, options: RunOptions) -> Iterator[dict[str, Any]]:
    """Run every step in order, giving each one's summary as it ends; of several rounds, their figures last."""
    run, steps, rounds = chain.run, chain.steps, []
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


def _steps_of_round(chain: Chain, before: RunPaths) -> tuple[Step, ...]:
    """What a further round does, the student of the round before being a teacher."""
    known = {step.name: step.config for step in chain.steps}
    known.setdefault("infer-teacher", parse_config(_config_class("infer-teacher", {}), {}, where="infer-teacher"))
    return tuple(Step(name, round_config(name, known[name], before)) for name in REPEATED if name in known)


def _run_steps(run: RunPaths, steps: tuple[Step, ...], options: RunOptions) -> Iterator[dict[str, Any]]:
    for step in steps:
        notes = make_plan(run, step.plan).notes if step.plan is not None else []
        if step.name == "evaluate":
            assert isinstance(step.config, EvaluateConfig)
            yield {"stage": step.name, "figures": run_evaluation(run, step.config)}
        elif step.name in TRAINERS:
            assert isinstance(step.config, TrainConfig)
            yield run_training(run, step.name, step.config, overwrite=options.overwrite).as_dict()
        else:
            assert isinstance(step.config, StageConfig)
            yield run_stage(run, step.name, step.config, options).as_dict() | ({"notes": notes} if notes else {})
            for name, config in stages_behind(run, step.name, step.config):
                yield run_stage(run, name, config, options).as_dict()


def stages_behind(run: RunPaths, name: str, config: StageConfig) -> list[tuple[str, StageConfig]]:
    """The stages of the same command: candidates from semantics follow `infer-semantic` where there are boxes."""
    if name != "infer-semantic" or not read_plan(run).n_objects:
        return []
    behind = load_stage("semantic-candidates").config_class
    shared = {key: getattr(config, key) for key in behind.model_fields}
    return [("semantic-candidates", parse_config(behind, shared, where=name))]


def _parse_step(name: str, values: Any) -> Step:
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected keys and values, got {values!r}")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    if name == "shard":
        plan, stage = split_values(values, PlanConfig, load_stage(name).config_class, where=name)
        config = parse_config(load_stage(name).config_class, stage, where=name)
        return Step(name, config, parse_config(PlanConfig, plan, where=name))
    return Step(name, parse_config(_config_class(name, values), values, where=name))


def _config_class(name: str, values: Mapping[str, Any]) -> type[Config]:
    if name == "evaluate":
        return EvaluateConfig
    if name in TRAINERS:
        return TRAINERS[name].config_class(values)
    assert name in STAGES, f"{name} is in ORDER and nowhere else"
    stage_config: type[Config] = load_stage(name).config_class
    return stage_config


def plan_lines(chain: Chain) -> list[str]:
    """What a dry run tells: each step, what it reads, and how much of it is there."""
    lines = [f"run folder {chain.run.root}"]
    for step in chain.steps:
        if step.plan is not None:
            lines.append(f"shard: {step.plan.images} into {step.plan.shards} shards")
        elif step.name in TRAINERS:
            weights = chain.run.model(TRAINERS[step.name].model)
            lines.append(f"{step.name}: {weights} ({'is there' if weights.exists() else 'to be trained'})")
        elif step.name in STAGES:
            lines.append(f"{step.name}: {_done_text(chain.run, step)}")
        else:
            lines.append(step.name)
    lines += [f"round {number}: in {chain.run.round(number).root}" for number in range(2, chain.rounds + 1)]
    if chain.run.root.exists():
        lines.append(f"{shutil.disk_usage(chain.run.root).free / 1e9:.1f} GB free")
    return lines


def _done_text(run: RunPaths, step: Step) -> str:
    assert isinstance(step.config, StageConfig)
    try:
        states = shard_states(make_job(run, step.name, step.config, "cpu"))
    except PseudolabelError as error:
        return f"not yet known ({error})"
    return ", ".join(f"{count} shards {state}" for state, count in Counter(states.values()).most_common())
