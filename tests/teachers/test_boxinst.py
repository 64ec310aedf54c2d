"""BoxInst learns masks from boxes; the same network learns them from masks, and from a mixture."""

from dataclasses import replace

import pytest
import torch

from pseudolabel.condinst.batch import rescaled_planes
from pseudolabel.condinst.network import CondInst
from pseudolabel.encoders.encoder import freeze_early
from pseudolabel.errors import InputError
from pseudolabel.losses.color import bottom_margin
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.teachers.condinst.config import BoxInstConfig
from pseudolabel.teachers.condinst.views import flipped, random_windows, scaled, strong_view

MASKS = {"supervision": "masks", "bottom_px": 10}  # colours are not looked at, and the margin is the default


def test_boxinst_overfits_drawn_images_from_their_boxes_alone(overfitted, tiny, seed):
    method, ious = overfitted(BoxInst, BoxInstConfig(**tiny), steps=160, seed=seed)
    assert ious.mean() > 0.75
    picture = method.pictures()["masks"]
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 96, 192)


def test_the_reference_overfits_drawn_images_from_their_masks(overfitted, tiny):
    _, ious = overfitted(BoxInst, BoxInstConfig(**(tiny | MASKS)), steps=80, with_masks=True)
    assert ious.mean() > 0.85


def small_method(tiny, **changes) -> BoxInst:
    torch.manual_seed(0)
    config = BoxInstConfig(**(tiny | changes))
    return BoxInst(CondInst(config, 2), config)


def test_the_reference_refuses_objects_without_masks(tiny, drawn):
    with pytest.raises(InputError, match=r"6 objects of 0.png, 1.png, 2.png have no mask"):
        small_method(tiny, **MASKS).losses(drawn(), progress=0.5)


def test_mixed_supervision_uses_masks_where_there_are_some_and_boxes_elsewhere(tiny, drawn):
    batch = drawn(with_masks=True)
    halves = [replace(one, has_mask=torch.tensor([True, False])) for one in batch.targets]
    method = small_method(tiny, supervision="mixed")
    both = method.losses(replace(batch, targets=tuple(halves)), progress=0.5)
    assert both["mask"] > 0
    assert both["projection"] > 0
    all_masks = method.losses(batch, progress=0.5)
    assert all_masks["mask"] > 0
    assert all_masks["projection"] == 0
    no_masks = method.losses(drawn(), progress=0.5)
    assert no_masks["mask"] == 0
    as_boxes = small_method(tiny).losses(drawn(), progress=0.5)
    assert no_masks["projection"].item() == pytest.approx(as_boxes["projection"].item())


def test_the_colour_loss_rises_over_the_warm_up(tiny, drawn):
    method = small_method(tiny, warmup=0.5)
    found = [method.losses(drawn(), progress=progress)["pairwise"].item() for progress in (0, 0.125, 0.5, 1.0)]
    assert found[0] == 0
    assert found[1] == pytest.approx(found[2] / 4, rel=1e-4)
    assert found[2] == pytest.approx(found[3], rel=1e-4)


@pytest.mark.parametrize("classification", ["focal", "varifocal"])
def test_a_batch_without_objects_gives_finite_losses_and_gradients(tiny, drawn, classification):
    batch = drawn()
    none = tuple(replace(one, boxes=one.boxes[:0], labels=one.labels[:0]) for one in batch.targets)
    method = small_method(tiny, classification=classification)
    losses = method.losses(replace(batch, targets=none), progress=0.5)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(one.grad is None or one.grad.isfinite().all() for one in method.parameters())


def test_one_class_is_enough(tiny, drawn):
    config = BoxInstConfig(**tiny)
    method = BoxInst(CondInst(config, 1), config)
    losses = method.losses(drawn(classes=1), progress=0.5)
    assert all(value.isfinite() for value in losses.values())


def test_parameter_groups_hold_every_trained_parameter_once(tiny):
    method = small_method(tiny)
    grouped = [id(one) for group in method.parameter_groups() for one in group["params"]]
    assert sorted(grouped) == sorted(id(one) for one in method.parameters() if one.requires_grad)


