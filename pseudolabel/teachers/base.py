"""What a trained teacher is asked and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8

from pseudolabel.masks import SoftMask


@dataclass(frozen=True, slots=True)
class TeacherInput:
    """An image with the boxes that are given for it and, where they are known, their classes."""

    pixels: UInt8[np.ndarray, "h w 3"]
    boxes_xyxy: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, "n"] | None = None  # indices of the teacher's classes; -1 where it has no such class
    category_ids: Int[np.ndarray, "n"] | None = None  # the run's own numbers of the classes


@dataclass(frozen=True, slots=True)
class TeacherCandidate:
    """One mask that a teacher proposes."""

    given: int | None  # which of the given boxes it is for; None where none was given
    category: int | None  # index of the class that the teacher says; None where it says none
    box_xyxy: tuple[float, float, float, float]  # of the mask or of the detection, image pixels
    box_score: float  # NaN where the network's answer was not finite
    box_iou: float | None  # with the given box
    mask: SoftMask


class Teacher(Protocol):
    """A model that is ready to label images."""

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[TeacherCandidate]]:
        """The candidates of every image. Batches are the teacher's own affair; images do not influence each other."""
