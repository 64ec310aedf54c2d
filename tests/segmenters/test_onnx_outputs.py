"""ONNX files whose output is no logits with channels first: label maps, channels last, several outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from pseudolabel.errors import InputError
from pseudolabel.segmenters.base import Photo, SegmenterOptions, SemanticResult, open_segmenter

SIDE = 8
TYPES = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "uint8": TensorProto.UINT8}


def model(
    path: Path, nodes: list[Any], outputs: dict[str, tuple[int, list[int]]], *, last: bool = False, **card: Any
) -> str:
    """Saves nodes that read `x`, in [0, 1], and their card; returns the spec."""
    shape = [1, SIDE, SIDE, 3] if last else [1, 3, SIDE, SIDE]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info(name, kind, list(dims)) for name, (kind, dims) in outputs.items()]
    scale = helper.make_tensor("factor", TensorProto.FLOAT, [], [2.999])
    graph = helper.make_graph(nodes, "g", given, made, [scale])
    saved = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(saved, path / "m.onnx")
    values = {"name": "m", "input": {"mean": [0] * 3, "std": [1] * 3, "size": [SIDE, SIDE]}, "classes": ["a", "b", "c"]}
    values |= {"output": {"align_corners": False, **card.pop("output", {})}, **card}
    (path / "m.yaml").write_text(yaml.safe_dump(values))
    return f"onnx:{path / 'm.onnx'}"


def predicted(spec: str) -> Any:
    """Of a picture whose left half is black and whose right half is white; it enters as 0 and 1."""
    segmenter = open_segmenter(spec, SegmenterOptions())
    segmenter.probe()
    rgb = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    rgb[:, SIDE // 2 :] = 255
    (result,) = segmenter.predict([Photo("a.png", (SIDE, SIDE), rgb)])
    return result


def label_map(kind: str, keep: bool, factor: str = "factor") -> list[Any]:
    """The mean colour times 2.999, cut to a whole number: 0 of black and 2 of white."""
    reduce = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=int(keep))
    absolute = helper.make_node("Abs", ["mean"], ["positive"])
    clip = helper.make_node("Mul", ["positive", factor], ["scaled"])
    return [reduce, absolute, clip, helper.make_node("Cast", ["scaled"], ["y"], to=TYPES[kind])]


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("keep", [True, False], ids=["n1hw", "nhw"])
def test_a_label_map_is_read_as_one(tmp_path: Path, kind: str, keep: bool) -> None:
    dims = [1, 1, SIDE, SIDE] if keep else [1, SIDE, SIDE]
    result = predicted(model(tmp_path, label_map(kind, keep), {"y": (TYPES[kind], dims)}))
    assert isinstance(result, SemanticResult)
    assert (result.label_map[:, : SIDE // 2] == 0).all()
    assert (result.label_map[:, SIDE // 2 :] == 2).all()
    assert result.confidence.min() >= 254


def test_an_index_beyond_the_classes_is_an_error_unless_it_is_the_ignored_one(tmp_path: Path) -> None:
    outputs = {"y": (TensorProto.INT64, [1, SIDE, SIDE])}
    with pytest.raises(InputError, match="index 2, its card lists 2 classes"):
        predicted(model(tmp_path, label_map("int64", False), outputs, classes=["a", "b"]))
    result = predicted(model(tmp_path, label_map("int64", False), outputs, classes=["a", "b"], ignore_index=2))
    assert isinstance(result, SemanticResult)
    assert result.confidence[:, 0].min() >= 254
    assert result.confidence[:, -1].max() <= 128  # sure of neither class


def test_channels_may_stand_last_in_input_and_output(tmp_path: Path) -> None:
    same = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    result = predicted(model(tmp_path, same, {"y": (TensorProto.FLOAT, [1, SIDE, SIDE, 3])}, last=True))
    assert isinstance(result, SemanticResult)  # three equal logits: the first class
    assert (result.label_map == 0).all()


def test_of_several_outputs_the_card_names_one(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "factor"], ["logits"]), helper.make_node("Neg", ["x"], ["aux"])]
    outputs = {name: (TensorProto.FLOAT, [1, 3, SIDE, SIDE]) for name in ("logits", "aux")}
    with pytest.raises(InputError, match=r"2 outputs \(there: logits, aux\); name the logits in its card"):
        predicted(model(tmp_path, nodes, outputs))
    with pytest.raises(InputError, match="no output called 'nothing'"):
        predicted(model(tmp_path, nodes, outputs, output={"name": "nothing"}))
    assert isinstance(predicted(model(tmp_path, nodes, outputs, output={"name": "logits"})), SemanticResult)
