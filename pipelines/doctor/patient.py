"""`doctor RUN` and `doctor FILE --images DIR`: whether files, images and boxes are as they should be."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from pseudolabel.candidates import ManifestImage, usable_images
from pseudolabel.config import parse_config
from pseudolabel.errors import ConfigError, IncompleteError, InputError, RejectError
from pseudolabel.images import load_image
from pseudolabel.pipelines.doctor.checks import Check, fail, ok, warn
from pseudolabel.pipelines.doctor.classes import BoxesOf, asked_segmenter, class_sizes, recorded_segmenters
from pseudolabel.pipelines.doctor.system import room
from pseudolabel.pipelines.forecast import COSTS, Forecast, Size, forecast, size_of, size_of_plan, stage_forecast
from pseudolabel.pipelines.graph import ORDER, TRAINERS
from pseudolabel.pipelines.makers import bringing
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.options.stages.shard import PlanConfig, ShardConfig
from pseudolabel.pipelines.planning.input_counts import count_input
from pseudolabel.pipelines.planning.make_plan import make_plan
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.conservation import Counts
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.status import TableStatus, run_status
from pseudolabel.pipelines.typed import typed_command
from pseudolabel.report.overlay import even_places
from pseudolabel.training.config import PresetConfig

_OPENED = 12  # images, at even steps
# A shorter side of a box. Below it fused masks of the two development sets had an IoU of 0.78 (47 boxes of photographs)
# and 0.87 (256 nuclei), the boxes themselves 0.76 and 0.82; from 6 to 12 px 0.76 and 0.89, the boxes 0.65 and 0.77.
_TINY_PX = 6
_MUCH_REFUSED = 0.05
_SAMPLE = 200  # images that are opened of data that no run has yet


def run_checks(run: RunPaths, segmenter: InferSemanticConfig | None = None) -> Iterator[Check]:
    """The plan, the tables, the images, the boxes, the run's segmenters or another, and what the stages were told."""
    try:
        plan, tables = read_plan(run), run_status(run)
        size = size_of_plan(run, plan)
    except InputError as error:
        yield fail("run", str(error), f"pseudolabel shard {run.typed} --images DIR --annotations FILE")
        return
    yield ok("run", f"{plan.n_images} images, {plan.n_objects} boxes, {plan.num_shards} shards, of {plan.source}")
    said = {saved.table: saved.config for saved in saved_configs(run)[0]}
    yield from (_table(table, _again(run, plan, table, said)) for table in tables)
    parts = [run.part("manifest", shard, plan.num_shards) for shard in range(plan.num_shards)]
    there = [part for part in parts if part.exists()]
    if there:
        seen = _Boxes(there)
        yield from _inputs(plan, next(table for table in tables if table.table == "manifest"), seen)
        yield from _classes(BoxesOf(plan.class_names, seen.per_class), segmenter, run)
    yield from _named_files(run)
    done = {one.stage for one in tables if not one.missing}
    done |= {name for name, trainer in TRAINERS.items() if run.model(trainer.model).exists()}
    yield from _outlook(run.root, size, done)


def data_checks(images: str, annotations: Path | None, segmenter: InferSemanticConfig | None = None) -> Iterator[Check]:
    """The same of data that no run has yet: all is counted, and a sample is opened in a folder that goes again."""
    config = PlanConfig(images=images, annotations=annotations)
    with TemporaryDirectory() as folder:
        run = RunPaths(Path(folder) / "run")
        try:
            counts = count_input(config)
            plan = _sampled(run, config, counts.images)
        except (InputError, IncompleteError, ConfigError) as error:
            yield fail("data", str(error), "pseudolabel shard RUN  ends in the same way: mend that first")
            return
        size = size_of(counts, config)
        yield ok("data", f"{size}, of {plan.source}; {plan.n_images} images were opened")
        manifest = next(table for table in run_status(run) if table.table == "manifest")
        parts = [run.part("manifest", shard, plan.num_shards) for shard in range(plan.num_shards)]
        seen = _Boxes(parts)
        yield from _inputs(plan, manifest, seen)
    boxes = counts.boxes_of if plan.sample else seen.per_class  # of all images, by what is known best
    yield from _classes(BoxesOf(counts.categories, boxes), segmenter)
    yield from _outlook(Path.cwd(), size, set())


