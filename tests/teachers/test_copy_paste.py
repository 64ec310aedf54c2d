"""Who becomes a tutor, and what a paste does to image, boxes and masks."""

import torch

from pseudolabel.condinst.batch import Targets, collate
from pseudolabel.teachers.condinst.copy_paste import (
    BankedTutor,
    CopyPasteConfig,
    MemoryBank,
    PseudoMasks,
    covered_by,
    paste_batch,
)

ALWAYS = CopyPasteConfig(probability=1.0, min_area_px=16)


def scene(boxes, labels, quality) -> tuple[torch.Tensor, Targets, PseudoMasks]:
    """A 64 x 64 image of zeros whose masks are the boxes."""
    boxes = torch.tensor(boxes).float().reshape(-1, 4)
    masks = torch.zeros(len(boxes), 16, 16, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, (boxes / 4).long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    quality = torch.tensor(quality)
    return torch.zeros(3, 64, 64), Targets(boxes, torch.tensor(labels)), PseudoMasks(masks, quality, quality)


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
    assert int(bank.tutors[0].mask.sum()) == 400


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


def pasted(seed: int, boxes, labels, tutor: BankedTutor):
    torch.manual_seed(seed)
    bank = MemoryBank(ALWAYS)
    bank.tutors = [tutor]
    image, targets, pseudo = scene(boxes, labels, [0.5] * len(labels))
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
    pseudo.masks[:] = False
    covered = covered_pixels(16, 8, 50, 20)
    for least_px, boxes in ((383, 2), (384, 1)):
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
