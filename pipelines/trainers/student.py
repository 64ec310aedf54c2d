"""`train-student`: a student, learned from the run's pseudo labels by their scores, or from a COCO file."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pseudolabel.config import Config, option, result_relevant
from pseudolabel.encoders.resolve import BACKBONE_HELP, WEIGHTS_HELP, backbone_files
from pseudolabel.errors import ConfigError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.run.commit import read_footer, read_part
from pseudolabel.pipelines.run.fingerprint import file_sha256
from pseudolabel.pipelines.run.made_categories import made_categories
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, read_plan
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.pipelines.work.memory import memory_errors_explained
from pseudolabel.students.names import STUDENTS

if TYPE_CHECKING:
    from pseudolabel.students.base import Student, StudentConfig
    from pseudolabel.students.labels import LabelConfig, LabelSet
    from pseudolabel.students.method import StudentMethod, Validate


class TrainStudentConfig(Config):
    """Options of `train-student`."""

    model: str = option("condinst", "which student: " + ", ".join(STUDENTS))
    backbone: str = option("resnet50", BACKBONE_HELP)
    backbone_weights: str = option("hub", WEIGHTS_HELP)
    width: int = option(256, "channels of the pyramid and of the heads", ge=40, multiple_of=8)
    convs: int = option(4, "convolutions in each tower of the heads", ge=1)
    finest_px: float = option(64.0, "condinst: half-size of objects up to which the finest level learns them", gt=0)
    detections: int = option(100, "most objects of an image", ge=1)
    labels: Path | None = option(None, "COCO file to learn from; default: the run's pseudo labels")
    weights: Literal["score", "none"] = option("score", "weight of a mask's loss: its score, or 1")
    threshold: float = option(0.0, "masks with a lower score train their box alone", ge=0, le=1)
    masks: Literal["given", "box"] = option("given", "the labels' masks, or each box filled (a baseline)")
    unsure: Literal["left_out", "learned"] = option("left_out", "pixels of a mask that `fuse` was not sure of")
    image_px: int = option(512, "side of the square the student trains on, a multiple of 32", ge=32, multiple_of=32)
    predict_px: int = option(0, "longer side of an image that the trained student is asked about; 0 = image_px", ge=0)
    smallest_scale: float = option(0.5, "least size of an image relative to that side", gt=0)
    largest_scale: float = option(1.5, "largest size of an image relative to that side", gt=0)
    views: Literal["plain", "weak", "strong", "strong_blur"] = option(
        "strong", "plain: resized alone; weak: scale, crop, flip; strong: colours too; strong_blur: and blur"
    )
    copy_paste: float = option(0.0, "probability per image to paste a good object over a peer of its class", ge=0, le=1)
    epochs: float = option(24.0, "how often every image is seen", gt=0)
    batch_size: int = option(4, "images per step and process", ge=1)
    learning_rate: float = option(1e-3, "of the new layers", gt=0)
    encoder_learning_rate: float = option(1e-4, "of the encoder", ge=0)
    schedule: Literal["cosine", "step"] = option("cosine", "how the learning rate falls")
    ema: float = option(0.998, "momentum of the moving average that becomes the model; 0 = none", ge=0, lt=1)
    validation: Path | None = option(None, "COCO file with true masks of other images, for an AP while training")
    validation_images: Path | None = option(None, "folder of its images; default: the run's")
    validate_every: int = option(500, "steps between validations; 0 = after the last one alone", ge=0)
    patience: int = option(0, "stop after so many validations without a better AP, 0 = never", ge=0)
    batch_norm: Literal["frozen", "trained", "sync"] = option(
        "frozen", "of the encoder: as pretrained, learned in each process, or over all GPUs together"
    )
    compile: bool = option(False, "torch.compile for the parts of fixed shape: slow to start, faster on a GPU")
    seed: int = option(0, "of weights, order and augmentation", ge=0)
    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the forward pass")
    devices: int = option(1, "processes, one per GPU", ge=1)
    nodes: int = option(1, "machines", ge=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    loader_workers: int = option(0, "processes that read images", changes_result=False, ge=0)
    threads: int = option(0, "CPU threads; 0 = torch's choice", changes_result=False, ge=0)
    checkpoint_every: int = option(200, "steps between checkpoints", changes_result=False, ge=1)

    @property
    def used_px(self) -> int:
        """Longer side of an image in validation and prediction."""
        return self.predict_px or self.image_px

    def tables(self) -> tuple[str, ...]:
        """Tables that decide the result."""
        return ("manifest",) if self.labels else ("manifest", "pseudo")

    def weight_files(self) -> dict[str, Path]:
        """Files that decide the result."""
        files = {"labels": self.labels, "validation": self.validation} | backbone_files(
            self.backbone, self.backbone_weights
        )
        return {name: path for name, path in files.items() if path is not None}


def train_student(run: RunPaths, config: TrainStudentConfig) -> Path:
    """Train and write `models/student.safetensors`, its config and its model card; the path of the weights.

    A training that was stopped goes on from its last checkpoint, to the same weights on CPU.

    Raises:
        ConfigError: no such student or backbone, or options that do not go together.
        InputError: there is nothing to learn from, or an image or a mask is damaged.
        NonFiniteLossError: a loss was NaN or infinite; names the images.
        MachineError: a batch does not fit the GPU.
        SignalStopError: a signal ended the training between two steps.
    """
    import torch

    from pseudolabel.students.data import SampleLoader
    from pseudolabel.students.save import save_student
    from pseudolabel.training.fit import fit
    from pseudolabel.training.processes import is_first_process

    device = resolve_device(config.device, stage_uses_gpu=True)
    _check(config, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    plan, labels = read_plan(run), student_labels(run, config)
    student = _new_student(config, len(labels.categories))
    folder = run.logs("train-student") / _digest(run, config)
    folder.mkdir(parents=True, exist_ok=True)
    loader = SampleLoader(labels.images, plan.images_root, rule=plan.pixel_rule)
    method = _method(student, config, _validate(config, plan, labels), folder)
    with memory_errors_explained(config):
        fit(method, loader, len(loader), folder, _settings(config, len(loader), device))
        figures = _final_figures(method, config, plan, labels, device)
    speed = _speed(method, config, device)
    about = {"trained": config.model_dump(mode="json"), "labels": labels.counts(), "figures": figures}
    weights = run.model("student")
    save_student(weights, method.average, student.config, labels.categories, image_px=config.used_px, about=about)
    card = _card(weights, plan, config, labels, figures | speed)
    if is_first_process():
        write_text_atomically(weights.with_suffix(".md"), card)
    return weights


def _check(config: TrainStudentConfig, device: str) -> None:
    if config.smallest_scale > config.largest_scale:
        raise ConfigError("--smallest-scale must not exceed --largest-scale")
    if config.patience and (config.validation is None or not config.validate_every):
        raise ConfigError("--patience needs --validation and --validate-every: what should be waited for?")
    if config.batch_norm == "sync" and not device.startswith("cuda"):
        raise ConfigError("--batch-norm sync is for GPUs; on a CPU say frozen or trained")


def _new_student(config: TrainStudentConfig, num_classes: int) -> "Student":
    """The student as it is before the first step."""
    from pseudolabel.students.base import learn_batch_norm, make_student

    student = make_student(student_config(config), num_classes, backbone_weights=config.backbone_weights)
    if config.batch_norm == "frozen":
        return student
    return learn_batch_norm(student, synchronised=config.batch_norm == "sync")


def _final_figures(
    method: "StudentMethod", config: TrainStudentConfig, plan: Plan, labels: "LabelSet", device: str
) -> dict[str, float]:
    """The AP of the trained student on the validation file, if there is one, and the best on the way."""
    if config.validation is None:
        return {}
    from pseudolabel.students.evaluation import evaluate_student

    student, root = method.average.to(device).eval(), config.validation_images or plan.images_root
    ap = evaluate_student(student, config.validation, root, labels.categories, image_px=config.used_px)
    figures = {"validation_ap": ap.ap, "validation_ap50": ap.ap50, "validation_ap75": ap.ap75}
    known = {name: round(value, 4) for name, value in figures.items() if value is not None}
    return known | {"best_validation_ap": round(max(float(method.best_ap), known.get("validation_ap", 0.0)), 4)}


def _speed(method: "StudentMethod", config: TrainStudentConfig, device: str) -> dict[str, float]:
    """Images per second of the training beside its network's own, empty for a training too short to be timed."""
    import logging

    from pseudolabel.students.throughput import measured

    batch, student = method.last_batch.to(device), method.student.to(device)
    speed = measured(method.clock, student, batch, bf16=config.precision == "bf16")
    if speed is None:
        return {}
    logging.getLogger(__name__).info("train-student: %s", speed)
    return {"images_per_s": round(speed.training, 2), "images_per_s_pure": round(speed.forward_backward, 2)}


