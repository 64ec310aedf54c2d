"""Options of the loop; imports no torch."""

from typing import Literal

from pseudolabel.config import Config, option


class FitConfig(Config):
    """How long and on what a method is trained."""

    steps: int = option(..., "optimiser steps", ge=1)
    batch_size: int = option(32, "samples per step and process", ge=1)
    seed: int = option(0, "of the order of samples and of all random numbers", ge=0)
    precision: Literal["fp32", "bf16"] = option("fp32", "arithmetic of the forward pass")
    device: str = option("cpu", "cpu, cuda or cuda:N", pattern=r"^(cpu|cuda(:\d+)?)$")
    devices: int = option(1, "processes, one per GPU; torchrun and Slurm are recognised", ge=1)
    nodes: int = option(1, "machines", ge=1)
    warmup: float = option(0.1, "share of the steps over which the learning rate rises", ge=0, lt=1)
    schedule: Literal["cosine", "step"] = option(
        "cosine", "how the learning rate falls: half a cosine, or in two steps"
    )
    weight_decay: float = option(0.01, "of AdamW", ge=0)
    clip_norm: float = option(5.0, "largest gradient norm", gt=0)
    checkpoint_every: int = option(200, "steps between two checkpoints to go on from", ge=1)
    log_every: int = option(20, "steps between two lines of the log", ge=1)
    workers: int = option(0, "processes that load samples", ge=0)
