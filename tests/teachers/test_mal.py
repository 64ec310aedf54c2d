"""The box-conditioned teacher: crops in the right place, losses with known values, and masks from boxes alone."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.encoders.build import build_encoder
from pseudolabel.losses.boxes import projection_loss
from pseudolabel.masks import pixel_window, resample
from pseudolabel.pipelines.demo.scenes import Scene, draw_scene
from pseudolabel.teachers.base import TeacherInput
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.crops import (
    CropBatch,
    canvas_extent,
    claimed,
    cut_canvases,
    neighbour_boxes,
    sample_views,
    take,
)
from pseudolabel.teachers.mal.infer import MOST_VIEWS, MalTeacher, object_batch, objects_per_batch
from pseudolabel.teachers.mal.method import Mal, mask_quality, outside_loss, start_loss
from pseudolabel.teachers.mal.network import build_network, fold_batch_norm, freeze_early
from tests.given import given_boxes

BOX = torch.tensor([[40.0, 20.0, 72.0, 60.0]])


def _ramp(height: int, width: int) -> np.ndarray:
    """Red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)


def _batch(image: np.ndarray, boxes: torch.Tensor, size: int = 128) -> CropBatch:
    return object_batch([TeacherInput(image, given_boxes(boxes))], size)


def _no_flip(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.bool)


def test_a_canvas_shows_the_box_with_half_its_side_around_it() -> None:
    assert canvas_extent(BOX).tolist() == [[24.0, 0.0, 88.0, 80.0]]
    canvas = cut_canvases(_ramp(100, 120), BOX, 64)[0].float()
    # cell (r, c) of 64 covers one column and 1.25 rows; a pixel's value belongs to its centre, half a pixel in
    assert canvas[0, 30, 10] == pytest.approx(24 + 10.5 - 0.5, abs=0.6)
    assert canvas[1, 30, 10] == pytest.approx(1.25 * 30.5 - 0.5, abs=0.6)


def test_a_canvas_is_mid_gray_beyond_the_image() -> None:
    canvas = cut_canvases(np.full((50, 50, 3), 200, np.uint8), torch.tensor([[30.0, 10.0, 50.0, 30.0]]), 64)[0]
    assert int(canvas[:, 20, 10].min()) == 200
    assert canvas[:, :, 60].unique().tolist() == [128]


@given(st.floats(-8, 8), st.floats(-8, 8), st.floats(0.1, 0.4), st.booleans())
def test_a_crop_shows_the_pixels_of_its_rectangle(dx: float, dy: float, room: float, mirrored: bool) -> None:
    batch = _batch(_ramp(100, 120), BOX)
    rect = torch.tensor([[40 - 32 * room + dx, 20 - 40 * room + dy, 72 + 32 * room + dx, 60 + 40 * room + dy]])
    rect = torch.maximum(torch.minimum(rect, torch.tensor([86.0, 78.0] * 2)), torch.tensor([26.0, 2.0] * 2))
    view = sample_views(batch, rect, torch.tensor([mirrored]), 64)
    x0, y0, x1, y1 = rect[0].tolist()
    column = 16.5 / 64 if not mirrored else 1 - 16.5 / 64
    assert float(view.rgb[0, 0, 40, 16]) == pytest.approx(x0 + column * (x1 - x0) - 0.5, abs=1.0)
    assert float(view.rgb[0, 1, 40, 16]) == pytest.approx(y0 + 40.5 / 64 * (y1 - y0) - 0.5, abs=1.0)


