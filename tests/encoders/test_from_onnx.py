"""An encoder that starts from a segmenter's ONNX file gives that segmenter's features."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pseudolabel.encoders.build import build_dense_encoder, build_encoder
from pseudolabel.encoders.encoder import Encoder
from pseudolabel.errors import ConfigError, InputError

NAME = "test_resnet"
CARD: dict[str, Any] = {
    "name": "segmenter",
    "input": {"color": "rgb", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "size": [64, 64]},
    "output": {"kind": "logits", "align_corners": False},
    "classes": ["background", "thing"],
}


class Segmenter(nn.Module):
    """The encoder's last features under one more convolution."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.body, self.head = encoder.body, nn.Conv2d(encoder.channels[-1], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.body(x)[-1])
        return result


@pytest.fixture(scope="module")
def source() -> Encoder:
    """An encoder whose BatchNorm does something."""
    torch.manual_seed(0)
    encoder = build_encoder(NAME, "none").eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, values in module.state_dict().items():  # views of the module's own numbers
                if name in ("weight", "running_var"):
                    values.uniform_(0.5, 2.0)
                elif name in ("bias", "running_mean"):
                    values.uniform_(-1.0, 1.0)
    return encoder


@pytest.fixture(scope="module")
def exported(source: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The segmenter as torch exports it, BatchNorm folded, without a card."""
    path = tmp_path_factory.mktemp("onnx") / "segmenter.onnx"
    torch.onnx.export(
        Segmenter(source).eval(), (torch.rand(1, 3, 64, 64),), str(path), dynamo=True, external_data=False
    )
    return path


def _with_card(path: Path, card: dict[str, Any]) -> Path:
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
    return path


def _same(encoder: Encoder, source: Encoder, pixels: torch.Tensor) -> None:
    mean, std = torch.tensor(CARD["input"]["mean"]), torch.tensor(CARD["input"]["std"])
    with torch.no_grad():
        expected = source.body((pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))[-3:]
        for found, wanted in zip(encoder.eval()(pixels), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)


def _plain_graph(source: Encoder, path: Path) -> Path:
    """Convolutions and BatchNorm side by side, as exporters write them that fold nothing, the first one in BGR."""
    nodes, tensors = [], []
    modules = [one for one in source.body.modules() if isinstance(one, nn.Conv2d | nn.BatchNorm2d)]
    for place, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            values = [module.weight.flip(1) if place == 0 else module.weight]
            nodes.append(helper.make_node("Conv", [f"x{place}", f"{place}.0"], [f"x{place + 1}"]))
        else:
            state = module.state_dict()
            values = [state[name] for name in ("weight", "bias", "running_mean", "running_var")]
            names = [f"{place}.{part}" for part in range(4)]
            nodes.append(helper.make_node("BatchNormalization", [f"x{place}", *names], [f"x{place + 1}"]))
        tensors += [numpy_helper.from_array(v.detach().numpy(), f"{place}.{part}") for part, v in enumerate(values)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x0", f"x{len(modules)}")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)), str(path))
    return path


def test_an_exported_segmenters_encoder_gives_the_same_features_and_sees_the_same_colours(
    source: Encoder, exported: Path
) -> None:
    encoder = build_encoder(NAME, str(_with_card(exported, CARD)))
    _same(encoder, source, torch.rand(2, 3, 64, 96) * 255)


def test_sisegs_encoder_starts_from_the_same_file(source: Encoder, exported: Path) -> None:
    encoder = build_dense_encoder(NAME, str(_with_card(exported, CARD)))
    mean, std = (torch.tensor(CARD["input"][name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pixels = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        at_eight, at_sixteen, _ = source.body((pixels / 255 - mean) / std)[-3:]
        found = encoder(pixels)
    torch.testing.assert_close(found[2], at_eight, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(found[3], at_sixteen, atol=2e-4, rtol=1e-4)


def test_batch_norm_that_nobody_folded_and_swapped_colours_are_read_too(source: Encoder, tmp_path: Path) -> None:
    entry = {**CARD["input"], "color": "bgr", "mean": CARD["input"]["mean"][::-1], "std": CARD["input"]["std"][::-1]}
    path = _with_card(_plain_graph(source, tmp_path / "plain.onnx"), {**CARD, "input": entry})
    _same(build_encoder(NAME, str(path)), source, torch.rand(1, 3, 64, 64) * 255)


def test_a_segmenter_over_another_backbone_is_refused_by_its_first_other_convolution(exported: Path) -> None:
    with pytest.raises(InputError, match=r"its convolution 1 has shape .* the backbone's has \(64, 3, 7, 7\)"):
        build_encoder("resnet18", str(_with_card(exported, CARD)))


def test_a_missing_card_and_an_unreadable_graph_are_named(tmp_path: Path, exported: Path) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(exported.read_bytes())
    with pytest.raises(ConfigError, match=r"no model card .*alone\.yaml; write it from a template"):
        build_encoder(NAME, str(alone))
    alone.write_bytes(b"no graph")
    with pytest.raises(InputError, match="not a readable ONNX file"):
        build_encoder(NAME, str(_with_card(alone, CARD)))


def test_a_graph_whose_weights_are_computed_is_refused(source: Encoder, tmp_path: Path) -> None:
    path = _with_card(_plain_graph(source, tmp_path / "q.onnx"), CARD)
    model = onnx.load(str(path))
    kept = [one for one in model.graph.initializer if one.name != "0.0"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"'0\.0' is computed"):
        build_encoder(NAME, str(path))


def test_layers_that_the_segmenter_lacks_at_the_end_stay_as_they_were(shared_folder: Path) -> None:
    path = shared_folder / "weights" / "deeplabv3_mobilenetv2_voc21.onnx"
    torch.manual_seed(3)
    fresh = build_encoder("mobilenet_v2", "none").body.state_dict()
    torch.manual_seed(3)
    filled = build_encoder("mobilenet_v2", str(path)).body.state_dict()
    same = {name for name, value in fresh.items() if name.endswith("0.weight") and torch.equal(value, filled[name])}
    assert {name for name in same if fresh[name].dim() == 4} == {"features.18.0.weight"}
    assert np.isfinite(filled["features.0.0.weight"].numpy()).all()
