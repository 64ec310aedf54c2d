"""Without the extras of the package: what a plain install can do, and the line that says what to type for the rest."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner
from onnx import helper
from PIL import Image

from pseudolabel.cli.main import main
from pseudolabel.errors import MachineError
from pseudolabel.optional import EXTRAS, absence_named, absent_module, need_extra

ROOT = Path(__file__).parents[2]
_PACKAGES = {
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "markupsafe": "MarkupSafe",
    "huggingface_hub": "huggingface-hub",
}
_BLOCKED = "import sys\nfor name in {names!r}:\n    sys.modules[name] = None\n"


def _block(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    for module in EXTRAS[extra][1]:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_that_the_code_looks_for(extra: str) -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    names = {entry.partition(">")[0].partition(";")[0].strip() for entry in listed}
    assert {_PACKAGES.get(module, module) for module in EXTRAS[extra][1]} <= names


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        pytest.param(["demo", "FOLDER"], "train", id="demo"),
        pytest.param(["train-teacher", "RUN"], "train", id="a teacher"),
        pytest.param(["train-siseg", "RUN"], "train", id="SISeg"),
        pytest.param(["train-student", "RUN"], "train", id="a student"),
        pytest.param(["infer-teacher", "RUN"], "train", id="a trained teacher"),
        pytest.param(["infer-siseg", "RUN"], "train", id="a trained SISeg"),
        pytest.param(["infer-semantic", "RUN", "--model", "smp:DIR"], "train", id="a segmenter of smp"),
        pytest.param(["predict", "STUDENT", "--images", "i", "--out", "o"], "train", id="a trained student"),
        pytest.param(["export-model", "STUDENT", "--onnx", "o.onnx"], "train", id="a student as ONNX"),
        pytest.param(["report", "RUN"], "report", id="report"),
        pytest.param(["calibrate", "RUN", "--ground-truth", "t.json"], "calibrate", id="calibrate"),
        pytest.param(["infer-prompted", "RUN", "--model", "sam:DIR"], "sam", id="SAM"),
        pytest.param(["fuse", "RUN", "--engine", "ray"], "ray", id="Ray"),
    ],
)
def test_what_needs_an_extra_says_in_one_line_what_to_type(
    arguments: list[str], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _block(monkeypatch, extra)
    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, MachineError)
    assert str(result.exception).endswith(f"which is not installed:  pip install 'pseudolabel[{extra}]'")
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_run_file_is_refused_before_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _block(monkeypatch, "train")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"run": str(tmp_path / "run"), "shard": {"images": "x"}, "train-teacher": {}}))
    result = CliRunner().invoke(main, ["run", str(file)])
    assert "train-teacher needs timm" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_an_import_of_an_extra_is_named_and_one_of_another_module_is_not() -> None:
    line = r"lightning, which is not installed:  pip install 'pseudolabel\[train\]'"
    with pytest.raises(MachineError, match=line), absence_named():
        raise ModuleNotFoundError("No module named 'lightning.fabric'", name="lightning.fabric")
    with pytest.raises(ModuleNotFoundError), absence_named():
        raise ModuleNotFoundError("No module named 'other'", name="other")


def test_a_torchvision_of_another_torch_is_named_with_the_cure() -> None:
    line = r"torchvision .* does not fit torch .*: install both at once, from one index"
    with pytest.raises(MachineError, match=line), absence_named():
        raise RuntimeError("operator torchvision::nms does not exist")
    with pytest.raises(RuntimeError, match="shape"), absence_named():
        raise RuntimeError("shape mismatch")


def test_an_extra_that_is_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "train", ("trainings", ("json", "nowhere")))
    assert absent_module("train") == "nowhere"
    monkeypatch.setitem(EXTRAS, "train", ("trainings", ("json",)))
    assert absent_module("train") is None
    need_extra("train", "this")


def _segmenter(folder: Path) -> Path:
    """Two classes out of the brightness of a 48x64 image."""
    shape = [1, 3, 48, 64]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel", "bias"], ["logits"])],
        "brightness",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 2, 48, 64])],
        [
            helper.make_tensor("kernel", onnx.TensorProto.FLOAT, [2, 3, 1, 1], [-4.0] * 3 + [4.0] * 3),
            helper.make_tensor("bias", onnx.TensorProto.FLOAT, [2], [4.0, -4.0]),
        ],
    )
    path = folder / "segmenter.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    card = {
        "name": "brightness",
        "input": {"color": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1], "size": [48, 64]},
        "output": {"kind": "logits", "align_corners": False},
        "classes": ["background", "cup"],
    }
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
    return path


def _input(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in (1, 2):
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        pixels[8:32, 10:40] += 150
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    square = [[10, 8, 40, 8, 40, 32, 10, 32]]
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in (1, 2)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [10, 8, 30, 24], "area": 720, "segmentation": square}
            for n in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content))


def test_a_plain_install_makes_masks_measures_and_exports_them(tmp_path: Path) -> None:
    """Every module of every extra is blocked, in the workers, too."""
    _input(tmp_path)
    _segmenter(tmp_path)
    names = [module for _, modules in EXTRAS.values() for module in modules]
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(_BLOCKED.format(names=names))
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(
            {
                "run": "run",
                "shard": {"images": "images", "annotations": "boxes.json"},
                "infer-semantic": {"model": "segmenter.onnx"},
                "infer-colors": {},
                "fuse": {},
                "evaluate": {"ground_truth": "boxes.json"},
            }
        )
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'blocked'}{os.pathsep}{ROOT}"}

    def typed(*arguments: str) -> str:
        command = [sys.executable, "-m", "pseudolabel", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = json.loads(typed("run", "mine.yaml", "--json"))["stages"]
    assert told[-1]["figures"]["mean_iou"] > 0.9
    assert "pseudo" in typed("status", "run")
    typed("verify", "run")
    typed("export", "run", "--to", "yolo", "--out", "yolo")
    assert (tmp_path / "yolo" / "data.yaml").exists()
    assert json.loads(typed("doctor", "run", "--json"))
    blocked = subprocess.run(
        [sys.executable, "-m", "pseudolabel", "train-teacher", "run"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (blocked.returncode, blocked.stderr.count("\n")) == (4, 1)
