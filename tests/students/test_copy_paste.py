"""Pasting keeps pixels, masks and boxes together, and only good objects teach."""

from dataclasses import replace

import pytest
import torch

from pseudolabel.students.copy_paste import PeerTutor, find_tutors, paste, paste_peers
from pseudolabel.students.data import Sample
from pseudolabel.training.pasting import Spot, corner_over, pasted, random_peer, spot_at, uncovered

WHOLE = (slice(0, 20), slice(0, 20))  # of a tutor
SQUARE = (slice(10, 30), slice(0, 20))


def scene(boxes: list[list[int]], value: int, weights: list[float] | None = None) -> Sample:
    """Filled boxes of one grey value on black, 60 x 60 px, all of class 0."""
    masks = torch.zeros(len(boxes), 60, 60, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Sample(
        f"grey {value}",
        masks.any(dim=0).to(torch.uint8)[None].expand(3, -1, -1).clone() * value,
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.zeros(len(boxes), dtype=torch.int64),
        masks,
        torch.ones(len(boxes), dtype=torch.bool),
        torch.tensor(weights or [1.0] * len(boxes)),
        masks.clone(),
        torch.zeros(60, 60, dtype=torch.bool),
    )


def grey(value: int) -> PeerTutor:
    """A square of 20 px of one grey value, of which every pixel is unsure."""
    whole = torch.ones(20, 20, dtype=torch.bool)
    return PeerTutor(torch.full((3, 20, 20), value, dtype=torch.uint8), whole, 0, 0.8, whole)


def test_tutors_are_good_large_and_alone_best_first():
    one = scene(
        [[0, 0, 20, 20], [22, 0, 42, 20], [0, 30, 20, 50], [2, 32, 22, 52], [50, 50, 55, 55], [40, 25, 60, 45]],
        9,
        [0.7, 0.9, 1.0, 1.0, 1.0, 0.5],
    )
    assert [tutor.quality for tutor in find_tutors(one, min_area_px=300)] == pytest.approx([0.9, 0.7])


def test_an_object_without_a_mask_is_no_tutor():
    one = scene([[0, 0, 20, 20]], 9)
    assert find_tutors(replace(one, has_mask=torch.tensor([False])), min_area_px=300) == []


def test_a_paste_covers_the_learner_and_brings_mask_box_and_weight():
    one = scene([[0, 0, 20, 30]], 50)
    rim = torch.zeros(60, 60, dtype=torch.bool)
    rim[10:30, 0:20] = True
    rim[15:25, 5:15] = False
    taught = paste(one, replace(grey(200), unsure=rim[10:30, 0:20]), Spot(SQUARE, WHOLE))
    assert bool((taught.image[:, 10:30, :20] == 200).all())
    assert bool((taught.image[:, :10, :20] == 50).all())
    assert taught.boxes.tolist() == [[0, 0, 20, 10], [0, 10, 20, 30]]
    assert taught.masks.sum(dim=(1, 2)).tolist() == [200, 400]
    assert torch.equal(taught.unsure[0], taught.masks[0])  # unsure all over, but for what is surely covered
    assert torch.equal(taught.unsure[1], rim)
    assert taught.weights.tolist() == pytest.approx([1.0, 0.8])


def test_a_learner_that_is_wholly_covered_is_gone():
    one = scene([[5, 5, 15, 15]], 50)
    assert paste(one, grey(0), Spot(WHOLE, WHOLE)).boxes.tolist() == [[0, 0, 20, 20]]


def test_a_box_keeps_its_fractions_where_nothing_covers_it():
    covered = torch.zeros(60, 60, dtype=torch.bool)
    covered[:, 30:] = True
    boxes = torch.tensor([[10.5, 3.25, 40.5, 20.75], [31.0, 4, 40, 9], [0, 0, 2, 2]])
    rest = uncovered(boxes, torch.zeros(3, 60, 60, dtype=torch.bool), covered)
    assert rest.boxes.tolist() == [[10.5, 3.25, 30.0, 20.75], [31.0, 4, 40, 9], [0, 0, 2, 2]]
    assert rest.box_px.tolist() == [20 * 18, 0, 1]  # columns 10 to 29, rows 3 to 20; nothing; not looked at
    assert rest.mask_px.tolist() == [0, 0, 1]


def test_a_box_follows_what_is_left_of_its_mask():
    """A diamond whose left corner is hidden: its box begins where the rest of it does."""
    row, column = torch.arange(60)[:, None], torch.arange(60)[None]
    mask = (row - 20).abs() + (column - 20).abs() <= 10
    covered = torch.zeros(60, 60, dtype=torch.bool)
    covered[15:26, 8:15] = True  # the corner's rows up to column 14: all of the diamond's that are so far left
    rest = uncovered(torch.tensor([[9.5, 10, 31, 31.25]]), mask[None], covered)
    assert rest.boxes.tolist() == [[15.0, 10, 31, 31.25]]
    hidden = 1 + 3 + 5 + 7 + 9  # of columns 10 to 14
    assert rest.mask_px.tolist() == [221 - hidden]  # 2 r (r + 1) + 1 cells in all


@pytest.mark.parametrize("seed", range(5))
def test_a_placed_tutor_lies_on_the_learner_and_shows_its_own_pixels(seed):
    torch.manual_seed(seed)
    one = scene([[20, 20, 50, 50]], 50)
    tutor = grey(200)
    x, y = corner_over(tutor.size_hw, one.boxes[random_peer(one.labels, tutor.label)])
    spot = spot_at(round(x), round(y), tutor, one.size_hw)
    assert spot is not None
    image, covered = pasted(one.image, tutor, spot)
    assert bool((covered & one.masks[0]).any())
    assert torch.equal(image[0] == 200, covered)
    assert torch.equal(image[:, ~covered], one.image[:, ~covered])


def test_a_tutor_off_the_image_has_no_spot_and_at_its_edge_a_part_of_one():
    assert spot_at(60, 0, grey(0), (60, 60)) is None
    assert spot_at(0, -20, grey(0), (60, 60)) is None
    assert spot_at(-5, 50, grey(0), (60, 60)) == ((slice(50, 60), slice(0, 15)), (slice(0, 10), slice(5, 20)))


def test_peers_teach_across_images_of_the_batch_and_change_no_input():
    torch.manual_seed(0)
    batch = [scene([[15, 15, 45, 45]], 50), scene([[15, 15, 45, 45]], 90)]
    before = [one.image.clone() for one in batch]
    taught = paste_peers(batch, probability=1.0)
    assert bool((taught[0].image == 90).any())
    assert bool((taught[1].image == 50).any())
    assert all(torch.equal(one.image, image) for one, image in zip(batch, before, strict=True))
    assert all(torch.equal(a.image, b.image) for a, b in zip(paste_peers(batch, probability=0.0), batch, strict=True))


def test_no_peer_of_another_class_is_pasted():
    other = scene([[0, 0, 30, 30]], 50)
    other = replace(other, labels=torch.tensor([1]))
    batch = [scene([[20, 20, 50, 50]], 90), other]
    assert [len(one.boxes) for one in paste_peers(batch, probability=1.0)] == [1, 1]
