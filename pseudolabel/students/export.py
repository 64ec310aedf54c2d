"""Students as graphs of fixed shape: ONNX for any runtime, and torch.export.

Input: `image`, float32 (1, 3, S, S), RGB from 0 to 255, content at the top left, zeros beyond it. Outputs, best first:
`boxes` (k, 4) in pixels, `labels` (k) as places in the config's categories, `scores` (k), 0 where there is no object,
and `masks`, probabilities: (k, S/4, S/4) over the image, of Mask R-CNN (k, 28, 28) over the box. Which, and how a mask
is enlarged, stands in the graph's sidecar.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from pseudolabel.condinst.batch import STRIDE
from pseudolabel.condinst.fcos import Locations, decode
from pseudolabel.condinst.mask_head import FEATURE_STRIDE, upsample_masks
from pseudolabel.errors import ConfigError, MachineError
from pseudolabel.files import atomic_file, atomic_path, write_text_atomically
from pseudolabel.students.base import Student
from pseudolabel.students.condinst import NMS_IOU, CondInstStudent
from pseudolabel.students.export_mask_rcnn import MaskRcnnGraph
from pseudolabel.students.mask_rcnn import MaskRcnnStudent
from pseudolabel.students.query import QueryStudent
from pseudolabel.students.save import TrainedStudent
from pseudolabel.students.suppression import greedy

OUTPUTS = ("boxes", "labels", "scores", "masks")
MAX_DIFFERENCE = 1e-3  # between ONNX Runtime and torch, of scores and mask probabilities
_CANDIDATES = 200  # before suppression

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


class CondInstGraph(nn.Module):
    """CondInst from image to masks without a shape that depends on what is seen."""

    xy: Tensor
    stride: Tensor
    level: Tensor
    size_of_interest: Tensor

    def __init__(self, student: CondInstStudent, side_px: int) -> None:
        super().__init__()
        self.network, self.config = student.network, student.config
        with torch.no_grad():
            locations = self.network(torch.zeros(1, 3, side_px, side_px)).dense.locations
        self.sizes_hw = locations.sizes_hw
        for name in ("xy", "stride", "level", "size_of_interest"):
            self.register_buffer(name, getattr(locations, name).clone(), persistent=False)

    def forward(self, image: Float[Tensor, "1 3 S S"]) -> Outputs:
        pyramid = self.network.pyramid(image)
        head = self.network.head
        towers = [head.box_tower(level) for level in pyramid]
        logits = _rows([head.classes(head.class_tower(level)) for level in pyramid])
        ltrb = _rows([F.relu(head.scales[place] * head.box(tower)) for place, tower in enumerate(towers)])
        centerness = _rows([head.centerness(tower) for tower in towers])
        location, label, score = self._best(logits.sigmoid() * centerness.sigmoid())
        boxes = decode(ltrb, Locations(self.sizes_hw, self.xy, self.stride, self.level))[location]
        boxes = boxes.clamp(min=0.0, max=float(image.shape[2]))
        kept = greedy(box_iou(boxes, boxes), label, limit=NMS_IOU) & (score > self.config.least_score)
        final, order = (score * kept).topk(min(self.config.detections, len(score)))
        parameters = _rows([head.controller(tower) for tower in towers])[location[order]]
        masks = self._masks(self.network.mask_branch(pyramid[:3])[0], parameters, location[order])
        return boxes[order], label[order], final.sqrt(), masks

    def _best(self, product: Float[Tensor, "l c"]) -> tuple[Tensor, Tensor, Tensor]:
        score, best = product.flatten().topk(min(_CANDIDATES, product.numel()))
        return torch.div(best, product.shape[1], rounding_mode="floor"), best % product.shape[1], score

    def _masks(
        self, features: Float[Tensor, "m h w"], parameters: Float[Tensor, "n p"], location: Int[Tensor, "n"]
    ) -> Float[Tensor, "n H W"]:
        """The dynamic head as its paper writes it: features and relative coordinates through three layers."""
        shape, (channels, h, w) = self.network.head_shape, features.shape
        step = torch.arange(h * w, device=features.device)
        cells = torch.stack([step % w, torch.div(step, w, rounding_mode="floor")]) * FEATURE_STRIDE
        relative = (self.xy[location][..., None] - (cells + FEATURE_STRIDE // 2)) / self.size_of_interest[location][
            :, None, None
        ]
        count, inner = len(parameters), shape.channels
        x = torch.cat([features.flatten(1).expand(count, channels, h * w), relative], dim=1)
        one, two, three, bias = torch.split(parameters, [*shape.weights, 2 * inner + 1], dim=1)
        x = F.relu(one.view(count, inner, channels + 2) @ x + bias[:, :inner, None])
        x = F.relu(two.view(count, inner, inner) @ x + bias[:, inner : 2 * inner, None])
        x = three.view(count, 1, inner) @ x + bias[:, 2 * inner :, None]
        return upsample_masks(x.view(count, h, w)).sigmoid()


class QueryGraph(nn.Module):
    """The query student's last word."""

    def __init__(self, student: QueryStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, image: Float[Tensor, "1 3 S S"]) -> Outputs:
        said = self.student(image)[-1]
        score, label = said.classes[0].softmax(dim=1)[:, :-1].max(dim=1)
        large = F.interpolate(said.masks, scale_factor=STRIDE, mode="bilinear")[0]
        inside = (large > 0).float()
        area = inside.sum(dim=(1, 2))
        score = score * (large.sigmoid() * inside).sum(dim=(1, 2)) / area.clamp(min=1)
        score = torch.where((score > self.student.config.least_score) & (area > 0), score, 0.0)
        final, order = score.topk(len(score))
        boxes = torch.stack([*_extent(inside.amax(dim=1)), *_extent(inside.amax(dim=2))])[[0, 2, 1, 3]].T
        return boxes[order], label[order], final, said.masks[0][order].sigmoid()


