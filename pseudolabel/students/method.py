"""A student as the shared loop trains it: views drawn on the device, a moving average of the weights, an early stop."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from pseudolabel.students.augment import Augment
from pseudolabel.students.base import Student
from pseudolabel.students.config import AugmentConfig, RecipeConfig
from pseudolabel.students.copy_paste import paste_peers
from pseudolabel.students.data import Sample, StudentBatch, collate
from pseudolabel.students.throughput import StepClock
from pseudolabel.training.ema import average_of, momentum_at, update_average
from pseudolabel.training.method import Method
from pseudolabel.training.processes import is_first_process

Validate = Callable[[Student], float]
_SHOWN = 4


class StudentMethod(Method):
    """A student, its moving average, and what is done between two steps.

    Args:
        validate: the AP of a student on held-out images; called every `validate_every` steps with the average.
        journal: takes one JSON line per validation.
    """

    best_ap: Tensor
    waited: Tensor

    def __init__(
        self,
        student: Student,
        augment: AugmentConfig,
        recipe: RecipeConfig,
        *,
        validate: Validate | None = None,
        journal: Path | None = None,
    ) -> None:
        super().__init__()
        self.student, self.recipe, self.image_px = student, recipe, augment.image_px
        self.average: Student = average_of(student)
        self.register_buffer("best_ap", torch.tensor(-1.0))
        self.register_buffer("waited", torch.tensor(0))
        self._augment, self._validate, self._journal = Augment(augment), validate, journal
        self._shown: list[Sample] = []
        self.clock, self.last_batch = StepClock(), StudentBatch(torch.zeros(0, 3, 0, 0), ())

    def losses(self, batch: Sequence[Sample], *, progress: float) -> Mapping[str, Tensor]:
        del progress
        if not self._shown:
            self._shown = list(batch[:_SHOWN])
        pasted = paste_peers([self._augment.shaped(sample) for sample in batch], probability=self.recipe.paste)
        self.last_batch = collate([self._augment.coloured(one) for one in pasted], side_hw=(self.image_px,) * 2)
        return self.student.losses(self.last_batch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.student.parameter_groups(self.recipe.learning_rate, self.recipe.encoder_learning_rate)

    def image_names(self, batch: Sequence[Sample]) -> Sequence[str]:
        return [sample.name for sample in batch]

    def model_state(self) -> dict[str, Tensor]:
        return self.average.state_dict()

    def after_step(self, step: int) -> None:
        """The average follows with momentum min(ema, 1 - 1 / (step + 1)); statistics are copied."""
        keep = momentum_at(step, self.recipe.ema, ramp=1)
        update_average(self.average, self.student, keep, buffers="copy")
        self.clock.tick(len(self.last_batch.samples))
        every = self.recipe.validate_every
        if self._validate is not None and every and (step + 1) % every == 0:
            self._note(step, self._validated())
            self.clock.skip()

    def _validated(self) -> float:
        if self._validate is None:
            raise ValueError("there is nothing to validate on")
        self.average.eval()
        try:
            return self._validate(self.average)
        finally:
            self.average.train()

    def _note(self, step: int, ap: float) -> None:
        """Keep count of validations without a gain, in buffers, so that a resumed training counts on."""
        better = ap > float(self.best_ap)
        self.best_ap.fill_(max(ap, float(self.best_ap)))
        self.waited.copy_(torch.zeros_like(self.waited) if better else self.waited + 1)
        if self._journal is not None and is_first_process():
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step + 1, "ap": ap}) + "\n")

    def finished(self) -> bool:
        """Whether the validations say that going on is of no use."""
        return bool(self.recipe.patience) and int(self.waited) >= self.recipe.patience

    @torch.no_grad()
    def pictures(self) -> Mapping[str, UInt8[Tensor, "3 H W"]]:
        """The first images of the training with what the average finds on them."""
        from pseudolabel.students.pictures import instances_picture

        self.average.eval()
        found = self.average.predict([one.image for one in self._shown], image_px=self.image_px)
        self.average.train()
        shown = {}
        for place, (sample, instances) in enumerate(zip(self._shown, found, strict=True)):
            pixels = np.ascontiguousarray(sample.image.cpu().numpy().transpose(1, 2, 0).astype(np.uint8))
            picture = instances_picture(pixels, instances, [""] * self.student.num_classes)
            shown[f"example_{place}"] = torch.from_numpy(picture.transpose(2, 0, 1).copy())
        return shown
