"""What each part of the Quality-Aware Module brings where it acts: on the proposals of one frozen network.

A small network is trained on boxes alone (BoxInst's losses, IoU-aware scores, one class) and frozen. Every row makes
one mask per given box out of the same dense proposals. `covered` is the share of the objects that a row has a mask for;
`mean_iou`, `over_75` and the rank correlations of score and IoU are of the objects for which all rows have one;
`with_boxes` is of all objects, the box standing in where there is no mask. A gain is over the row that differs in one
part (`over`), in IoU, with the 95 % interval of a bootstrap over images; so is `mqs_gain`, of rank by MQS over MCS.

    python tests/benchmarks/qam_modules.py --set drawn --out docs/results/qam_modules_drawn.json
    python tests/benchmarks/qam_modules.py --set nuclei --keep nuclei.pt

`--keep` names a file that takes the trained network, or gives it where it is there already. Of coco-dev the network is
asked about the images that it learned from, as a run's teacher is.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from box_teachers import COMMON, CPU, OF_SET, Data, Loader, Picture, _of_use, data_of, pictures
from harness import report, script_parser, shared_folder
from torch import Tensor
from torchvision.ops import box_iou

from pseudolabel.condinst.batch import STRIDE, collate
from pseudolabel.condinst.inference import candidates_for_boxes, detect
from pseudolabel.condinst.network import CondInst, Features
from pseudolabel.condinst.ranking import bpma
from pseudolabel.fusion.fuse import passing, qmf_weights
from pseudolabel.fusion.matching import adaptive_k
from pseudolabel.fusion.quality_aware import FusionRule, candidate_weights, fuse_masks, quality_of
from pseudolabel.fusion.scoring import detection_rank
from pseudolabel.losses.boxes import box_cells, box_masks
from pseudolabel.masks import PixelMask, pixel_window, resample
from pseudolabel.metrics.calibration import bootstrap_interval, spearman
from pseudolabel.metrics.mask_iou import box_mask, rle_iou
from pseudolabel.rle import Rle, encode_crop
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.teachers.condinst.config import BoxInstConfig
from pseudolabel.teachers.condinst.infer import InputSize, cut_mask, resize_image
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

MOST = 20  # proposals of an object
MIN_IOU = 0.5
SHORT_PX = {"drawn": 512, "nuclei": 768, "coco-dev": 512}
ON = {"drawn": "40 drawn scenes", "nuclei": "40 images of nuclei-dev", "coco-dev": "142 images of coco-dev"}
TRAINING = {
    "class_agnostic": True, "window_px": 256, "least_similarity": 0.1, "classification": "varifocal", "finest_px": 32,
    "pairwise_warmup": 0.3,
}  # fmt: skip
SCORES = ("mcs", "mqs", "code")


@dataclass(frozen=True)
class Proposals:
    """What the frozen network says about the n objects of one image, on the mask grid."""

    probability: Tensor  # (n, MOST, h, w), of the locations whose boxes fit best
    box_score: Tensor  # (n, MOST), IoU-aware
    centerness: Tensor  # (n, MOST)
    box_iou: Tensor  # (n, MOST), falling
    area_px: Tensor  # (n,), of the boxes at the network's size
    inside: Tensor  # (n, h, w), the boxes' cells
    assigned: Tensor  # (n, 1, h, w), the detection that BPMA gives each object, cut to its own box
    assigned_score: Tensor  # (n, 1); 0 where there is none


@dataclass(frozen=True)
class Answer:
    """A row's masks of one image's objects: soft, above one half; and their scores by name."""

    soft: Tensor  # (n, h, w)
    scores: dict[str, Tensor]
    there: Tensor  # (n,) bool


Row = Callable[[Proposals], Answer]


# --- the rows ---------------------------------------------------------------------------------------------------------


def fused(k: int | None, fusion: str, *, scored_by: str = "IoU-aware score") -> Row:
    """QMF, vote, best or plain mean of `k` proposals (None: 2 to 10 by area), which count by a score of their boxes."""

    def make(found: Proposals) -> Answer:
        place = torch.arange(MOST)
        wanted = adaptive_k(found.area_px)[:, None] if k is None else torch.tensor(k)
        valid = (found.box_iou >= MIN_IOU) & (place < wanted)
        return _answer(found.probability, BOX_SCORES[scored_by](found), found.box_iou, valid, found.inside, fusion)

    return make


BOX_SCORES: dict[str, Callable[[Proposals], Tensor]] = {
    "IoU-aware score": lambda found: found.box_score,
    "IoU-aware score and centreness": lambda found: (found.box_score * found.centerness).sqrt(),
    "box IoU and centreness": lambda found: (found.box_iou * found.centerness).sqrt(),
    "box IoU": lambda found: found.box_iou,
}


def assigned(found: Proposals) -> Answer:
    """BoxTeacher's: one detection per object."""
    valid = found.assigned_score > 0
    return _answer(
        found.assigned, found.assigned_score, torch.ones_like(found.assigned_score), valid, found.inside, "best"
    )


