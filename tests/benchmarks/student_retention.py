"""How much of a fully-supervised student's AP is left when the same student learns from pseudo labels.

One student, one recipe, one number of steps; only the labels differ: true masks (`full`), fused pseudo labels weighted
by their score (`pseudo`), the same without weights (`pseudo-unweighted`), those to be kept alone, of the others their
boxes (`pseudo-keep`), with a hard threshold (`pseudo-threshold-T`), and boxes as masks (`box`). `retention` is the
share of `full`'s AP, of the same seed. Pseudo labels are made here, by the product's own stages, unless a finished
run's are given. With `--keep FOLDER` labels and rows stay there as they are made, and another call goes on from them.

    python tests/benchmarks/student_retention.py --cases drawn             # CPU, about 20 minutes on a free machine
    python tests/benchmarks/student_retention.py --gpu --seeds 0,1,2       # both data sets, ResNet-50
    python tests/benchmarks/student_retention.py --cases nuclei --nuclei-labels RUN/pseudo/instances.json
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import report, script_parser, shared_folder

from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo.chain import label_sections
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.demo.segmenter import ENCODER, make_demo_data, train_demo_segmenter
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.students.base import make_student
from pseudolabel.students.config import AugmentConfig, LabelConfig, RecipeConfig, StudentConfig
from pseudolabel.students.data import SampleLoader
from pseudolabel.students.evaluation import evaluate_student
from pseudolabel.students.labels import labels_from_coco
from pseudolabel.students.method import StudentMethod
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

CPU = {"width": 64, "convs": 2, "finest_px": 25.6}
CPU_BACKBONES = {"drawn": ENCODER, "nuclei": "mobilenet_v2"}
# of the longer side of an image while training, in parts of --image-px; nuclei are enlarged, and parts of images seen
CPU_SCALES = {"drawn": (0.7, 1.4), "nuclei": (1.2, 2.2)}
CPU_TEST_PX = {"drawn": 320, "nuclei": 448}
GPU_SCALES, GPU_TEST_PX = (0.7, 1.4), 512
GPU = {"backbone": "resnet50", "width": 256, "convs": 4}
VALIDATION_SEED = 90_001  # of scenes that no other part of the project draws


@dataclass(frozen=True)
class Case:
    """Images with true and pseudo labels to train on, and others to measure on."""

    name: str
    images: Path
    truth: Path
    pseudo: Path
    test_images: Path
    test_truth: Path
    encoder: Path  # weights that a student on the CPU starts from


def settings(thresholds: list[float]) -> dict[str, LabelConfig]:
    """The labels' rules by setting; `full` and `box` read the true file, the boxes of which are the given ones."""
    return {
        "full": LabelConfig(mask_weight="none"),
        "pseudo": LabelConfig(),
        "pseudo-unweighted": LabelConfig(mask_weight="none"),
        "pseudo-keep": LabelConfig(mask_weight="none", review_masks=False),
        **{f"pseudo-threshold-{one:g}": LabelConfig(mask_weight="none", mask_threshold=one) for one in thresholds},
        "box": LabelConfig(mask_weight="none", given_masks=False),
    }


def drawn_case(folder: Path, arguments: argparse.Namespace) -> Case:
    """Scenes labelled as the demo does it: a small segmenter trained on other scenes, SISeg, and the fuse stage."""
    data, test = make_demo_data(folder / "data", scenes=arguments.scenes), folder / "test"
    write_dataset(test, arguments.test_scenes, VALIDATION_SEED)
    models, truth = folder / "models", data.scenes / "instances.json"
    if not (models / "encoder.safetensors").exists():
        train_demo_segmenter(data, models)
    pseudo = arguments.drawn_labels or folder / "run" / "pseudo" / "instances.json"
    if not pseudo.exists():
        _run({"run": str(folder / "run"), **label_sections(data.scenes, models / "segmenter")})
    encoder = models / "encoder.safetensors"
    return Case("drawn", data.scenes / "images", truth, pseudo, test / "images", test / "instances.json", encoder)