def test_a_mirrored_crop_is_the_mirror_image_with_its_box_and_cues() -> None:
    batch = _batch(_ramp(100, 120), BOX)
    rect = torch.tensor([[30.0, 10.0, 78.0, 74.0]])
    plain, mirrored = (sample_views(batch, rect, torch.tensor([flip]), 64) for flip in (False, True))
    torch.testing.assert_close(mirrored.rgb, plain.rgb.flip(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored.cues[:, 0], plain.cues[:, 0].flip(2))
    torch.testing.assert_close(mirrored.cues[:, 1], plain.cues[:, 1].flip(2), atol=1e-5, rtol=0)
    left, top, right, bottom = plain.box_in_crop[0].tolist()
    assert mirrored.box_in_crop[0].tolist() == pytest.approx([64 - right, top, 64 - left, bottom])


def test_cues_say_where_the_box_is_and_how_far_its_sides_are() -> None:
    batch = _batch(_ramp(100, 120), BOX)
    rect = torch.tensor([[24.0, 0.0, 88.0, 80.0]])  # 16 cells: 4 px wide, 5 px high
    cues = sample_views(batch, rect, _no_flip(1), 64).cues[0]
    assert int(cues[0].sum()) == 8 * 8  # 32 px / 4 by 40 px / 5
    assert float(cues[1, 8, 4]) == pytest.approx((24 + 4 * 4.5 - 40) / 32)
    assert float(cues[4, 4, 8]) == pytest.approx((60 - 5 * 4.5) / 40)
    assert float(cues.abs().max()) == 1.0


def test_cues_tell_smaller_from_larger_neighbours_and_rivals_of_the_same_class() -> None:
    boxes = torch.tensor([[40.0, 20.0, 72.0, 60.0], [44.0, 30.0, 52.0, 40.0], [0.0, 0.0, 56.0, 90.0]])
    others, rivals = neighbour_boxes(boxes, torch.tensor([3, 5, 3]))
    assert others[0, :2].tolist() == [boxes[2].tolist(), boxes[1].tolist()]
    assert not others[0, 2:].any()
    assert rivals[0, :2].tolist() == [True, False]
    assert not rivals[0, 2:].any()
    asked = TeacherInput(_ramp(100, 120), given_boxes(boxes, [3, 5, 3]))
    view = sample_views(object_batch([asked], 128), canvas_extent(boxes), _no_flip(3), 64)
    # smaller and larger ones of another class, then of its own
    assert view.cues[0, 5:].sum(dim=(1, 2)).tolist() == [
        2 * 2,  # 8 x 10 px on cells of 4 x 5 px
        0,
        0,
        8 * 16,  # columns 24 to 56 of the crop, all rows
        0,  # no masks of theirs are known
    ]


def test_claims_are_the_masks_of_boxes_that_overlap_where_they_lie_on_a_canvas() -> None:
    boxes = torch.tensor([[40.0, 20.0, 72.0, 60.0], [56.0, 20.0, 88.0, 60.0], [0.0, 70.0, 30.0, 90.0]])
    masks = torch.stack([torch.full((8, 8), value) for value in (1.0, 0.5, 1.0)])
    claims = claimed(boxes, boxes, masks)
    first, second, alone = claims.long()
    assert not alone.any()
    # the first shows columns 24 to 88 and rows 0 to 80 on 96 cells: the second box from cell 48 on, rows 24 to 72
    assert int(first[48, 70]) == 128
    assert not first[:, :44].any()  # a mask fades out over half of its own cell, which has six of the canvas
    assert not first[:20].any()
    assert not first[76:].any()
    assert int(second[48, 30]) == 255


class _Claimed(torch.nn.Module):
    """The whole box, but for what the others claim."""

    def forward(self, images: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        return 20 * cues[:, 0] - 10 - 20 * cues[:, -1]


def test_a_second_look_knows_the_masks_of_the_first() -> None:
    boxes = torch.tensor([[40.0, 20.0, 72.0, 60.0], [56.0, 20.0, 88.0, 60.0], [4.0, 70.0, 30.0, 90.0]])
    asked = TeacherInput(_ramp(100, 120), given_boxes(boxes))
    teacher = MalTeacher(_Claimed(), _config(), device="cpu", views=1)
    left, right, alone = (one.mask.probability > 127 for one in teacher.predict([asked])[0])
    assert left.mean() == pytest.approx(0.5, abs=0.08)  # half of its box is in the other one's
    assert left[:, 0].all()
    assert not left[:, -1].any()
    assert right[:, -1].all()
    assert alone.mean() > 0.9


def test_boxes_of_one_category_are_rivals() -> None:
    boxes = torch.tensor([[40.0, 20.0, 72.0, 60.0], [44.0, 30.0, 52.0, 40.0]])
    assert _batch(_ramp(100, 120), boxes).rivals[:, 0].tolist() == [True, True]


def test_cells_beyond_the_image_are_not_valid() -> None:
    batch = _batch(_ramp(70, 80), BOX)
    valid = sample_views(batch, torch.tensor([[24.0, 0.0, 88.0, 80.0]]), _no_flip(1), 64).valid[0]
    assert valid.sum(dim=1).tolist() == [14] * 14 + [0] * 2


def test_the_start_loss_asks_for_the_middle_of_the_box_and_for_no_more() -> None:
    """Of 6 x 6 cells the middle 4 x 4 but their corners have their centre in a circle of two thirds of the side."""
    cells = torch.tensor([[0, 1, 6, 7]])
    logits = torch.full((1, 8, 9), -3.0)
    assert float(start_loss(logits, cells)) == pytest.approx(math.log1p(math.exp(3)), rel=1e-6)
    logits[0, 2:6, 1:5] = 50.0
    logits[0, [2, 2, 5, 5], [1, 4, 1, 4]] = -50.0
    assert float(start_loss(logits, cells)) == pytest.approx(0.0, abs=1e-6)
    logits[0, 2, 2] = -50.0
    assert float(start_loss(logits, cells)) == pytest.approx(50 / 12)
    assert float(start_loss(torch.zeros(1, 8, 9), cells)) == pytest.approx(math.log(2))


def test_a_row_and_a_column_satisfy_the_projection_but_not_the_start() -> None:
    cells = torch.tensor([[0, 0, 8, 8]])
    logits = torch.full((1, 8, 8), -20.0)
    logits[0, 0], logits[0, :, 0] = 20.0, 20.0
    assert float(projection_loss(logits, cells)) == pytest.approx(0.0, abs=1e-3)
    assert float(start_loss(logits, cells)) > 10


def test_the_outside_loss_of_an_undecided_mask_is_log_2() -> None:
    box = torch.zeros(1, 8, 8)
    box[:, 2:5, 2:5] = 1
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    assert float(outside_loss(torch.zeros(1, 8, 8), box, valid)) == pytest.approx(math.log(2))
    inside_only = torch.where(box > 0, 9.0, -200.0)
    assert float(outside_loss(inside_only, box, valid)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "value", "expected"),
    [
        pytest.param(8, 1.0, 1.0, id="certain and tight"),
        pytest.param(8, 0.81, math.sqrt(0.81 * (1 - (1 - 2 * 0.81 / (0.81**2 + 1)))), id="tight, less certain"),
        pytest.param(8, 0.3, 0.0, id="no foreground"),
        pytest.param(4, 1.0, math.sqrt(1 - (1 - 2 * 4 / (4 + 8)) / 2), id="half the height"),
    ],
)
def test_mask_quality_is_certainty_times_tightness(rows: int, value: float, expected: float) -> None:
    probability = torch.zeros(1, 8, 8)
    probability[:, :rows] = value
    quality = float(mask_quality(probability, torch.tensor([[0, 0, 8, 8]])))
    assert quality == pytest.approx(expected, abs=1e-3)


def test_folding_batch_norm_leaves_the_function_as_it_was() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    norm = layers[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    for parameter in (norm.running_mean, norm.weight.data, norm.bias.data):
        parameter.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 9, 9)
    before = layers.eval()(x)
    fold_batch_norm(layers)
    assert isinstance(layers[1], torch.nn.Identity)
    torch.testing.assert_close(layers(x), before)


def test_freezing_stops_what_the_finest_features_come_from_and_no_more() -> None:
    network = build_network("mobilenet_v2", "none", width=16)
    assert freeze_early(network) > 0
    features = network.encoder.body.features
    assert not any(parameter.requires_grad for parameter in features[:4].parameters())
    assert any(parameter.requires_grad for parameter in features[4].parameters())
    assert all(parameter.requires_grad for parameter in network.head.parameters())


def test_the_moving_average_starts_from_the_network_and_follows_it() -> None:
    method = Mal(build_network("tiny", "none", width=8), _config(ema=0.9))
    weight, mean = method.network.head[2].bias, method.average.head[2].bias
    start = float(mean)
    with torch.no_grad():
        weight += 1
    method.after_step(0)
    assert float(mean) == pytest.approx(start + 0.5)  # keep = 1 - 1/2
    method.after_step(1000)
    assert float(mean) == pytest.approx(start + 0.5 + 0.1 * 0.5)


def _config(**changes: object) -> MalConfig:
    small = {"backbone": "tiny", "width": 32, "crop_px": 64, "learning_rate": 4e-3, "encoder_learning_rate": 4e-3}
    return MalConfig.model_validate(small | {"freeze": False, "ema": 0.97} | changes)


def _train(method: Mal, batch: CropBatch, steps: int) -> None:
    optimiser = torch.optim.AdamW(method.parameter_groups())
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 30) * (1 - step / steps)
        losses = method.losses(take(batch, torch.randint(len(batch.boxes), (8,))), progress=step / steps)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 5.0)
        optimiser.step()
        method.after_step(step)


