"""What a run will take, for `run --dry-run`: images and boxes, core minutes, disk and memory, before anything is done.

The costs were measured on one core of an Intel Xeon server, with runs over coco-dev (142 images, 1316 boxes) and
nuclei-dev (110 images, 5188 boxes) and default options. They say the order of magnitude; a pilot says the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pseudolabel.datasets import ReadOptions, detect_format, open_dataset
from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.planning.counted import default_shards, sample_size
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.sources.place import absolute
from pseudolabel.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Size:
    """What a run works on."""

    images: int
    boxes: int
    shards: int

    def __str__(self) -> str:
        return f"{self.images} images with {self.boxes} boxes, {self.shards} shards"


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds and bytes of an image and of a box, and the memory of one worker."""

    image_s: float
    box_s: float
    image_bytes: int
    box_bytes: int
    worker_mb: int

    def seconds(self, size: Size) -> float:
        """CPU seconds of a stage."""
        return self.image_s * size.images + self.box_s * size.boxes

    def disk_bytes(self, size: Size) -> int:
        """Bytes that a stage writes."""
        return self.image_bytes * size.images + self.box_bytes * size.boxes


COSTS = {
    "shard": Cost(0.08, 0, 1200, 60, 190),
    "infer-semantic": Cost(0.13, 0.033, 52_400, 1_700, 1_100),
    "infer-colors": Cost(0.01, 0.016, 100, 370, 320),
    "infer-teacher": Cost(0.05, 0.18, 100, 6_000, 1_200),
    "fuse": Cost(0.02, 0.026, 500, 1_800, 1_200),
}
# CPU seconds of a million pixels through network, losses and back, by command, kind of network and encoder: of
# docs/results/coco_dev_mal.json (8 epochs of 1302 crops of 128 px) and student_retention_nuclei.json (300 steps of four
# pictures of 256 px)
TRAININGS = {
    ("train-teacher", "mal", "mobilenet_v2"): 1.7,
    ("train-student", "condinst", "mobilenet_v2"): 3.1,
}
TRAINING_MB, TRAINING_BYTES = 2_000, 100_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a step will take."""

    seconds: float  # of one core
    disk_bytes: int
    worker_mb: int

    def __str__(self) -> str:
        return f"about {minutes(self.seconds)}, {megabytes(self.disk_bytes)}, {self.worker_mb} MB a worker"


def planned_size(run: RunPaths, config: PlanConfig | None) -> Size | None:
    """The size of a run that is planned already, or that `shard` would plan; None where nobody says of what.

    Raises:
        InputError: the images or annotations are missing or damaged.
    """
    if run.plan.exists():
        plan = read_plan(run)
        return Size(plan.n_images, plan.n_objects, plan.num_shards)
    return None if config is None else _counted(config)


def stage_forecast(name: str, size: Size) -> Forecast | None:
    """What a stage takes; None for one that nobody measured."""
    cost = COSTS.get(name)
    return None if cost is None else Forecast(cost.seconds(size), cost.disk_bytes(size), cost.worker_mb)


def training_forecast(name: str, config: TrainConfig, size: Size) -> Forecast | None:
    """What a training takes on the CPU; None for a kind of network or an encoder that nobody measured."""
    kind = getattr(config, "method", getattr(config, "model", ""))
    rate = TRAININGS.get((name, kind, config.backbone))
    if rate is None:
        return None
    return Forecast(rate * config.megapixels(size.images, size.boxes), TRAINING_BYTES, TRAINING_MB)


def total(forecasts: Sequence[Forecast | None]) -> str:
    """All steps together in words."""
    known = [one for one in forecasts if one is not None]
    unknown = (
        f", without {len(forecasts) - len(known)} steps that nobody measured" if len(known) < len(forecasts) else ""
    )
    seconds, disk = sum(one.seconds for one in known), sum(one.disk_bytes for one in known)
    return f"in all about {minutes(seconds)} on the CPU, {megabytes(disk)}{unknown}"


def minutes(seconds: float) -> str:
    """Time of one core, with two digits that count."""
    return f"{float(f'{seconds / 60:.2g}'):g} core minutes" if seconds < 7200 else f"{seconds / 3600:.0f} core hours"


def megabytes(size_bytes: float) -> str:
    """A size on disk."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.1f} GB"


def _counted(config: PlanConfig) -> Size:
    options = ReadOptions(config.exif, config.strip_prefix, config.images_json, config.box_format, config.crowds)
    kind = config.source or detect_format(config.annotations, has_images_json=config.images_json is not None)
    dataset = open_dataset(kind, images=absolute(config.images), annotations=config.annotations, options=options)
    rows = [len(row.get("objects") or ()) for row in dataset.rows() if row["status"] != "rejected"]
    wanted = len(rows) if config.sample is None else sample_size(config.sample, len(rows))
    boxes = round(sum(rows) * wanted / max(len(rows), 1))
    return Size(wanted, boxes, config.shards or default_shards(wanted))
