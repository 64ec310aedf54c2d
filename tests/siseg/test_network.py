"""The network's shapes, what is frozen, the mean shift, and files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import yaml

from pseudolabel.encoders.build import build_dense_encoder
from pseudolabel.encoders.encoder import DENSE_STRIDES
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.siseg.config import SisegCard
from pseudolabel.siseg.model import build_network, load_siseg, new_network, predict_fields, save_siseg
from pseudolabel.siseg.network import DisplacementHead, SisegNetwork

TINY = SisegCard(backbone="tiny", head_width=64)


def tiny_network() -> SisegNetwork:
    torch.manual_seed(0)
    return build_network(TINY, "none")


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "resnet50"])
def test_backbone_gives_five_stages_at_the_published_strides(name: str) -> None:
    backbone = build_dense_encoder(name, "none")
    features = backbone(torch.zeros((1, 3, 64, 96)))
    sides = [(64 // stride, 96 // stride) for stride in DENSE_STRIDES]
    assert [tuple(feature.shape[2:]) for feature in features] == sides
    assert tuple(feature.shape[1] for feature in features) == backbone.channels


def test_resnet50_stages_have_the_published_channels() -> None:
    assert build_dense_encoder("resnet50", "none").channels == (64, 256, 512, 1024, 2048)


def test_pretrained_backbone_takes_no_gradient_and_keeps_its_statistics() -> None:
    network = SisegNetwork(build_dense_encoder("mobilenet_v2", "none"), width=64).train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    fields = network(torch.rand((2, 3, 32, 32)) * 255)
    (fields.displacement.sum() + fields.boundary_logits.sum()).backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.backbone.state_dict().items())
    assert all(parameter.grad is not None for parameter in network.displacement_head.parameters())


def test_tiny_backbone_learns_with_the_heads() -> None:
    network = tiny_network().train()
    network(torch.rand((1, 3, 32, 32)) * 255).displacement.abs().sum().backward()
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())


def test_displacement_head_of_resnet50_has_the_parameters_of_the_published_table() -> None:
    head = DisplacementHead((64, 256, 512, 1024, 2048), 256)
    convolutions = 64 * 64 + 256 * 128 + (512 + 1024 + 2048) * 256 + 768 * 256 + 448 * 256 + 256 * 2
    norms = 2 * (64 + 128 + 3 * 256 + 256 + 256)
    assert sum(parameter.numel() for parameter in head.parameters()) == convolutions + norms


def test_mean_displacement_is_subtracted_in_evaluation_alone() -> None:
    network = tiny_network()
    image = torch.rand((1, 3, 32, 48)) * 255
    plain = network.train()(image).displacement
    network.mean_displacement.copy_(torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(network.train()(image).displacement, plain)
    shifted = network.eval()(image).displacement
    torch.testing.assert_close(plain - shifted, torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand_as(plain))


def test_saved_model_predicts_what_it_predicted(tmp_path: Path) -> None:
    network = tiny_network().eval()
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    expected = predict_fields(network, image, scale=1.0, flip=True)
    save_siseg(tmp_path / "siseg.safetensors", network, TINY, {"images": 1})
    loaded, card = load_siseg(tmp_path / "siseg.safetensors")
    assert card == TINY
    found = predict_fields(loaded, image, scale=card.scale, flip=True)
    assert np.array_equal(found.displacement, expected.displacement)
    assert np.array_equal(found.boundary, expected.boundary)


def test_boundary_of_a_mirrored_image_is_the_mirrored_boundary() -> None:
    network = tiny_network().eval()
    image = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    boundary = predict_fields(network, image, scale=1.0, flip=True).boundary
    mirrored = predict_fields(network, np.ascontiguousarray(image[:, ::-1]), scale=1.0, flip=True).boundary
    np.testing.assert_allclose(mirrored[:, ::-1], boundary, atol=1e-5)


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
        build_dense_encoder("resnet5O", "none")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros((1, 1, 1, 1))}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="another network"):
        build_dense_encoder("mobilenet_v2", str(tmp_path / "other.safetensors"))


def test_timm_encoder_is_had_at_stride_sixteen_and_one_that_cannot_be_is_refused() -> None:
    features = build_dense_encoder("test_resnet", "none")(torch.zeros((1, 3, 64, 96)))
    assert [feature.shape[-1] for feature in features] == [96 // stride for stride in DENSE_STRIDES]
    with pytest.raises(ConfigError, match="'swin_tiny' cannot be had at stride 16"):
        build_dense_encoder("swin_tiny", "none")


def test_features_do_not_tell_where_the_picture_ends() -> None:
    torch.manual_seed(0)
    network = SisegNetwork(build_dense_encoder("tiny", "none"), width=64).eval()
    for size in ((96, 128), (16, 48)):
        one_colour = torch.full((1, 3, *size), 120.0)
        with torch.no_grad():
            found, zeros_beyond = network.features(one_colour), network.backbone(one_colour)
        assert [level.shape for level in found] == [level.shape for level in zeros_beyond]
        for level, other in zip(found[:3], zeros_beyond[:3], strict=True):
            torch.testing.assert_close(level, level[..., :1, :1].expand_as(level))
            assert other.shape[-1] == 1 or not torch.allclose(other, other[..., :1, :1].expand_as(other), rtol=0.1)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter as `save_pretrained` writes it, with a card of unusual mean and std."""
    folder = tmp_path_factory.mktemp("models") / "segmenter"
    torch.manual_seed(5)
    smp.FPN("tu-test_resnet", encoder_weights=None, classes=2).eval().save_pretrained(folder)
    card = {
        "name": "two",
        "input": {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2], "size_rule": {"multiple": 32}},
        "output": {"align_corners": False},
        "classes": ["background", "disc"],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return folder


