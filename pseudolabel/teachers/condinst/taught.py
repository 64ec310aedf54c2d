"""How many objects a moving average has a mask to teach with."""

import logging

import torch

from pseudolabel.teachers.condinst.copy_paste import PseudoMasks
from pseudolabel.training.processes import is_first_process

_log = logging.getLogger(__name__)


class Taught:
    """Objects that were shown, and those of them with a pseudo mask, since the share was last asked for.

    Args:
        hint: what a user can do where there is none.
    """

    def __init__(self, hint: str) -> None:
        self._hint, self._warned = hint, False
        self._forget()

    def _forget(self) -> None:
        self._objects, self._with_mask, self._teaching = 0, torch.zeros(()), True

    def add(self, pseudo: list[PseudoMasks], *, teaching: bool) -> None:
        """Count a batch; nothing waits for a GPU.

        Args:
            teaching: the masks have a weight in the losses.
        """
        for one in pseudo:
            self._objects += len(one.quality)
            self._with_mask = self._with_mask.to(one.quality.device) + (one.quality > 0).sum()
        self._teaching = self._teaching and teaching

    def share(self) -> float:
        """The share of the objects with a mask, 0 without objects; it is counted anew from here.

        Warns, once, where no object had one although the masks were to teach.
        """
        objects, found, teaching = self._objects, int(self._with_mask), self._teaching
        self._forget()
        if teaching and objects and not found and not self._warned and is_first_process():
            self._warned = True
            _log.warning("train-teacher: none of %d objects got a pseudo mask to learn from; %s", objects, self._hint)
        return found / objects if objects else 0.0