def _extent(shadow: Float[Tensor, "q l"]) -> tuple[Float[Tensor, "q"], Float[Tensor, "q"]]:
    """First place and one past the last of what is 1."""
    place = torch.arange(shadow.shape[1], device=shadow.device, dtype=torch.float32)
    first = torch.where(shadow > 0, place, float(shadow.shape[1])).amin(dim=1)
    return first, torch.where(shadow > 0, place + 1, 0.0).amax(dim=1)


def _rows(maps: list[Tensor]) -> Float[Tensor, "l c"]:
    return torch.cat([one[0].flatten(1) for one in maps], dim=1).T


def graph_of(student: Student, side_px: int) -> nn.Module:
    """The student as a graph for square images of that side.

    Raises:
        ConfigError: the student cannot be exported, or the side is no multiple of 32.
    """
    if side_px % 32:
        raise ConfigError(f"--image-px {side_px}: the side of an exported student is a multiple of 32")
    if isinstance(student, CondInstStudent):
        return CondInstGraph(student, side_px).eval()
    if isinstance(student, QueryStudent):
        return QueryGraph(student).eval()
    if isinstance(student, MaskRcnnStudent):
        return MaskRcnnGraph(student, side_px).eval()
    raise ConfigError(f"{student.config.model} has no graph of fixed shape and cannot be exported")


def export_onnx(trained: TrainedStudent, path: Path, *, image_px: int | None = None) -> float:
    """Write an ONNX file and a YAML sidecar; gives the largest difference from torch on a probe image.

    Raises:
        ConfigError: this student cannot be exported.
        MachineError: ONNX Runtime's outputs are not torch's, or the file cannot be written; one that was there stays.
    """
    side = image_px or trained.image_px
    graph, probe = _graph_and_probe(trained, side)
    with atomic_path(path) as temporary:
        torch.onnx.export(
            graph,
            (probe,),
            str(temporary),
            dynamo=True,
            external_data=False,
            input_names=["image"],
            output_names=list(OUTPUTS),
            verbose=False,
        )
        worst = largest_difference(graph, temporary, probe)
        if not worst <= MAX_DIFFERENCE:
            raise MachineError(f"{path}: ONNX Runtime's outputs differ from torch's by {worst:.2g}; it is not written")
    _write_sidecar(trained, path, side)
    return worst


def export_torch(trained: TrainedStudent, path: Path, *, image_px: int | None = None) -> None:
    """Write a `.pt2` of torch.export and its YAML sidecar.

    Raises:
        ConfigError: this student cannot be exported.
    """
    side = image_px or trained.image_px
    graph, probe = _graph_and_probe(trained, side)
    program = torch.export.export(graph, (probe,))
    with atomic_file(path) as file:
        torch.export.save(program, file)
    _write_sidecar(trained, path, side)


def _write_sidecar(trained: TrainedStudent, path: Path, side: int) -> None:
    write_text_atomically(path.with_suffix(".yaml"), yaml.safe_dump(_sidecar(trained, side), sort_keys=False))


def largest_difference(graph: nn.Module, path: Path, probe: Float[Tensor, "1 3 S S"]) -> float:
    """Largest difference of scores and mask probabilities between ONNX Runtime and torch; infinite if labels differ."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"image": probe.numpy()}), strict=True))
    with torch.no_grad():
        wanted = dict(zip(OUTPUTS, (one.numpy() for one in graph(probe)), strict=True))
    real = wanted["scores"] > 0
    if not np.array_equal(found["labels"][real], wanted["labels"][real]):
        return float("inf")
    scores = np.abs(found["scores"] - wanted["scores"]).max(initial=0)
    return float(max(scores, np.abs(found["masks"][real] - wanted["masks"][real]).max(initial=0)))


def _graph_and_probe(trained: TrainedStudent, side: int) -> tuple[nn.Module, Tensor]:
    student = trained.student.to("cpu").to(memory_format=torch.contiguous_format).eval()
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=generator) * 255
    return graph_of(student, side), F.interpolate(coarse, size=(side, side), mode="bilinear")


def _sidecar(trained: TrainedStudent, side: int) -> dict[str, Any]:
    return {
        "input": {
            "name": "image",
            "shape": [1, 3, side, side],
            "color": "RGB",
            "range": [0, 255],
            "layout": "top left",
        },
        "resize": {"longer_side": side, "interpolation": "bilinear", "antialias": True},
        "outputs": list(OUTPUTS),
        **_mask_reading(trained.student),
        "mask_threshold": 0.5,
        "categories": list(trained.categories),
    }


def _mask_reading(student: Student) -> dict[str, Any]:
    """Where a mask's cells lie and where they are to be read."""
    if isinstance(student, MaskRcnnStudent):
        return {"mask_frame": "box", "mask_upsampling": "resize to the box, rounded outwards to whole pixels"}
    condinst = isinstance(student, CondInstStudent)
    upsampling = "sample at (pixel - 2) / 4" if condinst else "sample at (pixel + 0.5) / 4 - 0.5"
    return {"mask_frame": "image", "mask_stride": STRIDE, "mask_upsampling": upsampling}