def test_segmenters_own_encoder_is_the_frozen_backbone_and_is_fed_as_its_card_says(segmenter: Path) -> None:
    network, card = new_network(SisegCard(backbone=f"smp:{segmenter}", head_width=64), "hub")
    encoder = smp.from_pretrained(segmenter).eval().encoder
    images = torch.rand((1, 3, 64, 64)) * 255
    expected = encoder((images / 255 - 0.4) / 0.2)[-5:-1]  # the last stage is strided there
    found = network.backbone(images)
    assert network.backbone.frozen
    assert card.backbone == "smp-encoder:tu-test_resnet"
    torch.testing.assert_close(found[0], torch.nn.functional.max_pool2d(expected[0], 3, 2, 1))
    for own, theirs in zip(found[1:4], expected[1:], strict=True):
        torch.testing.assert_close(own, theirs)


def test_model_on_a_segmenters_encoder_is_read_again_without_the_segmenter(segmenter: Path, tmp_path: Path) -> None:
    network, card = new_network(SisegCard(backbone=f"smp:{segmenter}", head_width=64), "hub")
    save_siseg(tmp_path / "siseg.safetensors", network, card, {})
    loaded, read = load_siseg(tmp_path / "siseg.safetensors")
    assert read == card
    image = np.random.default_rng(2).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    fields = [predict_fields(net.eval(), image, scale=1.0, flip=False).boundary for net in (network, loaded)]
    assert np.array_equal(*fields)


def test_second_set_of_weights_for_a_segmenters_encoder_is_refused(segmenter: Path) -> None:
    with pytest.raises(ConfigError, match="brings its own weights"):
        new_network(SisegCard(backbone=f"smp:{segmenter}"), "other.safetensors")


def test_segmenter_without_five_stages_is_refused(segmenter: Path, tmp_path: Path) -> None:
    shutil.copytree(segmenter, tmp_path / "short")
    config = json.loads((segmenter / "config.json").read_text()) | {"encoder_depth": 3}
    (tmp_path / "short" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="expected an encoder of 5 stages"):
        new_network(SisegCard(backbone=f"smp:{tmp_path / 'short'}"), "hub")
