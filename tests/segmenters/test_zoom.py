"""Closer looks at boxes: the crop, where the network's cells lie on the image, and what is read there."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from pseudolabel.errors import RejectError
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.segmenters.base import Photo
from pseudolabel.segmenters.card import ModelCard
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.zoom import Look, crop_around, enlargement, seen


def _card(*, size: list[int] | None, multiple: int = 2) -> ModelCard:
    taken = {"mean": [0.5] * 3, "std": [0.5] * 3, "size_rule": {"multiple": multiple}}
    taken |= {} if size is None else {"size": size}
    text = yaml.safe_dump(
        {"name": "net", "input": taken, "output": {"align_corners": False}, "classes": ["dark", "light"]}
    )
    return ModelCard.model_validate(yaml.safe_load(text))


def _light(batch: torch.Tensor) -> torch.Tensor:
    """Logits of `dark` and `light` at every pixel: 0 and eight times the brightness; NaN where all is white."""
    light = batch.mean(dim=1, keepdim=True)
    light = torch.where((light > 0.999).all(), torch.nan, light)
    return torch.cat([torch.zeros_like(light), 8 * light], dim=1)


def _look(photo: Photo, crop: tuple[int, int, int, int], grid: Grid) -> Look:
    return Look(photo, crop, 1, grid)


@pytest.mark.parametrize(
    ("box", "room", "crop"),
    [
        pytest.param((100, 60, 140, 80), 1.0, (60, 10, 180, 130), id="square_around_the_longer_side"),
        pytest.param((0, 0, 40, 20), 1.0, (0, 0, 80, 70), id="cut_to_the_image"),
        pytest.param((100.4, 100.4, 102.4, 102.4), 0.5, (89, 89, 114, 114), id="a_tiny_box_still_shows_something"),
        pytest.param((198, 149, 200, 150), 0.25, (187, 137, 200, 150), id="at_the_far_corner"),
        pytest.param((60, 40, 120, 100), 0.75, (15, 0, 165, 145), id="just_below_four_fifths_of_the_image"),
        pytest.param((60, 40, 130, 100), 0.75, (0, 0, 200, 150), id="most_of_the_image_is_all_of_it"),
    ],
)
def test_a_crop_is_the_square_around_the_box(
    box: tuple[float, float, float, float], room: float, crop: tuple[int, int, int, int]
) -> None:
    assert crop_around(box, (150, 200), room) == crop


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_look_reads_what_upsampling_to_the_crop_would_give(align_corners: bool) -> None:
    logits = 3 * torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
    crop, grid = (20, 10, 56, 31), Grid(20, 10, 1, 1, 21, 36)
    look = Look(Photo("a.png", (50, 80)), crop, 2, grid)
    full = F.interpolate(logits[None], (21, 36), mode="bilinear", align_corners=align_corners)[0].softmax(dim=0)[2]
    read = seen(logits, look, align_corners=align_corners)
    assert read.grid == grid
    np.testing.assert_allclose(read.probability / 255, full.numpy(), atol=0.5 / 255 + 1e-5)


def test_a_closer_look_sees_a_square_that_the_whole_image_hides() -> None:
    """At 16 px for 128 the square of 4 px is half a cell of the network; the crop shows it at its own size."""
    rgb = np.zeros((128, 128, 3), dtype=np.uint8)
    rgb[61:65, 61:65] = 250
    segmenter = NetworkSegmenter(_light, _card(size=[16, 16]))
    photo, grid = Photo("a.png", (128, 128), rgb), Grid(57, 57, 1, 1, 12, 12)
    (whole,) = segmenter.predict([photo])
    assert not isinstance(whole, RejectError)
    assert whole.label_map.sum() == 0
    (mask,) = segmenter.look([_look(photo, (55, 55, 71, 71), grid)])
    assert isinstance(mask, SoftMask)
    expected = np.zeros((12, 12), dtype=bool)
    expected[4:8, 4:8] = True
    np.testing.assert_array_equal(mask.probability > 127, expected)


class _Recording:
    """`_light`, and the sizes of the batches that it saw."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(batch.shape[2:]))
        return _light(batch)


