"""Segmenters with a network behind them: ONNX, SMP and torchvision, on tiny models made here."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from pseudolabel.errors import ConfigError, InputError, MachineError, RejectError
from pseudolabel.masks import Grid, SoftMask
from pseudolabel.segmenters.base import Photo, Segmenter, SegmenterOptions, SemanticResult, open_segmenter
from pseudolabel.segmenters.network import NetworkSegmenter
from pseudolabel.segmenters.onnx import open_session
from pseudolabel.segmenters.zoom import Look
from pseudolabel.weights import load_weights, read_state_dict

CLASSES = ("dark", "light")


class _Brightness(torch.nn.Module):
    """Logits (0, 20 * mean of the colours) on a grid of half the size; a pixel of exactly 1 gives NaN if asked to."""

    def __init__(self, nan_at_white: bool = False, classes: int = 2) -> None:
        super().__init__()
        self.nan_at_white = nan_at_white
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = torch.nn.functional.avg_pool2d(images, 2).mean(1, keepdim=True)
        if self.nan_at_white:
            light = torch.where(light >= 1, light * float("nan"), light)
        return torch.cat([torch.zeros_like(light)] * (self.classes - 1) + [20 * light], dim=1)


def _card(path: Path, *, size: tuple[int, int] = (8, 12), rule: bool = True) -> None:
    card = {
        "name": path.stem,
        "input": {"mean": [0.5] * 3, "std": [0.5] * 3, "size": list(size)},
        "output": {"align_corners": False},
        "classes": list(CLASSES),
    }
    if rule:
        card["input"]["size_rule"] = {"multiple": 4}  # type: ignore[index]
    path.write_text(yaml.safe_dump(card), encoding="utf-8")


def _onnx(path: Path, model: torch.nn.Module, *, dynamic: bool = True) -> Path:
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch, 2: 2 * torch.export.Dim("h", min=2), 3: 2 * torch.export.Dim("w", min=2)},)
    example = torch.zeros(2 if dynamic else 1, 3, 8, 12)
    torch.onnx.export(
        model.eval(), (example,), path, dynamo=True, dynamic_shapes=shapes if dynamic else None, verbose=False
    )
    _card(path.with_suffix(".yaml"), rule=dynamic)
    return path


@pytest.fixture(scope="module")
def dynamic_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _onnx(tmp_path_factory.mktemp("dynamic") / "net.onnx", _Brightness(nan_at_white=True))


@pytest.fixture(scope="module")
def fixed_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _onnx(tmp_path_factory.mktemp("fixed") / "net.onnx", _Brightness(), dynamic=False)


def _photo(light: int, size_hw: tuple[int, int] = (16, 24)) -> Photo:
    """Left half black, right half of one gray."""
    rgb = np.zeros((*size_hw, 3), dtype=np.uint8)
    rgb[:, size_hw[1] // 2 :] = light
    return Photo(f"{light}.png", size_hw, rgb)


def _good(segmenter: Segmenter, photos: list[Photo]) -> list[SemanticResult]:
    results = segmenter.predict(photos)
    assert all(isinstance(result, SemanticResult) for result in results)
    return [result for result in results if isinstance(result, SemanticResult)]


def _expect_halves(result: SemanticResult) -> None:
    width = result.label_map.shape[1]
    assert (result.label_map[:, : width // 3] == 0).all()
    assert (result.label_map[:, -width // 3 :] == 1).all()
    assert (result.confidence[:, [0, -1]] == 255).all()


@pytest.mark.parametrize("dynamic", [pytest.param(True, id="dynamic"), pytest.param(False, id="fixed")])
def test_onnx_gives_labels_at_the_size_of_the_image(dynamic: bool, dynamic_onnx: Path, fixed_onnx: Path) -> None:
    segmenter = open_segmenter(f"onnx:{dynamic_onnx if dynamic else fixed_onnx}", SegmenterOptions())
    segmenter.probe()
    results = _good(segmenter, [_photo(240), _photo(240, (33, 50))])
    assert [result.label_map.shape for result in results] == [(16, 24), (33, 50)]
    for result in results:
        _expect_halves(result)


def test_a_result_does_not_depend_on_what_stands_beside_it(dynamic_onnx: Path) -> None:
    segmenter = open_segmenter(f"onnx:{dynamic_onnx}", SegmenterOptions(batch_size=4, long_side=24))
    photos = [_photo(light, size) for light, size in [(200, (16, 24)), (150, (24, 16)), (140, (16, 24)), (9, (8, 8))]]
    together = _good(segmenter, photos)
    alone = [_good(segmenter, [photo])[0] for photo in photos]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.label_map, second.label_map)
        np.testing.assert_array_equal(first.confidence, second.confidence)


def test_one_photo_with_nan_logits_is_rejected_and_the_others_are_not(dynamic_onnx: Path) -> None:
    segmenter = open_segmenter(f"onnx:{dynamic_onnx}", SegmenterOptions(batch_size=2))
    white, gray = segmenter.predict([_photo(255), _photo(240)])
    assert isinstance(white, RejectError)
    assert white.reason == "non_finite"
    assert isinstance(gray, SemanticResult)


def test_a_fixed_model_refuses_other_batches_and_sizes(fixed_onnx: Path) -> None:
    with pytest.raises(ConfigError, match="takes batches of 1 alone"):
        open_segmenter(f"onnx:{fixed_onnx}", SegmenterOptions(batch_size=2))
    with pytest.raises(ConfigError, match="8x12 alone"):
        open_segmenter(f"onnx:{fixed_onnx}", SegmenterOptions(long_side=64))


def test_a_fixed_model_looks_closer_at_its_own_size_whatever_rule_its_card_has(tmp_path: Path) -> None:
    path = _onnx(tmp_path / "net.onnx", _Brightness(), dynamic=False)
    _card(path.with_suffix(".yaml"), rule=True)
    segmenter = open_segmenter(f"onnx:{path}", SegmenterOptions())
    assert isinstance(segmenter, NetworkSegmenter)
    photo = Photo("a.png", (40, 60), np.full((40, 60, 3), 200, dtype=np.uint8))
    (seen,) = segmenter.look([Look(photo, (10, 10, 14, 14), 1, Grid(10, 10, 1, 1, 4, 4), enlarged=1.0)])
    assert isinstance(seen, SoftMask)


def test_the_probe_says_how_many_classes_it_expected(tmp_path: Path) -> None:
    path = _onnx(tmp_path / "three.onnx", _Brightness(classes=3))
    with pytest.raises(InputError, match=r"expected logits of shape \(1, 2 classes, .*got \(1, 3, 4, 6\)"):
        open_segmenter(f"onnx:{path}", SegmenterOptions()).probe()


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(None, "no such ONNX file", id="missing"), pytest.param(b"<html>", "not an ONNX model", id="html")],
)
def test_what_is_no_onnx_file_is_an_input_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    _card(tmp_path / "net.yaml")
    with pytest.raises(InputError, match=message):
        open_segmenter(f"onnx:{path}", SegmenterOptions())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error_and_never_the_cpu(fixed_onnx: Path) -> None:
    with pytest.raises(MachineError, match="cuda"):
        open_session(fixed_onnx, device="cuda")


def test_an_smp_folder_gives_what_its_model_gives(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8), classes=2).eval()
    model.save_pretrained(tmp_path)
    _card(tmp_path / "model.yaml", size=(32, 64), rule=False)
    segmenter = open_segmenter(f"smp:{tmp_path}", SegmenterOptions())
    segmenter.probe()
    rgb = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    (result,) = _good(segmenter, [Photo("a.png", (32, 64), rgb)])
    with torch.inference_mode():
        logits = model(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    decided = (logits[0] - logits[1]).abs().numpy() > 1e-3
    np.testing.assert_array_equal(result.label_map[decided], logits.argmax(0).numpy()[decided])


def test_an_smp_config_never_downloads_encoder_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segmentation_models_pytorch import Unet

    from pseudolabel.segmenters.smp import build_model

    (tmp_path / "config.json").write_text(
        '{"_model_class": "Unet", "encoder_name": "resnet18", "encoder_weights": "imagenet", "classes": 2}'
    )
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("went to the network"))
    assert isinstance(build_model(tmp_path / "config.json"), Unet)


def test_torchvision_takes_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    _card(tmp_path / "net.yaml", size=(32, 64))
    segmenter = open_segmenter("torchvision:lraspp_mobilenet_v3_large", SegmenterOptions(weights=tmp_path / "net.pt"))
    segmenter.probe()
    assert _good(segmenter, [_photo(9)])[0].label_map.shape == (16, 24)


def test_torchvision_names_the_nearest_model_and_asks_for_weights() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fcn_resnet50'"):
        open_segmenter("torchvision:fcn_resnet5", SegmenterOptions())
    with pytest.raises(ConfigError, match="needs --weights"):
        open_segmenter("torchvision:fcn_resnet50", SegmenterOptions())


def test_weights_that_do_not_fit_are_listed() -> None:
    model = torch.nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 5), "extra": torch.zeros(1)}
    with pytest.raises(
        InputError, match=r"1 missing: bias; 1 unexpected: extra; 1 other shape: weight \(3, 5\) for \(3, 2\)"
    ):
        load_weights(model, state, where="w.pt")


def test_weights_with_nan_are_refused() -> None:
    model = torch.nn.Linear(2, 1)
    state = {"weight": torch.tensor([[1.0, float("nan")]]), "bias": torch.zeros(1)}
    with pytest.raises(InputError, match="NaN or infinite weights in weight"):
        load_weights(model, state, where="w.pt")


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harm-was-done"),))


def test_a_checkpoint_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": _Harmful()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="not a checkpoint that can be read safely"):
        read_state_dict(tmp_path / "w.pt")
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_web_page_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>404</html>")
    with pytest.raises(InputError, match="not a checkpoint"):
        read_state_dict(tmp_path / name)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_state_dict(tmp_path / "w.safetensors")["a"].tolist() == [1, 1]