def _ious(scenes: Sequence[Scene], inputs: Sequence[TeacherInput], teacher: MalTeacher) -> tuple[float, float]:
    """Mean IoU with the truth of the mean of all candidates, and of the box itself."""
    masks, boxes = [], []
    for scene, one, found in zip(scenes, inputs, teacher.predict(inputs), strict=True):
        for place, truth in enumerate(scene.masks):
            x0, y0, x1, y1 = (float(value) for value in one.boxes_xyxy[place])
            window = pixel_window((x0, y0, x1, y1), (truth.shape[0], truth.shape[1]))
            looks = [
                resample(candidate.mask.probability.astype(np.float32), candidate.mask.grid, window)
                for candidate in found
                if candidate.annotation_id == place
            ]
            mask = np.mean(looks, axis=0) > 127.5
            rows = slice(int(window.y0), int(window.y0) + window.height)
            columns = slice(int(window.x0), int(window.x0) + window.width)
            inside = truth[rows, columns]
            masks.append((mask & inside).sum() / (mask | inside).sum())
            boxes.append(inside.mean())
    return float(np.mean(masks)), float(np.mean(boxes))


@pytest.mark.slow
def test_it_learns_the_masks_of_a_handful_of_images_from_their_boxes_alone() -> None:
    torch.manual_seed(0)
    scenes = [draw_scene(seed, (160, 160)) for seed in range(6)]
    inputs = [TeacherInput(scene.image, given_boxes(scene.boxes_xyxy())) for scene in scenes]
    config = _config(jitter=0.02)
    method = Mal(build_network("tiny", "none", width=32), config)
    _train(method, object_batch(inputs, config.canvas_px), steps=450)
    mask_iou, box_iou = _ious(scenes, inputs, MalTeacher(method.average, config, device="cpu", views=4))
    assert box_iou < 0.6
    assert mask_iou > 0.76