def student_labels(run: RunPaths, config: TrainStudentConfig) -> "LabelSet":
    """What the student learns from: the COCO file that is named, else the run's pseudo labels.

    Where the images came without categories, those of the pseudo labels are learned.

    Raises:
        InputError: there is no object to learn from, or a label is damaged.
    """
    from pseudolabel.students.labels import labels_from_coco, labels_from_rows

    rule = label_config(config)
    if config.labels is not None:
        return labels_from_coco(config.labels, rule)
    plan = read_plan(run)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    categories = plan.categories or made_categories(run, parts)
    return labels_from_rows(_rows(run, plan, "manifest"), _rows(run, plan, "pseudo"), categories, rule)


def label_config(config: TrainStudentConfig) -> "LabelConfig":
    """The part of the options that says how labels are used."""
    from pseudolabel.students.labels import LabelConfig

    return LabelConfig(weights=config.weights, threshold=config.threshold, masks=config.masks, unsure=config.unsure)


def student_config(config: TrainStudentConfig) -> "StudentConfig":
    """The part of the options that describes the network."""
    from pseudolabel.students.base import StudentConfig

    return StudentConfig(
        model=config.model,
        backbone=config.backbone,
        width=config.width,
        convs=config.convs,
        finest_px=config.finest_px,
        detections=config.detections,
    )


