"""Figures of students and of results files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.errors import InputError
from pseudolabel.metrics.truth_file import read_truth_file
from pseudolabel.pipelines.demo.scenes import CLASSES, draw_scene, write_dataset
from pseudolabel.pipelines.tools.predict import PredictConfig, measure, predict, predict_text
from pseudolabel.pixel_rule import PixelRule
from pseudolabel.students import evaluation
from pseudolabel.students.base import Instances, make_student
from pseudolabel.students.config import StudentConfig
from pseudolabel.students.evaluation import ap_on_file
from pseudolabel.students.pictures import coco_rows, instances_picture
from pseudolabel.students.save import save_student

CATEGORIES = [{"id": 1}, {"id": 2}, {"id": 4}, {"id": 7}, {"id": 11}]  # of the drawn scenes, by place

NAMED = [{**row, "name": name} for row, name in zip(CATEGORIES, CLASSES, strict=True)]


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
    truth = read_truth_file(scenes / "instances.json", CATEGORIES)
    assert measure(rows, truth)["ap"] == pytest.approx(1.0)
    assert measure(rows[:0], truth)["ap"] == 0.0


def test_an_empty_student_has_an_ap_of_zero_on_a_file(scenes):
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1, least_score=1.0), len(CLASSES)).eval()
    ap = ap_on_file(scenes / "instances.json", scenes / "images", CATEGORIES, image_px=96)
    assert ap(student) == 0.0


def changed(scenes, folder, change):
    """The truth of the scenes with something else in it."""
    content = json.loads((scenes / "instances.json").read_text())
    change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return path


def without_masks(content):
    for row in content["annotations"]:
        del row["segmentation"]


def without_objects(content):
    content["annotations"] = []


def of_another_size(content):
    for row in content["images"]:
        row["height"] -= 8
    for row in content["annotations"]:
        row["segmentation"] = [[10, 10, 40, 10, 40, 40, 10, 40]]


def with_an_image_that_is_not_there(content):
    content["images"][-1]["file_name"] = "nowhere.jpg"


def with_other_ids(content):
    for row in content["images"]:
        row["id"] += 1000
    for row in content["annotations"]:
        row["image_id"] += 1000


FAULTS = [
    pytest.param(without_masks, "no true mask.*a box without a mask", id="boxes alone"),
    pytest.param(without_objects, "no true mask", id="no objects"),
    pytest.param(of_another_size, "image 1 is 88x96 .* there and 96x96 as it is read", id="turned otherwise"),
]
MISSING = pytest.param(with_an_image_that_is_not_there, "nowhere.jpg: missing", id="an image is missing")
OTHER_IDS = pytest.param(with_other_ids, "none of its 3 images has an id of the 3 images", id="other ids")


@pytest.mark.parametrize(("change", "message"), [*FAULTS, MISSING])
def test_a_validation_that_cannot_be_measured_is_refused_before_the_training(scenes, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        ap_on_file(changed(scenes, tmp_path, change), scenes / "images", CATEGORIES, image_px=96)


@pytest.mark.parametrize(("change", "message"), [*FAULTS, OTHER_IDS])
def test_predict_refuses_a_truth_that_says_nothing_about_its_images(scenes, tmp_path, change, message):
    options = {"images": scenes / "images", "out": tmp_path / "out", "device": "cpu"}
    truth = changed(scenes, tmp_path, change)
    with pytest.raises(InputError, match=message):
        predict(
            untrained(tmp_path), PredictConfig(ground_truth=truth, annotations=scenes / "instances.json", **options)
        )


def test_images_that_are_not_predicted_on_do_not_count_as_missed(scenes, tmp_path):
    def first_alone(content):
        content["images"] = content["images"][:1]
        content["annotations"] = []

    listed = changed(scenes, tmp_path, first_alone)
    truth = read_truth_file(scenes / "instances.json", CATEGORIES).on([1])
    assert {row.image_id for row in truth.truth.objects} == {1}
    options = {"images": scenes / "images", "out": tmp_path / "out", "device": "cpu"}
    summary = predict(
        untrained(tmp_path), PredictConfig(ground_truth=scenes / "instances.json", annotations=listed, **options)
    )
    assert summary["images"] == 1
    assert measure(list(coco_rows(perfect(0), 1, CATEGORIES)), truth)["ap"] == pytest.approx(1.0)


def test_predict_ends_with_an_error_where_no_image_can_be_read(scenes, tmp_path):
    options = {"images": tmp_path, "out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(InputError, match=r"not one of 3 images can be read: .*00000\.jpg: missing"):
        predict(untrained(tmp_path), PredictConfig(annotations=scenes / "instances.json", **options))
    assert not (tmp_path / "out" / "results.json").exists()


def untrained(folder, **rule):
    torch.manual_seed(0)
    student = make_student(StudentConfig(backbone="tiny", width=40, convs=1), len(CLASSES))
    weights = folder / "student.safetensors"
    save_student(weights, student, student.config, NAMED, image_px=96, about={}, rule=PixelRule(**rule))
    return weights


def test_predict_reads_pixels_as_those_of_the_training(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        evaluation, "load_image", lambda root, name, *, rule: seen.append(rule) or np.zeros((8, 8, 3), "u1")
    )
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "one.png")
    weights = untrained(tmp_path, stretch="percentile", channels=(3, 2, 1), page=2)
    predict(weights, PredictConfig(images=tmp_path / "images", out=tmp_path / "out", pictures=1, device="cpu"))
    assert set(seen) == {PixelRule("transpose", "percentile", (3, 2, 1), 2)}


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
    weights = untrained(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.jpg").write_bytes((scenes / "images" / "00000.jpg").read_bytes())
    (images / "torn.jpg").write_bytes((scenes / "images" / "00001.jpg").read_bytes()[:200])
    summary = predict(weights, PredictConfig(images=images, out=tmp_path / "out", device="cpu"))
    assert (summary["images"], summary["rejected"]) == (2, 1)
    assert "1 unreadable, such as" in predict_text(summary)
    assert "torn.jpg" in predict_text(summary)
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
