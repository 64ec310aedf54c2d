"""Steps: a command of the table with its checked config, ready to run over a run folder.

Each kind of command has its kind of step, which knows how the work is done, what a dry run tells of it, and how its
summary reads. Summaries are plain JSON values; `stage` in one is the name of its command.
"""

import json
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pseudolabel.config import Config, narrowed, parse_config
from pseudolabel.errors import PseudolabelError
from pseudolabel.pipelines.doctor.before import need_extras, tell_troubles
from pseudolabel.pipelines.engines.warm import let_go, warm_workers
from pseudolabel.pipelines.forecast import Forecast, Size, forecast
from pseudolabel.pipelines.graph import (
    Configured,
    Planner,
    StageCommand,
    Tool,
    Trainer,
    configured,
    load_target,
)
from pseudolabel.pipelines.options.base import StageConfig
from pseudolabel.pipelines.options.stages.shard import PlanConfig, ShardConfig, ShardOptions
from pseudolabel.pipelines.planning.make_plan import make_plan
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, ShardState, run_stage, shard_states
from pseudolabel.pipelines.summary import stage_line
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.pipelines.work.job import make_job
from pseudolabel.training.config import TrainConfig

Summary = dict[str, Any]


class Outlook(NamedTuple):
    """What a dry run tells of a step: what would be read, how much of it is done, and the share that is not."""

    text: str
    left: float = 1.0  # all of it where nobody can say


@dataclass(frozen=True)
class Step(ABC):
    """One command over one run folder."""

    works: ClassVar[bool] = True  # for long enough that a look at the machine is worth it

    name: str
    config: Config

    def prepare(self, run: RunPaths) -> None:  # noqa: B027 - only `shard` begins a run
        """Whatever has to be there before anybody can say how many shards there are."""

    def run(self, run: RunPaths, options: RunOptions) -> Iterator[Summary]:
        """Do the work, giving a summary of each of its parts as that ends.

        Raises:
            MachineError: what it needs is not installed.
        """
        engine = options.engine_options.name
        need_extras(self.name, self.config, engine)
        if self.works and engine in ("local", "inline"):
            tell_troubles(run, self.name, self.config)
        yield from self._work(run, options)

    @abstractmethod
    def _work(self, run: RunPaths, options: RunOptions) -> Iterator[Summary]:
        """The same, where all that it needs is there."""

    def outlook(self, run: RunPaths) -> Outlook:
        """What a dry run tells."""
        return Outlook(self.name)

    def forecast(self, size: Size) -> Forecast | None:
        """What all of it takes; None where nobody measured it."""
        return forecast(self.name, self.config, size)

    def told_here(self) -> bool:
        """Whether this process prints the summary; of several that train one model, the first does."""
        return True

    @staticmethod
    @abstractmethod
    def line(summary: Mapping[str, Any]) -> str:
        """A summary for people."""


class StageStep(Step):
    """A stage over all shards."""

    def _work(self, run: RunPaths, options: RunOptions) -> Iterator[Summary]:
        with warm_workers():
            for name, config in [(self.name, self.stage_config), *self._behind(run)]:
                yield run_stage(run, name, config, options).as_dict()

    @property
    def stage_config(self) -> StageConfig:
        """The part of the config that the stage reads."""
        assert isinstance(self.config, StageConfig), f"the config of {self.name} is no StageConfig"
        return self.config

    def outlook(self, run: RunPaths) -> Outlook:
        if not run.plan.exists():
            return Outlook(f"{self.name}: to be made")
        try:
            job = make_job(run, self.name, self.stage_config, "cpu")
            states, waiting = shard_states(job), sum(job.make_stage().waiting().values())
        except PseudolabelError as error:
            return Outlook(f"{self.name}: not yet known ({error})")
        counts = Counter(states.values())
        told = [f"{count} shards {state}" for state, count in counts.most_common()]
        told += [f"{waiting} answers of reviews wait"] if waiting else []
        return Outlook(f"{self.name}: {', '.join(told)}", 1 - counts[ShardState.DONE] / max(len(states), 1))

    @staticmethod
    def line(summary: Mapping[str, Any]) -> str:
        name = summary["stage"]
        if summary["handed_over"]:
            return f"{name}: handed over as {', '.join(summary['handed_over'])}; run it again to see it through"
        return stage_line(summary)

    def _behind(self, run: RunPaths) -> Iterator[tuple[str, StageConfig]]:
        """The stage that the same command runs afterwards, where there are boxes."""
        command = configured(self.name)
        if isinstance(command, StageCommand) and command.then and read_plan(run).n_objects:
            behind = load_target(configured(command.then).config)
            yield command.then, narrowed(self.config, behind)