def test_flipping_twice_gives_the_batch_back(drawn):
    batch = drawn(with_masks=True)
    flip = torch.tensor([True, False, True])
    once = flipped(batch, flip)
    twice = flipped(once, flip)
    assert not torch.equal(once.images[0], batch.images[0])
    assert torch.equal(once.images[1], batch.images[1])
    assert torch.equal(twice.images[..., 1:], batch.images[..., 1:])
    for one, other in zip(twice.targets, batch.targets, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.masks, other.masks)


@pytest.mark.parametrize("width", [96, 93, 94, 95])
def test_flipped_masks_are_those_of_the_flipped_picture_at_the_grids_pixels(drawn, width):
    batch = drawn(with_masks=True)
    batch = replace(batch, sizes_hw=torch.tensor([[96, width]] * 3))
    once = flipped(batch, torch.ones(3, dtype=torch.bool))
    for image, target in zip(once.images, once.targets, strict=True):
        seen = image[:, 2::4, 2::4]
        for label, mask in enumerate(target.masks):
            colour = torch.tensor([(210.0, 60, 60), (60, 190, 80)][label])
            assert torch.equal((seen == colour[:, None, None]).all(dim=0), mask)


def test_a_flipped_box_frames_the_flipped_object(drawn):
    batch = drawn(1)
    once = flipped(batch, torch.tensor([True]))
    left, top, right, bottom = (int(value) for value in once.targets[0].boxes[0])
    inside = once.images[0, :, top:bottom, left:right]
    assert (inside[0] == 210).any(dim=0).all()
    assert (inside[0] == 210).any(dim=1).all()


def test_strong_views_change_colours_and_stay_in_range(drawn):
    torch.manual_seed(1)
    images = drawn(8).images
    seen = strong_view(images, blur=True)
    assert seen.shape == images.shape
    assert seen.min() >= 0
    assert seen.max() <= 255
    assert (seen != images).flatten(1).any(dim=1).sum() >= 5