def _sampled(run: RunPaths, config: PlanConfig, images: int) -> Plan:
    """The plan of a run of a sample of the data, whose images have been opened."""
    sample = _SAMPLE if images > _SAMPLE else None
    plan = make_plan(run, config.model_copy(update={"sample": sample}))
    run_stage(run, "shard", ShardConfig(max_reject_rate=1), RunOptions("inline"))
    return plan


def _classes(found: BoxesOf, segmenter: InferSemanticConfig | None, run: RunPaths | None = None) -> Iterator[Check]:
    """Classes of the boxes, and what the segmenter that was asked about, else those of the run, know of them."""
    if found.boxes:
        yield class_sizes(found)
    if segmenter is not None:
        yield from asked_segmenter(segmenter, found, run)
    elif run is not None and found.boxes:
        yield from recorded_segmenters(run, found)


def _outlook(folder: Path, size: Size, done: Collection[str]) -> Iterator[Check]:
    """What the stages and trainings that are not done, or that nobody has begun, would take on a CPU."""
    left = [name for name in ORDER if name in {*COSTS, *TRAINERS} and name not in done]
    needed_bytes = 0
    for name in left:
        if name == "train-teacher" and not size.boxes:
            continue
        taken, small = _foreseen(name, size)
        needed_bytes += taken.disk_bytes if taken else 0
        yield ok(f"to do: {name}", f"{taken or 'not measured'}" + (f"; with --preset small {small}" if small else ""))
    if left:
        yield room(folder, "room for these", needed_bytes / 1e9)


def _foreseen(name: str, size: Size) -> tuple[Forecast | None, Forecast | None]:
    """What a command takes by default, and with the preset for a CPU where it has one."""
    if name in COSTS:
        return stage_forecast(name, size), None
    config_class = TRAINERS[name].config_class({})
    usual = forecast(name, config_class(), size)
    if not issubclass(config_class, PresetConfig):
        return usual, None
    return usual, forecast(name, parse_config(config_class, {"preset": "small"}, where=name), size)


def _again(run: RunPaths, plan: Plan, table: TableStatus, said: Mapping[str, Mapping[str, Any]]) -> str:
    """What to type for a table that is not whole: the command that wrote it, by the options that it had."""
    if table.table in said:
        return typed_command(table.stage, run, plan, said[table.table])
    if table.table.startswith("candidates/"):  # no stage of this run wrote it, so that somebody brought it
        return bringing(run, table.table)
    return f"pseudolabel fuse {run.typed}"  # which writes what people answered


def _table(table: TableStatus, again: str) -> Check:
    name, found = table.table, f"{table.done} of {table.shards} shards"
    if table.damaged:
        return fail(name, f"{found}, {len(table.damaged)} damaged", f"{again} makes them again")
    if table.mixed_fingerprints:
        return fail(name, f"{found}, of more than one config", f"{again} --overwrite")
    if table.failures:
        shard, error = next(iter(table.failures.items()))
        return fail(name, f"{found}; shard {shard:05d} failed: {error}", f"mend that, then {again}")
    if table.missing and not table.running:
        return warn(name, found, f"{again} goes on from there")
    return ok(name, found)


def _inputs(plan: Plan, manifest: TableStatus, seen: "_Boxes") -> Iterator[Check]:
    """Of images and boxes."""
    counts = Counts.from_dict(manifest.counts)
    refused = counts.images.n_rejected + counts.objects.n_rejected
    everything = counts.images.n_in + counts.objects.n_in
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.rejects.items())
    if refused > _MUCH_REFUSED * everything:
        yield warn("refused", f"{refused} of {everything}: {reasons}", "pseudolabel status RUN --rejected names them")
    else:
        yield ok("refused", f"{refused} of {everything} images and boxes" + (f": {reasons}" if reasons else ""))
    yield _pictures(plan, seen.files)
    if plan.n_objects:
        yield from seen.checks(counts.notes)