def _answer(
    probability: Tensor, box_score: Tensor, overlap: Tensor, valid: Tensor, inside: Tensor, fusion: str
) -> Answer:
    rule = FusionRule("qmf" if fusion == "mean" else fusion)
    kept = passing(box_score, valid, tau_box=rule.tau_box)
    weights = candidate_weights(box_score, overlap, kept, rule)
    if fusion == "mean":
        weights = qmf_weights(torch.ones_like(box_score), kept)
    soft = fuse_masks(probability, weights, kept, rule)
    scores = {
        name: quality_of(soft, probability, box_score, kept, inside, replace(rule, score=name)).score for name in SCORES
    }
    return Answer(soft, scores, kept.any(dim=1) & ((soft > 0.5) & inside).flatten(1).any(dim=1))


# what is compared, and with which other row
ROWS: dict[str, tuple[Row, str]] = {
    "BPMA": (assigned, ""),
    "BQR, best of 1": (fused(1, "best"), "BPMA"),
    "BQR, best of 10": (fused(10, "best"), "BQR, best of 1"),
    "plain mean of 10": (fused(10, "mean"), "BQR, best of 10"),
    "QMF of 10": (fused(10, "qmf"), "plain mean of 10"),
    "QMF of 2": (fused(2, "qmf"), "QMF of 10"),
    "QMF of 5": (fused(5, "qmf"), "QMF of 10"),
    "QMF of 20": (fused(20, "qmf"), "QMF of 10"),
    "QMF of 2 to 10 by area": (fused(None, "qmf"), "QMF of 10"),
    "vote of 20": (fused(20, "vote"), "QMF of 20"),
    **{
        f"QMF of 10, scored by {name}": (fused(10, "qmf", scored_by=name), "QMF of 10") for name in list(BOX_SCORES)[1:]
    },
}
ORACLE = "the best of 10 by its true IoU"


# --- network and data -------------------------------------------------------------------------------------------------


def data_for(name: str) -> Data:
    """Images to learn from and to measure on."""
    if name != "coco-dev":
        return data_of(name)
    folder = shared_folder() / "data" / "coco-dev"
    found = pictures(folder / "instances.json", folder / "images")
    ids = {row.category_id for picture in found for row in picture.objects}
    return Data(found, found, sorted(ids))


def frozen(arguments: argparse.Namespace, data: Data, size: InputSize) -> CondInst:
    """The network that all rows ask, of `--keep` or trained now."""
    weights = str(shared_folder() / "weights" / "mobilenetv2_imagenet_fp16.safetensors")
    values = _of_use(BoxInstConfig, CPU | COMMON | OF_SET.get(arguments.set, {}) | TRAINING)
    config = BoxInstConfig(**values, backbone_weights=weights)
    torch.manual_seed(arguments.seed)
    network = CondInst(config, config.detector_classes(len(data.category_ids)))
    recipe = f"{arguments.set}, {arguments.steps} steps at {size.short_px} px, seed {arguments.seed}, {values}"
    if arguments.keep and arguments.keep.exists():
        kept = torch.load(arguments.keep, weights_only=True)
        if kept["recipe"] != recipe:
            raise SystemExit(f"{arguments.keep} is of another training ({kept['recipe']}): name another file")
        network.load_state_dict(kept["weights"])
        return network.eval()
    loader = Loader(data, size, masks_of=())
    settings = FitConfig(
        steps=arguments.steps, batch_size=4, seed=arguments.seed, device="cpu", checkpoint_every=arguments.steps
    )
    with TemporaryDirectory() as folder:
        fit(BoxInst(network, config), loader, len(loader.items), Path(folder), settings)
    if arguments.keep:
        torch.save({"recipe": recipe, "weights": network.state_dict()}, arguments.keep)
    return network.eval()


