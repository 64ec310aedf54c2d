"""A small training as a program: `python toy.py FOLDER [SIGNAL STEP [RANK]]` prints the first step and the weights.

`TOY_DEVICES`, `TOY_BATCH` and `TOY_NOISE` say how many processes there are, how many samples each has per step, and how
noisy they are; the signal is sent in the first attempt alone. With `TOY_WORKERS` so many processes load samples,
and the signal comes to all of the group, as from a terminal or from Slurm.
"""

import os
import signal as signals
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pseudolabel.errors import PseudolabelError
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit
from pseudolabel.training.method import Method
from pseudolabel.training.processes import is_first_process, part

STEPS = 30


class Toy(Method):
    """A line through noisy points, with a moving average; can send its own process a signal."""

    def __init__(self, signal: int | None = None, at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(4, 1)
        self.register_buffer("average", torch.zeros(1, 4))
        self._signal, self._at = signal, at

    def losses(self, batch: Tensor, *, progress: float) -> Mapping[str, Tensor]:
        if self._signal is not None and round(progress * STEPS) == self._at:
            os.kill(0 if "TOY_WORKERS" in os.environ else os.getpid(), self._signal)
        noisy = batch + float(os.environ.get("TOY_NOISE", "0.1")) * torch.randn_like(batch)
        return {"square": (self.line(noisy) - batch.sum(dim=1, keepdim=True)).square().mean()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.line.parameters()), "lr": 0.01}]

    def image_names(self, batch: Tensor) -> Sequence[str]:
        return [f"{row:.3f}.jpg" for row in batch[:, 0].tolist()]

    def model_state(self) -> dict[str, Tensor]:
        return self.state_dict()

    def after_step(self, step: int) -> None:
        assert isinstance(self.average, Tensor)
        self.average.lerp_(self.line.weight.detach(), 1 / (step + 2))


def points() -> Tensor:
    return torch.randn(21, 4, generator=torch.Generator().manual_seed(1))


def _stop(number: int, frame: object) -> None:
    raise RuntimeError(f"signal {number} in the middle of a step, {frame}")


def _is_chosen(rest: Sequence[str]) -> bool:
    wanted = rest[2] if len(rest) > 2 else "0"
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID", "0")
    restarts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return rank == wanted and set(restarts) == {"0"}


def main() -> None:
    folder, *rest = sys.argv[1:]
    signal, at = (int(rest[0]), int(rest[1])) if rest and _is_chosen(rest) else (None, -1)
    signals.signal(signals.SIGTERM, _stop)  # as the command line has it
    toy, data = Toy(signal, at), points()
    devices, batch_size = int(os.environ.get("TOY_DEVICES", "1")), int(os.environ.get("TOY_BATCH", "4"))
    workers = int(os.environ.get("TOY_WORKERS", "0"))
    config = FitConfig(
        steps=STEPS, batch_size=batch_size, checkpoint_every=7, log_every=10, devices=devices, loader_workers=workers
    )
    try:
        first = fit(toy, lambda places: data[list(places)], len(data), Path(folder), config)
    except PseudolabelError as error:
        raise SystemExit(error.exit_code) from None
    values = torch.cat([value.flatten() for value in toy.state_dict().values()])
    if is_first_process():
        sys.stdout.write(f"{first} {values.numpy().tobytes().hex()}\n")
    part()


if __name__ == "__main__":
    main()
