from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from pseudolabel.errors import InputError
from pseudolabel.segmenters.card import read_card
from pseudolabel.segmenters.card_template import CHECK, card_template
from pseudolabel.segmenters.class_map import load_classes


def _graph(path: Path, entering: list[int | str], output: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """A graph of these ends, whose output is a constant: only its declaration counts here."""
    numbers = [side if isinstance(side, int) else 4 for side in output]
    made = helper.make_node("ConstantOfShape", ["shape"], ["out"], value=helper.make_tensor("v", kind, [1], [0]))
    graph = helper.make_graph(
        [made],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, entering)],
        [helper.make_tensor_value_info("out", kind, output)],
        [helper.make_tensor("shape", TensorProto.INT64, [len(numbers)], numbers)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_template_says_what_the_graph_says_and_marks_the_rest(tmp_path: Path) -> None:
    path = _graph(tmp_path / "seg.onnx", [1, 3, 96, 128], [1, 5, 24, 32])
    text = card_template(path)
    card = read_card(_saved(text, tmp_path))
    assert (card.name, card.input.size, card.input.size_rule) == ("seg", (96, 128), None)
    assert (card.output.kind, len(card.classes)) == ("logits", 5)
    marked = [line.split(":")[0].strip() for line in text.splitlines()[1:] if CHECK in line]
    assert marked == ["license", "color", "mean", "std", "align_corners", "classes"]


def test_a_free_size_is_asked_for(tmp_path: Path) -> None:
    text = card_template(_graph(tmp_path / "seg.onnx", ["n", 3, "h", "w"], ["n", 5, "h2", "w2"]))
    card = read_card(_saved(text, tmp_path))
    assert (card.input.size, card.input.size_rule is not None) == ((512, 512), True)


def test_a_label_map_is_told_by_its_type(tmp_path: Path) -> None:
    text = card_template(_graph(tmp_path / "seg.onnx", [1, 3, 64, 64], [1, 64, 64], TensorProto.INT64))
    assert read_card(_saved(text, tmp_path)).output.kind == "labels"
    assert "the graph does not say how many" in text


def test_the_names_of_a_data_set_are_taken_where_their_number_fits(tmp_path: Path) -> None:
    path = _graph(tmp_path / "seg.onnx", [1, 3, 64, 64], [1, 21, 8, 8])
    assert "say --classes-from voc" in card_template(path)
    assert read_card(_saved(card_template(path, "voc"), tmp_path)).classes == load_classes("voc").names
    with pytest.raises(InputError, match="its logits have 21 classes, --classes-from coco has 80"):
        card_template(path, "coco")


def test_a_graph_without_a_map_is_refused_with_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a float32 image .* found .*out tensor\(float\) \[1, 1000\]"):
        card_template(_graph(tmp_path / "classifier.onnx", [1, 3, 64, 64], [1, 1000]))


def _saved(text: str, folder: Path) -> Path:
    path = folder / "card.yaml"
    path.write_text(text, encoding="utf-8")
    return path
