"""What every student is: losses of a batch, and predictions for images.

A student normalises its own input, so that it takes RGB from 0 to 255, and knows classes only by their place.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pseudolabel.encoders.encoder import BATCH_NORMS
from pseudolabel.errors import ConfigError
from pseudolabel.students.augment import fitting_scale, resize_image, scaled_size
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.data import StudentBatch
from pseudolabel.students.names import STUDENTS

_LEAST_SURE = 1e-3  # share of a cell; what is less is rounding


@dataclass(frozen=True, slots=True)
class Instances:
    """What a student says about one image, best first; lengths in pixels of that image."""

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, "n"]
    scores: Float[Tensor, "n"]
    masks: Bool[Tensor, "n h w"]


class Student(nn.Module, ABC):
    """An instance segmenter. Made with `(config, num_classes, backbone_weights)`."""

    config: StudentConfig
    num_classes: int
    learns_batch_norm = False

    def train(self, mode: bool = True) -> Self:
        """Training mode; BatchNorm of the encoder stays as it was pretrained, unless `learn_batch_norm` was called."""
        super().train(mode)
        if self.learns_batch_norm:
            for norm in batch_norms(self):
                norm.train(mode)
        return self

    def fixed_parts(self) -> list[nn.Module]:
        """The parts whose shapes do not depend on what is seen, for `torch.compile`."""
        return [self.encoder()]

    @abstractmethod
    def losses(self, batch: StudentBatch) -> dict[str, Float[Tensor, ""]]:
        """Scalar losses by name, to be summed."""

    @abstractmethod
    def detect(self, images: Float[Tensor, "b 3 H W"], sizes_hw: Sequence[tuple[int, int]]) -> list[Instances]:
        """Instances of padded images, masks cut to each image's own size."""

    @abstractmethod
    def encoder(self) -> nn.Module:
        """The pretrained part, which learns more slowly."""

    def find_at_most(self, detections: int) -> None:
        """Report so many objects of an image at most, instead of as many as in training.

        Raises:
            ConfigError: the student was made for fewer.
        """
        self.config = self.config.model_copy(update={"detections": detections})

    def find_from(self, least_score: float) -> None:
        """Report objects from this score on, instead of from that of the training."""
        self.config = self.config.model_copy(update={"least_score": least_score})

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], *, image_px: int | None = None) -> list[Instances]:
        """Instances of images (3, h, w) of any size, one image at a time, so that no image changes another's result.

        Args:
            image_px: what the longer side is resized to first; None leaves images as they are.
        """
        return [self._predict_one(image, image_px) for image in images]

    def _predict_one(self, image: Tensor, image_px: int | None) -> Instances:
        from pseudolabel.students.data import pad_images

        size_hw = (image.shape[1], image.shape[2])
        inner_hw = scaled_size(size_hw, fitting_scale(size_hw, image_px)) if image_px else size_hw
        small = resize_image(image, inner_hw) if inner_hw != size_hw else image
        device = next(self.parameters()).device
        found = self.detect(pad_images([small.to(device)]), [inner_hw])[0]
        return found if inner_hw == size_hw else _at_size(found, inner_hw, size_hw)

    def parameter_groups(self, rate: float, encoder_rate: float) -> list[dict[str, Any]]:
        """What is trained: the encoder at its own learning rate, the rest at the other."""
        slow = {id(parameter) for parameter in self.encoder().parameters()}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [one for one in trained if id(one) not in slow], "lr": rate},
            {"params": [one for one in trained if id(one) in slow], "lr": encoder_rate},
        ]
        return [group for group in groups if group["params"]]


def _at_size(found: Instances, inner_hw: tuple[int, int], size_hw: tuple[int, int]) -> Instances:
    factor = found.boxes.new_tensor([size_hw[1] / inner_hw[1], size_hw[0] / inner_hw[0]] * 2)
    planes = [resize_image(mask[None].float(), size_hw)[0] > 0.5 for mask in found.masks]
    masks = torch.stack(planes) if planes else found.masks.new_zeros(0, *size_hw)
    return Instances(found.boxes * factor, found.labels, found.scores, masks)


def make_student(config: StudentConfig, num_classes: int, *, backbone_weights: str = "none") -> Student:
    """The student of a config, in channels-last memory.

    Args:
        backbone_weights: a file, `hub`, or `none` to start from chance or to fill all weights afterwards.

    Raises:
        ConfigError: no such student or backbone.
    """
    student: Student = STUDENTS.load(config.model)(config, num_classes, backbone_weights)
    return student.to(memory_format=torch.channels_last)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """All BatchNorm layers."""
    return [one for one in module.modules() if isinstance(one, BATCH_NORMS)]


def learn_batch_norm(student: Student, *, synchronised: bool) -> Student:
    """The student with BatchNorm that is trained: scale, shift and statistics.

    Args:
        synchronised: statistics are of all processes' batches together; for GPUs alone.

    Raises:
        ConfigError: its encoder has no BatchNorm.
    """
    if not batch_norms(student):
        raise ConfigError(f"backbone {student.config.backbone} has no BatchNorm to train: use --batch-norm frozen")
    for norm in batch_norms(student):
        norm.requires_grad_(True)
    student.learns_batch_norm = True
    if synchronised:
        nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]  # torch has none
    return student.train(student.training)


def sure_share(
    masks: Bool[Tensor, "n H W"], unsure: Bool[Tensor, "n H W"], share: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """How much of the sure pixels of every cell a mask covers, and the cells' weights: how much of each is sure.

    What a mask says of its unsure pixels changes neither.

    Args:
        share: how much of every cell of a coarser grid is true, for planes of floats.
    """
    weight = 1 - share(unsure.float())
    weight = weight * (weight > _LEAST_SURE)
    return share((masks & ~unsure).float()) / weight.clamp(min=_LEAST_SURE), weight


def mean_entropy(
    logits: Float[Tensor, "n h w"], masks: Float[Tensor, "n h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, "n"]:
    """Weighted mean cross-entropy of each plane, 0 where all of it weighs nothing."""
    entropy = F.binary_cross_entropy_with_logits(logits, masks, weight, reduction="none")
    return entropy.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1e-5)


def ignored_share(boxes: Float[Tensor, "n 4"], ignored: Bool[Tensor, "h w"]) -> Float[Tensor, "n"]:
    """How much of every box, clipped to the picture, is ignored: a box sum by four corners of a summed area table."""
    table = torch.zeros(ignored.shape[0] + 1, ignored.shape[1] + 1, dtype=torch.int64, device=ignored.device)
    table[1:, 1:] = ignored.long().cumsum(0).cumsum(1)
    limit = torch.tensor([ignored.shape[1], ignored.shape[0]] * 2, device=boxes.device)
    corners = torch.minimum(boxes.round().clamp(min=0), limit).long()
    x0, y0, x1, y1 = corners.unbind(dim=1)
    inside = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    return inside / ((x1 - x0) * (y1 - y0)).clamp(min=1)
