"""How much of a stage's time the network's own arithmetic fills, on any device; rows for gpu_day.py.

`share` is the bare passes' time over the whole's: the same inputs, prepared and on the device before the clock starts.
Kernels have a `ratio` instead, against the published arithmetic on the same device. Medians of wall seconds, for which
a device is waited for before and after; on a CPU of the process's own seconds, on as many threads as torch has.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mask_head import ours_to_reference_order, reference_masks, reference_upsample
from pairwise import drawn_case, our_step, our_targets, reference_step, reference_targets
from torch import Tensor, nn
from training_loop import Load

from pseudolabel.candidates import GivenBox
from pseudolabel.condinst.batch import Batch, Targets, collate
from pseudolabel.condinst.mask_head import HeadShape, aligned_upsample, dynamic_masks
from pseudolabel.condinst.network import CondInst
from pseudolabel.pipelines.demo.scenes import CLASSES, draw_scene
from pseudolabel.rle import encode
from pseudolabel.segmenters.base import Photo
from pseudolabel.segmenters.card import InputCard, ModelCard, OutputCard
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.preprocess import prepare
from pseudolabel.segmenters.torch_network import TorchNetwork
from pseudolabel.siseg.random_walk import walk_batch
from pseudolabel.students.base import make_student
from pseudolabel.students.config import AugmentConfig, RecipeConfig, StudentConfig
from pseudolabel.students.data import Sample, make_sample, pad_images
from pseudolabel.students.labels import LabelledImage, LabelledObject
from pseudolabel.students.method import StudentMethod
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.condinst.boxseg import BoxSeg
from pseudolabel.teachers.condinst.config import BoxSegConfig
from pseudolabel.teachers.condinst.infer import CondInstTeacher, InputSize, resize_image
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.infer import MalTeacher, object_batch
from pseudolabel.teachers.mal.method import Mal
from pseudolabel.teachers.mal.network import build_network
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit
from pseudolabel.training.method import Method


@dataclass(frozen=True)
class Size:
    """How large everything is: for a GPU, or to rehearse."""

    device: str
    image_hw: tuple[int, int] = (480, 640)
    images: int = 32
    objects: int = 10
    backbone: str = "mobilenet_v2"
    width: int = 256
    short_px: int = 640
    batch: int = 8
    steps: int = 40
    instances: int = 300
    grid_hw: tuple[int, int] = (100, 152)
    repeats: int = 5

    @classmethod
    def small(cls, device: str) -> "Size":
        """For a rehearsal."""
        return cls(device, (96, 128), 2, 3, "tiny", 40, 96, 2, 4, 6, (12, 16), 1)


def seconds(device: str, work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    return in_turns(device, [work], repeats)[0]


def in_turns(device: str, works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """The same of several calls, one after the other each time, so that what else the machine does meets all alike."""
    for work in works:
        work()
    found: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, took in zip(works, found, strict=True):
            start = now(device)
            work()
            took.append(now(device) - start)
    return [statistics.median(took) for took in found]


def now(device: str) -> float:
    """The clock of a device, which has done all that it was given."""
    wait_for(device)
    return time.process_time() if device == "cpu" else time.perf_counter()


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def share_row(case: str, size: Size, whole: Callable[[], object], bare: Callable[[], object]) -> dict[str, Any]:
    bare_s, whole_s = in_turns(size.device, [bare, whole], size.repeats)
    return {"case": case, "bare_s": bare_s, "whole_s": whole_s, "share": bare_s / whole_s}


def passes_of(network: nn.Module, work: Callable[[], object]) -> Callable[[], object]:
    """The passes that a network makes in some work, alone: the same inputs again."""
    inputs: list[tuple[Any, ...]] = []
    hook = network.register_forward_pre_hook(lambda _, given: inputs.append(given))
    work()
    hook.remove()
    return lambda: [network(*given) for given in inputs]


def ratio_row(
    case: str, size: Size, reference: Callable[[], object], ours: Callable[[], object], difference: float
) -> dict[str, Any]:
    reference_s, ours_s = in_turns(size.device, [reference, ours], size.repeats)
    return {"case": case, "reference_s": reference_s, "ours_s": ours_s, "ratio": reference_s / ours_s,
            "max_abs_diff": difference}  # fmt: skip


def scenes(size: Size) -> list[Any]:
    return [draw_scene(number, size.image_hw, count=size.objects) for number in range(size.images)]


def asked(size: Size) -> list[TeacherInput]:
    """Images with their boxes as a teacher gets them."""
    return [
        TeacherInput(
            scene.image,
            [
                GivenBox.from_xyxy(place, 1, [float(side) for side in box])
                for place, box in enumerate(scene.boxes_xyxy())
            ],
        )
        for scene in scenes(size)
    ]


@torch.inference_mode()
def infer_semantic(size: Size) -> dict[str, Any]:
    """A segmenter of torchvision behind its card: label maps of photographs, beside its passes."""
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    torch.manual_seed(0)
    network = TorchNetwork(deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21),
                           device=size.device)  # fmt: skip
    half = (0.5, 0.5, 0.5)
    card = ModelCard(name="drawn", input=InputCard(mean=half, std=half, size=size.image_hw),
                     output=OutputCard(align_corners=False), classes=tuple(map(str, range(21))))  # fmt: skip
    segmenter = NetworkSegmenter(network, card, batch_size=size.batch)
    photos = [Photo(str(k), size.image_hw, scene.image) for k, scene in enumerate(scenes(size))]
    ready = torch.stack([prepare(one.rgb, size.image_hw, card.input) for one in photos if one.rgb is not None])
    batches = [one.to(size.device) for one in ready.split(size.batch)]
    return share_row(
        f"infer-semantic, label maps, batches of {size.batch}",
        size,
        lambda: segmenter.predict(photos),
        lambda: [network(one) for one in batches],
    )


@torch.inference_mode()
def infer_teacher_mal(size: Size) -> dict[str, Any]:
    torch.manual_seed(0)
    network, config = build_network(size.backbone, "none", width=64), MalConfig(backbone=size.backbone)
    teacher, inputs, views = MalTeacher(network, config, device=size.device, views=6), asked(size), 6
    objects = sum(len(one.boxes) for one in inputs)
    work = functools.partial(teacher.predict, inputs)
    return share_row(
        f"infer-teacher, mal, {objects} objects in {views} views", size, work, passes_of(teacher.network, work)
    )


def condinst_config(size: Size) -> BoxSegConfig:
    convs = 1 if size.backbone == "tiny" else 4
    return BoxSegConfig(backbone=size.backbone, backbone_weights="none", channels=size.width, convs=convs,
                        mask_branch_channels=size.width // 2, image_px=size.short_px, teacher_from=0.0)  # fmt: skip


@torch.inference_mode()
def infer_teacher_condinst(size: Size) -> dict[str, Any]:
    torch.manual_seed(0)
    network, shape = CondInst(condinst_config(size), len(CLASSES)), InputSize(short_px=size.short_px, long_px=1333)
    teacher, inputs = CondInstTeacher(network, shape, device=size.device, candidates=6), asked(size)
    work = functools.partial(teacher.predict, inputs)
    return share_row(f"infer-teacher, boxseg, {size.images} images", size, work, passes_of(teacher.network, work))


class Timed:
    """Loads batches and notes when each was asked for: one per step."""

    def __init__(self, load: Callable[[Sequence[int]], Any], device: str) -> None:
        self._load, self._device, self.at = load, device, list[float]()

    def __call__(self, places: Sequence[int]) -> Any:
        self.at.append(now(self._device))
        return self._load(places)

    def step_s(self) -> float:
        """Median seconds from step to step, without the first few."""
        return float(np.median(np.diff(self.at)[len(self.at) // 4 :]))


def train_row(
    case: str, size: Size, method: Method, load: Callable[[Sequence[int]], Any], samples: int
) -> dict[str, Any]:
    """Steps of the loop that all trainers share beside losses and gradients of one batch that lies on the device."""
    timed = Timed(load, size.device)
    with tempfile.TemporaryDirectory() as folder:
        settings = FitConfig(steps=size.steps, batch_size=size.batch, device=size.device, checkpoint_every=size.steps)
        fit(method, timed, samples, Path(folder), settings)
    method.to(size.device).train()
    batch = load(list(range(size.batch))).to(size.device)

    def bare() -> None:
        losses = method.losses(batch, progress=0.9)
        torch.stack(list(losses.values())).sum().backward()
        method.zero_grad(set_to_none=True)

    bare_s, whole_s = seconds(size.device, bare, max(size.repeats, 3)), timed.step_s()
    return {"case": case, "bare_s": bare_s, "whole_s": whole_s, "share": bare_s / whole_s}


def train_mal(size: Size) -> dict[str, Any]:
    torch.manual_seed(0)
    config = MalConfig(backbone=size.backbone)
    method = Mal(build_network(size.backbone, "none", width=config.width), config)
    crops = object_batch(asked(size), config.canvas_px)
    return train_row(f"train-teacher, mal, {size.batch} objects", size, method, Load(crops), len(crops.boxes))


def train_boxseg(size: Size) -> dict[str, Any]:
    torch.manual_seed(0)
    config = condinst_config(size)
    method = BoxSeg(CondInst(config, len(CLASSES)), config)
    drawn, shape = scenes(size), InputSize(short_px=size.short_px, long_px=1333)
    items = [(_resized(scene, shape), _targets(scene, shape)) for scene in drawn]

    def load(places: Sequence[int]) -> Batch:
        images, targets = zip(*(items[place] for place in places), strict=True)
        return collate(list(images), list(targets), names=[str(place) for place in places])

    return train_row(f"train-teacher, boxseg, {size.batch} images", size, method, load, len(items))


def _resized(scene: Any, shape: InputSize) -> Tensor:
    return resize_image(scene.image, shape).image


def _targets(scene: Any, shape: InputSize) -> Targets:
    factor = torch.tensor(resize_image(scene.image, shape).factor_xy * 2)
    return Targets(torch.tensor(scene.boxes_xyxy()).float() * factor, torch.tensor(scene.labels))


def samples(size: Size) -> list[Sample]:
    """Scenes with their true masks, as a student learns them."""
    found = []
    for number, scene in enumerate(scenes(size)):
        rows = zip(scene.masks, scene.labels, scene.boxes_xyxy(), strict=True)
        objects = [
            LabelledObject(label=label, box_xyxy=tuple(map(float, box)), role="mask", mask=encode(mask))
            for mask, label, box in rows
        ]
        found.append(make_sample(LabelledImage(str(number), number, size.image_hw, tuple(objects)), scene.image))
    return found


def student_config(size: Size) -> StudentConfig:
    return StudentConfig(backbone=size.backbone, width=size.width, convs=1 if size.backbone == "tiny" else 4)


def train_student(size: Size) -> dict[str, Any]:
    torch.manual_seed(0)
    student, learned = make_student(student_config(size), len(CLASSES)), samples(size)
    method = StudentMethod(student, AugmentConfig(image_px=max(size.image_hw)), RecipeConfig())

    def load(places: Sequence[int]) -> list[Sample]:
        return [learned[place] for place in places]

    timed = Timed(load, size.device)
    with tempfile.TemporaryDirectory() as folder:
        settings = FitConfig(steps=size.steps, batch_size=size.batch, device=size.device, checkpoint_every=size.steps)
        fit(method, timed, len(learned), Path(folder), settings)
    method.to(size.device).train()
    batch = method.last_batch.to(size.device)

    def bare() -> None:
        torch.stack(list(method.student.losses(batch).values())).sum().backward()
        method.zero_grad(set_to_none=True)

    bare_s, whole_s = seconds(size.device, bare, max(size.repeats, 3)), timed.step_s()
    return {"case": f"train-student, {size.batch} images", "bare_s": bare_s, "whole_s": whole_s,
            "share": bare_s / whole_s}  # fmt: skip


@torch.inference_mode()
def predict(size: Size) -> dict[str, Any]:
    """A student's instances of images of one size, beside `detect` of the same, padded, on the device."""
    torch.manual_seed(0)
    student = make_student(student_config(size), len(CLASSES)).to(size.device).eval()
    images = [one.image for one in samples(size)]
    ready = [pad_images([one.to(size.device)]) for one in images]
    return share_row(
        f"predict, {size.images} images",
        size,
        lambda: [[found.masks.cpu() for found in student.predict([one])] for one in images],
        lambda: [student.detect(one, [size.image_hw]) for one in ready],
    )


