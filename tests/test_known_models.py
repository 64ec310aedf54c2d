import hashlib
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
from timm.models import get_pretrained_cfg
from torchvision.models import get_model_weights

from pseudolabel.encoders.bodies import timm_name
from pseudolabel.errors import ConfigError, InputError
from pseudolabel.known_models import KnownModel, card_path, known_models, shipped_cards
from pseudolabel.segmenters.base import SegmenterOptions
from pseudolabel.segmenters.card import find_card, read_card
from pseudolabel.segmenters.class_map import load_classes

_MODELS = {one.name: one for one in known_models()}
_TORCHVISION = [one.name for one in _MODELS.values() if one.use.startswith("--model torchvision:")]


@pytest.mark.parametrize("name", _TORCHVISION)
def test_what_is_said_of_a_model_of_torchvision_is_what_torchvision_says(name: str) -> None:
    one, weights = _MODELS[name], next(iter(get_model_weights(name)))
    assert one.source == weights.url
    assert one.fetch == f"curl -LO {weights.url}"
    assert one.size_mb == pytest.approx(weights.meta["_file_size"], abs=0.06)
    assert weights.url.endswith(f"-{one.sha256_begins}.pth")
    assert f"mIoU {weights.meta['_metrics']['COCO-val2017-VOC-labels']['miou']}" in one.what
    card = read_card(shipped_cards()[str(one.card)])
    assert len(card.classes) == len(weights.meta["categories"])
    assert (list(card.input.mean), list(card.input.std)) == (weights.transforms().mean, weights.transforms().std)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "swin_tiny"])
def test_an_encoder_of_the_hub_is_where_its_library_looks_for_it(name: str) -> None:
    one = _MODELS[name]
    if name == "mobilenet_v2":
        repository = smp.encoders.encoders[name]["pretrained_settings"]["imagenet"]["repo_id"]
    else:
        card = get_pretrained_cfg(timm_name(name))
        repository = card.hf_hub_id
        assert one.licence.lower() == card.license
    assert (one.source, one.fetch) == (f"https://huggingface.co/{repository}", f"hf download {repository}")


def test_the_cards_that_ship_are_cards_and_list_their_data_sets_classes() -> None:
    cards = {name: read_card(path) for name, path in shipped_cards().items()}
    assert set(cards) == {one.card for one in _MODELS.values() if one.card}
    for name, data_set in {"voc21": "voc", "ade150": "ade20k", "cityscapes19": "cityscapes"}.items():
        assert all(card.classes == load_classes(data_set).names for own, card in cards.items() if own.endswith(name))


def test_a_known_file_brings_its_card_by_its_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = tmp_path / "renamed.onnx", tmp_path / "other.onnx"
    file.write_bytes(b"weights")
    other.write_bytes(b"no weights")
    known = _MODELS["deeplabv3_mobilenetv2_voc21"].model_copy(
        update={"size_bytes": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    )
    monkeypatch.setattr("pseudolabel.known_models.known_models", lambda: [known])
    assert find_card(file, SegmenterOptions()).name == "deeplabv3_mobilenetv2_voc21"
    with pytest.raises(ConfigError, match=r"pseudolabel card .*other\.onnx --output"):
        find_card(other, SegmenterOptions())


def test_a_publishers_hash_in_the_name_is_checked_against_the_content(tmp_path: Path) -> None:
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    values = {"kind": "segmenters", "name": "n", "what": "w", "source": "s", "licence": "l", "use": "u"}
    known = KnownModel.model_validate(values | {"sha256_begins": begins})
    true, damaged, foreign = (tmp_path / name for name in (f"a-{begins}.pth", f"b-{begins}.pth", "c.pth"))
    true.write_bytes(b"weights")
    damaged.write_bytes(b"weigh")
    foreign.write_bytes(b"weights")
    assert [known.is_file(path) for path in (true, damaged, foreign)] == [True, False, False]


def test_a_card_may_be_named_and_one_beside_the_weights_goes_first(tmp_path: Path) -> None:
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"")
    assert card_path(weights) is None
    assert card_path(weights, Path("segformer-ade150")) == shipped_cards()["segformer-ade150"]
    weights.with_suffix(".yaml").write_text("name: own", encoding="utf-8")
    assert card_path(weights) == weights.with_suffix(".yaml")
    with pytest.raises(InputError, match=r"vocc: no such model card, nor one that ships \(deeplabv3"):
        card_path(weights, Path("vocc"))
