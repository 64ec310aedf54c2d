"""Candidates of the CondInst teachers (BoxInst, BoxTeacher, BoxSeg, SIM) for given boxes, or their own detections."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from pseudolabel.candidates import Candidate
from pseudolabel.condinst.batch import STRIDE, collate
from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.condinst.inference import MOST_DETECTIONS, candidates_for_boxes, detect
from pseudolabel.condinst.network import CondInst, Features
from pseudolabel.config import Config, option, parse_config
from pseudolabel.fusion.scoring import detection_rank
from pseudolabel.losses.boxes import box_cells, box_masks
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.teachers.base import TeacherInput, proposal
from pseudolabel.weights import load_weights_file

# A cell's logit is learned at the middle of pixel 4 i + 2, which is half a pixel right of and below the cell's middle.
GRID_SHIFT_PX = 0.5


class InputSize(Config):
    """To what size an image is brought before the network sees it."""

    short_px: int = option(800, "short side", ge=32)
    long_px: int = option(1333, "limit of the long side", ge=32)

    def factor(self, size_hw: tuple[int, int]) -> float:
        """What both sides are multiplied by."""
        return min(self.short_px / min(size_hw), self.long_px / max(size_hw))


@dataclass(frozen=True, slots=True)
class Resized:
    """An image at the network's size."""

    image: Float[Tensor, "3 h w"]
    factor_xy: tuple[float, float]


def resize_image(pixels: UInt8[np.ndarray, "h w 3"], size: InputSize) -> Resized:
    """The image bilinearly resized, antialiased where it shrinks."""
    height, width = pixels.shape[:2]
    factor = size.factor((height, width))
    target = max(round(height * factor), 1), max(round(width * factor), 1)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
    if target != (height, width):
        image = F.interpolate(image, target, mode="bilinear", antialias=True, align_corners=False).clamp(0, 255)
    return Resized(image[0], (target[1] / width, target[0] / height))


class CondInstTeacher:
    """A trained network that proposes up to `candidates` masks for every given box.

    A proposal for a given box is scored by the IoU of its own box with that one: what an IoU-aware class score has to
    guess is known here, and tells more about the mask (`qam_modules` in docs/results.md).

    Args:
        detections: most objects of an image without given boxes.
        names_classes: False for a network whose one class stands for all: its own detections are of no class.
    """

    def __init__(
        self,
        network: CondInst,
        size: InputSize,
        *,
        device: str,
        candidates: int,
        detections: int = MOST_DETECTIONS,
        names_classes: bool = True,
    ) -> None:
        self.network = network.to(device).eval()
        self.size, self.device, self.candidates = size, device, candidates
        self.detections, self.names_classes = detections, names_classes

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        """Candidates of every image; without given boxes, its detections."""
        return [self._of_image(one) for one in inputs]

    @torch.inference_mode()
    def _of_image(self, given: TeacherInput) -> list[Candidate]:
        resized = resize_image(given.pixels, self.size)
        batch = collate([resized.image]).to(self.device)
        features = self.network(batch.images)
        size_hw = (resized.image.shape[1], resized.image.shape[2])
        if not given.boxes:
            return self._detections(features, resized, size_hw)
        return self._for_boxes(features, given, resized, size_hw)

    def _for_boxes(
        self, features: Features, given: TeacherInput, resized: Resized, size_hw: tuple[int, int]
    ) -> list[Candidate]:
        boxes = torch.as_tensor(given.boxes_xyxy)
        scale = torch.tensor([*resized.factor_xy, *resized.factor_xy])
        found = candidates_for_boxes(
            features.dense,
            0,
            (boxes * scale).to(self.device),
            size_hw,
            k=self.candidates,
            min_iou=0.0,
        )
        index, place = found.ranking.valid.nonzero(as_tuple=True)
        location = found.location[index, place]
        masks = _planes(self._masks(features, location))
        predicted = (found.boxes[index, place].cpu() / scale).tolist()
        overlaps = found.box_iou[index, place].tolist()
        return [
            proposal(
                given.boxes[one],
                _four(box),
                overlap,
                overlap,
                cut_mask(mask, _four(boxes[one].tolist()), resized.factor_xy),
            )
            for one, box, overlap, mask in zip(index.tolist(), predicted, overlaps, masks, strict=True)
        ]

    def _detections(self, features: Features, resized: Resized, size_hw: tuple[int, int]) -> list[Candidate]:
        """What the network finds, best first by the geometric mean of its score and its mask's mean probability."""
        found = detect(features.dense, 0, size_hw, most=self.detections)
        soft = self._masks(features, found.location)
        grid_hw = (soft.shape[1], soft.shape[2])
        inside = box_masks(box_cells(found.boxes, grid_hw, stride=STRIDE), grid_hw)
        scores, order = detection_rank(found.scores, soft * inside).sort(descending=True, stable=True)
        scale = torch.tensor([*resized.factor_xy, *resized.factor_xy])
        boxes, planes = (found.boxes[order].cpu() / scale).tolist(), _planes(soft[order])
        labels = found.labels[order].tolist() if self.names_classes else [None] * len(boxes)
        return [
            proposal(None, _four(box), score, None, cut_mask(mask, _four(box), resized.factor_xy), class_index=label)
            for box, score, label, mask in zip(boxes, scores.tolist(), labels, planes, strict=True)
        ]

    def _masks(self, features: Features, location: Int64[Tensor, "n"]) -> Float[Tensor, "n h w"]:
        """Soft masks of these locations of the first image."""
        return self.network.mask_logits(features, torch.zeros_like(location), location).sigmoid()