@torch.inference_mode()
def mask_head(size: Size) -> dict[str, Any]:
    shape, count = HeadShape(8, 8), size.instances
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, shape.inputs, *size.grid_hw, generator=generator).to(size.device)
    parameters = (torch.randn(count, shape.parameters, generator=generator) * 0.2).to(size.device)
    centres = (torch.rand(count, 2, generator=generator) * 800).to(size.device)
    sizes = torch.full((count,), 128.0, device=size.device)
    image = torch.zeros(count, dtype=torch.int64, device=size.device)
    other = ours_to_reference_order(parameters, shape)

    def reference() -> Tensor:
        with torch.device(size.device):
            return reference_masks(features, other, centres, sizes, shape)

    ours = functools.partial(dynamic_masks, features, parameters, image, centres, sizes, shape)
    difference = float((reference() - ours()).abs().max())
    return ratio_row(f"mask head, {count} instances", size, reference, ours, difference)


@torch.inference_mode()
def upsampling(size: Size) -> dict[str, Any]:
    maps = torch.randn(1, 64, *size.grid_hw, generator=torch.Generator().manual_seed(0)).to(size.device)
    reference, ours = functools.partial(reference_upsample, maps), functools.partial(aligned_upsample, maps, 2)
    difference = float((reference() - ours()).abs().max())
    return ratio_row("aligned upsampling by 2, 64 maps", size, reference, ours, difference)


