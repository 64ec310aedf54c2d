"""The whole network: shapes, encoders by name, weights from files, and what is refused."""

import os
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from pseudolabel.condinst.batch import Targets, check_targets, collate, masks_to_grid, resized_masks
from pseudolabel.condinst.config import CondInstConfig
from pseudolabel.condinst.network import CondInst
from pseudolabel.encoders.build import build_encoder
from pseudolabel.encoders.encoder import freeze_early
from pseudolabel.errors import ConfigError, InputError

TINY = CondInstConfig(backbone="tiny", backbone_weights="none", channels=32, convs=1, mask_branch_channels=32)


def shared_weights() -> Path:
    root = Path(os.environ.get("PSEUDOLABEL_SHARED") or Path(__file__).parents[2].parent / "shared")
    path = root / "weights" / "mobilenetv2_imagenet_fp16.safetensors"
    if not path.is_file():
        pytest.skip(f"REAL WEIGHTS NOT TESTED: {path} is not there; set PSEUDOLABEL_SHARED")
    return path


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "resnet18", "swin_tiny"])
def test_encoders_give_three_maps_at_strides_8_16_32(name):
    encoder = build_encoder(name, "none")
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 3, 64, 96))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(encoder.channels, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "resnet18", "swin_tiny"])
def test_freezing_stops_what_comes_before_stride_eight_and_nothing_else(name):
    encoder = build_encoder(name, "none")
    finest = [one for one in encoder.parameters() if one.requires_grad]
    assert freeze_early(encoder) > 0
    encoder(torch.rand(1, 3, 64, 64) * 255)[0].sum().backward()
    learned = [one for one in finest if one.grad is not None and one.grad.any()]
    assert learned, "the layers from stride 4 to 8 go on learning"
    assert all(one.requires_grad for one in learned)
    assert next(encoder.body.parameters()).grad is None


def test_an_encoder_that_does_not_show_its_parts_is_not_half_frozen():
    with pytest.raises(ConfigError, match="--no-freeze"):
        freeze_early(build_encoder("mobilenetv3_small_100", "none"))


