"""What a trained teacher is asked and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from pseudolabel.candidates import Box, Candidate, GivenBox, boxes_array
from pseudolabel.masks import SoftMask

SOURCE = "teacher"  # what its candidates say, until a stage gives them the name of its table


@dataclass(frozen=True, slots=True)
class TeacherInput:
    """An image with the boxes that are given for it; `class_index` of a box is that in the teacher's list."""

    pixels: UInt8[np.ndarray, "h w 3"]
    boxes: Sequence[GivenBox] = ()

    @property
    def boxes_xyxy(self) -> Float32[np.ndarray, "n 4"]:
        return boxes_array(self.boxes).astype(np.float32)

    @property
    def labels(self) -> Int64[np.ndarray, "n"]:
        """Indices of the teacher's classes; -1 where it has no such class or nobody says."""
        return np.array([-1 if box.class_index is None else box.class_index for box in self.boxes], dtype=np.int64)

    @property
    def category_ids(self) -> Int64[np.ndarray, "n"]:
        """The run's own numbers of the classes."""
        return np.array([box.category_id for box in self.boxes], dtype=np.int64)


def proposal(
    box: GivenBox | None,
    box_xyxy: Box,
    box_score: float,
    box_iou: float | None,
    mask: SoftMask,
    *,
    class_index: int | None = None,
) -> Candidate:
    """A mask that a teacher proposes for a given box, or of its own accord for an object of one of its classes.

    Args:
        box_score: NaN where the network's answer was not finite.
    """
    annotation_id, category_id = (box.annotation_id, box.category_id) if box else (None, None)
    return Candidate(SOURCE, annotation_id, category_id, box_xyxy, box_score, box_iou, mask, class_index=class_index)


class Teacher(Protocol):
    """A model that is ready to label images."""

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        """The candidates of every image. Batches are the teacher's own affair; images do not influence each other."""
