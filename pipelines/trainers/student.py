"""`train-student`: a student, learned from the run's pseudo labels by their scores, or from a COCO file."""

import logging
from pathlib import Path
from typing import Any

from pseudolabel.config import narrowed, result_relevant
from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.errors import ConfigError
from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.options.train_student import TrainStudentConfig
from pseudolabel.pipelines.planning.made_categories import made_categories
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.trainers.images import table_rows
from pseudolabel.pipelines.trainers.loop import begin, loop_config
from pseudolabel.pipelines.work.memory import memory_errors_explained
from pseudolabel.students.base import Student, learn_batch_norm, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.data import SampleLoader
from pseudolabel.students.evaluation import ap_on_file, evaluate_student
from pseudolabel.students.labels import LabelSet, check_masks, labels_from_coco, labels_from_rows
from pseudolabel.students.method import StudentMethod, Validate
from pseudolabel.students.save import model_card, save_student
from pseudolabel.students.throughput import measured
from pseudolabel.training.fit import fit
from pseudolabel.training.processes import is_first_process

_LOG = logging.getLogger(__name__)


def train_student(run: RunPaths, config: TrainStudentConfig, folder: Path) -> Path:
    """Train and write `models/student.safetensors`, its config and its model card; the path of the weights.

    A training that was stopped goes on from its last checkpoint, to the same weights on CPU.

    Args:
        folder: of logs and checkpoints, of this training alone.

    Raises:
        ConfigError: no such student or backbone, or options that do not go together.
        InputError: there is nothing to learn from, or an image or a mask is damaged.
        NonFiniteLossError: a loss was NaN or infinite; names the images.
        MachineError: a batch does not fit the GPU.
        SignalStopError: a signal ended the training between two steps.
    """
    device = begin(config)
    if config.batch_norm == "sync" and not device.startswith("cuda"):
        raise ConfigError("--batch-norm sync is for GPUs; on a CPU say frozen or trained")
    plan, labels = read_plan(run), student_labels(run, config)
    check_masks(labels, config)
    _LOG.info("train-student: learns from %s", labels)
    student = _new_student(config, len(labels.categories))
    folder.mkdir(parents=True, exist_ok=True)
    loader = SampleLoader(labels.images, plan.images_root, rule=plan.pixel_rule)
    method = _method(student, config, _validate(config, plan, labels), folder)
    with memory_errors_explained(config):
        fit(method, loader, len(loader), folder, loop_config(config, len(loader), device), name="train-student")
        figures = _final_figures(method, config, plan, labels, device)
    speed = _speed(method, config, device)
    about = {"trained": result_relevant(config), "labels": labels.counts(), "figures": figures}
    weights = run.model("student")
    side, rule = config.used_px, plan.pixel_rule
    save_student(weights, method.average, student.config, labels.categories, image_px=side, about=about, rule=rule)
    card = _card(weights, plan, config, labels, figures | speed)
    if is_first_process():
        write_text_atomically(weights.with_suffix(".md"), card)
    return weights


def _new_student(config: TrainStudentConfig, num_classes: int) -> Student:
    """The student as it is before the first step."""
    student = make_student(narrowed(config, StudentConfig), num_classes, backbone_weights=config.backbone_weights)
    if config.batch_norm == "frozen":
        return student
    return learn_batch_norm(student, synchronised=config.batch_norm == "sync")


def _final_figures(
    method: StudentMethod, config: TrainStudentConfig, plan: Plan, labels: LabelSet, device: str
) -> dict[str, float]:
    """The AP of the trained student on the validation file, if there is one, and the best on the way."""
    if config.validation is None:
        return {}
    student, root = method.average.to(device).eval(), config.validation_images or plan.images_root
    ap = evaluate_student(
        student,
        config.validation,
        root,
        labels.categories,
        image_px=config.used_px,
        detections=config.detections,
        rule=plan.pixel_rule,
    )
    figures = {"validation_ap": ap.ap, "validation_ap50": ap.ap50, "validation_ap75": ap.ap75}
    known = {name: round(value, 4) for name, value in figures.items() if value is not None}
    _LOG.info("train-student: %s", ", ".join(f"{name} {value}" for name, value in known.items()))
    return known | {"best_validation_ap": round(max(float(method.best_ap), known.get("validation_ap", 0.0)), 4)}


def _speed(method: StudentMethod, config: TrainStudentConfig, device: str) -> dict[str, float]:
    """Images per second of the training beside its network's own, empty for a training too short to be timed."""
    batch, student = method.last_batch.to(device), method.student.to(device)
    speed = measured(method.clock, student, batch, bf16=config.precision == "bf16")
    if speed is None:
        return {}
    _LOG.info("train-student: %s", speed)
    return {"images_per_s": round(speed.training, 2), "images_per_s_pure": round(speed.forward_backward, 2)}


def student_labels(run: RunPaths, config: TrainStudentConfig) -> LabelSet:
    """What the student learns from: the COCO file that is named, else the run's pseudo labels.

    Where the images came without categories, those of the pseudo labels are learned.

    Raises:
        InputError: there is no object to learn from, or a label is damaged.
    """
    if config.learn_from is not None:
        return labels_from_coco(config.learn_from, config)
    plan = read_plan(run)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    categories = plan.categories or made_categories(run, parts)
    return labels_from_rows(table_rows(run, plan, "manifest"), table_rows(run, plan, "pseudo"), categories, config)


def _method(student: Student, config: TrainStudentConfig, validate: Validate | None, folder: Path) -> StudentMethod:
    method = StudentMethod(student, config, config, validate=validate, journal=folder / "validation.jsonl")
    if config.compile:  # after the average was copied, which is asked for pictures of other sizes
        for part in student.fixed_parts():
            part.compile()
    return method


def _validate(config: TrainStudentConfig, plan: Plan, labels: LabelSet) -> Validate | None:
    """The AP on the validation file, with the categories of the training."""
    if config.validation is None:
        return None
    root = config.validation_images or plan.images_root
    if str(root) == str(plan.images_root):
        _tell_learned(config.validation, labels)
    return ap_on_file(config.validation, root, labels.categories, image_px=config.used_px, rule=plan.pixel_rule)


def _tell_learned(validation: Path, labels: LabelSet) -> None:
    """That images of the validation are among those that the student learns from."""
    learned = {one.file_name for one in labels.images}
    names = [one.get("file_name") for one in read_coco(validation)["images"]]
    both = sum(name in learned for name in names)
    if both:
        told = "train-student: it learns from %d of the %d images of %s: its AP there is not that of other images"
        _LOG.warning(told, both, len(names), validation.name)


def _card(weights: Path, plan: Plan, config: TrainStudentConfig, labels: LabelSet, figures: dict[str, float]) -> str:
    data = {
        "source": Path(plan.source).name,
        "labels": "pseudo labels of the run" if config.learn_from is None else config.learn_from.name,
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
