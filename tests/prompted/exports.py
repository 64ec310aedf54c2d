"""ONNX pairs of the tiny models, with the input and output names of each known kind of export."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_model
from torch import Tensor, nn


class _Module(nn.Module):
    """A function over a model, as the exporter wants it."""

    def __init__(self, model: Any, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.model, *inputs)


@dataclass(frozen=True)
class Export:
    """One kind: a tiny model, its encoder and its decoder with their names, and which axes are free."""

    kind: str
    encoder_input: str
    features: tuple[str, ...]
    decoder_inputs: dict[str, Tensor]
    decoder: Callable[..., Any]
    outputs: tuple[str, ...]
    free: dict[str, dict[int, str]]
    encoder_name: str = "encoder"
    decoder_name: str = "decoder"
    encoder: Callable[..., Any] = field(default=lambda model, pixels: _encode(model, pixels))


def write_pair(name: str, folder: Path) -> str:
    """Export a pair; the kind of tiny model that it was made of."""
    export, folder = EXPORTS[name], folder
    folder.mkdir(parents=True, exist_ok=True)
    model, processor = tiny_model(export.kind)
    side = model.config.prompt_encoder_config.image_size
    pixels = torch.randn(1, 3, side, side)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encode = _Module(model, export.encoder)
        features = encode(pixels)
        _export(encode, (pixels,), folder / f"{export.encoder_name}.onnx", [export.encoder_input], export.features, {})
        decode = _Module(model, export.decoder)
        inputs = [*features, *export.decoder_inputs.values()]
        names = [*export.features, *export.decoder_inputs]
        _export(decode, tuple(inputs), folder / f"{export.decoder_name}.onnx", names, export.outputs, export.free)
    if name.startswith("optimum"):
        processor.save_pretrained(folder)
    return export.kind


def _export(module: nn.Module, inputs: Any, path: Path, names: Any, outputs: Any, free: Any) -> None:
    torch.onnx.export(
        module, inputs, path, input_names=list(names), output_names=list(outputs), dynamic_axes=free, dynamo=False,
        opset_version=17,
    )  # fmt: skip


def _encode_raw(model: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    """Values of [0, 1], normalised inside."""
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return _encode(model, (pixels - mean) / std)


def _encode(model: Any, pixels: Tensor) -> tuple[Tensor, ...]:
    found = model.get_image_embeddings(pixels)
    return tuple(found) if isinstance(found, list) else (found,)


def _sam(model: Any, image: Tensor, corners: Tensor, labels: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """segment-anything's decoder; transformers' hears corners as a box alone, so they are told as one."""
    output = model(image_embeddings=image, input_boxes=corners.reshape(1, 1, 4), multimask_output=False)
    low = output.pred_masks[0]
    unused = labels.sum() * 0 + sum(one.sum() for one in rest) * 0
    return low.repeat(1, 1, 2, 2), output.iou_scores[0] + unused, low


def _sam2_corners(model: Any, high0: Tensor, high1: Tensor, image: Tensor, corners: Tensor, labels: Tensor,
                  *rest: Tensor) -> Any:  # fmt: skip
    output = model(
        image_embeddings=[high0, high1, image], input_points=corners[None], input_labels=labels[None].long(),
        multimask_output=False,
    )  # fmt: skip
    unused = sum((one.sum() for one in rest), torch.zeros(())) * 0
    return output.pred_masks[0], output.iou_scores[0] + unused


def _samexporter_sam2(model: Any, *inputs: Tensor) -> Any:
    return _sam2_corners(model, *inputs)


def _onnxruntime_sam2(model: Any, *inputs: Tensor) -> Any:
    low, scores = _sam2_corners(model, *inputs)
    return (low > 0).float().repeat(1, 1, 2, 2), scores, low


def _optimum(model: Any, high0: Tensor, high1: Tensor, image: Tensor, points: Tensor, labels: Tensor,
             boxes: Tensor) -> Any:  # fmt: skip
    output = model(
        image_embeddings=[high0, high1, image], input_points=points, input_labels=labels, input_boxes=boxes,
        multimask_output=True,
    )  # fmt: skip
    return output.iou_scores, output.pred_masks, output.object_score_logits


def _efficient_sam(model: Any, image: Tensor, corners: Tensor, labels: Tensor, size: Tensor) -> Any:
    """Told in pixels of `size`, answering at that size."""
    side = model.config.prompt_encoder_config.image_size
    scaled = corners.reshape(1, -1, 4) * side / size[0]
    output = model(image_embeddings=image, input_boxes=scaled, multimask_output=True)
    low = output.pred_masks[0]
    large = nn.functional.interpolate(low, (size[0], size[1]), mode="bilinear")
    return large[None], output.iou_scores + labels.sum() * 0


def _edge_sam(model: Any, image: Tensor, corners: Tensor, labels: Tensor) -> Any:
    output = model(image_embeddings=image, input_boxes=corners.reshape(1, 1, 4), multimask_output=False)
    return output.iou_scores[0] + labels.sum() * 0, output.pred_masks[0]


def _corners(boxes: int) -> dict[str, Tensor]:
    return {"point_coords": torch.rand(boxes, 2, 2) * 40, "point_labels": torch.tensor([[2.0, 3.0]]).repeat(boxes, 1)}


_FREE = {name: {0: "boxes"} for name in ("point_coords", "point_labels")}
_HIGH = ("high_res_feats_0", "high_res_feats_1", "image_embed")

EXPORTS = {
    "sam": Export(
        "sam", "x", ("image_embeddings",),
        {**_corners(1), "mask_input": torch.zeros(1, 1, 32, 32), "has_mask_input": torch.zeros(1),
         "orig_im_size": torch.tensor([64.0, 64.0])},
        _sam, ("masks", "iou_predictions", "low_res_masks"), {},
    ),
    "samexporter sam2": Export(
        "sam2", "image", _HIGH,
        {**_corners(2), "mask_input": torch.zeros(2, 1, 32, 32), "has_mask_input": torch.zeros(1)},
        _samexporter_sam2, ("masks", "iou_predictions"),
        _FREE | {"mask_input": {0: "boxes"}, "masks": {0: "boxes"}, "iou_predictions": {0: "boxes"}},
        "sam2_hiera_tiny.encoder", "sam2_hiera_tiny.decoder",
    ),
    "onnxruntime sam2": Export(
        "sam2", "image", ("image_features_0", "image_features_1", "image_embeddings"),
        {"point_coords": torch.rand(2, 2, 2) * 40, "point_labels": torch.tensor([[2, 3], [2, 3]], dtype=torch.int32),
         "input_masks": torch.zeros(1, 1, 32, 32), "has_input_masks": torch.zeros(1),
         "original_image_size": torch.tensor([128, 128], dtype=torch.int32)},
        _onnxruntime_sam2, ("masks", "iou_predictions", "low_res_masks"),
        _FREE | {name: {0: "boxes"} for name in ("masks", "iou_predictions", "low_res_masks")},
        "image_encoder", "image_decoder",
    ),
    "optimum sam2": Export(
        "sam2", "pixel_values", tuple(f"image_embeddings.{level}" for level in range(3)),
        {"input_points": torch.zeros(1, 2, 0, 2), "input_labels": torch.zeros(1, 2, 0, dtype=torch.int64),
         "input_boxes": torch.rand(1, 2, 4) * 40},
        _optimum, ("iou_scores", "pred_masks", "object_score_logits"),
        {name: {1: "boxes"} for name in ("input_points", "input_labels", "input_boxes", "iou_scores", "pred_masks")},
        "vision_encoder", "prompt_encoder_mask_decoder",
    ),
    "efficient sam": Export(
        "sam", "batched_images", ("image_embeddings",),
        {"batched_point_coords": torch.rand(1, 2, 2, 2) * 40, "batched_point_labels": torch.tensor([[[2.0, 3.0]] * 2]),
         "orig_im_size": torch.tensor([64, 64])},
        _efficient_sam, ("output_masks", "iou_predictions"),
        {name: {1: "boxes"} for name in ("batched_point_coords", "batched_point_labels")}, encoder=_encode_raw,
    ),
    "edge sam": Export(
        "sam", "image", ("image_embeddings",), _corners(1), _edge_sam, ("scores", "masks"), {},
        "edge_sam_encoder", "edge_sam_decoder",
    ),
}  # fmt: skip