class PlanStep(StageStep):
    """`shard`: the plan, and the stage that opens every image of it."""

    def prepare(self, run: RunPaths) -> None:
        for note in make_plan(run, narrowed(self.config, PlanConfig)).notes:
            print(f"note: {note}", file=sys.stderr)

    @property
    def stage_config(self) -> StageConfig:
        return narrowed(self.config, ShardConfig)

    def outlook(self, run: RunPaths) -> Outlook:
        assert isinstance(self.config, ShardOptions)
        into = f" into {self.config.shards} shards" if self.config.shards else ""
        return Outlook(f"{self.name}: {self.config.images}{into}", super().outlook(run).left)


class TrainingStep(Step):
    """A model of the run."""

    def _work(self, run: RunPaths, options: RunOptions) -> Iterator[Summary]:
        assert isinstance(self.config, TrainConfig), f"the config of {self.name} is no TrainConfig"
        let_go()  # workers that wait hold memory, and a GPU's
        yield run_training(run, self.name, self.config, overwrite=options.overwrite).as_dict()

    def outlook(self, run: RunPaths) -> Outlook:
        command = configured(self.name)
        assert isinstance(command, Trainer)
        weights = run.model(command.model)
        if weights.exists():
            return Outlook(f"{self.name}: {weights} (is there)", 0.0)
        return Outlook(f"{self.name}: {weights} (to be trained)")

    def told_here(self) -> bool:
        from pseudolabel.training.processes import is_first_process  # imports torch, which a training has done by now

        return is_first_process()

    @staticmethod
    def line(summary: Mapping[str, Any]) -> str:
        return f"{summary['stage']}: {summary['model']} {'trained' if summary['trained'] else 'was trained already'}"


class ToolStep(Step):
    """A question about the run, whose answer is no table."""

    works: ClassVar[bool] = False

    def _work(self, run: RunPaths, options: RunOptions) -> Iterator[Summary]:
        del options  # a tool keeps nothing that could be stale
        result = ask(self.name, run.root, self.config)
        yield {"stage": self.name, "figures": result}
        check(self.name, result, self.config)

    @staticmethod
    def line(summary: Mapping[str, Any]) -> str:
        return shown(summary["stage"], summary["figures"])


_KINDS: dict[type[Configured], type[Step]] = {
    Planner: PlanStep,
    StageCommand: StageStep,
    Trainer: TrainingStep,
    Tool: ToolStep,
}


def parse_step(name: str, values: Mapping[str, Any]) -> Step:
    """The step of a command with these values, checked.

    Raises:
        ConfigError: every problem of the values at once.
    """
    command = configured(name)
    return make_step(name, parse_config(command.config_class(values), values, where=name))


def make_step(name: str, config: Config) -> Step:
    """The step of a command with a config of its class."""
    return _KINDS[type(configured(name))](name, config)


def step_line(summary: Mapping[str, Any]) -> str:
    """A summary for people, as the kind of its command has it."""
    return _KINDS[type(configured(summary["stage"]))].line(summary)


def ask(name: str, asked: Path | None, config: Config) -> Any:
    """What a tool answers, as `--json` prints it.

    Args:
        asked: the run folder or file that the tool is asked about; None where it is asked about nothing.
    """
    command = configured(name)
    assert isinstance(command, Tool)
    need_extras(name, config)
    function = load_target(command.function)
    if asked is None:
        return function(config)
    return function(RunPaths(asked) if command.argument == "RUN" else asked, config)


def shown(name: str, result: Any) -> str:
    """A tool's answer for people: by its own words, else a line for each part of it."""
    command = configured(name)
    assert isinstance(command, Tool)
    if command.show:
        return str(load_target(command.show)(result))
    if isinstance(result, Mapping):
        return "\n".join(f"{key}: {value}" for key, value in result.items())
    return "\n".join(map(str, result)) if isinstance(result, list) else json.dumps(result, default=str)


def check(name: str, result: Any, config: Config) -> None:
    """Pass where a tool's answer is as good as its config asks for; else its own error is raised."""
    command = configured(name)
    if isinstance(command, Tool) and command.check:
        load_target(command.check)(result, config)
