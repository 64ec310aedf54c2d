"""A student that teaches: candidates for given boxes, or its own detections where none is given."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pseudolabel.registry import load_target
from pseudolabel.students.base import Instances, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.save import TrainedStudent, save_student
from pseudolabel.students.teacher import DetectingTeacher, load_student_teacher
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.table import find_teacher
from pseudolabel.training.checkpoint import read_config
from tests.given import given_boxes

from .scenes import sample

CATEGORIES = ({"id": 4, "name": "disc"}, {"id": 9, "name": "bar"})


class Fixed:
    """Stands for a student with these detections."""

    def __init__(self, found: Instances) -> None:
        self.found = found

    def predict(self, images: list[torch.Tensor], *, image_px: int) -> list[Instances]:
        del image_px
        return [self.found for _ in images]


def filled(boxes: list[list[int]], size_hw: tuple[int, int] = (40, 60)) -> Instances:
    masks = torch.zeros(len(boxes), *size_hw, dtype=torch.bool)
    for plane, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        plane[y0:y1, x0:x1] = True
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return Instances(torch.tensor(boxes).float(), torch.zeros(len(boxes), dtype=torch.int64), scores, masks)


def ask(found: Instances, given: list[list[float]], candidates: int = 3):
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    teacher = DetectingTeacher(TrainedStudent(Fixed(found), CATEGORIES, 64), candidates)
    return teacher.predict([TeacherInput(pixels, given_boxes(given))])[0]


def test_a_detection_is_for_the_box_that_it_overlaps_most():
    found = ask(filled([[0, 0, 10, 10], [30, 0, 40, 10], [1, 1, 11, 11]]), [[31, 0, 41, 10], [0, 0, 10, 10]])
    assert [(one.annotation_id, one.box_xyxy[0]) for one in found] == [(0, 30.0), (1, 0.0), (1, 1.0)]
    assert found[0].box_iou == pytest.approx(90 / 110)
    assert found[1].box_iou == pytest.approx(1.0)


def test_no_box_gets_more_candidates_than_were_asked_for():
    found = ask(filled([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10]]), [[0, 0, 10, 10]], candidates=2)
    assert [one.box_xyxy[0] for one in found] == [0.0, 1.0]


def test_a_detection_far_from_every_box_is_nobody_s():
    assert ask(filled([[50, 30, 58, 38]]), [[0, 0, 10, 10]]) == []


def test_without_boxes_every_detection_is_a_candidate_with_its_class():
    found = ask(filled([[0, 0, 10, 10], [30, 0, 40, 10]]), [])
    assert [(one.annotation_id, one.class_index, one.box_iou) for one in found] == [(None, 0, None)] * 2
    grid = found[1].mask.grid
    assert grid.extent_xyxy == (30.0, 0.0, 40.0, 10.0)
    assert found[1].mask.probability.min() == 255


def saved(name: str, path: Path) -> Path:
    torch.manual_seed(0)
    shape = StudentConfig(model=name, backbone="tiny", width=40, convs=1, least_score=0.0, detections=10)
    save_student(path, make_student(shape, 2), shape, CATEGORIES, image_px=96, about={})
    return path


@pytest.mark.parametrize("name", ["condinst", "mask_rcnn", "query"])
def test_a_saved_student_is_found_in_the_table_of_teachers(name: str, tmp_path: Path):
    weights = saved(name, tmp_path / "student.safetensors")
    config = read_config(weights)
    assert load_target(find_teacher(config["method"]).load) is load_student_teacher
    teacher = load_student_teacher(weights, config, device="cpu", candidates=2)
    pixels = sample(0).image.numpy().transpose(1, 2, 0)
    boxes = sample(0).boxes.numpy()
    found = teacher.predict([TeacherInput(pixels, given_boxes(boxes))])[0]
    counts = [sum(one.annotation_id == box for one in found) for box in range(len(boxes))]
    assert max(counts) <= 2
    assert sum(counts) == len(found) > 0
    assert all(0 <= one.box_score <= 1 and one.box_iou is not None for one in found)
