"""Training of the heads: crops of cached features, the three losses, and the mean displacement afterwards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pseudolabel.siseg.config import SisegRecipe
from pseudolabel.siseg.losses import siseg_losses
from pseudolabel.siseg.network import STRIDE, SisegNetwork
from pseudolabel.siseg.pairs import IGNORE
from pseudolabel.siseg.views import View
from pseudolabel.training.method import Method

DISPLACEMENT_RATE = 10.0  # the field's learning rate is ten times the boundary's
_CROP_STEP = 16


class Sample(NamedTuple):
    """A view as the heads are trained on it: its features, or the picture itself where the backbone learns too."""

    name: str
    planes: tuple[Tensor, ...]  # (c, h, w), at strides 4, 4, 8, 16, 16, or one (3, H, W)
    labels: Tensor  # uint8 (h, w) at stride 4
    owners: Tensor  # int16 (2, h, w): which boxes hold each cell


class SisegMethod(Method):
    """A network with SISeg's losses on random crops.

    IRNet's learning rates (0.1, and 1.0 for the field) belong to plain SGD on half of this loss; AdamW's are kept in
    the same proportion.
    """

    def __init__(self, network: SisegNetwork, recipe: SisegRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe

    def losses(self, batch: Sequence[Sample], *, progress: float) -> Mapping[str, Tensor]:
        del progress
        recipe = self.recipe
        crops = [crop_sample(sample, recipe.crop) for sample in batch]
        device = self.network.mean_displacement.device
        planes = [torch.stack(level).to(device).float() for level in zip(*(c.planes for c in crops), strict=True)]
        labels, owners = (torch.stack(kind).to(device) for kind in zip(*(c[2:] for c in crops), strict=True))
        fields = self.network.heads(planes) if self.network.backbone.frozen else self.network(planes[0])
        terms = siseg_losses(
            fields.displacement,
            fields.boundary_logits,
            labels.long(),
            radius=recipe.radius,
            owners=owners if recipe.box_pairs else None,
        )
        return {
            "object_displacement": recipe.weight_object * terms.object_displacement,
            "background_displacement": recipe.weight_background * terms.background_displacement,
            "boundary": recipe.weight_boundary * terms.boundary,
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The field's head learns ten times as fast as the boundary's and a backbone that learns."""
        rate = self.recipe.learning_rate
        fast = list(self.network.displacement_head.parameters())
        slow = list(self.network.boundary_head.parameters())
        slow += [p for p in self.network.backbone.parameters() if p.requires_grad]
        return [{"params": fast, "lr": rate}, {"params": slow, "lr": rate / DISPLACEMENT_RATE}]

    def image_names(self, batch: Sequence[Sample]) -> Sequence[str]:
        return [sample.name for sample in batch]

    def model_state(self) -> dict[str, Tensor]:
        return self.network.state_dict()


class Samples:
    """Samples of views; features of a frozen backbone are computed once and kept as fp16 up to a limit of memory.

    What does not fit is computed again each time, to the same values.
    """

    def __init__(
        self, network: SisegNetwork, load_view: Callable[[int], View], *, device: str, cache_bytes: int
    ) -> None:
        self._network, self._load_view, self._device = network, load_view, device
        self._left_bytes = cache_bytes
        self._kept: dict[int, Sample] = {}

    def __call__(self, indices: Sequence[int]) -> list[Sample]:
        return [self._sample(index) for index in indices]

    def _sample(self, index: int) -> Sample:
        if index not in self._kept:
            sample = self._made(self._load_view(index))
            size = sum(plane.nbytes for plane in sample.planes)
            if size > self._left_bytes:
                return sample
            self._left_bytes -= size
            self._kept[index] = sample
        return self._kept[index]

    @torch.no_grad()
    def _made(self, view: View) -> Sample:
        if not self._network.backbone.frozen:
            return Sample(view.name, (view.image,), view.labels, view.owners)
        features = self._network.to(self._device).features(view.image[None].to(self._device).float())
        return Sample(view.name, tuple(level[0].half().cpu() for level in features), view.labels, view.owners)


def crop_sample(sample: Sample, size: int) -> Sample:
    """A random window of `size` pixels, at steps of 16 so that all strides meet; beyond the view labels are ignored."""
    sides = [side * STRIDE for side in sample.labels.shape]
    top, left = (_CROP_STEP * int(torch.randint(max(side - size, 0) // _CROP_STEP + 1, ())) for side in sides)
    planes = tuple(_window(plane, top, left, size, sides[0] // plane.shape[-2], 0) for plane in sample.planes)
    labels = _window(sample.labels, top, left, size, STRIDE, IGNORE)
    return Sample(sample.name, planes, labels, _window(sample.owners, top, left, size, STRIDE, 0))


@torch.no_grad()
def set_mean_displacement(network: SisegNetwork, samples: Iterator[Sample]) -> Float[Tensor, "2"]:
    """Store the mean over images of the mean displacement, which evaluation subtracts; the network is left in eval."""
    network.eval()
    network.mean_displacement.zero_()
    device = network.mean_displacement.device
    means = []
    for sample in samples:
        planes = [plane[None].to(device).float() for plane in sample.planes]
        fields = network.heads(planes) if network.backbone.frozen else network(planes[0])
        means.append(fields.displacement.mean(dim=(0, 2, 3)))
    network.mean_displacement.copy_(torch.stack(means).mean(0))
    return network.mean_displacement


def _window(plane: Tensor, top: int, left: int, size: int, stride: int, fill: int) -> Int[Tensor, "*c h w"]:
    top, left, size = top // stride, left // stride, size // stride
    part = plane[..., top : top + size, left : left + size]
    right, below = size - part.shape[-1], size - part.shape[-2]
    return torch.nn.functional.pad(part, (0, right, 0, below), value=fill) if right or below else part
