"""A run folder from Python: the commands of the table as methods, with the options of the command line.

`pseudolabel.Run` and `pseudolabel.evaluate` are these; the commands themselves do the work.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.candidates import ManifestImage, usable_images
from pseudolabel.config import parse_config
from pseudolabel.errors import InputError
from pseudolabel.images import load_image
from pseudolabel.labels import Labels
from pseudolabel.pipelines.engines.base import EngineOptions
from pseudolabel.pipelines.graph import COMMANDS, Configured, Planner, Tool, configured
from pseudolabel.pipelines.planning.made_categories import coco_header
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.pipelines.status import TableStatus, run_status
from pseudolabel.pipelines.steps import ask, check, make_step
from pseudolabel.pipelines.tools.evaluate import evaluate_content
from pseudolabel.registry import did_you_mean

Row = dict[str, Any]


class Run:
    """A run folder.

    Every command that works on one is a method under its name with underscores: `run.infer_semantic(model=...)` is
    `pseudolabel infer-semantic RUN --model ...`, and `help(run.infer_semantic)` shows its options. A step gives the run
    back, so that steps follow each other in a line; what is done already is not done again. A question, such as
    `run.evaluate(...)`, gives its answer.

    Raises:
        InputError: the folder holds no run; `Run.create` makes one.
    """

    def __init__(self, path: Path | str) -> None:
        self.paths = RunPaths(Path(path))
        self.summaries: list[Row] = []  # of the steps so far, as --json prints them
        read_plan(self.paths)

    @classmethod
    def create(cls, path: Path | str, *, images: Path | str, boxes: Path | str | None = None, **options: Any) -> "Run":
        """The run folder of images and boxes, as `pseudolabel shard` makes it; the same one is opened again.

        Args:
            images: a folder, or what else `shard --images` takes.
            boxes: what `shard --annotations` takes; None for bare images.
            options: the others of `shard`.

        Raises:
            StaleOutputError: the folder holds another run.
        """
        values = {"images": images, "annotations": boxes} | options
        summaries = _done(RunPaths(Path(path)), "shard", values, RunOptions())
        run = cls(path)
        run.summaries += summaries
        return run

    def step(self, name: str, *, overwrite: bool = False, engine: str | EngineOptions = "local", **options: Any) -> Any:
        """Run one command by its name, such as `infer-semantic`; the run itself, or the answer of a question.

        Args:
            overwrite: make outputs of other options again.
            engine: where the shards of a stage are worked on, as `--engine` has it.
            options: those of the command, with underscores.

        Raises:
            ConfigError: no such command, or an option is wrong; the message names the nearest.
        """
        command = configured(name)
        if not isinstance(command, Tool):
            self.summaries += _done(self.paths, name, options, RunOptions(engine, overwrite))
            return self
        config = parse_config(command.config_class(options), options, where=name)
        answer = ask(name, self.paths.root, config)
        check(name, answer, config)
        return answer

    def evaluate(self, truth: Path | str, **options: Any) -> Row:
        """The figures of `pseudolabel evaluate`: mask IoU and AP against true masks, beside the boxes themselves."""
        figures: Row = self.step("evaluate", ground_truth=truth, **options)
        return figures

    def status(self) -> list[TableStatus]:
        """Every table that the run has begun, in the order of the data's way."""
        return run_status(self.paths)

    def labels(self, **chosen: Any) -> Labels:
        """The pseudo labels that `fuse` wrote; `chosen` is what `Labels.filter` takes.

        Raises:
            InputError: there are none yet.
        """
        labels = run_labels(self.paths)
        return labels.filter(**chosen) if chosen else labels

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in METHODS:
            raise AttributeError(f"a run has no {name!r}{did_you_mean(name, METHODS)}")
        return _method(self, METHODS[name])

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *METHODS})

    def __fspath__(self) -> str:
        return str(self.paths.root)

    def __repr__(self) -> str:
        tables = ", ".join(f"{one.table} {one.done}/{one.shards}" for one in self.status())
        return f"<Run {self.paths.root}: {tables}>"


def _is_method(command: object) -> bool:
    """Whether a command of the table works on a run folder that is there."""
    asks_else = isinstance(command, Tool) and command.argument != "RUN"
    return isinstance(command, Configured) and not (isinstance(command, Planner) or command.hidden or asks_else)


METHODS = {name.replace("-", "_"): name for name, command in COMMANDS.items() if _is_method(command)}


def evaluate(
    labels: Labels | Mapping[str, Any] | Path | str,
    truth: Path | str,
    *,
    classes: Sequence[str] = (),
    min_area_px: int = 0,
) -> Row:
    """Mask IoU of every true object and COCO's mask AP; `pipelines.tools.evaluate` describes the figures.

    Args:
        labels: labels of a run, or COCO with masks and scores: its content or a file.
        truth: a COCO file with polygons or RLE.
        classes: names that count, all where empty.

    Raises:
        InputError: a file is damaged, or the masks belong to other annotations than the truth's.
    """
    from pseudolabel.datasets.coco_file import read_coco

    where = "labels" if isinstance(labels, Labels | Mapping) else str(labels)
    content = labels.to_coco() if isinstance(labels, Labels) else labels
    content = dict(content) if isinstance(content, Mapping) else read_coco(Path(content))
    return evaluate_content(content, Path(truth), where=where, categories=tuple(classes), min_area_px=min_area_px)


def run_labels(run: RunPaths) -> Labels:
    """The labels in the `pseudo` table of a run.

    Raises:
        InputError: `fuse` has not run, or not to its end.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plan = read_plan(run)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    missing = [part for part in parts if not part.exists()]
    if missing:
        raise InputError(f"{run.root}: {len(missing)} of {len(parts)} parts of pseudo are missing; run  fuse  first")
    table = pa.concat_tables([read_part(part) for part in parts])
    images: dict[str, ManifestImage] = {}
    for shard in range(plan.num_shards):
        manifest = read_part(run.part("manifest", shard, plan.num_shards))
        images |= {image.key: image for image in usable_images(manifest)}
    header = coco_header(run, parts)
    return Labels(
        table.filter(pc.equal(table["status"], "ok")),
        images,
        header["categories"],
        lambda key: load_image(plan.images_root, images[key].file_name, rule=plan.pixel_rule),
        header,
    )


def _done(run: RunPaths, name: str, values: Mapping[str, Any], options: RunOptions) -> list[Row]:
    """The summaries of a step that ended."""
    config = parse_config(configured(name).config_class(values), values, where=name)
    step = make_step(name, config)
    step.prepare(run)
    return list(step.run(run, options))


def _method(run: Run, name: str) -> Callable[..., Any]:
    """`run.step(name)` as a function that tells its options to `help` and to an editor."""

    def method(**options: Any) -> Any:
        return run.step(name, **options)

    command = configured(name)
    method.__name__ = name.replace("-", "_")
    config_class = command.config_class({})
    method.__doc__ = "\n".join([f"{command.help}\n", *_option_lines(config_class)])
    defaults = {key: _default(field) for key, field in config_class.model_fields.items()}
    if not isinstance(command, Tool):
        defaults |= {"overwrite": False, "engine": "local"}
    method.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what `help` and editors read
        [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in defaults.items()]
    )
    return method


def _option_lines(config_class: Any) -> list[str]:
    return [f"{key}: {field.description}" for key, field in config_class.model_fields.items()]


def _default(field: Any) -> Any:
    return inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