def test_a_window_shows_the_image_its_boxes_and_its_masks_at_the_same_place(drawn):
    batch = drawn(with_masks=True)
    torch.manual_seed(3)
    seen = random_windows(batch, 64)
    assert seen.images.shape == (3, 3, 64, 64)
    for index, (image, target) in enumerate(zip(seen.images, seen.targets, strict=True)):
        places = [
            (top, left)
            for top in range(0, 33, 4)
            for left in range(0, 33, 4)
            if torch.equal(batch.images[index, :, top : top + 64, left : left + 64], image)
        ]
        ((top, left),) = places  # noise on every pixel: only one place fits
        before = batch.targets[index]
        moved = (before.boxes - torch.tensor([left, top, left, top])).clamp(0, 64)
        kept = (moved[:, 2:] - moved[:, :2] >= 2).all(dim=1)
        assert torch.equal(target.boxes, moved[kept])
        assert torch.equal(target.labels, before.labels[kept])
        cells = before.masks[kept, top // 4 : top // 4 + 16, left // 4 : left // 4 + 16]
        assert torch.equal(target.masks, cells)


def test_the_rows_at_an_images_bottom_stay_distrusted_where_a_window_reaches_them(drawn):
    batch = replace(drawn(), original_heights=torch.tensor([48, 48, 48]))
    seen = [random_windows(batch, 64) for _ in range(8)]
    heights = {int(height) for one in seen for height in one.original_heights}
    assert heights == {32, 2**30}  # 64 of 96 rows of an image that was 48 px high, or a window above the bottom
    assert {int(bottom_margin(torch.tensor([64]), torch.tensor([height]))) for height in heights} == {20, 0}


def test_a_window_larger_than_the_image_is_padded(drawn):
    seen = random_windows(drawn(with_masks=True), 128)
    assert seen.images.shape == (3, 3, 128, 128)
    assert seen.sizes_hw.tolist() == [[96, 96]] * 3
    assert torch.equal(seen.images[:, :, :96, :96], drawn().images)
    assert not seen.images[:, :, 96:].any()
    assert seen.targets[0].masks.shape == (2, 32, 32)
    assert torch.equal(seen.targets[0].masks[:, :24, :24], drawn(with_masks=True).targets[0].masks)


def test_windows_have_sides_that_the_network_takes(drawn):
    with pytest.raises(ValueError, match="a multiple of 32, got 50"):
        random_windows(drawn(), 50)


def test_boxinst_learns_from_windows_too(tiny, drawn):
    losses = small_method(tiny, window_px=32).losses(drawn(), progress=1.0)
    assert all(value.isfinite() for value in losses.values())


def test_small_objects_are_learned_by_the_level_that_the_option_says(tiny, drawn):
    stride_of = {}
    for finest in (64.0, 8.0):
        method, batch = small_method(tiny, finest_px=finest), drawn()
        features = method.network(batch.images)
        location = method._assign(features, batch).location
        stride_of[finest] = set(features.dense.locations.stride[location].tolist())
    assert stride_of[64.0] == {8.0}  # half-sizes of 17 to 21 px, up to 64
    assert stride_of[8.0] <= {16.0, 32.0}  # 8 to 16 and 16 to 32 are the second's and third's
    assert 32.0 in stride_of[8.0]


def test_layers_up_to_stride_four_are_frozen_unless_they_start_from_chance(tiny):
    network = CondInst(BoxInstConfig(**tiny), 2)
    encoder = network.pyramid.encoder
    learned = sum(one.requires_grad for one in encoder.parameters())
    assert freeze_early(encoder) == 12  # two stages of two convolutions with the scale and shift of their GroupNorm
    assert sum(one.requires_grad for one in encoder.parameters()) == learned - 12
    from_chance = small_method(tiny)
    assert all(one.requires_grad for one in from_chance.network.pyramid.encoder.parameters())


def test_a_network_of_one_class_learns_objects_of_every_label_alike(tiny, drawn):
    config = BoxInstConfig(**tiny)
    torch.manual_seed(0)
    method = BoxInst(CondInst(config, config.detector_classes(2)), config)
    assert method.network.num_classes == 1
    batch = drawn()
    others = tuple(replace(one, labels=1 - one.labels) for one in batch.targets)
    found = [method.losses(one, progress=0.5) for one in (batch, replace(batch, targets=others))]
    assert {name: value.item() for name, value in found[0].items()} == {
        name: value.item() for name, value in found[1].items()
    }
    assert BoxInstConfig(class_agnostic=False).detector_classes(2) == 2


@pytest.mark.parametrize("cells", [16, 32, 48])
def test_masks_on_the_grid_of_another_size_are_the_objects_there(cells):
    """A disc by its formula, at the pixels 4 i + 2 of the picture at either size."""

    def disc(count: int) -> torch.Tensor:
        place = (torch.arange(count) * 4 + 2.5) * 24 / count  # in pixels of the first picture
        return (place[:, None] - 46.3) ** 2 + (place[None] - 46.3) ** 2 < 30**2

    found, true = rescaled_planes(disc(24)[None], (cells, cells))[0] > 0.5, disc(cells)
    assert (found ^ true).sum() < 0.1 * true.sum()  # the first grid knows the outline to half a cell
    middles = [one.nonzero().float().mean(dim=0) for one in (found, true)]
    assert (middles[0] - middles[1]).abs().max() < 0.15


@pytest.mark.parametrize("factor", [0.67, 1.34, 2.0])
def test_a_batch_at_another_size_has_its_boxes_where_its_picture_has_the_objects(drawn, factor):
    batch = drawn(with_masks=True)
    seen = scaled(batch, factor)
    side = round(96 * factor / 32) * 32
    assert seen.images.shape == (3, 3, side, side)
    assert seen.sizes_hw.tolist() == [[side, side]] * 3
    for image, target in zip(seen.images, seen.targets, strict=True):
        assert target.masks.shape == (2, side // 4, side // 4)
        red = (image[0] - image[1] > 75).nonzero()  # the disc is 150 redder than green, the ground not at all
        low, high = red.amin(dim=0).flip(0), red.amax(dim=0).flip(0) + 1
        assert (torch.cat([low, high]) - target.boxes[0]).abs().max() <= 1.5
    assert scaled(batch, 1.0) is batch


def test_a_step_learns_at_one_of_the_scales(tiny, drawn, monkeypatch):
    method, sizes = small_method(tiny, scales=[0.67, 2.0]), set()
    forward = method.network.forward
    monkeypatch.setattr(method.network, "forward", lambda images: sizes.add(images.shape[2]) or forward(images))
    for step in range(8):
        torch.manual_seed(step)
        losses = method.losses(drawn(), progress=0.5)
        assert all(value.isfinite() for value in losses.values())
    assert sizes == {64, 192}
