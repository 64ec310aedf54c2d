"""A model card to begin with: what an ONNX graph says of itself, and a mark at each line that it cannot say."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pseudolabel.errors import InputError
from pseudolabel.segmenters.class_map import load_classes
from pseudolabel.segmenters.onnx import LABEL_TYPES, channels_last, open_session

ClassNames = Literal["voc", "coco", "ade20k", "cityscapes"]
CHECK = "# CHECK"
_USUAL_HW = (512, 512)
_LISTS: dict[int, tuple[ClassNames, str]] = {
    19: ("cityscapes", "Cityscapes"),
    21: ("voc", "Pascal VOC"),
    80: ("coco", "COCO"),
    150: ("ade20k", "ADE20K"),
}


def card_template(path: Path, classes_from: ClassNames | None = None) -> str:
    """The text of a card for an ONNX segmenter.

    Args:
        path: the ONNX file.
        classes_from: a data set whose names are the classes, in its order; None numbers them.

    Raises:
        InputError: no such file, or a graph that has no image as input or no label map or logits as output, or that
            has another number of classes.
    """
    session = open_session(path)
    entering, output, others = *_image_and_output(session, path), session.get_outputs()
    labels = output.type in LABEL_TYPES
    said = None if labels else _number_of_classes(entering.shape, output.shape)
    names = _names(path, said, classes_from)
    return "\n".join(
        [
            f"# How to feed and read {path.name}; written from its graph: look at every line marked {CHECK[2:]}",
            f"name: {path.stem}",
            "task: semantic-segmentation",
            f"license: unknown               {CHECK}: whose weights are these?",
            "input:",
            f"  color: rgb                   {CHECK}: or bgr",
            f"  mean: [0.485, 0.456, 0.406]  {CHECK}: of values in [0, 1]; these are ImageNet's",
            f"  std: [0.229, 0.224, 0.225]   {CHECK}",
            *_size_lines(entering.shape),
            "output:",
            f"  kind: {'labels' if labels else 'logits'}",
            *_name_lines(output, others),
            f"  align_corners: false         {CHECK}: true where its training enlarged the output so",
            "ignore_index: 255",
            *_class_lines(names, said, classes_from),
            "",
        ]
    )


def _image_and_output(session: Any, path: Path) -> tuple[Any, Any]:
    inputs = [one for one in session.get_inputs() if one.type == "tensor(float)" and len(one.shape) == 4]
    outputs = [one for one in session.get_outputs() if _is_map(one)]
    if len(inputs) != 1 or not outputs:
        found = ", ".join(
            f"{one.name} {one.type} {one.shape}" for one in [*session.get_inputs(), *session.get_outputs()]
        )
        raise InputError(
            f"{path}: expected a float32 image (batch, 3, height, width) as input, and logits (batch, classes, height, "
            f"width) or a label map (batch, height, width) as output; found {found}"
        )
    return inputs[0], outputs[0]


def _is_map(output: Any) -> bool:
    label_map = output.type in LABEL_TYPES and len(output.shape) in (3, 4)
    return label_map or (output.type == "tensor(float)" and len(output.shape) == 4)


def _number_of_classes(entering: Sequence[int | str | None], output: Sequence[int | str | None]) -> int | None:
    """The channels of logits: the second axis, or the last one where only so the map has the image's shape."""
    size = entering[1:3] if channels_last(entering) else entering[2:]
    last = _like(output[1:3], size) and not _like(output[2:], size)
    found = output[3] if last else output[1]
    return found if isinstance(found, int) else None


def _like(sides: Sequence[int | str | None], other: Sequence[int | str | None]) -> bool:
    """Whether two sizes are known and of one shape."""
    known = [side for side in (*sides, *other) if isinstance(side, int)]
    return len(known) == 4 and known[0] * known[3] == known[1] * known[2]


def _names(path: Path, said: int | None, classes_from: ClassNames | None) -> tuple[str, ...]:
    if classes_from is None:
        return tuple(f"class {index}" for index in range(said or 2))
    names = load_classes(classes_from).names
    if said is not None and len(names) != said:
        raise InputError(f"{path}: its logits have {said} classes, --classes-from {classes_from} has {len(names)}")
    return names


def _size_lines(shape: Sequence[int | str | None]) -> list[str]:
    sides = shape[1:3] if channels_last(shape) else shape[2:]
    if all(isinstance(side, int) for side in sides):
        return [f"  size: [{sides[0]}, {sides[1]}]             # height, width; fixed in the graph"]
    return [
        f"  size: [{_USUAL_HW[0]}, {_USUAL_HW[1]}]             {CHECK}: height, width at which it was trained",
        f"  size_rule: {{multiple: 32}}    {CHECK}: which other sides it takes",
    ]


def _name_lines(output: Any, others: Sequence[Any]) -> list[str]:
    if len(others) == 1:
        return []
    return [f"  name: {output.name}  {CHECK}: which one counts; there are {', '.join(one.name for one in others)}"]


def _class_lines(names: Sequence[str], said: int | None, classes_from: ClassNames | None) -> list[str]:
    if classes_from is not None:
        note = f"{CHECK}: the order"
    elif said in _LISTS:
        option, data_set = _LISTS[said]
        note = f"{CHECK}: in the order of the outputs; if they are {data_set}'s, say --classes-from {option}"
    else:
        note = f"{CHECK}: in the order of the outputs" + ("" if said else "; the graph does not say how many")
    listed = ", ".join(f'"{name}"' for name in names)
    return [f"classes:  {note}", *textwrap.wrap(f"[{listed}]", 116, initial_indent="  ", subsequent_indent="   ")]
