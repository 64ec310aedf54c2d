"""What all trainers do before and around the shared loop."""

import torch

from pseudolabel.config import narrowed
from pseudolabel.pipelines.work.device import resolve_device
from pseudolabel.training.config import FitConfig, TrainConfig


def begin(config: TrainConfig) -> str:
    """Threads and random numbers as the options say; the device that the training runs on.

    Raises:
        MachineError: there is no such device.
    """
    device = resolve_device(config.device, stage_uses_gpu=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return device


def loop_config(config: TrainConfig, samples: int, device: str) -> FitConfig:
    """The options of the loop for so many samples."""
    return narrowed(config, FitConfig, steps=config.steps_for(samples), device=device)
