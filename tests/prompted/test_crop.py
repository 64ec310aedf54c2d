"""Class-agnostic models on crops: a network that takes what is bright for the object."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.prompted.base import PromptedOptions, Prompts, deciding_files, open_prompted

CARD = "name: bright\ninput: {mean: [0, 0, 0], std: [1, 1, 1], size: [64, 64]}\noutput: {kind: probability}\n"


class Bright(torch.nn.Module):
    """One where a pixel is brighter than one half, zero elsewhere; as a second output the same as logits."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = (pixels.mean(dim=1, keepdim=True) - 0.5) * 200
        return logits.sigmoid(), logits


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crop") / "bright.onnx"
    torch.onnx.export(
        Bright(), (torch.rand(1, 3, 64, 64),), path, input_names=["x"], output_names=["alpha", "logits"], dynamo=False
    )
    path.with_suffix(".yaml").write_text(CARD)
    return path


def _scene() -> np.ndarray:
    pixels = np.zeros((77, 131, 3), dtype=np.uint8)
    pixels[20:60, 30:70] = 255
    return pixels


def _predict(model_file: Path, boxes: list[list[float]], **options: Any) -> list[Any]:
    model = open_prompted(f"crop:{model_file}", PromptedOptions(**options))
    model.probe()
    return model.predict(Prompts(_scene(), np.array(boxes)))


def test_the_object_in_the_box_is_found_once_for_each_room(model_file: Path) -> None:
    found = _predict(model_file, [[30.0, 20, 70, 60]], rooms=(0.1, 0.25))
    assert [one.given for one in found] == [0, 0]
    for one in found:
        np.testing.assert_allclose(one.reach_xyxy, (30, 20, 70, 60), atol=1.0)
        assert one.box_iou > 0.95
        assert one.mask.grid.extent_xyxy == (30, 20, 70, 60)
        assert (one.mask.probability > 127).mean() > 0.95
        assert one.box_score == pytest.approx(one.box_iou, abs=0.05)  # an alpha without doubt


def test_the_gate_closes_for_a_box_that_the_mask_runs_beyond(model_file: Path) -> None:
    half = [[30.0, 20, 50, 60]]  # the left half of what is bright
    (open_gate,) = _predict(model_file, half, rooms=(0.5,), least_score=0.0)
    assert open_gate.box_iou == pytest.approx(0.5, abs=0.05)
    assert _predict(model_file, half, rooms=(0.5,), least_score=0.6) == []


def test_where_nothing_is_bright_there_is_no_mask(model_file: Path) -> None:
    assert _predict(model_file, [[90.0, 10, 120, 50]]) == []


def test_logits_of_a_named_output_say_the_same(model_file: Path, tmp_path: Path) -> None:
    card = tmp_path / "logits.yaml"
    card.write_text(CARD.replace("{kind: probability}", "{name: logits, kind: logits}"))
    (ours,) = _predict(model_file, [[30.0, 20, 70, 60]], rooms=(0.1,), card=card)
    (theirs,) = _predict(model_file, [[30.0, 20, 70, 60]], rooms=(0.1,))
    assert ours.box_iou == pytest.approx(theirs.box_iou, abs=0.03)
    assert ((ours.mask.probability > 127) != (theirs.mask.probability > 127)).mean() < 0.05


def test_model_and_card_decide(model_file: Path) -> None:
    assert deciding_files(f"crop:{model_file}", None) == {
        "model": model_file,
        "card": model_file.with_suffix(".yaml"),
    }


def test_without_a_card_the_message_shows_one(model_file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(model_file.read_bytes())
    with pytest.raises(ConfigError, match=r"no model card .*write one, as\nname: isnet"):
        open_prompted(f"crop:{bare}", PromptedOptions())


@pytest.mark.parametrize(
    ("card", "error", "message"),
    [
        (CARD.replace("[64, 64]", "[32, 32]"), ConfigError, r"input.size is \[32, 32\], the model takes \(64, 64\)"),
        (CARD.replace("{kind", "{name: mask, kind"), ConfigError, r"no output 'mask' \(there: alpha, logits\)"),
        (CARD.replace("{kind", "{name: logits, kind"), InputError, "no probability; does the card mean  kind: logits"),
        (CARD.replace("output", "outputs"), ConfigError, "unknown key 'outputs'; did you mean 'output'"),
    ],
    ids=["size", "output", "scale", "typo"],
)
def test_a_card_that_does_not_fit_is_refused(
    model_file: Path, tmp_path: Path, card: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(card)
    with pytest.raises(error, match=message):
        open_prompted(f"crop:{model_file}", PromptedOptions(card=path)).probe()
