"""A whole run from one file: its sections say which stages run and how, the graph says in which order."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.config import Config, parse_config, split_values
from pseudolabel.errors import ConfigError, PseudolabelError
from pseudolabel.pipelines.evaluate import EvaluateConfig, run_evaluation
from pseudolabel.pipelines.graph import ORDER, STAGES, TRAINERS, load_attribute, load_stage
from pseudolabel.pipelines.job import make_job
from pseudolabel.pipelines.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import read_plan
from pseudolabel.pipelines.runner import RunOptions, run_stage, shard_states
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.training import run_training
from pseudolabel.registry import did_you_mean


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


def parse_chain(values: Mapping[str, Any], *, where: str) -> Chain:
    """The chain of a run file's sections.

    Raises:
        ConfigError: every problem of every section at once.
    """
    sections = {key: value for key, value in values.items() if key != "run"}
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
    return Chain(RunPaths(Path(values["run"])), tuple(steps))


def run_chain(chain: Chain, options: RunOptions) -> Iterator[dict[str, Any]]:
    """Run every step in order, giving each one's summary as it ends."""
    for step in chain.steps:
        if step.plan is not None:
            make_plan(chain.run, step.plan)
        if step.name == "evaluate":
            assert isinstance(step.config, EvaluateConfig)
            yield {"stage": step.name, "figures": run_evaluation(chain.run, step.config)}
        elif step.name in TRAINERS:
            yield run_training(chain.run, step.name, step.config, overwrite=options.overwrite).as_dict()
        else:
            assert isinstance(step.config, StageConfig)
            yield run_stage(chain.run, step.name, step.config, options).as_dict()
            for name, config in stages_behind(chain.run, step.name, step.config):
                yield run_stage(chain.run, name, config, options).as_dict()


def stages_behind(run: RunPaths, name: str, config: StageConfig) -> list[tuple[str, StageConfig]]:
    """The stages of the same command: candidates from semantics follow `infer-semantic` where there are boxes."""
    if name != "infer-semantic" or not read_plan(run).n_objects:
        return []
    shared = {key: getattr(config, key) for key in StageConfig.model_fields}
    return [("semantic-candidates", parse_config(load_stage("semantic-candidates").config_class, shared, where=name))]


def _parse_step(name: str, values: Any) -> Step:
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: expected keys and values, got {values!r}")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    if name == "shard":
        plan, stage = split_values(values, PlanConfig, load_stage(name).config_class, where=name)
        config = parse_config(load_stage(name).config_class, stage, where=name)
        return Step(name, config, parse_config(PlanConfig, plan, where=name))
    return Step(name, parse_config(_config_class(name), values, where=name))


def _config_class(name: str) -> type[Config]:
    if name == "evaluate":
        return EvaluateConfig
    if name in TRAINERS:
        config_class: type[Config] = load_attribute(TRAINERS[name].config)
        return config_class
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