@pytest.mark.parametrize(
    ("crop", "enlarged", "size_hw"),
    [
        pytest.param((10, 10, 30, 20), 2.5, (24, 48), id="enlarged_as_asked"),
        pytest.param((10, 10, 31, 20), 2.5, (28, 64), id="or_to_the_next_eighth_of_the_whole"),
        pytest.param((10, 10, 30, 20), 0.5, (20, 40), id="at_least_three_eighths"),
        pytest.param((10, 10, 30, 20), 9.0, (48, 100), id="no_larger_than_the_image_enters"),
        pytest.param((0, 0, 100, 60), 0.1, (60, 100), id="the_whole_image_as_ever"),
    ],
)
def test_a_crop_enters_no_larger_than_asked(
    crop: tuple[int, int, int, int], enlarged: float, size_hw: tuple[int, int]
) -> None:
    """Shares of 100 px with the crop's shape, to the nearest multiple of 4."""
    network, rgb = _Recording(), np.zeros((60, 100, 3), dtype=np.uint8)
    segmenter = NetworkSegmenter(network, _card(size=None, multiple=4))
    segmenter.look([Look(Photo("a.png", (60, 100), rgb), crop, 1, Grid(12, 12, 1, 1, 4, 4), enlarged)])
    assert network.sizes == [size_hw]


def test_a_look_is_enlarged_the_less_the_wider_it_is() -> None:
    assert enlargement(0.5) == pytest.approx(3.96, abs=0.01)
    assert enlargement(1.0) == 1.4


def test_a_network_of_one_size_sees_every_crop_at_that_size() -> None:
    network, photo = _Recording(), Photo("a.png", (60, 100), np.zeros((60, 100, 3), dtype=np.uint8))
    look = Look(photo, (10, 10, 30, 20), 1, Grid(12, 12, 1, 1, 4, 4), 2.0)
    NetworkSegmenter(network, _card(size=[64, 80], multiple=4)).look([look])
    card = _card(size=[64, 80])
    fixed = card.model_copy(update={"input": card.input.model_copy(update={"size_rule": None})})
    NetworkSegmenter(network, fixed).look([look])
    assert network.sizes == [(32, 40), (64, 80)]


def test_looks_at_the_same_pixels_share_a_forward_pass_and_need_none_beside_that_of_the_photo() -> None:
    network, rgb = _Recording(), np.random.default_rng(0).integers(0, 200, (60, 100, 3), dtype=np.uint8)
    segmenter, photo = NetworkSegmenter(network, _card(size=[64, 80])), Photo("a.png", (60, 100), rgb)
    other = Photo("b.png", (60, 100), rgb[::-1].copy())
    grid, crop, whole = Grid(12, 12, 1, 1, 4, 4), (10, 10, 40, 40), (0, 0, 100, 60)
    looks = [
        _look(photo, crop, grid),
        _look(other, crop, grid),
        _look(photo, whole, grid),
        _look(photo, crop, Grid(20, 20, 1, 1, 4, 4)),
    ]
    alone = [segmenter.look([look])[0] for look in looks]
    (logits,) = segmenter.logits([photo])
    assert not isinstance(logits, RejectError)
    network.sizes.clear()
    together = segmenter.look(looks, [(photo, logits)])
    assert len(network.sizes) == 2
    for one, other_one in zip(together, alone, strict=True):
        assert isinstance(one, SoftMask)
        assert isinstance(other_one, SoftMask)
        np.testing.assert_array_equal(one.probability, other_one.probability)


def test_a_look_with_nan_logits_is_rejected_and_the_others_are_not() -> None:
    rgb = np.full((40, 40, 3), 90, dtype=np.uint8)
    rgb[:16, :16] = 255
    photo, grid = Photo("a.png", (40, 40), rgb), Grid(2, 2, 1, 1, 3, 3)
    segmenter = NetworkSegmenter(_light, _card(size=[16, 16]), batch_size=2)
    looks = [_look(photo, (0, 0, 16, 16), grid), _look(photo, (16, 16, 40, 40), Grid(20, 20, 1, 1, 3, 3))]
    bad, _ = segmenter.look(looks[:1] + looks[:1])
    assert isinstance(bad, RejectError)
    assert bad.reason == "non_finite"
    (good,) = segmenter.look(looks[1:])
    assert isinstance(good, SoftMask)


def test_looks_need_pixels() -> None:
    with pytest.raises(ValueError, match=r"a\.png.*pixels"):
        _look(Photo("a.png", (9, 9)), (0, 0, 9, 9), Grid(0, 0, 1, 1, 9, 9)).closer()