def nuclei_case(folder: Path, arguments: argparse.Namespace) -> Case:
    """Microscopic images, labelled by the box-conditioned teacher that learned from their boxes, and by fuse."""
    data = shared_folder() / "data" / "nuclei-dev"
    weights = shared_folder() / "weights" / "mobilenetv2_imagenet_fp16.safetensors"
    images, truth = data / "images", data / "instances_train.json"
    pseudo = arguments.nuclei_labels or folder / "run" / "pseudo" / "instances.json"
    if not pseudo.exists():
        shard = {"images": str(images), "annotations": str(data / "boxes_train.json"), "shards": 2}
        teacher = {"backbone_weights": str(weights), "epochs": arguments.teacher_epochs, "threads": arguments.threads}
        _run({"run": str(folder / "run"), "shard": shard, "train-teacher": teacher, "infer-teacher": {}, "fuse": {}})
    return Case("nuclei", images, truth, pseudo, images, data / "instances_val.json", weights)


def _run(sections: dict[str, Any]) -> None:
    for _ in run_chain(parse_chain(sections, where="student_retention"), RunOptions()):
        pass


def train(case: Case, labels: Path, rule: LabelConfig, arguments: argparse.Namespace, seed: int) -> StudentMethod:
    """A student after the same number of steps as every other."""
    torch.manual_seed(seed)
    known = labels_from_coco(labels, rule)
    shape = GPU if arguments.gpu else CPU | {"backbone": CPU_BACKBONES[case.name]}
    weights = arguments.backbone_weights or ("hub" if arguments.gpu else str(case.encoder))
    student = make_student(
        StudentConfig(model=arguments.model, **shape), len(known.categories), backbone_weights=weights
    )
    smallest, largest = GPU_SCALES if arguments.gpu else CPU_SCALES[case.name]
    augment = AugmentConfig(
        image_px=arguments.image_px, smallest_scale=smallest, largest_scale=largest, views=arguments.views
    )
    recipe = RecipeConfig(
        learning_rate=arguments.learning_rate, encoder_learning_rate=arguments.encoder_rate, ema=arguments.ema
    )
    method = StudentMethod(student, augment, recipe)
    config = FitConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=seed,
        device="cuda" if arguments.gpu else "cpu",
        precision="bf16" if arguments.gpu else "fp32",
        checkpoint_every=arguments.steps,
        loader_workers=8 if arguments.gpu else 0,
    )
    with tempfile.TemporaryDirectory() as folder:
        loader = SampleLoader(known.images, case.images)
        fit(method, loader, len(loader), Path(folder), config)
    return method


def test_px(case: str, arguments: argparse.Namespace) -> int:
    """Longer side of the images that a student is measured on."""
    return int(arguments.test_px or (GPU_TEST_PX if arguments.gpu else CPU_TEST_PX[case]))


