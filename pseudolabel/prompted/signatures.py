"""How the known ONNX exports of the SAM family are asked, told apart by the names of their decoder's inputs.

| decoder takes | export |
|---|---|
| `orig_im_size` and one box | segment-anything's script, samexporter's SAM and MobileSAM |
| `high_res_feats_0` | samexporter's SAM 2 and 2.1 |
| `image_features_0` | onnxruntime's SAM 2 |
| `image_embeddings.0`, `input_boxes` | optimum's SAM 2 and SAM 3 tracker |
| `batched_point_coords` | EfficientSAM |
| `point_coords` and the embedding alone | EdgeSAM |

A box is told as its two corners with the labels 2 and 3, or as a box where there is an input for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped

from pseudolabel.errors import InputError
from pseudolabel.prompted.frame import Fit
from pseudolabel.prompted.onnx_session import Port

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]
Boxes = Float32[np.ndarray, "n 4"]


@dataclass(frozen=True, slots=True)
class Signature:
    """One kind of export.

    Args:
        told_by: inputs of the decoder that no other kind has together.
        masks, scores: outputs of the decoder; masks are logits on a grid over the whole input.
        one_box: the decoder takes one box a call.
        mean, std: of values in [0, 1]; None where models of this kind differ.
        said_in_px: the side of the square in which boxes are told, where it is not the encoder's input.
    """

    name: str
    told_by: frozenset[str]
    fit: Fit
    masks: str
    scores: str
    one_box: bool = False
    mean: Triple | None = IMAGENET_MEAN
    std: Triple | None = IMAGENET_STD
    score_rule: Literal["model", "stability"] = "model"
    said_in_px: int | None = None


# in this order: the first whose names are all there is meant
SIGNATURES = (
    Signature("samexporter SAM 2", frozenset({"high_res_feats_0", "point_coords"}), "stretched", "masks",
              "iou_predictions"),
    Signature("onnxruntime SAM 2", frozenset({"image_features_0", "point_coords"}), "stretched", "low_res_masks",
              "iou_predictions"),
    Signature("optimum SAM 2 or SAM 3", frozenset({"image_embeddings.0", "input_boxes"}), "stretched", "pred_masks",
              "iou_scores", mean=None, std=None),
    # resizes inside, and gives masks of the size that it is told: its own 256 cells a side are asked for
    Signature("EfficientSAM", frozenset({"batched_point_coords"}), "stretched", "output_masks", "iou_predictions",
              mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), said_in_px=256),
    Signature("SAM", frozenset({"point_coords", "orig_im_size"}), "padded", "low_res_masks", "iou_predictions",
              one_box=True),
    Signature("EdgeSAM", frozenset({"point_coords", "image_embeddings"}), "padded", "masks", "scores", one_box=True,
              score_rule="stability"),
)  # fmt: skip


def signature_of(names: frozenset[str], path: Path) -> Signature:
    """The kind of a decoder with these inputs.

    Raises:
        InputError: none of the known ones; points-only exports of transformers' SAM get the reason.
    """
    for signature in SIGNATURES:
        if signature.told_by <= names:
            return signature
    if "input_points" in names and "input_boxes" not in names:
        raise InputError(
            f"{path}: this export takes points alone, and transformers' SAM hears two corners otherwise than a box: "
            "it cannot be asked about boxes. Use  sam:DIR  with the model itself, or an export by segment-anything's "
            "script"
        )
    raise InputError(f"{path}: no decoder of a known kind takes {', '.join(sorted(names))}")


def feed(port: Port, boxes: Boxes, side_px: int, cells: int) -> Shaped[np.ndarray, "..."]:
    """What an input of a decoder gets that does not come from the encoder.

    Args:
        boxes: in the square of `side_px` in which they are told.
        cells: of the embedding, along a side.

    Raises:
        KeyError: nobody knows this input.
    """
    return np.asarray(_FEEDS[port.name](port, boxes, side_px, cells)).astype(port.dtype)


def is_fed(name: str) -> bool:
    """Whether `feed` knows the input."""
    return name in _FEEDS


def _corners(port: Port, boxes: Boxes, side_px: int, cells: int) -> Any:
    return boxes.reshape(-1, 2, 2)


def _corner_labels(port: Port, boxes: Boxes, side_px: int, cells: int) -> Any:
    return np.tile([2, 3], (len(boxes), 1))


def _no_mask(port: Port, boxes: Boxes, side_px: int, cells: int) -> Any:
    """A mask prompt that is not given: four cells for each of the embedding's, one for each box where that is free."""
    first = port.shape[0] or (len(boxes) if port.name == "mask_input" else 1)
    return np.zeros((first, 1, port.shape[2] or 4 * cells, port.shape[3] or 4 * cells))


def _no(port: Port, boxes: Boxes, side_px: int, cells: int) -> Any:
    return np.zeros(port.shape[0] or 1)


def _size(port: Port, boxes: Boxes, side_px: int, cells: int) -> Any:
    return np.array([side_px, side_px])


_FEEDS: Mapping[str, Callable[[Port, Boxes, int, int], Any]] = {
    "point_coords": _corners,
    "point_labels": _corner_labels,
    "batched_point_coords": lambda port, boxes, side_px, cells: boxes.reshape(1, -1, 2, 2),
    "batched_point_labels": lambda port, boxes, side_px, cells: np.tile([2, 3], (1, len(boxes), 1)),
    "mask_input": _no_mask,
    "input_masks": _no_mask,
    "has_mask_input": _no,
    "has_input_masks": _no,
    "orig_im_size": _size,
    "original_image_size": _size,
    "input_boxes": lambda port, boxes, side_px, cells: boxes[None],
    "input_points": lambda port, boxes, side_px, cells: np.zeros((1, len(boxes), 0, 2)),
    "input_labels": lambda port, boxes, side_px, cells: np.zeros((1, len(boxes), 0)),
}
