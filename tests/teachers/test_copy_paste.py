"""Who becomes a tutor, and what a paste does to image, boxes and masks."""

from dataclasses import replace

import pytest
import torch

from pseudolabel.condinst.batch import Targets, collate, masks_to_grid
from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxTeacherConfig
from pseudolabel.teachers.condinst.copy_paste import (
    BankedTutor,
    CopyPasteConfig,
    MemoryBank,
    PseudoMasks,
    covered_by,
    paste_batch,
    silhouettes,
)

ALWAYS = CopyPasteConfig(probability=1.0, min_area_px=16)


def scene(boxes, labels, quality) -> tuple[torch.Tensor, Targets, PseudoMasks]:
    """A 64 x 64 image of zeros whose masks are the boxes."""
    boxes = torch.tensor(boxes).float().reshape(-1, 4)
    masks = torch.zeros(len(boxes), 16, 16, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, (boxes / 4).long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    quality = torch.tensor(quality)
    return torch.zeros(3, 64, 64), Targets(boxes, torch.tensor(labels)), PseudoMasks(masks.float(), quality, quality)


def bright_tutor(label: int = 0, quality: float = 0.9, side: int = 16) -> BankedTutor:
    return BankedTutor(
        torch.full((3, side, side), 200.0), torch.ones(side, side, dtype=torch.bool), label, quality, quality
    )


def test_good_isolated_objects_become_tutors():
    bank = MemoryBank(ALWAYS)
    overlapping = [[0, 0, 20, 20], [4, 0, 24, 20]]
    image, targets, pseudo = scene(
        [*overlapping, [40, 0, 60, 20], [40, 40, 60, 60], [0, 50, 2, 52]], [0, 0, 1, 2, 3], [0.9, 0.9, 0.8, 0.4, 0.9]
    )
    bank.add(image, targets, pseudo)
    assert [(tutor.label, round(tutor.quality, 2)) for tutor in bank.tutors] == [(1, 0.8)]
    assert int(bank.tutors[0].mask.sum()) == 20 * 19  # column 40 lies half-way between a cell inside and one outside


def test_a_single_object_is_alone_and_no_object_is_no_tutor():
    bank = MemoryBank(ALWAYS)
    bank.add(*scene([[0, 0, 20, 20]], [0], [0.9]))
    bank.add(*scene([], [], []))
    assert len(bank.tutors) == 1


def test_the_bank_never_exceeds_its_length():
    bank = MemoryBank(CopyPasteConfig(length=3, min_area_px=16))
    for _ in range(7):
        bank.add(*scene([[0, 0, 20, 20]], [0], [0.9]))
    assert len(bank.tutors) == 3


def test_the_best_tutor_of_a_present_class_is_taken_once():
    bank = MemoryBank(ALWAYS)
    bank.tutors = [bright_tutor(0, 0.6), bright_tutor(0, 0.8), bright_tutor(1, 0.9)]
    assert bank.take({0}).quality == 0.8
    assert bank.take({0}).quality == 0.6
    assert bank.take({0}) is None
    assert len(bank.tutors) == 1


def covered_pixels(x: int, y: int, height: int, width: int) -> torch.Tensor:
    covered = torch.zeros(64, 64, dtype=torch.bool)
    covered[y : y + height, x : x + width] = True
    return covered


def pasted(seed: int, boxes, labels, tutor: BankedTutor, quality=None, config: CopyPasteConfig = ALWAYS):
    torch.manual_seed(seed)
    bank = MemoryBank(config)
    bank.tutors = [tutor]
    image, targets, pseudo = scene(boxes, labels, quality or [0.5] * len(labels))
    batch = collate([image], [targets])
    result, masks = paste_batch(batch, [pseudo], bank)
    assert not batch.images.any(), "the batch that was passed in must not change"
    return result, masks[0], bank


def test_a_paste_puts_the_tutor_last_with_its_box_mask_and_quality():
    for seed in range(8):
        batch, pseudo, bank = pasted(seed, [[16, 16, 48, 48]], [0], bright_tutor())
        bright = batch.images[0, 0] == 200
        rows, columns = bright.nonzero(as_tuple=True)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        target = batch.targets[0]
        assert target.boxes[-1].tolist() == [float(value) for value in box]
        assert target.labels[-1] == 0
        assert torch.equal(pseudo.masks[-1], bright[2::4, 2::4])
        assert not (pseudo.masks[:-1] & pseudo.masks[-1]).any()
        assert pseudo.quality[-1].item() == torch.tensor(0.9).item()
        assert not bank.tutors


def test_a_learner_that_is_covered_on_one_side_loses_that_side():
    torch.manual_seed(0)
    _, targets, pseudo = scene([[16, 16, 48, 48]], [0], [0.5])
    covered = covered_pixels(16, 8, 50, 20)
    after, masks = covered_by(targets, pseudo, covered, bright_tutor(), ALWAYS)
    assert after.boxes[0].tolist() == [36.0, 16.0, 48.0, 48.0]
    assert after.boxes[1].tolist() == [16.0, 8.0, 36.0, 58.0]
    assert masks.masks[0].sum() == 3 * 8  # columns 9 to 11, rows 4 to 11 of the grid


def test_a_learner_that_the_teacher_does_not_find_yet_is_not_dropped():
    """32 x 32 px, of which 20 x 32 are covered: 384 px of its box are left."""
    _, targets, pseudo = scene([[16, 16, 48, 48]], [0], [0.0])
    pseudo.soft[:] = 0
    covered = covered_pixels(16, 8, 50, 20)
    for least_px, boxes in ((384, 2), (385, 1)):
        config = CopyPasteConfig(probability=1.0, min_area_px=least_px)
        assert len(covered_by(targets, pseudo, covered, bright_tutor(), config)[0].boxes) == boxes


def test_a_learner_that_is_wholly_covered_is_dropped():
    _, targets, pseudo = scene([[16, 16, 32, 32], [40, 40, 60, 60]], [0, 1], [0.5, 0.5])
    covered = covered_pixels(12, 12, 24, 24)
    after, masks = covered_by(targets, pseudo, covered, bright_tutor(), ALWAYS)
    assert after.labels.tolist() == [1, 0]
    assert after.boxes[0].tolist() == [40, 40, 60, 60]
    assert len(masks.masks) == 2


def test_a_learner_is_wholly_covered_where_the_tutor_ends_with_its_box():
    _, targets, pseudo = scene([[16, 16, 24, 24], [40, 40, 60, 60]], [0, 1], [0.5, 0.5])
    covered = covered_pixels(16, 16, 8, 8)
    after, _ = covered_by(targets, pseudo, covered, bright_tutor(), ALWAYS)
    assert after.labels.tolist() == [1, 0]


def test_tutors_of_absent_classes_are_not_pasted():
    batch, pseudo, bank = pasted(0, [[16, 16, 48, 48]], [1], bright_tutor(0))
    assert not batch.images.any()
    assert len(pseudo.masks) == 1
    assert len(bank.tutors) == 1


def test_a_side_moves_to_where_the_rest_of_the_mask_ends_though_its_corner_of_the_box_is_free():
    """A cross whose left arm is hidden; above and below the arm the box is as it was."""
    _, targets, pseudo = scene([[16, 16, 48, 48]], [0], [0.5])
    pseudo.soft[0, 4:7] = pseudo.soft[0, 9:12] = 0  # rows but the middle two of the box's eight
    pseudo.soft[0, 4:12, 7:9] = 1
    after, _ = covered_by(targets, pseudo, covered_pixels(14, 24, 16, 10), bright_tutor(), ALWAYS)
    assert after.boxes[0].tolist() == [24.0, 16.0, 48.0, 48.0]


def test_given_sides_that_nothing_hides_stay_where_the_teachers_mask_does_not_reach_them():
    _, targets, pseudo = scene([[16, 16, 48, 48]], [0], [0.5])
    pseudo.soft[0, :, :6] = 0  # the teacher's mask begins at column 24 of the image
    after, _ = covered_by(targets, pseudo, covered_pixels(40, 20, 20, 20), bright_tutor(), ALWAYS)
    assert after.boxes[0].tolist() == [16.0, 16.0, 48.0, 48.0]  # rows above and below still reach the right side


def test_a_learner_whose_mask_is_wholly_hidden_stays_as_a_box_without_weight():
    _, targets, pseudo = scene([[16, 16, 48, 48]], [0], [0.5])
    pseudo.soft[:] = 0
    pseudo.soft[0, 7:9, 7:9] = 1  # pixels 28 to 36
    after, masks = covered_by(targets, pseudo, covered_pixels(26, 26, 12, 12), bright_tutor(), ALWAYS)
    assert after.boxes[0].tolist() == [16.0, 16.0, 48.0, 48.0]
    assert masks.quality.tolist() == pytest.approx([0.0, 0.9])
    assert not masks.masks[0].any()


def test_a_true_mask_says_what_is_left_before_the_teachers():
    _, targets, pseudo = scene([[16, 16, 48, 48]], [0], [0.5])
    cross = pseudo.masks.clone()
    cross[0, 4:7] = cross[0, 9:12] = False
    cross[0, 4:12, 7:9] = True
    targets = replace(targets, masks=cross)
    after, _ = covered_by(targets, pseudo, covered_pixels(14, 24, 16, 10), bright_tutor(), ALWAYS)
    assert after.boxes[0].tolist() == [24.0, 16.0, 48.0, 48.0]
    assert after.has_mask.tolist() == [True, False]  # what a teacher made is no truth


RIGHT, LEFT = [40, 20, 60, 44], [4, 20, 24, 44]


def test_the_lowest_learner_is_the_one_that_is_taught():
    for seed in range(6):
        batch, _, _ = pasted(seed, [LEFT, RIGHT], [0, 0], bright_tutor(side=12), [0.8, 0.3])
        assert batch.targets[0].boxes[-1, 2] > RIGHT[0]
    for seed in range(6):
        batch, _, _ = pasted(seed, [LEFT, RIGHT], [0, 0], bright_tutor(side=12), [0.2, 0.3])
        assert batch.targets[0].boxes[-1, 0] < LEFT[2]


@pytest.mark.parametrize("learner", ["any", "lowest"])
def test_every_learner_of_the_class_is_taught_now_and_then_where_none_is_worse(learner):
    config = ALWAYS.model_copy(update={"learner": learner})
    quality = [0.0, 0.0, 0.0] if learner == "lowest" else [0.8, 0.1, 0.0]
    boxes, labels = [LEFT, RIGHT, [28, 0, 36, 8]], [0, 0, 1]
    found = [pasted(seed, boxes, labels, bright_tutor(side=12), quality, config)[0] for seed in range(12)]
    middles = [float(batch.targets[0].boxes[-1, 0::2].mean()) for batch in found]
    assert min(middles) < 32 < max(middles)


def test_a_random_tutor_may_be_crowded_and_poor_but_has_a_mask():
    bank = MemoryBank(ALWAYS.model_copy(update={"tutor": "random"}))
    bank.add(*scene([[0, 0, 20, 20], [4, 0, 24, 20], [40, 40, 60, 60]], [0, 0, 0], [0.2, 0.3, 0.0]))
    assert [round(tutor.quality, 2) for tutor in bank.tutors] == [0.2, 0.3]
    taken = set()
    for seed in range(8):
        torch.manual_seed(seed)
        bank.tutors = [bright_tutor(0, 0.3), bright_tutor(0, 0.9), bright_tutor(1, 1.0)]
        taken.add(bank.take({0}).quality)
    assert taken == {0.3, 0.9}


LIKELY = ALWAYS.model_copy(update={"tutor": "likely"})


def test_a_likely_tutor_is_good_and_the_better_the_likelier_by_its_quality_to_the_third():
    bank = MemoryBank(LIKELY)
    bank.add(*scene([[0, 0, 20, 20], [4, 0, 24, 20], [40, 40, 60, 60]], [0, 0, 0], [0.6, 0.7, 0.4]))
    assert [round(tutor.quality, 2) for tutor in bank.tutors] == [0.6, 0.7]  # crowded ones, too
    torch.manual_seed(0)
    better = 0
    for _ in range(400):
        bank.tutors = [bright_tutor(0, 0.4), bright_tutor(0, 0.8), bright_tutor(1, 1.0)]
        better += bank.take({0}).quality == 0.8
    assert better / 400 == pytest.approx(8 / 9, abs=0.04)  # 0.8^3 is 8 times 0.4^3


def test_among_likely_tutors_the_oldest_makes_room():
    bank = MemoryBank(LIKELY.model_copy(update={"length": 3}))
    for number in range(5):
        bank.add(*scene([[0, 0, 20, 20]], [number], [0.9]))
    assert [tutor.label for tutor in bank.tutors] == [2, 3, 4]


def test_up_to_three_tutors_on_an_image_are_pasted_over_each_other_and_known_as_pasted():
    config = LIKELY.model_copy(update={"pastes": 3, "place": "random"})
    counts = set()
    for seed in range(12):
        torch.manual_seed(seed)
        bank = MemoryBank(config)
        bank.tutors = [bright_tutor(side=12) for _ in range(5)]
        image, targets, pseudo = scene([[0, 0, 8, 8]], [0], [0.5])
        batch, (masks,) = paste_batch(collate([image], [targets]), [pseudo], bank)
        pasted_ones = 5 - len(bank.tutors)
        counts.add(pasted_ones)
        assert len(batch.targets[0].boxes) == len(masks.quality) == len(masks.pasted)
        assert masks.pasted[: -int(masks.pasted.sum())].sum() == 0
        assert int(masks.pasted.sum()) <= pasted_ones  # one may have hidden another
        assert masks.masks.sum(dim=0).max() == 1
        assert torch.equal(masks.masks[masks.pasted].any(dim=0), batch.images[0, 0, 2::4, 2::4] == 200)
    assert counts == {1, 2, 3}


def test_at_random_places_a_tutor_needs_no_peer_and_is_seen_as_a_whole():
    config = ALWAYS.model_copy(update={"place": "random"})
    corners = set()
    for seed in range(8):
        batch, _, _ = pasted(seed, [[16, 16, 48, 48]], [1], bright_tutor(0), config=config)
        left, top, right, bottom = batch.targets[0].boxes[-1].tolist()
        assert (right - left, bottom - top) == (16, 16)
        corners.add((left, top))
    assert len(corners) > 5


def test_a_silhouette_follows_the_outline_between_the_cells():
    """A disc of 20 px: the soft mask read at pixels is nearer to it than the mask's blocks are."""
    row, column = torch.arange(64.0)[:, None], torch.arange(64.0)[None]
    distance = ((row - 31) ** 2 + (column - 30) ** 2).sqrt()
    disc = distance <= 20
    soft = ((20 - distance) / 4).sigmoid()[None, 2::4, 2::4]
    found = silhouettes(soft)[0]
    blocks = (soft[0] > 0.5).repeat_interleave(4, 0).repeat_interleave(4, 1)
    iou = [float((one & disc).sum() / (one | disc).sum()) for one in (found, blocks)]
    assert iou[0] > 0.97 > iou[1]
    assert torch.equal(masks_to_grid(found[None]), soft > 0.5)


def test_lengths_are_shares_of_the_images_side(tiny):
    config = BoxTeacherConfig(**(tiny | {"image_px": 400, "copy_paste": True, "min_tutor": 0.05}))
    rule = BoxTeacher(CondInst(config, 1), config).bank.config
    assert rule.min_area_px == pytest.approx(20.0**2)
    assert rule.moved_px == pytest.approx(5.0)
