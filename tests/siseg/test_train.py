"""Views, crops, the cache, and that training goes down and continues exactly."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudolabel.pipelines.demo.scenes import draw_scene
from pseudolabel.siseg.config import SisegCard, SisegRecipe
from pseudolabel.siseg.model import build_network
from pseudolabel.siseg.network import SisegNetwork
from pseudolabel.siseg.train import Sample, Samples, SisegMethod, crop_sample, set_mean_displacement
from pseudolabel.siseg.views import LabelledBoxes, View, grid_labels, make_view, object_labels, view_size
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit


def test_view_sides_are_multiples_of_sixteen_and_never_zero() -> None:
    assert view_size((480, 640), 1.0) == (480, 640)
    assert view_size((100, 5), 1.5) == (144, 16)


def test_labels_are_read_at_the_centres_of_cells_and_mirrored_with_the_image() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 4)[None].repeat(4, axis=0)
    assert grid_labels(labels, (1, 4)).tolist() == [[0, 1, 2, 3]]
    image = np.repeat(labels[..., None], 3, axis=2).repeat(4, axis=0)
    view = make_view("a", image, labels.repeat(4, axis=0), flip=True)
    assert torch.equal(view.image[0, ::4, 2::4], view.labels)


def test_only_object_classes_count_as_foreground_and_ignored_pixels_stay_ignored() -> None:
    assert object_labels(np.array([[0, 2, 3, 255]], np.uint8), {2}).tolist() == [[0, 3, 0, 255]]


def test_crops_of_all_strides_show_the_same_place() -> None:
    rows = torch.arange(96.0).view(1, 96, 1).expand(1, 96, 96)
    planes = tuple(rows[:, ::stride, ::stride] for stride in (4, 4, 8, 16, 16))
    torch.manual_seed(3)
    labels = rows[0, ::4, ::4].to(torch.uint8)
    crop = crop_sample(Sample("a", planes, labels, labels.expand(2, -1, -1)), 32)
    assert [tuple(plane.shape) for plane in crop.planes] == [(1, 8, 8), (1, 8, 8), (1, 4, 4), (1, 2, 2), (1, 2, 2)]
    assert {plane[0, 0, 0].item() for plane in crop.planes} == {crop.labels[0, 0].item()}
    assert torch.equal(crop.owners[1], crop.labels)


def test_crop_beyond_a_small_view_is_ignored_there() -> None:
    ones = torch.ones((8, 12), dtype=torch.uint8)
    sample = Sample("a", (torch.ones((3, 32, 48)),), ones, ones.expand(2, -1, -1))
    crop = crop_sample(sample, 64)
    assert crop.planes[0].shape == (3, 64, 64)
    assert crop.labels.shape == (16, 16)
    assert (crop.labels[:8, :12] == 1).all()
    assert int((crop.labels == 255).sum()) == 16 * 16 - 8 * 12
    assert int(crop.owners.sum()) == 2 * 8 * 12


def scene_view(index: int) -> View:
    scene = draw_scene(index // 2, (96, 96), classes=("disc",))
    return make_view(str(index), scene.image, scene.semantic, flip=bool(index % 2))


def network(name: str = "tiny") -> SisegNetwork:
    torch.manual_seed(0)
    return build_network(SisegCard(backbone=name, head_width=64), "none")


def test_cache_that_is_too_small_changes_no_value() -> None:
    frozen = network("mobilenet_v2")
    kept, made = (Samples(frozen, scene_view, device="cpu", cache_bytes=size) for size in (1 << 30, 0))
    for _ in range(2):
        for first, second in zip(kept([0, 1]), made([0, 1]), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first.planes, second.planes, strict=True))


def train(folder: Path, steps: int, *, of: int) -> SisegNetwork:
    """The state after `steps` of a training of `of` steps."""
    net = network()
    samples = Samples(net, scene_view, device="cpu", cache_bytes=0)
    config = FitConfig(steps=of, batch_size=2, device="cpu", checkpoint_every=2)

    class Stopping(SisegMethod):
        def after_step(self, step: int) -> None:
            if step + 1 == steps and steps < of:
                raise KeyboardInterrupt

    try:
        fit(Stopping(net, SisegRecipe(crop=96, radius=5)), samples, 8, folder, config)
    except (KeyboardInterrupt, SystemExit):
        assert steps < of
    return net


def test_training_that_was_broken_off_ends_at_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", 6, of=6)
    train(tmp_path / "parts", 3, of=6)
    rest = train(tmp_path / "parts", 6, of=6)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name


def test_losses_go_down_on_drawn_discs() -> None:
    torch.set_num_threads(1)
    net = network()
    method = SisegMethod(net, SisegRecipe(learning_rate=5e-3, crop=96, radius=5))
    batch = Samples(net, scene_view, device="cpu", cache_bytes=0)(range(4))
    optimiser = torch.optim.AdamW(method.parameter_groups())
    totals = []
    for _ in range(25):
        total = torch.stack(list(method.losses(batch, progress=0.0).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert np.mean(totals[-3:]) < 0.85 * totals[0]


def test_mean_displacement_centres_the_field_of_the_training_images() -> None:
    net = network()
    samples = Samples(net, scene_view, device="cpu", cache_bytes=0)
    mean = set_mean_displacement(net, iter(samples([0, 2])))
    assert mean.abs().max() > 0
    fields = [net(sample.planes[0][None].float()).displacement.mean((0, 2, 3)) for sample in samples([0, 2])]
    torch.testing.assert_close(torch.stack(fields).mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_weights_scale_their_own_term_alone() -> None:
    net = network()
    batch = Samples(net, scene_view, device="cpu", cache_bytes=0)(range(2))
    plain, scaled = (
        SisegMethod(net, SisegRecipe(crop=192, radius=5, **weights)).losses(batch, progress=0.0)
        for weights in ({}, {"weight_object": 2.0, "weight_background": 0.0, "weight_boundary": 0.5})
    )
    factors = {"object_displacement": 2.0, "background_displacement": 0.0, "boundary": 0.5}
    for name, factor in factors.items():
        assert scaled[name].item() == pytest.approx(factor * plain[name].item(), rel=1e-5), name
    assert min(value.item() for value in plain.values()) > 0


def test_field_learns_ten_times_as_fast_as_the_boundary() -> None:
    groups = SisegMethod(network(), SisegRecipe(learning_rate=0.02)).parameter_groups()
    assert [group["lr"] for group in groups] == pytest.approx([0.02, 0.002])


def test_a_views_boxes_are_scaled_and_mirrored_with_it() -> None:
    labels = np.ones((64, 128), np.uint8)
    boxes = LabelledBoxes([(0, 0, 32, 64), (96, 32, 128, 64)], [1, 1])
    image = np.zeros((64, 128, 3), np.uint8)
    plain = make_view("a", image, labels, boxes=boxes).owners[0]
    half = make_view("a", image, labels, boxes=boxes, scale=0.5, flip=True).owners[0]
    assert plain[0].tolist() == [1] * 8 + [0] * 24
    assert plain[-1].tolist() == [1] * 8 + [0] * 16 + [2] * 8
    assert half[0].tolist() == [0] * 12 + [1] * 4
    assert half[-1].tolist() == [2] * 4 + [0] * 8 + [1] * 4


def test_two_touching_objects_in_two_boxes_leave_the_boundary_a_border_to_learn() -> None:
    """One class all over: without boxes nothing is different, with two boxes the pairs across their border are."""
    view = make_view(
        "a",
        np.zeros((96, 96, 3), np.uint8),
        np.ones((96, 96), np.uint8),
        boxes=LabelledBoxes([(0, 0, 48, 96), (48, 0, 96, 96)], [1, 1]),
    )
    net = network()
    batch = [Samples(net, lambda _: view, device="cpu", cache_bytes=0)([0])[0]]
    with torch.no_grad():  # no boundary anywhere: what is the same costs nothing, what is different costs -log 1e-5
        for one in net.boundary_head.parameters():
            one.zero_()
        list(net.boundary_head.parameters())[-1].fill_(-30.0)
    told, plain = (
        SisegMethod(net, SisegRecipe(crop=96, radius=5, box_pairs=on)).losses(batch, progress=0.0)["boundary"].item()
        for on in (True, False)
    )
    assert plain == pytest.approx(0, abs=1e-4)
    assert told == pytest.approx(-math.log(1e-5), rel=1e-3)
