"""Drawn objects over crops: a mask is tight in its box, what lies in front is no part of it, and sticks are thin."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.teachers.mal import drawn
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.crops import CropBatch
from pseudolabel.teachers.mal.drawn import DrawnCrops, Framing, drawn_crops
from pseudolabel.teachers.mal.method import Mal
from pseudolabel.teachers.mal.network import build_network
from pseudolabel.teachers.mal.silhouettes import CELLS, silhouettes

SIDE = 128
FRAMING = Framing(room=0.2, room_jitter=0.1, jitter=0.05)
COUNT = 8


def _batch(colors: torch.Tensor) -> CropBatch:
    """Canvases of one colour each."""
    count = len(colors)
    canvas = colors.to(torch.uint8)[:, :, None, None].expand(count, 3, 192, 192)
    boxes = torch.tensor([[10.0, 10, 50, 50]]).expand(count, 4)
    nothing = torch.zeros(count, 1, 4)
    return CropBatch(canvas, boxes, nothing, nothing[..., 0] > 0, torch.full((count, 2), 100.0), ("a",) * count)


GRAY = _batch(torch.full((3, 3), 128))


def _drawn(seed: int, batch: CropBatch = GRAY) -> DrawnCrops:
    torch.manual_seed(seed)
    return drawn_crops(batch, COUNT, SIDE, FRAMING)


@given(st.integers(0, 10_000))
def test_a_silhouette_touches_all_sides_of_its_grid(seed: int) -> None:
    torch.manual_seed(seed)
    shapes = silhouettes(6)
    assert shapes.shape == (6, CELLS, CELLS)
    assert float(shapes.min()) >= 0
    assert float(shapes.max()) <= 1
    for side in (shapes[:, 0], shapes[:, -1], shapes[:, :, 0], shapes[:, :, -1]):
        assert (side.amax(dim=1) > 0.4).all()


def test_shapes_fill_their_boxes_as_differently_as_things_do() -> None:
    torch.manual_seed(0)
    fill = silhouettes(200).mean(dim=(1, 2))
    assert float((fill < 0.35).float().mean()) > 0.2
    assert float((fill > 0.6).float().mean()) > 0.2


@given(st.integers(0, 10_000))
def test_a_mask_reaches_to_its_box_and_not_beyond(seed: int) -> None:
    crops = _drawn(seed)
    for mask, (left, top, right, bottom) in zip(crops.masks, (crops.box_in_crop / 4).tolist(), strict=True):
        columns, rows = (torch.nonzero(mask.amax(dim=axis) > 0.02)[:, 0] for axis in (0, 1))
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        wanted = [left, top, right, bottom]
        assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 2


@given(st.integers(0, 10_000))
def test_the_network_is_told_the_box(seed: int) -> None:
    crops = _drawn(seed)
    sides = (crops.box_in_crop[:, 2:] - crops.box_in_crop[:, :2]) / 4
    assert (crops.cues[:, 0].sum(dim=(1, 2)) - sides.prod(dim=1)).abs().max() < 2 * sides.max()


def test_the_same_random_numbers_draw_the_same_and_others_do_not() -> None:
    torch.testing.assert_close(_drawn(3).rgb, _drawn(3).rgb)
    assert not torch.equal(_drawn(3).masks, _drawn(4).masks)


def test_where_the_mask_is_the_filling_is_seen_and_elsewhere_the_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of black grounds and white fillings, without other things and without softness by enlargement."""
    monkeypatch.setattr(drawn, "OTHERS", 0.0)
    monkeypatch.setattr(drawn, "COARSE", 0.0)
    monkeypatch.setattr(drawn, "_filling", lambda _batch, count, size: torch.full((count, 3, size, size), 255.0))
    crops = _drawn(0, _batch(torch.zeros(2, 3)))
    share = torch.nn.functional.avg_pool2d(crops.rgb / 255, 4)
    torch.testing.assert_close(share, crops.masks[:, None].expand_as(share))


def test_what_lies_in_front_is_no_part_of_the_mask_and_leaves_half_of_it_and_the_box(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawn, "OTHERS", 1.0)
    monkeypatch.setattr(drawn, "HIDERS", 1.0)
    monkeypatch.setattr(drawn, "COARSE", 0.0)
    white = iter([torch.zeros(COUNT, 3, SIDE, SIDE), torch.full((COUNT, 3, SIDE, SIDE), 255.0)] * 20)
    monkeypatch.setattr(drawn, "_filling", lambda *_: next(white))  # first of the other thing, then of the object
    hidden = 0
    for seed in range(20):
        with_other = _drawn(seed, _batch(torch.zeros(2, 3)))
        share = torch.nn.functional.avg_pool2d(with_other.rgb / 255, 4)[:, 0]
        torch.testing.assert_close(share, with_other.masks)
        monkeypatch.setattr(drawn, "HIDERS", 0.0)
        whole = _whole(seed)
        monkeypatch.setattr(drawn, "HIDERS", 1.0)
        left = with_other.masks.sum(dim=(1, 2)) / whole.sum(dim=(1, 2))
        assert (left > 0.45).all()
        hidden += int((left < 0.95).sum())
    assert hidden > 20


def test_a_told_mask_of_another_thing_runs_over_the_object_only_where_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for share in ("OTHERS", "TOLD", "MASK_TOLD"):
        monkeypatch.setattr(drawn, share, 1.0)
    monkeypatch.setattr(drawn, "ROUGH", 0.0)
    over = {}
    for wrong in (0.0, 1.0):
        monkeypatch.setattr(drawn, "WRONG", wrong)
        over[wrong] = torch.cat([_told_over_the_object(_drawn(seed)) for seed in range(10)])
    assert float(over[0.0].amax()) < 0.2  # blurred into the outline, no more
    assert float((over[1.0] > 0.3).float().mean()) > 0.15
    monkeypatch.setattr(drawn, "MASK_TOLD", 0.0)
    assert not _drawn(0).cues[:, -1].any()


def _told_over_the_object(crops: DrawnCrops) -> torch.Tensor:
    """Which share of each object's inner cells is told to be another thing's."""
    inner = -torch.nn.functional.max_pool2d(-crops.masks, 3, 1, 1) > 0.99
    return (crops.cues[:, -1] * inner).sum(dim=(1, 2)) / inner.sum(dim=(1, 2)).clamp(min=1)


def _whole(seed: int) -> torch.Tensor:
    """The masks of the same drawing with everything else behind the objects."""
    torch.manual_seed(seed)
    boxes = drawn._boxes(COUNT, SIDE, FRAMING)
    torch.rand(COUNT, 2), torch.rand(COUNT, 2)
    shapes = drawn._laid(silhouettes(COUNT), boxes, SIDE)
    return torch.nn.functional.avg_pool2d(shapes, 4)[:, 0]


def test_none_drawn_means_the_losses_of_boxes_alone() -> None:
    config = MalConfig(backbone="tiny", backbone_weights="none", drawn=0.0)
    batch = replace(GRAY, canvas=(torch.rand(3, 3, 192, 192) * 255).to(torch.uint8))
    names = set(Mal(build_network("tiny", "none", width=8), config).losses(batch, progress=0.5))
    told = MalConfig(backbone="tiny", backbone_weights="none", drawn=0.5)
    assert set(Mal(build_network("tiny", "none", width=8), told).losses(batch, progress=0.5)) == names | {"drawn"}
