"""Objects of other crops over a crop: what is seen there, what is known of it, and where nothing is pasted."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.teachers.mal.crops import Views
from pseudolabel.teachers.mal.method import _Target
from pseudolabel.teachers.mal.network import CUES
from pseudolabel.teachers.mal.paste import _laid, with_pastes

SIDE, CELLS = 128, 32
COLORS = torch.tensor([[200.0, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]])


def _views(*sides_wh: tuple[float, float]) -> Views:
    """Crops of one colour each; boxes from 32 to 96, filled masks, of such sides in the image."""
    count = len(sides_wh)
    masks = torch.zeros(count, CELLS, CELLS)
    masks[:, 8:24, 8:24] = 1
    rect = torch.tensor([[0.0, 0, 2 * width, 2 * height] for width, height in sides_wh])
    return Views(
        COLORS[:count, :, None, None].expand(count, 3, SIDE, SIDE),
        torch.zeros(count, CUES, CELLS, CELLS),
        torch.ones(count, CELLS, CELLS, dtype=torch.bool),
        torch.tensor([[32.0, 32, 96, 96]]).expand(count, 4),
        rect,
        masks,
    )


def _pasted(views: Views, seed: int, probability: float = 1.0, scores: torch.Tensor | None = None) -> Views:
    torch.manual_seed(seed)
    return with_pastes(views, torch.ones(len(views.rgb)) if scores is None else scores, probability=probability)


@given(st.integers(0, 10_000))
def test_what_is_hidden_shows_the_other_object_and_is_no_longer_in_the_mask(seed: int) -> None:
    views = _views((50, 50), (80, 40), (30, 90), (60, 60))
    pasted = _pasted(views, seed)
    assert pasted.covered is not None
    assert pasted.masks is not None
    assert views.masks is not None
    share = torch.nn.functional.avg_pool2d((pasted.rgb != views.rgb).any(dim=1, keepdim=True).float(), 4)[:, 0]
    torch.testing.assert_close(share, pasted.covered)
    torch.testing.assert_close(pasted.masks, views.masks * (1 - pasted.covered))
    hidden = pasted.covered == 1
    for index in range(4):
        shown = pasted.rgb[index][:, hidden[index].repeat_interleave(4, 0).repeat_interleave(4, 1)]
        assert (shown - COLORS[index - 1][:, None]).abs().max() < 1e-3 if shown.numel() else True


def test_half_of_the_tutors_are_told_as_what_others_cover() -> None:
    told = there = 0
    for seed in range(50):
        pasted = _pasted(_views((50, 50), (50, 50), (50, 50), (50, 50)), seed)
        assert pasted.covered is not None
        for claims, covered in zip(pasted.cues[:, -1], pasted.covered, strict=True):
            assert torch.equal(claims, covered) or not claims.any()
            there, told = there + bool(covered.any()), told + bool(claims.any())
    assert told / there == pytest.approx(0.5, abs=0.15)


@given(st.integers(0, 10_000))
def test_the_box_stays_tight_and_half_of_the_mask_is_left(seed: int) -> None:
    views = _views((50, 50), (80, 40), (30, 90), (60, 60))
    pasted = _pasted(views, seed)
    assert pasted.masks is not None
    for mask in pasted.masks:
        rows, columns = (mask > 0.5).nonzero(as_tuple=True)
        assert len(rows) >= 128
        assert rows.min() <= 9
        assert columns.min() <= 9
        assert rows.max() >= 22
        assert columns.max() >= 22


def test_pastes_come_as_often_as_the_places_allow() -> None:
    views = _views((50, 50), (50, 50), (50, 50), (50, 50))
    always, half = (
        sum(int((_pasted(views, seed, probability).covered > 0).flatten(1).any(dim=1).sum()) for seed in range(100))
        for probability in (1.0, 0.5)
    )
    assert 100 < always <= 400
    assert half / always == pytest.approx(0.5, abs=0.12)


def test_a_tutor_keeps_its_sides_ratio_in_the_image() -> None:
    views = _views((90, 30), (40, 40))  # the second crop's tutor is three times as wide as high
    place = _places_of(views)[1]
    width, height = ((place[2:] - place[:2]) * torch.tensor([80 / SIDE, 80 / SIDE])).tolist()
    assert width / height == pytest.approx(3, rel=1e-5)
    assert 0.1 <= width * height / 40**2 <= 0.6


def _places_of(views: Views) -> torch.Tensor:
    from pseudolabel.teachers.mal.paste import _places

    torch.manual_seed(0)
    return _places(views, torch.tensor([1, 0]))


def test_planes_are_laid_where_the_place_is() -> None:
    views = _views((50, 50), (50, 50))
    place = torch.tensor([[32.0, 64, 64, 80], [0, 0, 64, 64]])
    assert views.masks is not None
    laid = _laid(place, views, torch.tensor([1, 0]), views.masks[:, None])
    assert laid.shape == (2, 1, SIDE, SIDE)
    rows, columns = (laid[0, 0] > 0.5).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (64, 79, 32, 63)


def test_without_masks_scores_or_a_second_crop_nothing_is_pasted() -> None:
    views = _views((50, 50), (50, 50))
    one = _views((50, 50))
    none = replace(views, masks=None)
    assert with_pastes(none, torch.ones(2), probability=1) is none
    assert with_pastes(views, None, probability=1) is views
    assert with_pastes(views, torch.ones(2), probability=0) is views
    assert with_pastes(one, torch.ones(1), probability=1) is one


def test_bad_masks_are_no_tutors_and_what_has_no_mask_is_no_learner() -> None:
    views = _views((50, 50), (50, 50), (50, 50), (50, 50))
    scores = torch.tensor([1.0, 0.5, 1.0, 0.0])  # crop 2 has a bad tutor, crop 3 no mask, crop 0 the one without
    hit = []
    for seed in range(40):
        covered = _pasted(views, seed, scores=scores).covered
        assert covered is not None
        hit.append((covered > 0).flatten(1).any(dim=1))
    assert torch.stack(hit).any(dim=0).tolist() == [False, True, False, False]


def test_what_is_hidden_is_outside_of_the_object() -> None:
    views = _views((50, 50), (50, 50))
    hidden = torch.zeros(2, CELLS, CELLS)
    hidden[0, 8:12, 8:24] = 1
    target = _Target(replace(views, covered=hidden), torch.Size([2, CELLS, CELLS]), MalConfig())
    assert target.own.sum(dim=(1, 2)).tolist() == [256 - 64, 256]
    assert target.box.sum(dim=(1, 2)).tolist() == [256, 256]
