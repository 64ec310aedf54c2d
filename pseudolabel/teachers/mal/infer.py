"""Candidates of the box-conditioned teacher: each box is looked at several times, and every look is a candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.config import parse_config
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.teachers.base import TeacherInput, proposal
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.crops import (
    CropBatch,
    claimed,
    cut_canvases,
    neighbour_boxes,
    sample_views,
    take,
    widened,
)
from pseudolabel.teachers.mal.method import LEAST_ROOM_PX, mask_quality
from pseudolabel.teachers.mal.network import STRIDE, MalNetwork, build_network
from pseudolabel.weights import load_weights_file

ROOM_STEPS = (0.0, 1.0, -1.0, 0.5, -0.5)  # shares of the jitter that training knew; each as it is and mirrored
FIRST_VIEWS = 2  # of the masks that other objects are told of
MOST_VIEWS = 2 * len(ROOM_STEPS)
OBJECTS_PER_BATCH = 16
MOST_PER_BATCH = 256  # on a GPU, which 16 would leave idle


@dataclass(frozen=True, slots=True)
class Looks:
    """The masks of a batch of objects, one per view, on grids that cover exactly the boxes."""

    probability: Float[Tensor, "v b h w"]
    quality: Float[Tensor, "v b"]
    boxes: Float[Tensor, "v b 4"]  # tight around each mask, image pixels
    box_iou: Float[Tensor, "v b"]


class MalTeacher:
    """The trained network, which looks at every box in `views` ways."""

    def __init__(self, network: MalNetwork, config: MalConfig, *, device: str, views: int) -> None:
        self.network = network.to(device).eval()
        self.config, self.device, self.views = config, device, min(views, MOST_VIEWS)

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        """`views` candidates for every given box, box by box; a mask's own tight box is the candidate's box."""
        if not any(one.boxes for one in inputs):
            return [[] for _ in inputs]
        counts = [len(one.boxes) for one in inputs]
        batch = self._with_claims(object_batch(inputs, self.config.canvas_px), counts)
        image_of = [(image, place) for image, one in enumerate(inputs) for place in range(len(one.boxes))]
        result: list[list[Candidate]] = [[] for _ in inputs]
        size = objects_per_batch(len(image_of), self.device)
        for first in range(0, len(image_of), size):
            wanted = torch.arange(first, first + size)
            looks = _on_host(self.look(take(batch, wanted.clamp(max=len(image_of) - 1), self.device)))
            for index, (image, place) in enumerate(image_of[first : first + size]):
                result[image] += _candidates(looks, index, inputs[image].boxes[place], batch.boxes[first + index])
        return result

    @torch.inference_mode()
    def _with_claims(self, batch: CropBatch, counts: Sequence[int]) -> CropBatch:
        """The objects told what other masks of their image cover, by a first look at those whose boxes overlap.

        Args:
            counts: of the objects of each image.
        """
        crowded = (batch.others[..., 2] > batch.others[..., 0]).any(dim=1).nonzero()[:, 0]
        if not len(crowded):
            return batch
        cells = self.config.crop_px // STRIDE
        masks = torch.zeros(len(batch.boxes), cells, cells, device=self.device)
        size = objects_per_batch(len(crowded), self.device)
        for first in range(0, len(crowded), size):
            places = crowded[torch.arange(first, first + size).clamp(max=len(crowded) - 1)]
            some = take(batch, places, self.device)
            looks = torch.stack([self._view(some, number) for number in range(FIRST_VIEWS)])
            masks[places.to(self.device)] = looks.mean(dim=0)
        by_image = zip(torch.split(batch.boxes, list(counts)), torch.split(masks, list(counts)), strict=True)
        return replace(batch, claims=torch.cat([claimed(boxes, boxes, own) for boxes, own in by_image]))

    @torch.inference_mode()
    def look(self, batch: CropBatch) -> Looks:
        """Masks of a batch in all views."""
        seen = [self._view(batch, number) for number in range(self.views)]
        probability = torch.stack(seen)
        side = probability.shape[-1]
        cells = torch.tensor([0, 0, side, side], device=probability.device).expand(len(batch.boxes), 4)
        quality = torch.stack([mask_quality(one, cells) for one in seen])
        boxes = torch.stack([_tight_boxes(one, batch.boxes) for one in seen])
        overlap = torch.stack([box_iou(one, batch.boxes).diagonal() for one in boxes])
        return Looks(probability, quality, boxes, overlap)

    def _view(self, batch: CropBatch, number: int) -> Float[Tensor, "b h w"]:
        """Probabilities on a grid over the box, as crop number `number` shows it."""
        config, mirrored = self.config, bool(number % 2)
        room = max(config.room + ROOM_STEPS[number // 2] * config.room_jitter, 0.05)
        rect = widened(batch.boxes, room, least_px=LEAST_ROOM_PX)
        flip = torch.full((len(rect),), mirrored, device=rect.device)
        views = sample_views(batch, rect, flip, config.crop_px)
        probability = self.network(views.rgb, views.cues).sigmoid()
        return _box_part(probability.flip(2) if mirrored else probability, batch.boxes, rect)


def objects_per_batch(count: int, device: str) -> int:
    """How many objects go through the network at once: always as many on a CPU, so that its bits stay the same.

    On a GPU all of the call, in steps of 16 so that there are few shapes, and at most 256.
    """
    if device == "cpu":
        return OBJECTS_PER_BATCH
    return min(-(-count // OBJECTS_PER_BATCH) * OBJECTS_PER_BATCH, MOST_PER_BATCH)


def load_mal(
    weights: Path, config: Mapping[str, Any], *, device: str, candidates: int, detections: int | None = None
) -> MalTeacher:
    """The teacher that `train-teacher --method mal` wrote; it finds nothing of its own accord.

    Raises:
        ConfigError, InputError: the config or the weights are not those of such a teacher.
    """
    del detections
    model = parse_config(MalConfig, config["model"], where=str(weights))
    network = build_network(model.backbone, "none", width=model.width)
    load_weights_file(network, weights)
    return MalTeacher(network, model, device=device, views=candidates)


def object_batch(inputs: Sequence[TeacherInput], canvas_px: int) -> CropBatch:
    """All objects of some images, canvases cut."""
    canvases, boxes, others, rivals, sizes, names = [], [], [], [], [], []
    for number, one in enumerate(inputs):
        given = torch.as_tensor(one.boxes_xyxy, dtype=torch.float32).reshape(-1, 4)
        canvases.append(cut_canvases(one.pixels, given, canvas_px))
        boxes.append(given)
        near, same = neighbour_boxes(given, torch.from_numpy(one.category_ids))
        others.append(near)
        rivals.append(same)
        height, width = one.pixels.shape[:2]
        sizes.append(torch.tensor([[width, height]], dtype=torch.float32).expand(len(given), 2))
        names += [str(number)] * len(given)
    pixels, all_boxes = torch.cat(canvases), torch.cat(boxes)
    return CropBatch(pixels, all_boxes, torch.cat(others), torch.cat(rivals), torch.cat(sizes), tuple(names))


def _box_part(
    probability: Float[Tensor, "b h w"], boxes: Float[Tensor, "b 4"], rect: Float[Tensor, "b 4"]
) -> Float[Tensor, "b h w"]:
    """The mask over the box alone, on as many cells."""
    span = rect[:, 2:] - rect[:, :2]
    theta = torch.zeros(len(boxes), 2, 3, device=boxes.device)
    theta[:, 0, 0], theta[:, 1, 1] = ((boxes[:, 2:] - boxes[:, :2]) / span).unbind(1)
    theta[:, :, 2] = (boxes[:, 2:] + boxes[:, :2] - rect[:, 2:] - rect[:, :2]) / span
    grid = F.affine_grid(theta, [len(boxes), 1, *probability.shape[1:]], align_corners=False)
    return F.grid_sample(probability[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _tight_boxes(probability: Float[Tensor, "b h w"], boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
    """The rectangle around the cells above one half, in image pixels; the whole box where there is none."""
    sides = []
    for axis in (1, 2):
        shadow = (probability > 0.5).any(dim=axis)
        shadow = shadow | ~shadow.any(dim=1, keepdim=True)
        count = shadow.shape[1]
        position = torch.arange(count, device=boxes.device)
        low = torch.where(shadow, position, count).amin(dim=1) / count
        high = (torch.where(shadow, position, -1).amax(dim=1) + 1) / count
        sides.append((low, high))
    (left, right), (top, bottom) = sides
    corner, span = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    low_corner = corner + span * torch.stack([left, top], dim=1)
    return torch.cat([low_corner, corner + span * torch.stack([right, bottom], dim=1)], dim=1)


@dataclass(frozen=True, slots=True)
class _HostLooks:
    """`Looks` as candidates are made of them, brought over for the whole batch at once."""

    planes: UInt8[np.ndarray, "v b h w"]
    quality: Float[Tensor, "v b"]
    boxes: Float[Tensor, "v b 4"]
    box_iou: Float[Tensor, "v b"]


def _on_host(looks: Looks) -> _HostLooks:
    planes = looks.probability.mul(255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return _HostLooks(planes, looks.quality.cpu(), looks.boxes.cpu(), looks.box_iou.cpu())


def _candidates(looks: _HostLooks, index: int, given: GivenBox, box: Float[Tensor, "4"]) -> list[Candidate]:
    scores, overlaps = looks.quality[:, index].tolist(), looks.box_iou[:, index].tolist()
    boxes: list[tuple[float, float, float, float]] = [tuple(one) for one in looks.boxes[:, index].tolist()]
    return [
        proposal(given, boxes[view], scores[view], overlaps[view], _soft_mask(plane, box.tolist()))
        for view, plane in enumerate(looks.planes[:, index])
    ]


def _soft_mask(plane: UInt8[np.ndarray, "h w"], box: list[float]) -> SoftMask:
    height, width = plane.shape
    return SoftMask(Grid(box[0], box[1], (box[2] - box[0]) / width, (box[3] - box[1]) / height, height, width), plane)
