"""Candidates of the CondInst teachers: in their place on the image, for the right box, from a saved model."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.condinst.inference import detect
from pseudolabel.condinst.network import CondInst
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.masks import pixel_window, resample
from pseudolabel.registry import load_target
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.condinst.config import BoxSegConfig
from pseudolabel.teachers.condinst.infer import CondInstTeacher, InputSize, cut_mask, resize_image
from pseudolabel.teachers.table import find_teacher
from pseudolabel.training.checkpoint import save_model
from tests.given import given_boxes


def small_network(tiny) -> CondInst:
    torch.manual_seed(0)
    shape = {name: value for name, value in tiny.items() if name in CondInstConfig.model_fields}
    return CondInst(CondInstConfig(**shape), 2)


def test_a_cut_mask_lies_where_the_network_learned_it():
    # cells speak for pixel 4 i + 2 of the network's input; here that is the image at twice its size
    columns = np.broadcast_to((4 * np.arange(16) + 2) / 64, (16, 16)).astype(np.float32)
    mask = cut_mask(np.rint(columns * 255).astype(np.uint8), (8.0, 4.0, 24.0, 20.0), (2.0, 2.0))
    assert mask.grid.extent_xyxy[0] <= 8
    assert mask.grid.extent_xyxy[2] >= 24
    pixels = resample(mask.probability / np.float32(255), mask.grid, pixel_window((8.0, 4.0, 24.0, 20.0), (32, 32)))
    # the middle of pixel x of the image is pixel 2 x + 0.5 of the input, counted from pixel middles
    expected = (2 * (np.arange(8, 24) + 0.5) - 0.5) / 64
    assert np.abs(pixels[4, 1:-1] - expected[1:-1]).max() < 0.01


def test_a_box_on_the_border_still_gets_a_cell():
    mask = cut_mask(np.full((8, 8), 255, dtype=np.uint8), (31.5, 31.5, 32.0, 32.0), (1.0, 1.0))
    assert mask.probability.shape == (1, 1)


@pytest.mark.parametrize(
    ("size_hw", "expected"), [((100, 200), (64, 128)), ((100, 400), (32, 128)), ((64, 64), (64, 64))], ids=str
)
def test_images_are_brought_to_the_short_side_within_the_long_limit(size_hw, expected):
    resized = resize_image(np.zeros((*size_hw, 3), dtype=np.uint8), InputSize(short_px=64, long_px=128))
    assert tuple(resized.image.shape[1:]) == expected
    assert resized.factor_xy == (expected[1] / size_hw[1], expected[0] / size_hw[0])


def test_a_candidate_for_a_given_box_is_scored_by_how_its_box_meets_it_whatever_the_classes(tiny):
    network = small_network(tiny)
    with torch.no_grad():
        network.head.classes.bias.fill_(-9.0)  # sure that there is nothing
    teacher = CondInstTeacher(network, InputSize(short_px=64, long_px=64), device="cpu", candidates=2)
    pixels, (box,) = np.full((64, 64, 3), 90, dtype=np.uint8), given_boxes([[8, 8, 40, 40]])
    for label in (None, 0, 1):
        found = teacher.predict([TeacherInput(pixels, [replace(box, class_index=label)])])[0]
        left, top, right, bottom = found[0].box_xyxy
        shared = max(min(right, 40) - max(left, 8), 0) * max(min(bottom, 40) - max(top, 8), 0)
        iou = shared / ((right - left) * (bottom - top) + 32 * 32 - shared)
        assert found[0].box_score == found[0].box_iou == pytest.approx(iou, abs=1e-5)
        assert iou > 0


def test_every_given_box_gets_its_candidates_best_first(tiny):
    teacher = CondInstTeacher(small_network(tiny), InputSize(short_px=64, long_px=128), device="cpu", candidates=4)
    pixels = np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    boxes = np.array([[5, 5, 30, 30], [40, 10, 70, 45], [0, 0, 79, 49]], dtype=np.float32)
    found = teacher.predict([TeacherInput(pixels, given_boxes(boxes))])[0]
    assert [one.annotation_id for one in found] == [0] * 4 + [1] * 4 + [2] * 4
    for place, box in enumerate(boxes):
        mine = [one for one in found if one.annotation_id == place]
        overlaps = [one.box_iou for one in mine]
        assert overlaps == sorted(overlaps, reverse=True)
        left, top, right, bottom = mine[0].mask.grid.extent_xyxy
        stride = mine[0].mask.grid.stride_x
        assert left <= box[0]
        assert right + stride > box[2]
        assert top <= box[1]
        assert bottom + stride > box[3]
        assert all(0 <= one.box_score <= 1 for one in mine)


def test_images_do_not_influence_each_other(tiny):
    teacher = CondInstTeacher(small_network(tiny), InputSize(short_px=64, long_px=64), device="cpu", candidates=2)
    rng = np.random.default_rng(1)
    one, other = (
        TeacherInput(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8), given_boxes([[5, 5, 30, 30]])) for _ in range(2)
    )
    together, alone = teacher.predict([other, one])[1], teacher.predict([one])[0]
    assert len(together) == 2
    for a, b in zip(together, alone, strict=True):
        assert a.box_xyxy == b.box_xyxy
        assert np.array_equal(a.mask.probability, b.mask.probability)


def test_without_given_boxes_the_detections_are_the_candidates(tiny):
    network = small_network(tiny)
    with torch.no_grad():
        network.head.classes.bias.fill_(2.0)
        network.head.box.bias.fill_(1.0)
    teacher = CondInstTeacher(network, InputSize(short_px=64, long_px=64), device="cpu", candidates=2)
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    found = teacher.predict([TeacherInput(pixels)])[0]
    assert found
    assert all(one.annotation_id is None and one.class_index in (0, 1) and one.box_iou is None for one in found)
    scores = [one.box_score for one in found]
    assert scores == sorted(scores, reverse=True)
    few = CondInstTeacher(network, InputSize(short_px=64, long_px=64), device="cpu", candidates=2, detections=3)
    assert len(found) > 3
    assert len(few.predict([TeacherInput(pixels)])[0]) == 3


def test_an_own_detection_is_scored_by_the_mean_of_score_and_mask(tiny, monkeypatch):
    """sqrt(score x mean probability of the mask's cells above one half within its box), by hand."""
    network = small_network(tiny)
    with torch.no_grad():
        network.head.classes.bias.fill_(2.0)
        network.head.box.bias.fill_(1.0)
    teacher = CondInstTeacher(network, InputSize(short_px=64, long_px=64), device="cpu", candidates=2)
    logits = torch.logit(torch.tensor([0.2, 0.6, 0.8])).repeat(6)[:16, None]  # of the cells by their row, in turn
    monkeypatch.setattr(network, "mask_logits", lambda features, image, location: logits.expand(len(location), 16, 16))
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    found = teacher.predict([TeacherInput(pixels)])[0]
    before = detect(network(torch.zeros(1, 3, 64, 64)).dense, 0, (64, 64))
    scores = []
    for box, score in zip(before.boxes.tolist(), before.scores.tolist(), strict=True):
        rows = [row for row in range(16) if math.floor(box[1]) <= 4 * row + 2 < math.floor(box[3] + 1)]
        high = [(0.2, 0.6, 0.8)[row % 3] for row in rows if row % 3]
        scores.append(math.sqrt(score * sum(high) / len(high)) if high else 0.0)
    assert [one.box_score for one in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)


def test_a_saved_teacher_comes_back_and_says_the_same(tiny, tmp_path):
    network = small_network(tiny)
    size = InputSize(short_px=64, long_px=64)
    about = {
        "method": "boxseg",
        "model": BoxSegConfig(class_agnostic=False, **tiny).model_dump(mode="json"),
        "input": size.model_dump(mode="json"),
        "categories": [{"id": 3, "name": "disc"}, {"id": 9, "name": "diamond"}],
    }
    path = tmp_path / "teacher.safetensors"
    save_model(path, network.state_dict(), about)
    loaded = load_target(find_teacher("boxseg").load)(path, about, device="cpu", candidates=3)
    given = TeacherInput(np.full((64, 64, 3), 90, dtype=np.uint8), given_boxes([[8, 8, 40, 50]]))
    before = CondInstTeacher(network, size, device="cpu", candidates=3).predict([given])[0]
    after = loaded.predict([given])[0]
    assert [one.box_xyxy for one in before] == [one.box_xyxy for one in after]
    load = load_target(find_teacher("boxseg").load)
    with pytest.raises(ConfigError, match="channels"):
        load(path, about | {"model": {"channels": "many"}}, device="cpu", candidates=3)
    with pytest.raises(InputError, match="another network"):
        load(path, about | {"categories": [{"id": 3, "name": "disc"}]}, device="cpu", candidates=3)


def test_a_network_of_one_class_answers_a_box_of_any_class_and_names_none_itself(tiny, tmp_path):
    torch.manual_seed(0)
    config = BoxSegConfig(**tiny)
    network = CondInst(config, config.detector_classes(2))
    with torch.no_grad():
        network.head.classes.bias.fill_(2.0)
    about = {
        "method": "boxseg",
        "model": config.model_dump(mode="json"),
        "input": {"short_px": 64, "long_px": 64},
        "categories": [{"id": 3, "name": "disc"}, {"id": 9, "name": "diamond"}],
    }
    path = tmp_path / "teacher.safetensors"
    save_model(path, network.state_dict(), about)
    load, pixels = load_target(find_teacher("boxseg").load), np.full((64, 64, 3), 90, dtype=np.uint8)
    teacher = load(path, about, device="cpu", candidates=2)
    (box,) = given_boxes([[8, 8, 40, 40]])
    found = [teacher.predict([TeacherInput(pixels, [replace(box, class_index=one)])])[0] for one in (None, 0, 1)]
    assert [[one.box_score for one in several] for several in found] == [[one.box_score for one in found[0]]] * 3
    own = teacher.predict([TeacherInput(pixels)])[0]
    assert own
    assert all(one.class_index is None and one.category_id is None for one in own)
    only = about | {"categories": about["categories"][:1]}  # of one category, it is that one
    assert {
        one.class_index for one in load(path, only, device="cpu", candidates=2).predict([TeacherInput(pixels)])[0]
    } == {0}
