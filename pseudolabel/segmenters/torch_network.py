"""A torch model as a `Network`."""

import torch

from pseudolabel.segmenters.network import Batch, Logits


class TorchNetwork:
    """A model in eval mode on its device; half precision where the card has it, float32 on the CPU.

    Args:
        model: gives logits, or torchvision's dict with them under `out`.
        device: `cpu`, `cuda` or `cuda:N`.
    """

    def __init__(self, model: torch.nn.Module, *, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._model = model.eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Logits:
        on_gpu = self._device.type == "cuda"
        with torch.autocast(self._device.type, dtype=torch.float16, enabled=on_gpu):
            output = self._model(batch.to(self._device, non_blocking=True))
        logits: Logits = (output["out"] if isinstance(output, dict) else output).float()
        return logits
