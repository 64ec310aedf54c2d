"""Box-supervised teachers against the same network with true masks, on microscopic images or on drawn scenes.

Trains on the boxes of 110 images (drawn: 120 scenes) and measures masks on 40 others: `mean_iou` of the best-fitting
candidate for each given box, cut to it, and `ap` of the network's own detections, at most 300 of an image. Beside it
stands what that is made of: `ap_any_class`, `box_ap`, `box_ap_any_class`, and how often the class of an object found is
right. Detectors learn the classes here, as the papers' do; `--change '{"class_agnostic": true}'` is what a run does.
`mean_iou_of` is the mean IoU for given boxes class by class; `mixed` has true masks of the classes SOME alone.

    python tests/benchmarks/box_teachers.py --out docs/results/box_teachers_nuclei.json      # CPU, the main rows
    python tests/benchmarks/box_teachers.py --set drawn --settings all --out docs/results/box_teachers_drawn.json
    python tests/benchmarks/box_teachers.py --settings all --gpu --steps 3000 --batch-size 8 --seeds 0,1,2
    python tests/benchmarks/box_teachers.py --set drawn --settings boxinst-tau-0,full-pairwise  # BoxInst's own tables
    python tests/benchmarks/box_teachers.py --set drawn --settings box,boxinst,mixed,mixed-masks-alone,full

Nuclei are enlarged to a short side of 512 px, and every step sees a random part of 256 px of each image: nuclei of
20 px have little to offer to a network whose finest grid is of 8 px. With `--out` every row is kept as soon as it is
there, and a row that the file has already is not made again, so that the table can be made one setting at a time.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import commit, report, script_parser, shared_folder

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.condinst.batch import Batch, Targets, check_targets, collate, resized_masks
from pseudolabel.condinst.network import CondInst
from pseudolabel.config import Config, unmet_needs
from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.images import load_image
from pseudolabel.masks import PixelMask, pixel_window, resample
from pseudolabel.metrics.coco_ap import mask_ap
from pseudolabel.metrics.detection import detection_figures
from pseudolabel.metrics.mask_iou import box_mask, object_ious
from pseudolabel.metrics.objects import Prediction, TrueObject, read_truth
from pseudolabel.pipelines.demo.scenes import CATEGORY_IDS, write_dataset
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.rle import decode, encode_crop
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.teachers.condinst.boxseg import BoxSeg
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxInstConfig, BoxSegConfig, BoxTeacherConfig, SimConfig
from pseudolabel.teachers.condinst.infer import CondInstTeacher, InputSize, resize_image
from pseudolabel.teachers.condinst.sim import Sim
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

# each row of BoxSeg's tables as what it changes
NO_QAM = {"ranking": "bpma", "copy_paste": False}
PC = {"tutor": "quality", "place": "overlapping", "pastes": 1, "paste_weight": 0.5}  # instead of SIM's own pasting
SOME = ["disc", "ring"]  # of drawn scenes' five: BoxInst's tables 6 and 7
MIXED = {"supervision": "mixed", "mask_classes": SOME}
SETTINGS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "projection": (BoxInst, BoxInstConfig, {"pairwise_weight": 0.0}),
    "boxinst": (BoxInst, BoxInstConfig, {}),
    "boxteacher": (BoxTeacher, BoxTeacherConfig, {}),
    "boxseg-no-qam": (BoxSeg, BoxSegConfig, NO_QAM),
    "boxseg-bqr": (BoxSeg, BoxSegConfig, {"fusion": "best", "score": "mcs", "copy_paste": False}),
    "boxseg-bqr-qmf": (BoxSeg, BoxSegConfig, {"fusion": "qmf", "score": "mcs", "copy_paste": False}),
    "boxseg-bqr-qmf-mqs": (BoxSeg, BoxSegConfig, {"copy_paste": False}),
    "boxseg": (BoxSeg, BoxSegConfig, {}),  # tutors of quality, over their peers
    "boxseg-quality-random": (BoxSeg, BoxSegConfig, {"place": "random"}),
    "boxseg-random-overlapping": (BoxSeg, BoxSegConfig, {"tutor": "random"}),
    "boxseg-random-random": (BoxSeg, BoxSegConfig, {"tutor": "random", "place": "random"}),
    "sim": (Sim, SimConfig, {}),
    "sim-pc": (Sim, SimConfig, PC),
    "sim-pc-qam": (Sim, SimConfig, PC | {"ranking": "bqr", "classification": "varifocal"}),
    "full": (BoxInst, BoxInstConfig, {"supervision": "masks"}),
    "full-pairwise": (BoxInst, BoxInstConfig, {"supervision": "masks", "mask_loss": "pairwise"}),
    "mixed": (BoxInst, BoxInstConfig, MIXED),
    "mixed-masks-alone": (BoxInst, BoxInstConfig, MIXED | {"projection_weight": 0.0, "pairwise_weight": 0.0}),
    "boxinst-tau-0": (BoxInst, BoxInstConfig, {"least_similarity": 0.0}),
    "boxinst-tau-0.3": (BoxInst, BoxInstConfig, {"least_similarity": 0.3}),
    "boxinst-theta-1": (BoxInst, BoxInstConfig, {"theta": 1.0}),
    "boxinst-dilation-1": (BoxInst, BoxInstConfig, {"dilation": 1}),
    "boxinst-dilation-3": (BoxInst, BoxInstConfig, {"dilation": 3}),
    "boxinst-size-5": (BoxInst, BoxInstConfig, {"neighbourhood": 5}),
}
CPU = {
    "channels": 64,
    "convs": 2,
    "mask_branch_channels": 64,
    "mask_branch_norm": "group",
    "learning_rate": 2e-3,
    "encoder_learning_rate": 1e-3,
    "ema": 0.98,
}
GPU = {"channels": 256, "convs": 4, "mask_branch_channels": 128, "mask_branch_norm": "batch", "ema": 0.999}
MAIN_ROWS = "box,projection,boxinst,boxteacher,boxseg,full"
COMMON = {"class_agnostic": False, "bottom_px": 0, "pairwise_warmup": 0.5, "teacher_from": 0.5, "teacher_warmup": 0.2}
OF_SET = {
    "nuclei": {"finest_px": 32, "window_px": 256, "detections": 300},
    "drawn": {},
}
ON = {"nuclei": "nuclei-dev", "drawn": "drawn scenes"}
NO_CLASS = 0
DETECTIONS = 300  # of an image
SHORT_PX = {"nuclei": 512, "drawn": 256}
DRAWN_SCENES = {"train": (120, 11), "val": (40, 12)}  # how many, from which seed


@dataclass(frozen=True)
class Picture:
    name: str
    pixels: np.ndarray
    objects: tuple[TrueObject, ...]

    def boxes_xyxy(self) -> np.ndarray:
        boxes = np.array([row.box_xywh for row in self.objects], dtype=np.float32).reshape(-1, 4)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


@dataclass(frozen=True)
class Data:
    """Images to learn from and images to measure on."""

    train: list[Picture]
    val: list[Picture]
    category_ids: list[int]
    names: dict[int, str] = field(default_factory=dict)  # of the classes that are to be measured one by one

    def labels(self, picture: Picture) -> np.ndarray:
        """The class of every object, counted from 0."""
        return np.array([self.category_ids.index(row.category_id) for row in picture.objects], dtype=np.int64)


def data_of(name: str) -> Data:
    names: dict[int, str] = {}
    if name == "nuclei":
        folder = shared_folder() / "data" / "nuclei-dev"
        parts = [pictures(folder / f"instances_{part}.json", folder / "images") for part in ("train", "val")]
    else:
        with tempfile.TemporaryDirectory() as scratch:
            names = {number: name for name, number in CATEGORY_IDS.items()}
            for part, (count, seed) in DRAWN_SCENES.items():
                write_dataset(Path(scratch) / part, count, seed)
            folders = [Path(scratch) / part for part in DRAWN_SCENES]
            parts = [pictures(folder / "instances.json", folder / "images") for folder in folders]
    ids = {row.category_id for part in parts for picture in part for row in picture.objects}
    return Data(*parts, sorted(ids), names)


def pictures(truth_file: Path, folder: Path) -> list[Picture]:
    content = read_coco(truth_file)
    truth = read_truth(content)
    names = {row["id"]: row["file_name"] for row in content["images"]}
    by_image: dict[int, list[TrueObject]] = {}
    for row in truth.objects:
        if not row.is_crowd and min(row.box_xywh[2:]) >= 2:
            by_image.setdefault(row.image_id, []).append(row)
    return [
        Picture(names[image], load_image(folder, names[image], rule=PixelRule("transpose")), tuple(rows))
        for image, rows in sorted(by_image.items())
    ]


class Loader:
    """Batches of a few resized images; true masks only where `masks_of` has an object's class."""

    def __init__(self, data: Data, size: InputSize, *, masks_of: Collection[int]) -> None:
        self.items = [self._item(data, picture, size, masks_of) for picture in data.train]
        self.heights = [picture.pixels.shape[0] for picture in data.train]
        self.names = [picture.name for picture in data.train]

    def __call__(self, places: Sequence[int]) -> Batch:
        images, targets = zip(*(self.items[place] for place in places), strict=True)
        heights, names = [self.heights[i] for i in places], [self.names[i] for i in places]
        return collate(list(images), list(targets), original_heights=heights, names=names)

    def _item(
        self, data: Data, picture: Picture, size: InputSize, masks_of: Collection[int]
    ) -> tuple[torch.Tensor, Targets]:
        resized = resize_image(picture.pixels, size)
        scale = np.tile(np.array(resized.factor_xy, dtype=np.float32), 2)
        boxes = torch.from_numpy(picture.boxes_xyxy() * scale)
        height, width = resized.image.shape[1:]
        masks = has_mask = None
        if masks_of:
            has_mask = torch.tensor([row.category_id in masks_of for row in picture.objects])
            full = torch.from_numpy(np.stack([decode(row.mask) for row in picture.objects]))
            masks = resized_masks(full, (height, width))
        targets = Targets(boxes, torch.from_numpy(data.labels(picture)), masks, has_mask)
        check_targets(targets, (height, width), len(data.category_ids), name=picture.name)
        return resized.image.to(torch.uint8), targets


