"""Figures of students and of results files."""

import json

import pytest
import torch

from pseudolabel.errors import InputError
from pseudolabel.pipelines.demo.scenes import CLASSES, draw_scene, write_dataset
from pseudolabel.pipelines.tools.predict import PredictConfig, measure, predict
from pseudolabel.students import evaluation
from pseudolabel.students.base import Instances, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.evaluation import ap_on_file
from pseudolabel.students.pictures import coco_rows, instances_picture
from pseudolabel.students.save import save_student

CATEGORIES = [{"id": 1}, {"id": 2}, {"id": 4}, {"id": 7}, {"id": 11}]  # of the drawn scenes, by place


def perfect(index: int) -> Instances:
    """What a faultless student says of the scene of that place in a data set of seed 3."""
    scene = draw_scene(3 * 1_000_003 + index, (96, 96))
    boxes = torch.tensor(scene.boxes_xyxy(), dtype=torch.float32).view(-1, 4)
    return Instances(boxes, torch.tensor(scene.labels), torch.ones(len(boxes)), torch.from_numpy(scene.masks))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 3, 3, size_hw=(96, 96))
    return folder


def test_true_masks_have_an_ap_of_one(scenes):
    rows = [row for index in range(3) for row in coco_rows(perfect(index), index + 1, CATEGORIES)]
    assert measure(rows, scenes / "instances.json", CATEGORIES)["ap"] == pytest.approx(1.0)
    assert measure(rows[:0], scenes / "instances.json", CATEGORIES)["ap"] == 0.0


def test_an_empty_student_has_an_ap_of_zero_on_a_file(scenes):
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1, least_score=1.0), len(CLASSES)).eval()
    ap = ap_on_file(scenes / "instances.json", scenes / "images", CATEGORIES, image_px=96)
    assert ap(student) == 0.0


class Faultless(torch.nn.Module):
    """Says of the scenes of these places, one after the other, what is true."""

    def __init__(self, places):
        super().__init__()
        self.places = iter(places)

    def predict(self, images, *, image_px):
        return [perfect(next(self.places)) for _ in images]


def test_two_processes_share_the_images_and_get_the_ap_of_all(scenes, monkeypatch):
    truth, said, found = scenes / "instances.json", [], []
    for rank in range(2):
        monkeypatch.setattr(evaluation, "share", lambda images, rank=rank: images[rank::2])
        monkeypatch.setattr(evaluation, "gathered", lambda rows: said.extend(rows) or [*said])
        student = Faultless(range(rank, 3, 2))
        found.append(evaluation.evaluate_student(student, truth, scenes / "images", CATEGORIES, image_px=96).ap)
    assert found[0] < 0.9  # of what the first has seen by itself
    assert found[1] == pytest.approx(1.0)


def test_an_unreadable_image_is_listed_with_its_reason_and_the_others_are_done(scenes, tmp_path):
    torch.manual_seed(0)
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1), len(CLASSES))
    categories = [{**row, "name": name} for row, name in zip(CATEGORIES, CLASSES, strict=True)]
    weights = tmp_path / "student.safetensors"
    save_student(weights, student, student.config, categories, image_px=96, about={})
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.jpg").write_bytes((scenes / "images" / "00000.jpg").read_bytes())
    (images / "torn.jpg").write_bytes((scenes / "images" / "00001.jpg").read_bytes()[:200])
    summary = predict(weights, PredictConfig(images=images, out=tmp_path / "out", device="cpu"))
    assert (summary["images"], summary["rejected"]) == (2, 1)
    listed = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert ["reason" in row for row in listed] == [False, True]
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["1.png"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError):
        predict(tmp_path / "none.safetensors", PredictConfig(images=tmp_path, out=tmp_path / "out", device="cpu"))


def test_pictures_tint_only_instances_of_enough_score():
    scene = draw_scene(3 * 1_000_003, (96, 96))
    found = perfect(0)
    doubtful = Instances(found.boxes, found.labels, torch.full((len(found.labels),), 0.2), found.masks)
    assert (instances_picture(scene.image, doubtful, CLASSES) == scene.image).all()
    assert (instances_picture(scene.image, found, CLASSES) != scene.image).any()
