"""The dynamic head and its upsampling against the plain forms."""

import pytest
import torch
from torch.nn import functional as F

from pseudolabel.condinst.mask_head import HeadShape, aligned_upsample, dynamic_masks, upsample_masks


@pytest.mark.parametrize(
    ("inputs", "channels", "parameters"), [(8, 8, 169), (16, 8, 233), (16, 16, 593)], ids=["8-8", "16-8", "16-16"]
)
def test_head_has_the_published_number_of_parameters(inputs, channels, parameters):
    assert HeadShape(inputs, channels).parameters == parameters


def plain_masks(features, parameters, image_index, centres, sizes, shape):
    """One instance at a time, with its own copy of features and relative coordinates, in float64."""
    h, w = features.shape[2:]
    y, x = torch.meshgrid(torch.arange(h) * 8.0 + 4, torch.arange(w) * 8.0 + 4, indexing="ij")
    masks = []
    for row, image, centre, size in zip(parameters.double(), image_index, centres, sizes, strict=True):
        relative = torch.stack([(centre[0] - x) / size, (centre[1] - y) / size]).double()
        layer = torch.cat([features[image].double(), relative])
        at, biases = 0, sum(shape.weights)
        for index, (count, width) in enumerate(zip(shape.weights, (shape.channels, shape.channels, 1), strict=True)):
            weight = row[at : at + count].view(width, -1)
            bias = row[biases : biases + width]
            at, biases = at + count, biases + width
            layer = torch.einsum("oc,chw->ohw", weight, layer) + bias[:, None, None]
            layer = layer.relu() if index < 2 else layer
        masks.append(layer[0])
    return torch.stack(masks)


@pytest.mark.parametrize("shape", [HeadShape(8, 8), HeadShape(16, 8), HeadShape(16, 16)], ids=str)
def test_masks_and_gradients_equal_the_head_run_one_instance_at_a_time(shape):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, shape.inputs, 10, 13, generator=generator).requires_grad_()
    parameters = (torch.randn(11, shape.parameters, generator=generator) * 0.3).requires_grad_()
    image_index = torch.tensor([0] * 6 + [2] * 5)
    centres = torch.rand(11, 2, generator=generator) * 100
    sizes = torch.tensor([64.0, 128, 256, 512, 1024, 64, 64, 64, 128, 128, 256])
    plain = plain_masks(features, parameters, image_index, centres, sizes, shape)
    ours = dynamic_masks(features, parameters, image_index, centres, sizes, shape)
    assert torch.allclose(ours.double(), plain, atol=2e-5)
    weight = torch.randn(plain.shape, generator=generator)
    expected = torch.autograd.grad((plain * weight).sum(), [features, parameters], retain_graph=True)
    found = torch.autograd.grad((ours * weight).sum(), [features, parameters])
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", [HeadShape(8, 8), HeadShape(16, 8), HeadShape(5, 11)], ids=str)
@pytest.mark.parametrize("size_hw", [(10, 13), (25, 43)], ids=["less_than_a_tile", "more_than_two_tiles"])
def test_masks_without_gradients_equal_the_head_run_one_instance_at_a_time(shape, size_hw):
    """The widths go into passes of eight with and without a rest, the cells into tiles likewise."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, shape.inputs, *size_hw, generator=generator)
    parameters = torch.randn(5, shape.parameters, generator=generator) * 0.3
    image_index = torch.tensor([0, 0, 1, 1, 1])
    centres, sizes = torch.rand(5, 2, generator=generator) * 100, torch.tensor([64.0, 128, 256, 512, 64])
    plain = plain_masks(features, parameters, image_index, centres, sizes, shape)
    with torch.inference_mode():
        ours = dynamic_masks(features, parameters, image_index, centres, sizes, shape)
    assert torch.allclose(ours.double(), plain, atol=2e-5)


def test_parameters_that_are_not_finite_give_masks_that_are_not():
    """What follows finds a network that broke by its output: no pass may turn NaN into background."""
    shape = HeadShape(8, 8)
    parameters = torch.zeros(1, shape.parameters)
    parameters[0, 0] = torch.nan
    parameters[0, sum(shape.weights[:2]) :] = 1
    parameters[0, shape.weights[0] : sum(shape.weights[:2])] = 1
    for learning in (False, True):
        with torch.set_grad_enabled(learning):
            masks = dynamic_masks(
                torch.ones(1, 8, 3, 4), parameters, torch.tensor([0]), torch.zeros(1, 2), torch.ones(1), shape
            )
        assert masks.isnan().all()


def test_no_instance_gives_no_mask():
    shape = HeadShape()
    none = torch.zeros(0, dtype=torch.int64)
    features = torch.zeros(2, 16, 4, 6)
    masks = dynamic_masks(features, torch.zeros(0, 233), none, torch.zeros(0, 2), torch.zeros(0), shape)
    assert upsample_masks(masks).shape == (0, 8, 12)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_aligned_upsampling_equals_its_definition(factor):
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    resized = F.interpolate(padded, (factor * 5 + 1, factor * 7 + 1), mode="bilinear", align_corners=True)
    half = factor // 2
    expected = F.pad(resized, (half, 0, half, 0), mode="replicate")[:, :, : factor * 5, : factor * 7]
    assert torch.allclose(aligned_upsample(x, factor), expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(aligned_upsample(x, factor), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (1, 9, 5, 7), (3, 2, 8, 1), (1, 0, 4, 4), (1, 20, 6, 6)])
def test_aligned_upsampling_by_two_is_the_same_with_and_without_gradients(size):
    x = torch.randn(size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        fast = aligned_upsample(x, 2)
    assert torch.allclose(fast, aligned_upsample(x, 2), atol=1e-6)
    transposed = x.transpose(2, 3)
    with torch.no_grad():
        assert torch.equal(aligned_upsample(transposed, 2), aligned_upsample(transposed.contiguous(), 2))


def test_aligned_upsampling_by_two_by_hand():
    x = torch.tensor([[[[0.0, 2.0, 6.0]]]])
    assert aligned_upsample(x, 2)[0, 0, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 4.0, 6.0]
