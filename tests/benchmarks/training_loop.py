"""What the loop of all trainers costs beside the bare steps, and what a checkpoint costs.

The box-conditioned teacher with its small encoder learns from drawn crops, by `fit` and by the five lines that a step
needs at the least (losses, backward, clipping, optimiser, average), in turns. CPU seconds per step; a checkpoint's are
given as a share of the 200 steps that lie between two of them by default. The loop's seconds hold its start, a last
checkpoint and pictures, which a longer training has once, too.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness import interleaved, report, script_parser

from pseudolabel.teachers.mal.crops import CropBatch, cut_canvases, neighbour_boxes
from pseudolabel.teachers.mal.method import Mal, MalConfig
from pseudolabel.teachers.mal.network import build_network
from pseudolabel.training.denormals import without_denormals
from pseudolabel.training.fit import FitConfig, fit
from pseudolabel.training.order import BatchOrder
from pseudolabel.training.resume import Checkpoints

_CONFIG = FitConfig(steps=40, batch_size=8, checkpoint_every=200)
_OBJECTS = 32


def crops(canvas_px: int) -> CropBatch:
    """Crops of noise; what is on them costs nothing else than photographs."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    corners, sides = random.uniform(0, 300, (_OBJECTS, 2)), random.uniform(40, 160, (_OBJECTS, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()
    others, rivals = neighbour_boxes(boxes, torch.ones(_OBJECTS, dtype=torch.long))
    size = torch.tensor([[640.0, 480.0]]).expand(_OBJECTS, 2)
    return CropBatch(cut_canvases(pixels, boxes, canvas_px), boxes, others, rivals, size, ("noise",) * _OBJECTS)


def new_method() -> Mal:
    torch.manual_seed(0)
    config = MalConfig(backbone="tiny", crop_px=96)
    return Mal(build_network(config.backbone, "none", width=config.width), config)


class Load:
    """Batches of some crops."""

    def __init__(self, whole: CropBatch) -> None:
        self._whole = whole

    def __call__(self, places: Sequence[int]) -> CropBatch:
        whole, index = self._whole, torch.tensor(list(places))
        names = tuple("noise" for _ in places)
        parts = (whole.canvas, whole.boxes, whole.others, whole.rivals, whole.sizes_wh)
        return CropBatch(*(part[index] for part in parts), names)


def bare(load: Load) -> None:
    """The steps alone."""
    method, order = new_method(), BatchOrder(_OBJECTS, _CONFIG.batch_size)
    optimizer = torch.optim.AdamW(method.parameter_groups())
    with without_denormals():
        for step in range(_CONFIG.steps):
            loss = torch.stack(
                list(method.losses(load(order.batch(step)), progress=step / _CONFIG.steps).values())
            ).sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), _CONFIG.clip_norm)
            optimizer.step()
            method.after_step(step)


def looped(load: Load) -> None:
    """The same steps by the loop."""
    with tempfile.TemporaryDirectory() as folder:
        fit(new_method(), load, _OBJECTS, Path(folder), _CONFIG)


def checkpoint_s(repeats: int = 20) -> float:
    """Median seconds of one checkpoint with its fsyncs, by the clock on the wall."""
    method = new_method()
    optimizer = torch.optim.AdamW(method.parameter_groups())
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for step in range(repeats):
            start = time.perf_counter()
            Checkpoints(Path(folder)).save(step, method, optimizer)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> None:
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    load = Load(crops(144))
    seconds = interleaved({"bare": lambda: bare(load), "loop": lambda: looped(load)}, repeats=5)
    step_s = seconds["bare"] / _CONFIG.steps
    saving_s = checkpoint_s()
    rows = [
        {
            "bare step, ms": 1000 * step_s,
            "step of the loop, ms": 1000 * seconds["loop"] / _CONFIG.steps,
            "ratio": seconds["loop"] / seconds["bare"],
            "checkpoint, ms": 1000 * saving_s,
            "share of checkpoints, %": 100 * saving_s / (FitConfig(steps=1).checkpoint_every * step_s),
        }
    ]
    report("training_loop", rows, on="drawn crops, 1 thread")


if __name__ == "__main__":
    main()