@torch.inference_mode()
def proposals(network: CondInst, picture: Picture, size: InputSize) -> tuple[Proposals, tuple[float, float]]:
    """What the network says about a picture's objects, and by how much the picture was enlarged."""
    resized = resize_image(picture.pixels, size)
    size_hw = (resized.image.shape[1], resized.image.shape[2])
    batch = collate([resized.image])
    features = network(batch.images)
    boxes = torch.from_numpy(picture.boxes_xyxy()) * torch.tensor([*resized.factor_xy, *resized.factor_xy])
    found = candidates_for_boxes(features.dense, 0, boxes, size_hw, k=MOST, min_iou=0.0)
    inside = box_masks(box_cells(boxes, batch.grid_hw, stride=STRIDE), batch.grid_hw)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    masks = _masks(network, features, found.location.flatten()).view(*found.location.shape, *batch.grid_hw)
    centerness = features.dense.centerness[0].sigmoid()[found.location]
    own, score = _assigned(network, features, boxes, size_hw, batch.grid_hw)
    every = Proposals(masks, found.scores, centerness, found.box_iou, area, inside, own, score)
    return every, resized.factor_xy


def _assigned(
    network: CondInst, features: Features, boxes: Tensor, size_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Mask and score of the detection that BPMA gives each box; score 0 where there is none."""
    found = detect(features.dense, 0, size_hw, most=300)
    if not len(found.boxes):
        return torch.zeros(len(boxes), 1, *grid_hw), torch.zeros(len(boxes), 1)
    masks = _masks(network, features, found.location)
    masks = masks * box_masks(box_cells(found.boxes, grid_hw, stride=STRIDE), grid_hw)
    chosen = bpma(box_iou(boxes, found.boxes), detection_rank(found.scores, masks), min_iou=MIN_IOU)
    place = chosen.clamp(min=0)
    return masks[place, None], (found.scores[place] * (chosen >= 0))[:, None]


def _masks(network: CondInst, features: Features, location: Tensor) -> Tensor:
    return network.mask_logits(features, torch.zeros_like(location), location).sigmoid()


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """A row's outcome for every object of all images."""

    iou: np.ndarray  # 0 where there is no mask
    there: np.ndarray
    scores: dict[str, np.ndarray]


def measured(network: CondInst, data: Data, size: InputSize) -> tuple[dict[str, Measured], np.ndarray, np.ndarray]:
    """Every row's outcome; the IoU of each object's box with it, and each object's image."""
    found: dict[str, list[Measured]] = {name: [] for name in (*ROWS, ORACLE)}
    boxes, images = [], []
    for picture in data.val:
        said, factor_xy = proposals(network, picture, size)
        for name, (row, _) in ROWS.items():
            answer = row(said)
            ious = _ious(picture, answer.soft, factor_xy)
            there = answer.there.numpy()
            scores = {score: values.numpy().astype(np.float64) for score, values in answer.scores.items()}
            found[name].append(Measured(ious * there, there, scores))
        found[ORACLE].append(_oracle(picture, said, factor_xy))
        size_hw = picture.pixels.shape[:2]
        boxes += [rle_iou(one.mask, box_mask(one.box_xywh, size_hw)) for one in picture.objects]
        images += [picture.objects[0].image_id] * len(picture.objects)
    return {name: _joined(parts) for name, parts in found.items()}, np.array(boxes), np.array(images)


def _joined(parts: Sequence[Measured]) -> Measured:
    names = parts[0].scores
    scores = {name: np.concatenate([one.scores[name] for one in parts]) for name in names}
    return Measured(np.concatenate([one.iou for one in parts]), np.concatenate([one.there for one in parts]), scores)


def _oracle(picture: Picture, said: Proposals, factor_xy: tuple[float, float]) -> Measured:
    usable = (said.box_iou[:, :10] >= MIN_IOU).numpy()
    ious = np.stack([_ious(picture, said.probability[:, place], factor_xy) for place in range(10)], axis=1) * usable
    return Measured(ious.max(axis=1), usable.any(axis=1), {})


def _ious(picture: Picture, soft: Tensor, factor_xy: tuple[float, float]) -> np.ndarray:
    """IoU of every object with its soft mask read at the pixels of its box."""
    planes = soft.mul(255).round().to(torch.uint8).numpy()
    size_hw = picture.pixels.shape[:2]
    pairs = zip(picture.objects, picture.boxes_xyxy().tolist(), planes, strict=True)
    return np.array([rle_iou(one.mask, _read(plane, box, factor_xy, size_hw)) for one, box, plane in pairs])


def _read(plane: np.ndarray, box: Sequence[float], factor_xy: tuple[float, float], size_hw: tuple[int, int]) -> Rle:
    left, top, right, bottom = box
    mask = cut_mask(plane, (left, top, right, bottom), factor_xy)
    window = pixel_window((left, top, right, bottom), size_hw)
    pixels = resample(mask.probability.astype(np.float32) / 255, mask.grid, window) > 0.5
    return encode_crop(PixelMask(int(window.x0), int(window.y0), pixels), size_hw)


def rows_of(found: dict[str, Measured], boxes: np.ndarray, images: np.ndarray) -> Iterator[dict[str, Any]]:
    """The table's rows: the box, every rule, and what no rule could do better."""
    common = np.logical_and.reduce([one.there for one in found.values()])
    yield {"masks": "the box", "covered": 1.0, "mean_iou": boxes[common].mean(), "with_boxes": boxes.mean()}
    for name, one in found.items():
        row: dict[str, Any] = {
            "masks": name,
            "covered": one.there.mean(),
            "mean_iou": one.iou[common].mean(),
            "over_75": (one.iou[common] > 0.75).mean(),
            "with_boxes": np.where(one.there, one.iou, boxes).mean(),
        }
        row |= {f"rank_{score}": spearman(values[common], one.iou[common]) for score, values in one.scores.items()}
        if one.scores:
            row |= _interval("mqs_gain", _rank_gain(one, common), images[common])
        over = ROWS[name][1] if name in ROWS else "QMF of 10"
        if over:
            gain = (one.iou - found[over].iou)[common]
            row |= {"over": over, **_interval("gain", lambda rows, gain=gain: float(gain[rows].mean()), images[common])}
        yield {key: float(value) if isinstance(value, np.floating) else value for key, value in row.items()}


def _rank_gain(one: Measured, common: np.ndarray) -> Callable[[np.ndarray], float]:
    iou, mcs, mqs = one.iou[common], one.scores["mcs"][common], one.scores["mqs"][common]
    return lambda rows: (spearman(mqs[rows], iou[rows]) or 0.0) - (spearman(mcs[rows], iou[rows]) or 0.0)


def _interval(name: str, statistic: Callable[[np.ndarray], float], images: np.ndarray) -> dict[str, Any]:
    low, high = bootstrap_interval(statistic, images, repeats=500)
    return {name: statistic(np.arange(len(images))), f"{name}_low": low, f"{name}_high": high}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", default="drawn", choices=list(ON))
    parser.add_argument("--steps", type=int, default=500, help="of the network's training, 4 windows of 256 px each")
    parser.add_argument("--short-px", type=int, help="short side of the images; default: 512, nuclei 768")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file of the trained network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    short_px = arguments.short_px or SHORT_PX[arguments.set]
    size, data = InputSize(short_px=short_px, long_px=2 * short_px), data_for(arguments.set)
    network = frozen(arguments, data, size)
    trained = f"{arguments.steps} steps at {short_px} px"
    rows = list(rows_of(*measured(network, data, size)))
    objects = sum(len(picture.objects) for picture in data.val)
    on = f"{ON[arguments.set]}, {objects} objects, network of {trained}"
    report(f"qam_modules_{arguments.set}", rows, on=on, seeds=[arguments.seed])


if __name__ == "__main__":
    main()