def _of_use(config_class: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """The options that the method has and that do something beside the others."""
    known = {key: value for key, value in values.items() if key in config_class.model_fields}
    draft = config_class.model_construct(**known)
    return {key: value for key, value in known.items() if not unmet_needs(draft, key)}


def trained(
    setting: str, seed: int, arguments: argparse.Namespace, data: Data, size: InputSize
) -> tuple[CondInstTeacher, float]:
    method_class, config_class, changes = SETTINGS[setting]
    weights = str(shared_folder() / "weights" / "mobilenetv2_imagenet_fp16.safetensors")
    shape = (GPU if arguments.gpu else CPU) | COMMON | OF_SET[arguments.set]
    values = shape | json.loads(arguments.change) | changes  # what makes a setting stays
    values |= {"backbone_weights": weights, "image_px": arguments.short_px}
    config = config_class(**_of_use(config_class, values))
    torch.manual_seed(seed)
    method = method_class(CondInst(config, config.detector_classes(len(data.category_ids))), config)
    some = changes.get("mask_classes")
    told = [number for number, name in data.names.items() if name in some] if some else data.category_ids
    loader = Loader(data, size, masks_of=told if "supervision" in changes else ())
    settings = FitConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=seed,
        device="cuda" if arguments.gpu else "cpu",
        checkpoint_every=arguments.steps,
        precision=arguments.precision,
    )
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(method, loader, len(loader.items), Path(folder), settings)
    device = "cuda" if arguments.gpu else "cpu"
    return teacher_of(method.trained_network(), size, device, data), time.process_time() - start


