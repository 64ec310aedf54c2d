"""Tiny models of the SAM family with random weights, saved as transformers saves real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam3ImageProcessor,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamImageProcessor,
    SamModel,
    TimmWrapperConfig,
)

_DECODER: dict[str, Any] = {
    "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
}  # fmt: skip


def _sam_config(config_class: Any, **decoder: Any) -> Any:
    return config_class(
        vision_config={
            "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 8, "mlp_dim": 16, "window_size": 4, "global_attn_indexes": [1],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4, "image_embedding_size": 8,
        },
        mask_decoder_config=_DECODER | decoder,
    )  # fmt: skip


def _prompts(image_px: int, patch_px: int) -> dict[str, Any]:
    return {"hidden_size": 16, "image_size": image_px, "patch_size": patch_px, "mask_input_channels": 4}


def sam() -> tuple[Any, Any]:
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return SamModel(_sam_config(SamConfig)), processor


def sam_hq() -> tuple[Any, Any]:
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return SamHQModel(_sam_config(SamHQConfig, vit_dim=16)), processor


def sam2() -> tuple[Any, Any]:
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8, "num_attention_heads": 1, "image_size": [128, 128], "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config=_prompts(128, 16),
        mask_decoder_config=_DECODER,
    )  # fmt: skip
    return Sam2Model(config), Sam2ImageProcessor(size={"height": 128, "width": 128})


def edgetam() -> tuple[Any, Any]:
    config = EdgeTamConfig(
        vision_config={
            "backbone_config": TimmWrapperConfig(
                architecture="repvit_m1",
                model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
            ),
            "backbone_channel_list": [384, 192, 96, 48],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config=_prompts(128, 16),
        mask_decoder_config=_DECODER,
    )
    return EdgeTamModel(config), Sam2ImageProcessor(size={"height": 128, "width": 128})


def sam3_tracker() -> tuple[Any, Any]:
    config = Sam3TrackerConfig(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 112, "patch_size": 14, "window_size": 4, "global_attn_indexes": [1],
                "pretrain_image_size": 56,
            },
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config=_prompts(112, 14),
        mask_decoder_config=_DECODER,
    )  # fmt: skip
    return Sam3TrackerModel(config), Sam3ImageProcessor(size={"height": 112, "width": 112})


TINY: dict[str, Callable[[], tuple[Any, Any]]] = {
    "sam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "edgetam": edgetam,
    "sam3_tracker": sam3_tracker,
}


def tiny_model(kind: str) -> tuple[Any, Any]:
    """A model and its image processor, the same at every call; its masks are large enough to be told apart."""
    torch.manual_seed(0)
    model, processor = TINY[kind]()
    with torch.no_grad():
        for name, weight in model.mask_decoder.named_parameters():
            if weight.dim() > 1 and any(part in name for part in ("hypernetworks", "iou_", "upscale", "mlps")):
                weight.normal_(std=0.5)
    return model.eval(), processor


def save_tiny(kind: str, folder: Path) -> Path:
    """The model as a folder of transformers."""
    model, processor = tiny_model(kind)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
