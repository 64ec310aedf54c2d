from pathlib import Path

import pytest
import yaml

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.segmenters.base import SegmenterOptions, split_spec
from pseudolabel.segmenters.card import SizeRule, find_card, read_card

CARD = {
    "name": "tiny",
    "task": "semantic-segmentation",
    "input": {"color": "rgb", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": [33, 49]},
    "output": {"kind": "logits", "align_corners": True},
    "classes": ["background", "thing"],
}


def _write(path: Path, card: object) -> Path:
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["deeplabv3_mobilenetv2_voc21", "deeplabv3_mobilenetv2_050_voc21_513"])
def test_the_shipped_cards_are_read(shared_folder: Path, name: str) -> None:
    card = read_card(shared_folder / "weights" / f"{name}.yaml")
    assert card.input.size == (513, 513)
    assert card.output.align_corners
    assert len(card.classes) == 21
    assert card.classes[15] == "person"


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [
        pytest.param(None, "clases", "classes", id="top"),
        pytest.param("input", "colour", "color", id="input"),
        pytest.param("output", "align_corner", "align_corners", id="output"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, section: str | None, key: str, nearest: str) -> None:
    card = {name: dict(value) if isinstance(value, dict) else value for name, value in CARD.items()}
    target = card if section is None else card[section]
    assert isinstance(target, dict)
    target[key] = 1
    with pytest.raises(InputError, match=f"unknown key .*{key}.*did you mean '{nearest}'"):
        read_card(_write(tmp_path / "card.yaml", card))


def test_all_problems_of_a_card_are_told_at_once(tmp_path: Path) -> None:
    card = {**CARD, "classes": ["one"], "output": {"kind": "logits"}}
    with pytest.raises(InputError, match=r"output\.align_corners is required.*classes"):
        read_card(_write(tmp_path / "card.yaml", card))


def test_without_a_card_the_missing_options_are_listed(tmp_path: Path) -> None:
    options = SegmenterOptions(classes=("a", "b"), mean=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match=r"model\.yaml.*give --std, --size, --align-corners"):
        find_card(tmp_path / "model.onnx", options)


def test_options_can_stand_in_for_a_card(tmp_path: Path) -> None:
    options = SegmenterOptions(
        classes=("a", "b"), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), size_hw=(8, 16), align_corners=False
    )
    card = find_card(tmp_path / "model.onnx", options)
    assert card.network_size((100, 100), None) == (8, 16)
    assert card.input.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        pytest.param(512, 513, id="nearest above"),
        pytest.param(520, 513, id="nearest below"),
        pytest.param(522, 529, id="next"),
        pytest.param(1, 17, id="never less than one multiple"),
    ],
)
def test_a_side_goes_to_the_nearest_that_the_rule_allows(side: int, expected: int) -> None:
    assert SizeRule(multiple=16, plus=1).nearest(side) == expected


def test_long_side_keeps_the_shape_and_follows_the_rule(tmp_path: Path) -> None:
    rule = {"multiple": 16, "plus": 1}
    card = read_card(_write(tmp_path / "c.yaml", {**CARD, "input": {**CARD["input"], "size_rule": rule}}))  # type: ignore[dict-item]
    assert card.network_size((480, 640), 768) == (577, 769)
    assert card.network_size((480, 640), None) == (33, 49)


def test_long_side_is_refused_for_a_model_of_one_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="omit --long-side"):
        read_card(_write(tmp_path / "c.yaml", CARD)).network_size((480, 640), 768)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param("model", "expected FILE.onnx, or one of onnx:", id="no kind"),
        pytest.param("onx:model.onnx", "did you mean 'onnx'", id="typo"),
        pytest.param("onnx:", "or one of onnx:", id="nothing behind it"),
    ],
)
def test_a_bad_spec_says_what_to_type(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_spec(spec)