def row(case: Case, setting: str, rule: LabelConfig, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """AP of one setting and seed on images that no setting has seen."""
    started = time.process_time()
    labels = case.truth if setting in ("full", "box") else case.pseudo
    method = train(case, labels, rule, arguments, seed)
    device = "cuda" if arguments.gpu else "cpu"
    student = method.average.to(device).eval()
    categories = labels_from_coco(case.truth, LabelConfig()).categories
    ap = evaluate_student(
        student, case.test_truth, case.test_images, categories, image_px=test_px(case.name, arguments)
    )
    counts = labels_from_coco(labels, rule).counts()
    figures = {"ap": ap.ap, "ap50": ap.ap50, "ap75": ap.ap75}
    return {"case": case.name, "setting": setting, "seed": seed, **figures, "retention": None, **counts} | {
        "steps": arguments.steps,
        "cpu_s": time.process_time() - started,
    }


def kept_row(
    kept: Path, case: Case, setting: str, rule: LabelConfig, arguments: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """The row of an earlier call with the same recipe, else a new one, which is kept."""
    path = kept / f"{case.name}-{arguments.steps}-{setting}-{seed}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    made = row(case, setting, rule, arguments, seed)
    path.write_text(json.dumps(made))
    return made


def with_retention(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with each one's AP as a share of the AP with true masks, same data and seed."""
    full = {(one["case"], one["seed"]): one["ap"] for one in rows if one["setting"] == "full"}
    for one in rows:
        whole = full.get((one["case"], one["seed"]))
        one["retention"] = one["ap"] / whole if whole else None
    return rows


def parse() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--cases", default="drawn,nuclei")
    parser.add_argument("--settings", default="all", help="names separated by commas")
    parser.add_argument("--thresholds", default="0.7", help="scores separated by commas")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--model", default="condinst")
    parser.add_argument("--backbone-weights", help="a file, hub or none; default: hub with --gpu, else the case's own")
    parser.add_argument("--steps", type=int, help="default: 6000 with --gpu, else 500")
    parser.add_argument("--batch-size", type=int, help="default: 16 with --gpu, else 4")
    parser.add_argument("--image-px", type=int, help="default: 512 with --gpu, else 256")
    parser.add_argument(
        "--test-px", type=int, help="longer side when measuring; default: 512 with --gpu, else 320 drawn, 448 nuclei"
    )
    parser.add_argument("--learning-rate", type=float, help="default: 4e-4 with --gpu, else 2e-3")
    parser.add_argument("--encoder-rate", type=float, help="default: 1e-4 with --gpu, else 1e-3")
    parser.add_argument("--views", help="default: strong with --gpu, else weak")
    parser.add_argument("--ema", type=float, help="default: 0.998 with --gpu, else 0.98")
    parser.add_argument("--scenes", type=int, default=60, help="drawn scenes to train on")
    parser.add_argument("--test-scenes", type=int, default=30)
    parser.add_argument("--teacher-epochs", type=float, default=3.0)
    parser.add_argument("--drawn-labels", type=Path, help="pseudo labels of the drawn scenes, as a COCO file")
    parser.add_argument("--nuclei-labels", type=Path, help="pseudo labels of boxes_train.json, as a COCO file")
    parser.add_argument("--keep", type=Path, help="folder for labels and rows, from which another call goes on")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    gpu = {"steps": 6000, "batch_size": 16, "image_px": 512, "learning_rate": 4e-4, "encoder_rate": 1e-4}
    cpu = {"steps": 500, "batch_size": 4, "image_px": 256, "learning_rate": 2e-3, "encoder_rate": 1e-3}
    gpu |= {"views": "strong", "ema": 0.998}
    cpu |= {"views": "weak", "ema": 0.98}
    for name, value in (gpu if arguments.gpu else cpu).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    seeds = [int(one) for one in arguments.seeds.split(",")]
    rules = settings([float(one) for one in arguments.thresholds.split(",")])
    names = list(rules) if arguments.settings == "all" else arguments.settings.split(",")
    rows = []
    with _folder(arguments.keep) as folder:
        for name in arguments.cases.split(","):
            make = {"drawn": drawn_case, "nuclei": nuclei_case}[name]
            case = make(folder / name, arguments)
            rows += [kept_row(folder, case, one, rules[one], arguments, seed) for seed in seeds for one in names]
    shape = "resnet50" if arguments.gpu else "small encoders (test_resnet on drawn scenes, mobilenet_v2 on nuclei)"
    measured = " and ".join(str(test_px(name, arguments)) for name in arguments.cases.split(","))
    size = f"{arguments.image_px} px ({measured} when measured), batch {arguments.batch_size}"
    on = f"{arguments.model} on {shape}, {size}"
    report("student_retention", with_retention(rows), on=on, seeds=seeds)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