@pytest.mark.parametrize(
    ("size_hw", "new_hw"),
    [((20, 17), (40, 34)), ((20, 17), (31, 26)), ((40, 33), (25, 20)), ((24, 24), (24, 24))],
    ids=["twice", "larger", "smaller", "same"],
)
def test_masks_on_the_grid_are_those_of_the_resized_image(size_hw, new_hw):
    masks = torch.rand(3, *size_hw, generator=torch.Generator().manual_seed(0)) > 0.5
    resized = torch.nn.functional.interpolate(masks[None].float(), new_hw, mode="bilinear", align_corners=False)[0]
    wanted = masks_to_grid(resized > 0.5)[:, : new_hw[0] // 4, : new_hw[1] // 4]
    assert torch.equal(resized_masks(masks, new_hw), wanted)


def test_an_unknown_backbone_names_the_nearest_one():
    with pytest.raises(ConfigError, match="resnet50"):
        build_encoder("resnet5O", "none")


@pytest.mark.parametrize("channels", [8, 9, 12, 32], ids=lambda count: f"{count} channels")
def test_one_small_image_can_be_trained_on_whose_last_level_has_one_cell(channels):
    config = TINY.model_copy(update={"channels": channels, "mask_branch_norm": "group"})
    features = CondInst(config, 2).train()(torch.rand(1, 3, 32, 32) * 255)
    assert features.dense.locations.sizes_hw[-1] == (1, 1)
    assert features.dense.logits.isfinite().all()


def test_a_fresh_detector_predicts_boxes_that_can_learn():
    torch.manual_seed(0)
    dense = CondInst(TINY, 1)(torch.rand(1, 3, 64, 64) * 255).dense
    assert (dense.ltrb > 1).all()  # the ReLU passes a gradient everywhere


def hub_cache(folder, monkeypatch):
    """An empty cache of the hub, which is all that can be had."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def test_mobilenet_takes_its_weights_and_their_normalisation_from_the_hubs_cache(tmp_path, monkeypatch):
    settings = smp.encoders.encoders["mobilenet_v2"]["pretrained_settings"]["imagenet"]
    repository = hub_cache(tmp_path, monkeypatch) / ("models--" + settings["repo_id"].replace("/", "--"))
    snapshot = repository / "snapshots" / settings["revision"]
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    body = build_encoder("mobilenet_v2", "none").body
    save_file(body.state_dict(), snapshot / "model.safetensors")
    encoder = build_encoder("mobilenet_v2", "hub")
    assert all(torch.equal(value, body.state_dict()[key]) for key, value in encoder.body.state_dict().items())
    assert encoder.mean.flatten().tolist() == pytest.approx([0.485 * 255, 0.456 * 255, 0.406 * 255])
    other = build_encoder("mobilenet_v2", "none")
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.mean, encoder.mean)  # the normalisation goes with the weights


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="missing"):
        build_encoder("tiny", str(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match="no such weights file"):
        build_encoder("tiny", str(tmp_path / "absent.safetensors"))
    (tmp_path / "torn.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a checkpoint"):
        build_encoder("tiny", str(tmp_path / "torn.pt"))


def test_encoder_weights_come_back_from_a_file(tmp_path):
    one = build_encoder("tiny", "none")
    save_file(one.body.state_dict(), tmp_path / "tiny.safetensors")
    other = build_encoder("tiny", str(tmp_path / "tiny.safetensors"))
    x = torch.rand(1, 3, 32, 32) * 255
    assert all(torch.equal(a, b) for a, b in zip(one(x), other(x), strict=True))


def test_folded_mobilenet_keeps_its_batch_norm_in_training():
    encoder = build_encoder("mobilenet_v2", str(shared_weights())).train()
    before = {key: value.clone() for key, value in encoder.body.named_buffers()}
    encoder(torch.rand(1, 3, 64, 64) * 255)
    assert all(torch.equal(before[key], value) for key, value in encoder.body.named_buffers())
    assert not any(module.training for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_mask_logits_come_on_the_stride_4_grid_for_locations_of_every_level():
    torch.manual_seed(0)
    network = CondInst(TINY, 3)
    features = network(torch.rand(2, 3, 64, 96) * 255)
    first = features.dense.locations.first
    locations = torch.tensor([0, first[1], first[4], first[2], first[3]])
    masks = network.mask_logits(features, torch.tensor([0, 0, 0, 1, 1]), locations)
    assert masks.shape == (5, 16, 24)
    with pytest.raises(ValueError, match="ordered by image"):
        network.mask_logits(features, torch.tensor([1, 0]), locations[:2])


def test_controller_at_locations_equals_the_whole_convolution():
    torch.manual_seed(0)
    network = CondInst(TINY, 1)
    torch.nn.init.normal_(network.head.controller.bias)
    features = network(torch.rand(2, 3, 96, 64) * 255)
    whole = torch.cat([network.head.controller(tower).flatten(2) for tower in features.dense.towers], dim=2)
    image = torch.tensor([0, 0, 1, 1, 1])
    location = torch.tensor([0, 7, 100, len(features.dense.locations.xy) - 1, 95])
    found = network.head.parameters_at(features.dense, image, location)
    assert torch.allclose(found, whole[image, :, location], atol=1e-5)


def test_sides_that_are_no_multiple_of_32_are_refused():
    with pytest.raises(ValueError, match="divisible by 32"):
        CondInst(TINY, 1)(torch.zeros(1, 3, 40, 64))


def test_collate_pads_images_and_masks_at_the_right_and_bottom():
    masks = torch.ones(1, 10, 5, dtype=torch.bool)
    target = Targets(torch.tensor([[0.0, 0, 20, 40]]), torch.zeros(1, dtype=torch.int64), masks)
    images = [torch.full((3, 40, 20), 7, dtype=torch.uint8), torch.ones(3, 33, 70)]
    batch = collate(images, [target, target])
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.sizes_hw.tolist() == [[40, 20], [33, 70]]
    assert batch.grid_hw == (16, 24)
    assert batch.images[0].sum() == 7 * 3 * 40 * 20
    assert batch.targets[0].masks.sum() == 50
    assert batch.targets[0].masks.shape == (1, 16, 24)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5.0, 5, 5, 9], "no area"),
        ([9.0, 5, 3, 9], "no area"),
        ([float("nan"), 0, 5, 5], "not finite"),
        ([70.0, 0, 80, 5], "off the image"),
    ],
    ids=["flat", "inverted", "nan", "outside"],
)
def test_degenerate_boxes_are_refused_before_training(box, message):
    targets = Targets(torch.tensor([[1.0, 1, 5, 5], box]), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(InputError, match=f"cat.jpg: box 1 .*{message}"):
        check_targets(targets, (50, 60), 1, name="cat.jpg")


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(InputError, match="not all among 2 classes"):
        check_targets(Targets(torch.tensor([[1.0, 1, 5, 5]]), torch.tensor([2])), (50, 60), 2)