def _planes(masks: Float[Tensor, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
    """The masks rounded on the device: a quarter of the bytes to bring over."""
    planes: UInt8[np.ndarray, "n h w"] = masks.mul(255).round().to(torch.uint8).cpu().numpy()
    return planes


def cut_mask(
    plane: UInt8[np.ndarray, "h w"], box_xyxy: tuple[float, float, float, float], factor_xy: tuple[float, float]
) -> SoftMask:
    """The cells of a stride-4 map that a box of the image touches, as a mask in the image's coordinates."""
    columns = _cells(box_xyxy[0], box_xyxy[2], factor_xy[0], plane.shape[1])
    rows = _cells(box_xyxy[1], box_xyxy[3], factor_xy[1], plane.shape[0])
    stride_x, stride_y = STRIDE / factor_xy[0], STRIDE / factor_xy[1]
    x0 = columns[0] * stride_x + GRID_SHIFT_PX / factor_xy[0]
    y0 = rows[0] * stride_y + GRID_SHIFT_PX / factor_xy[1]
    within = np.ix_(np.clip(rows, 0, plane.shape[0] - 1), np.clip(columns, 0, plane.shape[1] - 1))
    return SoftMask(Grid(float(x0), float(y0), stride_x, stride_y, len(rows), len(columns)), plane[within])


def _cells(low: float, high: float, factor: float, count: int) -> Int64[np.ndarray, "cells"]:
    """Numbers of the cells that an interval touches; one beyond either end repeats the outermost cell."""
    first = min(max(math.floor((low * factor - GRID_SHIFT_PX) / STRIDE), -1), count - 1)
    last = min(max(math.ceil((high * factor - GRID_SHIFT_PX) / STRIDE), first + 1), count + 1)
    return np.arange(first, last)


def _four(values: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = values
    return left, top, right, bottom


def load_condinst(
    weights: Path, config: Mapping[str, Any], *, device: str, candidates: int, detections: int | None = None
) -> CondInstTeacher:
    """The teacher that `train-teacher --method boxinst|boxteacher|boxseg|sim` wrote.

    Raises:
        ConfigError, InputError: the config or the weights are not those of such a teacher.
    """
    shape = {name: config["model"][name] for name in CondInstConfig.model_fields if name in config["model"]}
    model = parse_config(CondInstConfig, shape | {"backbone_weights": "none"}, where=str(weights))
    size = parse_config(InputSize, config["input"], where=str(weights))
    one_class = config["model"].get("class_agnostic", False)
    network = CondInst(model, 1 if one_class else len(config["categories"]))
    load_weights_file(network, weights)
    names_classes = not one_class or len(config["categories"]) == 1
    detections = detections or config["model"].get("detections", MOST_DETECTIONS)
    return CondInstTeacher(
        network, size, device=device, candidates=candidates, detections=detections, names_classes=names_classes
    )
