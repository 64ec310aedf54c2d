"""A student as the next round's teacher: its masks become candidates for the given boxes.

CondInst is asked as its teachers are, location by location, so that a box gets several soft masks. Of the other
students the detections are taken, each for the given box that it overlaps most.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.students.base import Instances
from pseudolabel.students.condinst import CondInstStudent
from pseudolabel.students.save import TrainedStudent, load_student
from pseudolabel.teachers.base import Teacher, TeacherInput, proposal
from pseudolabel.teachers.condinst.infer import CondInstTeacher, InputSize


def load_student_teacher(
    weights: Path, config: Mapping[str, Any], *, device: str, candidates: int, detections: int | None = None
) -> Teacher:
    """The student that `train-student` wrote, as a teacher of up to `candidates` masks per box.

    Raises:
        InputError: the config or the weights are no student's.
    """
    del config  # `load_student` reads it, and checks it against the weights
    trained = load_student(weights, device=device)
    if detections:
        trained.student.find_at_most(detections)
    if isinstance(trained.student, CondInstStudent):
        size = InputSize(short_px=trained.image_px, long_px=trained.image_px)
        most = trained.student.config.detections
        return CondInstTeacher(trained.student.network, size, device=device, candidates=candidates, detections=most)
    return DetectingTeacher(trained, candidates)


class DetectingTeacher:
    """A student of which only the final detections are known."""

    def __init__(self, trained: TrainedStudent, candidates: int) -> None:
        self.trained, self.candidates = trained, candidates

    def predict(self, inputs: Sequence[TeacherInput]) -> list[list[Candidate]]:
        """Up to `candidates` detections for every given box, best overlap first; all of them where none is given."""
        return [self._of_image(one) for one in inputs]

    def _of_image(self, given: TeacherInput) -> list[Candidate]:
        image = torch.from_numpy(np.ascontiguousarray(given.pixels.transpose(2, 0, 1)))
        found = self.trained.student.predict([image], image_px=self.trained.image_px)[0]
        if not given.boxes:
            return [_candidate(found, place, None, None) for place in range(len(found.scores))]
        overlap = box_iou(torch.as_tensor(given.boxes_xyxy), found.boxes.cpu().float())
        return [
            _candidate(found, place, given.boxes[box], float(overlap[box, place]))
            for box in range(len(overlap))
            for place in self._own(overlap, box)
        ]

    def _own(self, overlap: Tensor, box: int) -> list[int]:
        """The detections that overlap this box, and no other more than it."""
        if not overlap.shape[1]:
            return []
        mine = (overlap[box] > 0) & (overlap.argmax(dim=0) == box)
        order = overlap[box].argsort(descending=True, stable=True)
        chosen: list[int] = order[mine[order]][: self.candidates].tolist()
        return chosen


def _candidate(found: Instances, place: int, given: GivenBox | None, overlap: float | None) -> Candidate:
    x0, y0, x1, y1 = found.boxes[place].tolist()
    score, mask = float(found.scores[place]), _cut(found.masks[place].cpu().numpy())
    own = int(found.labels[place]) if given is None else None
    return proposal(given, (x0, y0, x1, y1), score, overlap, mask, class_index=own)


def _cut(mask: np.ndarray) -> SoftMask:
    """The window of a mask of the image's pixels, probability 1 where it is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    window = mask[y0:y1, x0:x1].astype(np.uint8) * np.uint8(255)
    return SoftMask(Grid(float(x0), float(y0), 1.0, 1.0, y1 - y0, x1 - x0), window)