def pairwise_loss(size: Size) -> dict[str, Any]:
    images, boxes, image_of, logits = drawn_case()
    if size.backbone == "tiny":
        images, boxes, image_of, logits = images[:1], boxes[:4], image_of[:4], logits[:4]
    box, similarity = reference_targets(images, boxes, image_of)
    cells, edges = our_targets(images, boxes)
    reference = functools.partial(reference_step, *(one.to(size.device) for one in (logits, box, similarity)))
    ours = functools.partial(our_step, *(one.to(size.device) for one in (logits, cells, image_of, edges)))
    difference = float((reference()[0] - ours()[0]).abs())
    return ratio_row(f"pairwise loss and gradient, {len(boxes)} boxes", size, reference, ours, difference)


@torch.inference_mode()
def random_walk(size: Size) -> dict[str, Any]:
    """Seconds alone: its dense reference is timed by random_walk.py."""
    generator = torch.Generator().manual_seed(0)
    side = 128 if size.backbone != "tiny" else 16
    scores = torch.rand(1, 20, side, side, generator=generator).to(size.device)
    boundary = torch.rand(1, side, side, generator=generator).to(size.device)
    ours_s = seconds(size.device, lambda: walk_batch(scores, boundary), size.repeats)
    return {"case": f"random walk, {side} x {side}, 20 maps", "ours_s": ours_s}


STAGES = {one.__name__: one for one in (
    infer_semantic, infer_teacher_mal, infer_teacher_condinst, train_mal, train_boxseg, train_student, predict,
    mask_head, upsampling, pairwise_loss, random_walk)}  # fmt: skip


def stage_rows(size: Size, *, but: set[str], until: float) -> Iterator[dict[str, Any]]:
    """Rows of the stages that are not there yet, as long as there is time."""
    for name, measure in STAGES.items():
        if name not in but and time.monotonic() < until:
            yield {"stage": name, **measure(size)}
