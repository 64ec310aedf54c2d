"""What the shared loop asks of anything that is to be trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import UInt8
from torch import Tensor, nn


class Method(nn.Module, ABC):
    """A network with its losses. Everything that a resumed run needs is among its parameters and buffers.

    The loop seeds torch's generators before every step, so that `losses` may draw random numbers freely.
    """

    @abstractmethod
    def losses(self, batch: Any, *, progress: float) -> Mapping[str, Tensor]:
        """Weighted scalar losses by name; their sum is what is minimised. `progress` goes from 0 to 1."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters to train, in groups with their peak `lr`, as `torch.optim.AdamW` takes them."""

    @abstractmethod
    def image_names(self, batch: Any) -> Sequence[str]:
        """The images of a batch, for the message when a loss is not finite."""

    @abstractmethod
    def model_state(self) -> dict[str, Tensor]:
        """What is written as the trained model."""

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step number `step`, counted from 0: the place for a moving average."""
        del step

    def finished(self) -> bool:
        """Asked after every step: whether the training may end before its last one."""
        return False

    def measured(self) -> Mapping[str, float]:
        """Figures beside the losses for a line of the log, of the steps since the last one; always the same names."""
        return {}

    def pictures(self) -> Mapping[str, UInt8[Tensor, "3 H W"]]:
        """Pictures of what the network now says about a few fixed images, for TensorBoard."""
        return {}