def teacher_of(network: CondInst, size: InputSize, device: str, data: Data) -> CondInstTeacher:
    """The network as a teacher that gives one mask per box, and finds what there is in crowded images."""
    names = network.num_classes == len(data.category_ids)
    return CondInstTeacher(network, size, device=device, candidates=1, detections=DETECTIONS, names_classes=names)


def as_prediction(
    candidate: Candidate, box_xyxy: Sequence[float], row: tuple[int, int, int], size_hw: tuple[int, int]
) -> Prediction:
    """The candidate read at the pixels of a box, above one half."""
    left, top, right, bottom = box_xyxy
    window = pixel_window((left, top, right, bottom), size_hw)
    soft = resample(candidate.mask.probability.astype(np.float32) / 255, candidate.mask.grid, window)
    mask = encode_crop(PixelMask(int(window.x0), int(window.y0), soft > 0.5), size_hw)
    annotation, image, category = row
    return Prediction(annotation, image, category, mask, candidate.box_score, None)


def figures(teacher: CondInstTeacher, data: Data) -> dict[str, Any]:
    """Of the masks for given boxes, and of the network's own detections."""
    given, own = [], []
    for picture in data.val:
        size_hw, boxes = picture.pixels.shape[:2], picture.boxes_xyxy()
        image = picture.objects[0].image_id
        boxed = [
            replace(GivenBox.from_xyxy(place, target.category_id, box), class_index=label)
            for place, (target, box, label) in enumerate(
                zip(picture.objects, boxes.tolist(), data.labels(picture).tolist(), strict=True)
            )
        ]
        for one in teacher.predict([TeacherInput(picture.pixels, boxed)])[0]:
            assert one.annotation_id is not None
            target = picture.objects[one.annotation_id]
            row = (target.annotation_id, image, target.category_id)
            given.append(as_prediction(one, boxes[one.annotation_id].tolist(), row, size_hw))
        for number, one in enumerate(teacher.predict([TeacherInput(picture.pixels)])[0]):
            category = NO_CLASS if one.class_index is None else data.category_ids[one.class_index]
            found = as_prediction(one, one.box_xyxy, (number, image, category), size_hw)
            left, top, right, bottom = one.box_xyxy
            own.append(replace(found, source_box_xywh=(left, top, right - left, bottom - top)))
    objects = [row for picture in data.val for row in picture.objects]
    by_class = {}
    for number, name in data.names.items():
        those = [row for row in objects if row.category_id == number]
        by_class[f"mean_iou_of_{name}"] = float(object_ious(those, given).mean())
    return iou_figures(objects, given) | by_class | ap_figures(objects, own)


