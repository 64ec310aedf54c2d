"""SAM, SAM-HQ, SAM 2, EdgeTAM and SAM 3's tracker from folders of transformers."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from pseudolabel.errors import ConfigError, InputError, MachineError
from pseudolabel.optional import absence_named
from pseudolabel.prompted.asking import BoxPrompted, Decoded
from pseudolabel.prompted.base import PromptedOptions, one_line
from pseudolabel.prompted.frame import resized_hw
from pseudolabel.prompted.sam_files import SamKind, sam_files, sam_folder, sam_kind

_SHOWN = 5


def open_sam(where: str, options: PromptedOptions) -> BoxPrompted:
    """The model of a local folder, in float32; nothing is looked up on the network.

    Raises:
        MachineError: transformers is not installed.
        InputError: the folder holds no such model, not all of its weights, or a processor of another size.
    """
    sam_files(where, options.card)
    torch.set_num_threads(options.threads)
    return BoxPrompted(SamNetwork(sam_folder(where), options), options)


class SamNetwork:
    """A model of transformers' SAM family; see `pseudolabel.prompted.asking.Network`."""

    def __init__(self, folder: Path, options: PromptedOptions) -> None:
        kind = sam_kind(folder)
        self.name, self.fit = str(folder), kind.fit
        self._device = torch.device(options.device)
        self._bf16, self._several = options.bf16, options.masks == "all"
        self._hq = kind.model_class == "SamHQModel"
        self._model = _load_model(folder, kind).to(self._device)
        self._processor = _load_processor(folder)
        self.input_px = _square(self._model.config.prompt_encoder_config.image_size, folder)
        self._at_once = options.boxes_at_once

    @torch.inference_mode()
    def encode(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Any:
        planes = torch.from_numpy(pixels).permute(2, 0, 1)
        said = self._processor(planes, return_tensors="pt")
        self._check_fit(said, (pixels.shape[0], pixels.shape[1]))
        with self._computing():
            return self._model.get_image_embeddings(said["pixel_values"].to(self._device))

    @torch.inference_mode()
    def decode(self, embedding: Any, boxes_xyxy: Float32[np.ndarray, "n 4"]) -> Decoded:
        boxes = torch.from_numpy(boxes_xyxy)[None].to(self._device)
        image, between = embedding if self._hq else (embedding, None)
        more = {"intermediate_embeddings": between} if self._hq else {}
        with self._computing():
            output = self._model(image_embeddings=image, input_boxes=boxes, multimask_output=self._several, **more)
        return Decoded(output.pred_masks[0].float().cpu().numpy(), output.iou_scores[0].float().cpu().numpy())

    @contextlib.contextmanager
    def _computing(self) -> Any:
        try:
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
                yield
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"{self.name}: {self._device} has too little memory ({one_line(error)}); "
                f"try a smaller --boxes-at-once (now {self._at_once}) or --precision bf16"
            ) from None

    def _check_fit(self, said: Any, size_hw: tuple[int, int]) -> None:
        """The processor must have brought the image to where the boxes are told to be."""
        got = tuple(said["pixel_values"].shape[-2:])
        reached = tuple(int(side) for side in said.get("reshaped_input_sizes", [got])[0])
        wanted = resized_hw(size_hw, self.input_px, self.fit)
        if got != (self.input_px, self.input_px) or reached != wanted:
            raise InputError(
                f"{self.name}: its processor makes {reached} in {got} of an image of {size_hw}, "
                f"its model wants {wanted} in {(self.input_px, self.input_px)}"
            )


def _load_model(folder: Path, kind: SamKind) -> Any:
    transformers = _transformers()
    model_class = getattr(transformers, kind.model_class, None)
    if model_class is None:
        raise ConfigError(f"transformers {transformers.__version__} has no {kind.model_class}; upgrade it")
    try:
        model, told = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers raises whatever lies beneath: OSError, ValueError, safetensors' own
        raise InputError(f"{folder}: transformers cannot load it ({one_line(error)})") from error
    missing = sorted(told["missing_keys"])
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise InputError(f"{folder}: {len(missing)} weights are missing: {', '.join(missing[:_SHOWN])}{more}")
    return model.eval()


def _load_processor(folder: Path) -> Any:
    try:
        return _transformers().AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as above
        raise InputError(f"{folder}: no image processor that transformers can load ({one_line(error)})") from error


def _transformers() -> Any:
    with absence_named():
        import transformers
    return transformers


def _square(size: Any, folder: Path) -> int:
    sides = {int(side) for side in (size if isinstance(size, list | tuple) else [size])}
    if len(sides) != 1:
        raise InputError(f"{folder}: the model's image_size {size} is no square")
    return sides.pop()
