"""Frames, grids, chunks and closer looks, proved by a decoder that answers with the very box it was told."""

import numpy as np
import pytest

from pseudolabel.errors import InputError
from pseudolabel.prompted.asking import BoxPrompted, Decoded
from pseudolabel.prompted.base import PromptedOptions, Prompts
from pseudolabel.prompted.frame import Fit

CELLS = 64


class Rectangles:
    """Logits of +10 in cells whose centre is in the box, of -10 elsewhere; remembers what it was asked."""

    name, input_px = "rectangles", 256

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.seen: list[tuple[int, ...]] = []
        self.asked: list[int] = []

    def encode(self, pixels: np.ndarray) -> None:
        self.seen.append(pixels.shape[:2])

    def decode(self, embedding: object, boxes_xyxy: np.ndarray) -> Decoded:
        self.asked.append(len(boxes_xyxy))
        centres = (np.arange(CELLS) + 0.5) * self.input_px / CELLS
        x = (centres > boxes_xyxy[:, :1]) & (centres < boxes_xyxy[:, 2:3])
        y = (centres > boxes_xyxy[:, 1:2]) & (centres < boxes_xyxy[:, 3:])
        logits = np.where(y[:, None, :, None] & x[:, None, None, :], 10.0, -10.0).astype(np.float32)
        return Decoded(logits, np.full((len(boxes_xyxy), 1), 0.9, dtype=np.float32))


SIZES = [(77, 131), (131, 77), (427, 640), (100, 100)]


@pytest.mark.parametrize("size_hw", SIZES, ids=str)
@pytest.mark.parametrize("fit", ["padded", "stretched"])
@pytest.mark.parametrize("closer_px", [0, 10_000], ids=["whole image", "closer look"])
def test_a_decoder_that_returns_the_box_gives_the_box_to_half_a_cell(
    fit: Fit, size_hw: tuple[int, int], closer_px: int
) -> None:
    height, width = size_hw
    boxes = np.array(
        [
            [0.1 * width, 0.2 * height, 0.7 * width, 0.6 * height],
            [0.0, 0.0, 0.5 * width, 0.5 * height],
            [0.4 * width, 0.45 * height, width, height],
            [0.31 * width, 0.37 * height, 0.52 * width, 0.83 * height],
        ]
    )
    network = Rectangles(fit)
    found = BoxPrompted(network, PromptedOptions(views=1, closer_px=closer_px)).predict(
        Prompts(np.zeros((height, width, 3), dtype=np.uint8), boxes)
    )
    assert [one.given for one in found] == [0, 1, 2, 3]
    cell = np.array([max(size_hw), max(size_hw)] if fit == "padded" else [width, height]) / CELLS
    for one, box in zip(found, boxes, strict=True):
        np.testing.assert_array_less(np.abs(np.array(one.reach_xyxy) - box), np.tile(cell, 2) / 2 + 0.5)
        inside = one.mask.probability >= 128
        grid = one.mask.grid
        area = inside.sum() * grid.stride_x * grid.stride_y
        sides = box[2:] - box[:2]
        assert area <= np.prod(sides + cell + 1)
        assert area >= np.prod(np.maximum(sides - cell - 1, 0))


def test_every_forward_pass_has_the_same_shape_and_nobody_gets_the_filling() -> None:
    network = Rectangles("padded")
    boxes = np.array([[10.0, 10, 90, 90], [20, 20, 99, 80], [0, 0, 99, 99]])
    found = BoxPrompted(network, PromptedOptions(views=5, closer_px=0, boxes_at_once=4)).predict(
        Prompts(np.zeros((100, 100, 3), dtype=np.uint8), boxes)
    )
    assert network.asked == [4, 4, 4, 4]  # 15 views
    assert [one.given for one in found] == [0] * 5 + [1] * 5 + [2] * 5
    assert len(network.seen) == 1


def test_a_small_box_is_asked_about_on_a_part_of_the_image_and_the_others_share_one_embedding() -> None:
    network = Rectangles("padded")
    boxes = np.array([[10.0, 10, 300, 200], [500, 300, 540, 330], [50, 50, 400, 300]])
    found = BoxPrompted(network, PromptedOptions(views=1, closer_px=64)).predict(
        Prompts(np.zeros((480, 640, 3), dtype=np.uint8), boxes)
    )
    assert network.seen == [(480, 640), (160, 160)]  # 4 x 40 px
    assert [one.given for one in found] == [0, 1, 2]
    np.testing.assert_array_less(np.abs(np.array(found[1].reach_xyxy) - boxes[1]), 160 / CELLS / 2 + 0.5)


def test_masks_below_the_least_score_are_left_out() -> None:
    prompts = Prompts(np.zeros((100, 100, 3), dtype=np.uint8), np.array([[10.0, 10, 90, 90]]))
    assert BoxPrompted(Rectangles("padded"), PromptedOptions(least_score=0.91)).predict(prompts) == []


class _Deaf(Rectangles):
    def decode(self, embedding: object, boxes_xyxy: np.ndarray) -> Decoded:
        one = super().decode(embedding, boxes_xyxy)
        return Decoded(np.repeat(one.logits[:1], len(boxes_xyxy), axis=0), one.scores)


class _Broken(Rectangles):
    def decode(self, embedding: object, boxes_xyxy: np.ndarray) -> Decoded:
        one = super().decode(embedding, boxes_xyxy)
        return Decoded(one.logits * np.float32(np.nan), one.scores)


class _Flat(Rectangles):
    def decode(self, embedding: object, boxes_xyxy: np.ndarray) -> Decoded:
        one = super().decode(embedding, boxes_xyxy)
        return Decoded(one.logits, one.scores[:, :0])


@pytest.mark.parametrize(
    ("network", "message"),
    [(_Deaf, "does not hear boxes"), (_Broken, "not finite"), (_Flat, r"expected masks \(2, m, height, width\)")],
    ids=["deaf", "broken", "flat"],
)
def test_a_probe_finds_a_model_that_cannot_be_used(network: type[Rectangles], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BoxPrompted(network("stretched"), PromptedOptions()).probe()


def test_a_sound_model_passes_the_probe() -> None:
    BoxPrompted(Rectangles("stretched"), PromptedOptions()).probe()
