"""`--backbone-weights auto`: what an encoder begins as, by what the run has."""

import logging
from pathlib import Path

import pytest

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import SavedConfig, save_config, saved_configs
from pseudolabel.pipelines.trainers.segmenter_encoder import lent_weights, with_settled_weights
from pseudolabel.teachers.mal.config import MalConfig


def _run(folder: Path, model: str | None) -> RunPaths:
    run = RunPaths(folder / "run")
    if model:
        save_config(run, SavedConfig("infer-semantic", "semantic", "cpu", {"model": model}, {}))
    return run


def _settled(run: RunPaths, config: MalConfig) -> str:
    return with_settled_weights(run, "train-teacher", config).backbone_weights


def test_the_run_s_segmenter_lends_its_encoder_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("pseudolabel.encoders.build.build_encoder", lambda *asks: asked.append(asks))
    file = tmp_path / "seg.onnx"
    file.write_bytes(b"")
    with caplog.at_level(logging.INFO):
        assert _settled(_run(tmp_path, f"onnx:{file}"), MalConfig()) == str(file)
    assert asked == [("mobilenet_v2", str(file))]
    assert f"mobilenet_v2 begins as the encoder of {file}" in caplog.text


def test_a_segmenter_over_another_encoder_leaves_the_hub_s_cache_and_why_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(name: str, weights: str) -> None:
        raise InputError(f"{weights}: this segmenter has another backbone than {name}")

    monkeypatch.setattr("pseudolabel.encoders.build.build_encoder", refuse)
    file = tmp_path / "seg.onnx"
    file.write_bytes(b"")
    with caplog.at_level(logging.INFO):
        assert _settled(_run(tmp_path, f"onnx:{file}"), MalConfig()) == "hub"
    assert "cannot lend its encoder" in caplog.text
    assert "another backbone" in caplog.text


@pytest.mark.parametrize(
    "model", [None, "onnx:gone.onnx", "labels:maps", "torchvision:fcn_resnet50"], ids=["none", "gone", "files", "torch"]
)
def test_without_a_segmenter_that_can_lend_one_it_is_the_hub_s_cache(tmp_path: Path, model: str | None) -> None:
    assert _settled(_run(tmp_path, model), MalConfig()) == "hub"


@pytest.mark.parametrize("said", ["none", "hub", "hub-download", "own.safetensors"])
def test_what_is_said_is_left_alone(tmp_path: Path, said: str) -> None:
    assert _settled(_run(tmp_path, "onnx:seg.onnx"), MalConfig(backbone_weights=said)) == said


def test_a_backbone_misspelt_is_told_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
        _settled(_run(tmp_path, None), MalConfig(backbone="resnet5O"))


def test_configs_that_an_earlier_version_named_by_stages_are_read(tmp_path: Path) -> None:
    run = _run(tmp_path, "onnx:here.onnx")
    save_config(run, SavedConfig("semantic-candidates", "candidates/semantic", "cpu", {"zoom": True}, {}))
    run.config("candidates/semantic").rename(run.root / "config" / "semantic-candidates.yaml")
    run.config("semantic").rename(run.root / "config" / "infer-semantic.yaml")
    assert {one.table: one.stage for one in saved_configs(run)[0]} == {
        "semantic": "infer-semantic",
        "candidates/semantic": "semantic-candidates",
    }
    assert lent_weights(run, "mobilenet_v2") == (None, "")
    save_config(run, SavedConfig("infer-semantic", "semantic", "cpu", {"model": "labels:maps"}, {}))
    assert [one.config for one in saved_configs(run)[0] if one.table == "semantic"] == [{"model": "labels:maps"}]