def test_candidates_cover_their_box_and_do_not_depend_on_the_company() -> None:
    torch.manual_seed(0)
    scenes = [draw_scene(seed, (96, 96)) for seed in range(3)]
    inputs = [TeacherInput(scene.image, given_boxes(scene.boxes_xyxy())) for scene in scenes]
    inputs.insert(1, TeacherInput(scenes[0].image))
    teacher = MalTeacher(build_network("tiny", "none", width=8), _config(width=8), device="cpu", views=3)
    together = teacher.predict(inputs)
    assert [len(found) for found in together] == [3 * len(one.boxes_xyxy) for one in inputs]
    assert together[1] == []
    for one, found in zip(inputs, together, strict=True):
        for candidate in found:
            assert candidate.annotation_id is not None
            assert candidate.mask.grid.extent_xyxy == pytest.approx(
                tuple(one.boxes_xyxy[candidate.annotation_id]), abs=1e-3
            )
            assert 0 <= candidate.box_score <= 1
            assert candidate.box_iou is not None
            assert 0 < candidate.box_iou <= 1.000001
    alone = [teacher.predict([one])[0] for one in inputs]
    for both, single in zip(together, alone, strict=True):
        for first, second in zip(both, single, strict=True):
            np.testing.assert_array_equal(first.mask.probability, second.mask.probability)


@pytest.mark.parametrize(
    ("count", "device", "expected"),
    [(3, "cpu", 16), (300, "cpu", 16), (3, "cuda", 16), (17, "cuda:1", 32), (300, "cuda", 256)],
    ids=str,
)
def test_a_gpu_sees_all_objects_of_a_call_at_once_and_a_cpu_always_as_many(
    count: int, device: str, expected: int
) -> None:
    assert objects_per_batch(count, device) == expected


def test_more_views_than_there_are_ways_to_look_are_not_invented() -> None:
    teacher = MalTeacher(build_network("tiny", "none", width=8), _config(width=8), device="cpu", views=99)
    assert teacher.views == MOST_VIEWS


def test_a_pretrained_encoders_statistics_are_those_of_its_file() -> None:
    before = build_encoder("test_resnet", "none").body.state_dict()
    network = build_network("test_resnet", "none")
    statistics = {name: value for name, value in network.encoder.body.state_dict().items() if "running" in name}
    assert len(statistics) == 20
    assert all(torch.equal(value, before[name]) for name, value in statistics.items())  # 0 and 1: nothing was seen