def ap_figures(objects: list[TrueObject], own: list[Prediction]) -> dict[str, Any]:
    """AP of own detections, and what it is made of; of detections of no class that whatever the class alone."""
    apart = detection_figures(objects, own, detections=DETECTIONS)
    if own and {one.category_id for one in own} == {NO_CLASS}:
        return {name: value for name, value in apart.items() if name.endswith("_any_class")}
    scores = mask_ap(objects, own, detections=DETECTIONS)
    return {"ap": scores.ap, "ap50": scores.ap50, "ap75": scores.ap75} | apart


def iou_figures(objects: list[TrueObject], found: list[Prediction]) -> dict[str, Any]:
    ious = object_ious(objects, found)
    over = {f"iou_over_{limit}": float((ious >= limit / 100).mean()) for limit in (50, 75)}
    return {"mean_iou": float(ious.mean()), **over, "n": len(ious)}


def box_row(found: list[Picture]) -> dict[str, Any]:
    """The given box as the mask."""
    predictions = [
        Prediction(
            row.annotation_id,
            row.image_id,
            row.category_id,
            box_mask(row.box_xywh, picture.pixels.shape[:2]),
            1.0,
            None,
        )
        for picture in found
        for row in picture.objects
    ]
    return {"setting": "box", **iou_figures([row for picture in found for row in picture.objects], predictions)}


def parsed() -> argparse.Namespace:
    parser = script_parser(__doc__)
    parser.add_argument("--set", default="nuclei", choices=list(OF_SET))
    parser.add_argument("--settings", default=MAIN_ROWS, help=f"all, or of box,{','.join(SETTINGS)}")
    parser.add_argument("--gpu", action="store_true", help="the large network, on CUDA")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--short-px", type=int, help="short side of the network's input; default: 512, drawn 256")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--precision", default="fp32", help="of the forward pass: bf16 or fp32")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--change", default="{}", help="JSON of options to train every setting with, to try them")
    arguments = parser.parse_args()
    arguments.short_px = arguments.short_px or SHORT_PX[arguments.set]
    return arguments


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    size = InputSize(short_px=arguments.short_px, long_px=2 * arguments.short_px)
    of_set = [name for name in SETTINGS if arguments.set == "drawn" or "mask_classes" not in SETTINGS[name][2]]
    wanted = ["box", *of_set] if arguments.settings == "all" else arguments.settings.split(",")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    data, table = data_of(arguments.set), Table(arguments)
    if "box" in wanted:
        table.add(box_row(data.val))
    for setting in (name for name in wanted if name != "box"):
        for seed in (one for one in seeds if not table.has(setting, one)):
            teacher, seconds = trained(setting, seed, arguments, data, size)
            table.add({"setting": setting, "seed": seed, **figures(teacher, data), "train_cpu_s": seconds})
    table.report()


class Table:
    """The rows so far, kept with each that comes; rows of a file that was begun the same way stay in it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        network = "large network on a GPU" if arguments.gpu else "small network on a CPU"
        batch = f"{arguments.steps} steps of {arguments.batch_size} at {arguments.short_px} px"
        self.on = f"{ON[arguments.set]}, {batch}, {network}"
        if arguments.change != "{}":
            self.on += f", with {arguments.change}"
        self.name = f"box_teachers_{arguments.set}"
        self.rows: list[dict[str, Any]] = []
        self.out: Path | None = arguments.out
        if arguments.out and arguments.out.exists():
            before = json.loads(arguments.out.read_text())
            if before["on"] != self.on:
                raise SystemExit(f"{arguments.out} is of another setting ({before['on']}): name another file")
            self.rows = [{**row, "commit": row.get("commit", before["commit"])} for row in before["rows"]]

    def has(self, setting: str, seed: int) -> bool:
        """Whether the file has this row already."""
        return (setting, seed) in {_key(one) for one in self.rows}

    def add(self, row: dict[str, Any]) -> None:
        """Put the row in the place of its setting and seed, and keep all rows."""
        order = ["box", *SETTINGS]
        self.rows = [one for one in self.rows if _key(one) != _key(row)] + [row | {"commit": commit()}]
        self.rows.sort(key=lambda one: (order.index(one["setting"]), one.get("seed", 0)))
        if self.out:
            self.report()

    def report(self) -> None:
        """Print the table, and write it where `--out` says."""
        seeds = sorted({one["seed"] for one in self.rows if "seed" in one})
        report(self.name, self.rows, on=self.on, seeds=seeds)


def _key(row: dict[str, Any]) -> tuple[str, int | None]:
    return row["setting"], row.get("seed")


if __name__ == "__main__":
    main()
