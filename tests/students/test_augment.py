"""Views keep boxes, masks and pixels together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.students.augment import Augment, cropped, flipped, resized
from pseudolabel.students.config import AugmentConfig
from pseudolabel.students.data import Sample, collate

from .scenes import sample


def plain(boxes: list[list[float]], size_hw: tuple[int, int] = (40, 60)) -> Sample:
    """A sample whose masks fill their boxes, which have whole corners."""
    masks = torch.zeros(len(boxes), *size_hw, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    count = len(boxes)
    return Sample(
        "plain",
        masks.any(dim=0).to(torch.uint8)[None].expand(3, -1, -1) * 200,
        torch.tensor(boxes, dtype=torch.float32),
        torch.zeros(count, dtype=torch.int64),
        masks,
        torch.ones(count, dtype=torch.bool),
        torch.ones(count),
        masks.clone(),
        torch.zeros(size_hw, dtype=torch.bool),
    )


def extent(mask: torch.Tensor) -> list[int]:
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def test_a_flip_mirrors_boxes_with_their_masks():
    view = flipped(plain([[3, 5, 20, 17]]))
    assert view.boxes.tolist() == [[40, 5, 57, 17]]
    assert extent(view.masks[0]) == [40, 5, 57, 17]
    assert extent(view.unsure[0]) == [40, 5, 57, 17]


def test_a_crop_cuts_boxes_and_drops_what_is_left_outside():
    view = cropped(plain([[3, 5, 20, 17], [30, 30, 40, 40]]), top=4, left=10, height=16, width=16)
    assert view.boxes.tolist() == [[0, 1, 10, 13]]
    assert extent(view.masks[0]) == [0, 1, 10, 13]
    assert extent(view.unsure[0]) == [0, 1, 10, 13]


def test_a_crop_drops_an_object_whose_mask_it_does_not_show():
    one = plain([[3, 5, 20, 17]])
    one.masks[0, :, :12] = False
    assert len(cropped(one, top=0, left=0, height=40, width=10).boxes) == 0


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.6, 2.5))
def test_resizing_keeps_masks_in_their_boxes(scale):
    view = resized(plain([[4, 8, 24, 32]]), scale)
    for found, wanted in zip(extent(view.masks[0]), view.boxes[0].tolist(), strict=True):
        assert abs(found - wanted) <= 1


@pytest.mark.parametrize("views", ["plain", "weak", "strong", "strong_blur"])
def test_views_fit_the_square_and_repeat_with_the_seed(views):
    augment = Augment(AugmentConfig(image_px=64, views=views))
    seen = []
    for _ in range(2):
        torch.manual_seed(3)
        view = augment(sample(0))
        assert max(view.size_hw) <= 64
        assert len(view.boxes) == len(view.masks) == len(view.labels)
        seen.append(view)
    assert torch.equal(seen[0].image, seen[1].image)
    assert torch.equal(seen[0].boxes, seen[1].boxes)


def test_strong_views_change_colours_and_leave_shapes():
    torch.manual_seed(0)
    config = AugmentConfig(image_px=96, smallest_scale=1, largest_scale=1, views="strong")
    views = [Augment(config)(sample(0)) for _ in range(6)]
    areas = {tuple(view.masks.sum(dim=(1, 2)).tolist()) for view in views}
    assert len(areas) == 1
    assert any(not torch.equal(views[0].image, view.image) for view in views[1:])


def test_a_batch_pads_to_multiples_of_32_at_the_bottom_right():
    batch = collate([plain([[3, 5, 20, 17]]), plain([], (30, 70))])
    assert batch.images.shape == (2, 3, 64, 96)
    assert extent(batch.samples[0].masks[0]) == [3, 5, 20, 17]
    assert extent(batch.samples[0].unsure[0]) == [3, 5, 20, 17]
    assert batch.sizes_hw == [(40, 60), (30, 70)]