class _Boxes:
    """What the boxes of a run are like; holds a few numbers of each."""

    def __init__(self, parts: Iterable[Path]) -> None:
        self.files: list[str] = []
        self.per_class: Counter[int] = Counter()
        self.without = self.tiny = self.whole = self.turned = 0
        for part in parts:
            self._add(read_part(part))

    def _add(self, manifest: pa.Table) -> None:
        orientations = manifest["exif_orientation"].drop_null().to_numpy()
        self.turned += int((orientations > 1).sum())
        for image in usable_images(manifest):
            self._add_image(image)

    def _add_image(self, image: ManifestImage) -> None:
        self.files.append(image.file_name)
        self.without += not image.objects
        height, width = image.size_hw
        for box in image.objects:
            self.per_class[box.category_id] += 1
            self.tiny += min(box.bbox_xywh[2:]) < _TINY_PX
            self.whole += box.area_px > 0.98 * height * width

    def checks(self, notes: dict[str, int]) -> Iterator[Check]:
        """What of the boxes deserves a look."""
        n, crowds = self.per_class.total(), notes.get("crowd", 0)
        yield _share("boxes given twice", notes.get("doubled", 0), n, 0, "remove one of each pair")
        yield _share(
            "boxes cut", notes.get("clipped", 0), n, 0.02, "they reach out of their images: are they of these?"
        )
        yield _share(
            "tiny boxes", self.tiny, n, 0.2, f"a side below {_TINY_PX} px: a mask says little more than the box"
        )
        yield _share("whole images", self.whole, n, 0.05, "a box as large as its image says nothing of the object")
        todo = "nothing labels them; --crowds objects, if they are none"
        yield _share("crowd regions", crowds, n + crowds, 0.2, todo)
        yield _share("without boxes", self.without, len(self.files), 0.5, "images without a box make no masks")
        yield _share("turned by EXIF", self.turned, len(self.files), 1.0, "")


def _share(name: str, count: int, of: int, most: float, todo: str) -> Check:
    found = f"{count} of {of}"
    return warn(name, found, todo) if count > most * of else ok(name, found)


def _pictures(plan: Plan, files: list[str]) -> Check:
    """Some images are opened, at even steps through the run."""
    chosen = [files[place] for place in even_places(len(files), _OPENED)]
    problems, dark = [], 0
    for name in chosen:
        try:
            pixels = load_image(plan.images_root, name, rule=plan.pixel_rule)
            dark += bool(np.ptp(pixels[::8, ::8]) < 32)
        except (RejectError, InputError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        todo = f"were the images moved or changed? They were below {plan.images_root}"
        return fail("images", f"{len(problems)} of {len(chosen)} cannot be opened, such as {problems[0]}", todo)
    if dark > len(chosen) / 2:
        return warn("images", f"{dark} of {len(chosen)} opened are nearly one colour", "shard --stretch percentile")
    return ok("images", f"{len(chosen)} of {len(files)} opened")


def _named_files(run: RunPaths) -> Iterator[Check]:
    """Files that a stage was told to read and that are gone now, so that it could not be run again."""
    saved, damaged = saved_configs(run)
    yield from (fail("config", str(error), "run the stage again with its options") for error in damaged)
    for one in saved:
        gone = [value for value in map(_path, one.config.values()) if value and not Path(value).exists()]
        if gone:
            yield warn(one.stage, f"{gone[0]} is gone", "it is needed to make this stage's table again")


def _path(value: Any) -> str | None:
    """The file or folder that an option's value names, such as `onnx:/models/a.onnx`; None where it names none."""
    text = value.rpartition(":")[2] if isinstance(value, str) else ""
    return text if text.startswith("/") else None