def _method(
    student: "Student", config: TrainStudentConfig, validate: "Validate | None", folder: Path
) -> "StudentMethod":
    from pseudolabel.students.augment import AugmentConfig
    from pseudolabel.students.method import RecipeConfig, StudentMethod

    augment = AugmentConfig(
        image_px=config.image_px,
        smallest_scale=config.smallest_scale,
        largest_scale=config.largest_scale,
        views=config.views,
    )
    recipe = RecipeConfig(
        learning_rate=config.learning_rate,
        encoder_learning_rate=config.encoder_learning_rate,
        ema=config.ema,
        copy_paste=config.copy_paste,
        validate_every=config.validate_every,
        patience=config.patience,
    )
    method = StudentMethod(student, augment, recipe, validate=validate, journal=folder / "validation.jsonl")
    if config.compile:  # after the average was copied, which is asked for pictures of other sizes
        for part in student.fixed_parts():
            part.compile()
    return method


def _validate(config: TrainStudentConfig, plan: Plan, labels: "LabelSet") -> "Validate | None":
    """The AP on the validation file, with the categories of the training."""
    if config.validation is None:
        return None
    from pseudolabel.students.evaluation import ap_on_file

    root = config.validation_images or plan.images_root
    return ap_on_file(config.validation, root, labels.categories, image_px=config.used_px)


def _settings(config: TrainStudentConfig, count: int, device: str) -> Any:
    from pseudolabel.training.fit import FitConfig

    per_step = config.batch_size * config.devices * config.nodes
    return FitConfig(
        steps=max(1, round(config.epochs * count / per_step)),
        batch_size=config.batch_size,
        seed=config.seed,
        precision=config.precision,
        schedule=config.schedule,
        device=device,
        devices=config.devices,
        nodes=config.nodes,
        checkpoint_every=config.checkpoint_every,
        workers=config.loader_workers,
    )


def _card(weights: Path, plan: Plan, config: TrainStudentConfig, labels: "LabelSet", figures: dict[str, float]) -> str:
    from pseudolabel.students.save import model_card

    data = {
        "source": Path(plan.source).name,
        "labels": "pseudo labels of the run" if config.labels is None else config.labels.name,
        "licenses": plan.licenses,
        **labels.counts(),
    }
    return model_card(weights.stem, _without_folders(config), data, figures, labels.categories)


def _without_folders(config: TrainStudentConfig) -> dict[str, Any]:
    """The options with files by their name alone: a card is for others, to whom this machine's folders say nothing."""
    plain = config.model_dump(mode="json")
    paths = [name for name, value in config if isinstance(value, Path)]
    paths += ["backbone_weights"] if "backbone" in config.weight_files() else []
    return plain | {name: Path(plain[name]).name for name in paths}


def _rows(run: RunPaths, plan: Plan, table: str) -> Iterator[dict[str, Any]]:
    for shard in range(plan.num_shards):
        yield from read_part(run.part(table, shard, plan.num_shards)).to_pylist()


def _digest(run: RunPaths, config: TrainStudentConfig) -> str:
    """Names the training, so that a checkpoint is only ever continued by the training that wrote it."""
    parts = [path for table in config.tables() for path in sorted(run.table(table).glob("part-*.parquet"))]
    content = {
        "config": result_relevant(config),
        "weights": {name: file_sha256(path) for name, path in config.weight_files().items()},
        "tables": {f"{path.parent.name}/{path.name}": read_footer(path).fingerprint for path in parts},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
