"""Pixels of a mask that are unsure: which they are, and that they train nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudolabel import rle
from pseudolabel.errors import InputError
from pseudolabel.losses.boxes import dice_loss
from pseudolabel.students import condinst
from pseudolabel.students.base import make_student, mean_entropy, sure_share
from pseudolabel.students.condinst import covered_share
from pseudolabel.students.config import LabelConfig, StudentConfig
from pseudolabel.students.data import collate, make_sample
from pseudolabel.students.labels import LabelledImage, labels_from_rows
from pseudolabel.students.names import STUDENTS

from .scenes import sample

SIZE_HW = (8, 10)
MASK_LOSSES = {"condinst": ("mask",), "mask_rcnn": ("mask",), "query": ("mask", "dice")}


def square(x0: int, y0: int, side: int) -> rle.Rle:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return rle.encode(mask)


def learned(*, config: LabelConfig | None = None, **changes) -> LabelledImage:
    """An image with one pseudo label, of which a square of 2 px is unsure."""
    image = {"image_key": "a", "image_id": 5, "file_name": "a.png", "width": 10, "height": 8, "status": "ok"}
    row = {"image_key": "a", "annotation_id": 1, "category_id": 7, "segmentation": square(1, 1, 4), "status": "ok"}
    row |= {"bbox_xywh": [1, 1, 4, 4], "source_bbox_xywh": None, "iscrowd": False, "score": 0.4, "decision": "keep"}
    row |= {"calibrated_iou": None, "unsure": square(4, 4, 2)}
    rows = [{**row, **changes}]
    for name in [name for name, value in changes.items() if value is ...]:
        del rows[0][name]
    labels = labels_from_rows(
        [{**image, "annotation_id": None}], rows, [{"id": 7, "name": "a"}], config or LabelConfig()
    )
    return labels.images[0]


def test_unsure_pixels_come_with_the_mask_and_are_painted() -> None:
    one = make_sample(learned(), np.zeros((*SIZE_HW, 3), dtype=np.uint8))
    assert one.unsure[0].nonzero().tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        pytest.param({"unsure": "learned"}, {}, id="learned like all others"),
        pytest.param({"given_masks": False}, {}, id="the box is the mask"),
        pytest.param({}, {"decision": "box_only"}, id="no mask to learn"),
        pytest.param({}, {"unsure": None}, id="fuse noted none"),
        pytest.param({}, {"unsure": ...}, id="a part from before there was the column"),
    ],
)
def test_all_pixels_are_sure(config: dict, changes: dict) -> None:
    assert learned(config=LabelConfig(**config), **changes).objects[0].unsure is None


def test_unsure_pixels_of_another_image_are_refused() -> None:
    with pytest.raises(InputError, match="annotation 1"):
        learned(unsure={"size": [3, 3], "counts": "9"})


def test_dice_counts_a_cell_by_its_weight() -> None:
    x, y = torch.tensor([[0.5, 1.0, 0.2]]), torch.tensor([[1.0, 0.0, 1.0]])
    weight = torch.tensor([[1.0, 0.0, 0.5]])
    shared, all_of_both = 0.5 + 0.5 * 0.2, (0.25 + 0.5 * 0.04) + (1 + 0.5)
    assert dice_loss(x, y, weight).item() == pytest.approx(1 - 2 * shared / (all_of_both + 1e-5), rel=1e-6)
    assert dice_loss(x, y, torch.ones(1, 3)).item() == dice_loss(x, y).item()


def test_the_entropy_is_a_mean_over_what_is_sure() -> None:
    logits = torch.tensor([[[0.0, 2.0]], [[1.0, 1.0]]])
    masks, weight = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([[[1.0, 0.5]], [[0.0, 0.0]]])
    first = (np.log(2) + 0.5 * np.log1p(np.exp(2.0))) / 1.5
    assert mean_entropy(logits, masks, weight).tolist() == pytest.approx([first, 0.0])


def test_a_cell_is_as_full_as_its_sure_pixels_and_weighs_as_many_as_they_are() -> None:
    """A cell of 2 x 2 px: three are sure, of them two covered; a cell without any sure pixel weighs nothing."""
    masks = torch.tensor([[[1, 1, 1, 1], [0, 1, 1, 1]]], dtype=torch.bool)
    unsure = torch.tensor([[[0, 0, 1, 1], [0, 1, 1, 1]]], dtype=torch.bool)
    share, weight = sure_share(masks, unsure, lambda planes: torch.nn.functional.avg_pool2d(planes, 2))
    assert share.flatten().tolist() == pytest.approx([2 / 3, 0.0])
    assert weight.flatten().tolist() == [0.75, 0.0]


def test_where_all_is_sure_the_share_is_the_old_one() -> None:
    masks = sample(0).masks
    share, weight = sure_share(masks, torch.zeros_like(masks), covered_share)
    assert torch.equal(share, covered_share(masks.float()))
    assert bool((weight == 1).all())


@pytest.mark.parametrize("name", tuple(STUDENTS))
def test_what_a_mask_says_of_unsure_pixels_changes_no_loss(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(condinst, "mask_centres", lambda masks, boxes, has_mask: (boxes[:, :2] + boxes[:, 2:]) / 2)
    torch.manual_seed(0)
    student = make_student(StudentConfig(model=name, backbone="tiny", width=40, convs=1, detections=20), 2)
    one = sample(0)
    unsure = torch.zeros_like(one.masks)
    unsure[:, 20:55, 30:61] = True
    assert bool((one.masks & unsure).any())
    found = []
    for masks in (one.masks, one.masks ^ unsure):
        for doubt in (unsure, torch.zeros_like(unsure)):
            torch.manual_seed(5)
            with torch.no_grad():
                losses = student.losses(collate([replace(one, masks=masks, unsure=doubt)]))
            found.append([float(losses[key]) for key in MASK_LOSSES[name]])
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert found[1] != pytest.approx(found[3], rel=1e-2)  # while sure pixels do
    assert min(found[0]) > 0
