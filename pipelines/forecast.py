"""What a run will take, for `run --dry-run` and `doctor`: core minutes, disk and memory, before anything is done.

Costs were measured with default options on some images of coco-dev and nuclei-dev (`tests/benchmarks/rates.py`). They
say the order of magnitude; a pilot says the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pseudolabel.config import Config
from pseudolabel.pipelines.options.stages.shard import PlanConfig
from pseudolabel.pipelines.planning.counted import default_shards, sample_size
from pseudolabel.pipelines.planning.input_counts import InputCounts, count_input, planned_crowded
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.training.config import TrainConfig, Work


@dataclass(frozen=True, slots=True)
class Size:
    """What a run works on."""

    images: int
    boxes: int
    shards: int
    crowded: int = 0  # boxes that share area with another one of their image

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
    start_s: float = 0.0
    crowded_s: float = 0.0  # of a crowded box, beside `box_s`

    def seconds(self, size: Size) -> float:
        """CPU seconds of a stage."""
        return self.start_s + self.image_s * size.images + self.box_s * size.boxes + self.crowded_s * size.crowded

    def disk_bytes(self, size: Size) -> int:
        """Bytes that a stage writes."""
        return self.image_bytes * size.images + self.box_bytes * size.boxes


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """CPU seconds, megabytes of memory and bytes on disk of a training, by the parts of its `Work`."""

    start_s: float  # and what comes after the last step
    megapixel_s: float
    own_mb: float  # without pictures
    megapixel_mb: float  # of one step
    disk_mb: float  # weights, checkpoints and logs
    object_s: float = 0.0
    encoded_s: float = 0.0
    kept_mb: float = 0.0

    def seconds(self, work: Work) -> float:
        """CPU seconds of the training."""
        parts = self.megapixel_s * work.megapixels + self.object_s * work.objects + self.encoded_s * work.encoded
        return self.start_s + parts

    def disk_bytes(self, work: Work) -> int:
        """Bytes that it writes."""
        return round(self.disk_mb * 1e6) + work.scratch_bytes

    def process_mb(self, work: Work) -> int:
        """Memory of one of its processes."""
        return round(self.own_mb + self.megapixel_mb * work.step_megapixels + self.kept_mb * work.kept)


# times are the rows named `fit` of docs/results/stage_rates.json, measured on one core of an AMD EPYC server; bytes and
# memory of runs over all of coco-dev and nuclei-dev
COSTS = {
    "shard": Cost(0.0073, 0, 1200, 60, 190, start_s=2),
    "infer-semantic": Cost(0.28, 0, 52_400, 1_700, 1_100, start_s=5.5),
    "infer-colors": Cost(0.035, 0.0016, 100, 370, 320, start_s=2),
    "infer-teacher": Cost(0.065, 0.049, 100, 6_000, 1_200, start_s=8.9, crowded_s=0.0098),
    "fuse": Cost(0.038, 0.0006, 500, 1_800, 1_200, start_s=2.3),
}
# by command and what `TrainConfig.network` says: the rows named `fit` of docs/results/training_rates.json, measured on
# one core of an AMD EPYC server; without a validation, and SISeg's features as those of photographs
TRAININGS: dict[tuple[str | int, ...], TrainingCost] = {
    ("train-siseg", "mobilenet_v2", 256): TrainingCost(9.3, 1.7, 1300, 1020, 30, encoded_s=0.19, kept_mb=4.8),
    ("train-siseg", "resnet50", 256): TrainingCost(13, 2.1, 1510, 976, 211, encoded_s=0.75, kept_mb=25),
    ("train-teacher", "mal", "mobilenet_v2", 64): TrainingCost(8.1, 1.3, 1280, 585, 51),
    ("train-teacher", "boxinst", "mobilenet_v2", 256, 4): TrainingCost(9, 7.75, 1370, 3300, 197),
    ("train-teacher", "boxteacher", "mobilenet_v2", 256, 4): TrainingCost(8.8, 9.72, 1400, 3530, 246),
    ("train-teacher", "boxseg", "mobilenet_v2", 256, 4): TrainingCost(7.6, 10, 1390, 3580, 246),
    ("train-teacher", "sim", "mobilenet_v2", 256, 4): TrainingCost(8.1, 10.6, 1360, 3900, 248),
    ("train-student", "condinst", "mobilenet_v2", 64, 2): TrainingCost(13, 0.841, 1280, 2340, 60, object_s=0.0019),
    ("train-student", "condinst", "mobilenet_v2", 256, 4): TrainingCost(13, 4.6, 1470, 2820, 251, object_s=0.0074),
    ("train-student", "condinst", "resnet50", 256, 4): TrainingCost(20, 11.5, 2150, 2680, 688),
    ("train-student", "mask_rcnn", "mobilenet_v2", 64, 2): TrainingCost(13, 2.3, 1190, 3220, 74, object_s=0.0028),
    ("train-student", "query", "mobilenet_v2", 64, 2): TrainingCost(14, 1.8, 1130, 3310, 57, object_s=0.0037),
}


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
        InputError: the images or annotations are missing or damaged, or the plan is.
    """
    if run.plan.exists():
        return size_of_plan(run, read_plan(run))
    return None if config is None else size_of(count_input(config), config)


def size_of_plan(run: RunPaths, plan: Plan) -> Size:
    """The size of a planned run.

    Raises:
        InputError: a part of the plan is missing or damaged.
    """
    return Size(plan.n_images, plan.n_objects, plan.num_shards, planned_crowded(run, plan))


def size_of(counts: InputCounts, config: PlanConfig) -> Size:
    """The size of the run that `shard` would plan of this input."""
    wanted = counts.images if config.sample is None else sample_size(config.sample, counts.images)
    share = wanted / max(counts.images, 1)
    boxes, crowded = round(counts.boxes * share), round(counts.crowded * share)
    return Size(wanted, boxes, config.shards or default_shards(wanted), crowded)


def forecast(name: str, config: Config, size: Size) -> Forecast | None:
    """What a command takes on the CPU; None for one, or a network of one, that nobody measured."""
    return training_forecast(name, config, size) if isinstance(config, TrainConfig) else stage_forecast(name, size)


def stage_forecast(name: str, size: Size) -> Forecast | None:
    """What a stage takes; None for one that nobody measured."""
    cost = COSTS.get(name)
    return None if cost is None else Forecast(cost.seconds(size), cost.disk_bytes(size), cost.worker_mb)


def training_forecast(name: str, config: TrainConfig, size: Size) -> Forecast | None:
    """What a training takes on the CPU; None for a network that nobody measured."""
    cost = TRAININGS.get((name, *config.network))
    if cost is None:
        return None
    work = config.work(size.images, size.boxes)
    return Forecast(cost.seconds(work), cost.disk_bytes(work), cost.process_mb(work))


def total(forecasts: Sequence[Forecast | None]) -> str:
    """All steps together in words."""
    known = [one for one in forecasts if one is not None]
    unknown = (
        f", without {len(forecasts) - len(known)} of the steps, which nobody measured"
        if len(known) < len(forecasts)
        else ""
    )
    seconds, disk = sum(one.seconds for one in known), sum(one.disk_bytes for one in known)
    return f"in all about {minutes(seconds)} on the CPU, {megabytes(disk)}{unknown}"


def minutes(seconds: float) -> str:
    """Time of one core, with two digits that count."""
    return f"{float(f'{seconds / 60:.2g}'):g} core minutes" if seconds < 7200 else f"{seconds / 3600:.0f} core hours"


def megabytes(size_bytes: float) -> str:
    """A size on disk."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.1f} GB"
