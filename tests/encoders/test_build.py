"""One name and one word for weights mean the same for SISeg, teachers and students; nothing is fetched unasked."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from pseudolabel.encoders.build import build_dense_encoder, build_encoder
from pseudolabel.encoders.encoder import Encoder
from pseudolabel.encoders.resolve import backbone_files, resolve_backbone_weights
from pseudolabel.errors import ConfigError, InputError

Build = Callable[[str, str], Encoder]
BOTH = pytest.mark.parametrize(
    "build", [pytest.param(build_encoder, id="for detectors"), pytest.param(build_dense_encoder, id="for SISeg")]
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no way to the hub itself."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("went to the network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "hub"


def put_into(cache: Path, repository: str, state: dict[str, torch.Tensor]) -> None:
    folder = cache / ("models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1234")
    (folder / "snapshots" / "1234").mkdir(parents=True)
    save_file(state, folder / "snapshots" / "1234" / "model.safetensors")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter as `save_pretrained` writes it, with a card of unusual mean and std."""
    folder = tmp_path_factory.mktemp("models") / "segmenter"
    torch.manual_seed(5)
    smp.FPN("resnet18", encoder_weights=None, classes=2).eval().save_pretrained(folder)
    card = {
        "name": "two",
        "input": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "size_rule": {"multiple": 32}},
        "output": {"align_corners": False},
        "classes": ["background", "disc"],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return folder


@BOTH
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "swin_tiny", "smp-encoder:resnet18"])
def test_hub_means_the_cache_alone_and_says_what_to_type(cache: Path, build: Build, name: str) -> None:
    with pytest.raises(InputError, match=r"not in the hub's cache.*--backbone-weights FILE.*none.*hub-download"):
        build(name, "hub")


@BOTH
def test_the_hubs_file_in_the_cache_is_read_without_the_network(cache: Path, build: Build) -> None:
    torch.manual_seed(1)
    trained = timm.create_model("resnet18")
    put_into(cache, "timm/resnet18.a1_in1k", trained.state_dict())
    body = build("resnet18", "hub").body
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in body.state_dict().items())


def test_a_download_that_is_asked_for_is_had_once_and_then_read_from_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, name: str, *, revision: str) -> str:
        asked.append((repository, name, revision))
        put_into(cache, repository, timm.create_model("resnet18").state_dict())
        return str(next(cache.rglob(name)))

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert resolve_backbone_weights("resnet18", "hub-download") == ("resnet18", "hub")
    build_encoder("resnet18", "hub-download")
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors", "main")]


def test_a_download_that_fails_waits_for_nothing_and_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for another try"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match=r"cannot be fetched from the hub \(.*no such host.*\).*FILE"):
        resolve_backbone_weights("resnet18", "hub-download")


@BOTH
def test_tiny_has_nothing_on_the_hub(build: Build) -> None:
    with pytest.raises(ConfigError, match="'tiny' has no weights on the hub"):
        build("tiny", "hub")


@BOTH
@pytest.mark.parametrize(
    ("typed", "meant"),
    [("resnet5O", "resnet50"), ("tu-resnet50", "resnet50"), ("swin_tinny", "swin_tiny"), ("mobilenetv2", "mobilenet")],
)
def test_a_name_that_nothing_has_gets_the_nearest(build: Build, typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"no backbone called '{typed}'.*did you mean '{meant}"):
        build(typed, "none")


def test_a_missing_file_is_told_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights file"):
        resolve_backbone_weights("resnet50", str(tmp_path / "absent.safetensors"))


@BOTH
def test_a_segmenters_own_encoder_gives_its_features_and_sees_colours_as_its_card_says(
    build: Build, segmenter: Path
) -> None:
    encoder = build(f"smp:{segmenter}", "hub").eval()
    images = torch.rand(1, 3, 64, 64) * 255
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = smp.from_pretrained(segmenter).eval().encoder((images / 255 - mean) / std)
        found = encoder(images)
    torch.testing.assert_close(found[-3], expected[3])
    torch.testing.assert_close(found[-2], expected[4])
    again = build(resolve_backbone_weights(f"smp:{segmenter}", "hub").name, "none")
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again.eval()(images), found, strict=True))


def test_a_second_set_of_weights_for_a_segmenters_encoder_is_refused(segmenter: Path) -> None:
    with pytest.raises(ConfigError, match="brings its own weights"):
        resolve_backbone_weights(f"smp:{segmenter}", "other.safetensors")


def test_the_files_behind_a_backbone_are_those_that_decide_its_weights(segmenter: Path) -> None:
    of_segmenter = {"backbone": segmenter / "model.safetensors", "card": segmenter / "model.yaml"}
    assert backbone_files(f"smp:{segmenter}", "hub") == of_segmenter
    assert backbone_files("smp-encoder:resnet18", f"smp:{segmenter}") == of_segmenter
    assert backbone_files("resnet50", "hub") == {}
    graph = segmenter / "a.onnx"
    assert backbone_files("resnet50", str(graph)) == {"backbone": graph}
    graph.with_suffix(".yaml").write_text("name: a\n", encoding="utf-8")
    assert backbone_files("resnet50", str(graph)) == {"backbone": graph, "card": segmenter / "a.yaml"}


def test_a_segmenter_that_is_only_on_the_hub_is_not_fetched(cache: Path) -> None:
    with pytest.raises(InputError, match="hf download someone/segmenter"):
        build_encoder("smp:someone/segmenter", "hub")


def test_the_dense_resnet_is_irnets_whose_last_stage_has_neither_stride_nor_dilation() -> None:
    torch.manual_seed(2)
    theirs = smp.encoders.get_encoder("resnet18", weights=None).eval()
    encoder = build_dense_encoder("resnet18", "none")
    encoder.body.load_state_dict(theirs.state_dict())
    for module in theirs.layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        expected = theirs((images - encoder.mean) / encoder.std)[-5:]
        expected[0] = nn.functional.max_pool2d(expected[0], 3, 2, 1)
        for found, wanted in zip(encoder(images), expected, strict=True):
            torch.testing.assert_close(found, wanted)


@BOTH
def test_weights_of_another_network_are_refused_with_the_same_words(build: Build, tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"these are weights of another network; [0-9]+ missing"):
        build("mobilenet_v2", str(tmp_path / "other.safetensors"))


@BOTH
def test_weights_that_are_no_numbers_are_refused(build: Build, tmp_path: Path) -> None:
    state = build_encoder("tiny", "none").body.state_dict()
    save_file(
        state | {"stages.0.0.0.weight": state["stages.0.0.0.weight"] * float("nan")}, tmp_path / "nan.safetensors"
    )
    with pytest.raises(InputError, match=r"NaN or infinite weights in stages\.0\.0\.0\.weight"):
        build("tiny", str(tmp_path / "nan.safetensors"))
