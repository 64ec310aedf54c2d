"""Trains a teacher three times: undisturbed, killed by SIGKILL in the middle, and on from what the killed one left.

    python killed.py FOLDER boxinst|boxteacher|boxseg|sim

Prints one JSON object. Every training is a process of its own, forked so that torch is imported once.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from conftest import TINY, draw

from pseudolabel.condinst.batch import Batch, collate
from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.teachers.condinst.boxseg import BoxSeg
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxInstConfig, BoxSegConfig, BoxTeacherConfig, SimConfig
from pseudolabel.teachers.condinst.sim import Sim
from pseudolabel.training.config import FitConfig
from pseudolabel.training.fit import fit

METHODS: dict[str, tuple[Any, Any]] = {
    "boxinst": (BoxInst, BoxInstConfig),
    "boxteacher": (BoxTeacher, BoxTeacherConfig),
    "boxseg": (BoxSeg, BoxSegConfig),
    "sim": (Sim, SimConfig),
}
STEPS, CHECKPOINT_EVERY, KILLED_AT = 8, 3, 5
EASY = {
    "boxinst": {},
    "boxteacher": {"min_iou": 0.0, "teacher_from": 0.0, "teacher_warmup": 0.0},
    "boxseg": {"min_iou": 0.0, "min_tutor": 0.04, "tau_box": 0.0, "teacher_from": 0.0, "teacher_warmup": 0.0}
    | {"copy_paste_probability": 0.7},
    "sim": {"min_iou": 0.0, "min_tutor": 0.04, "teacher_from": 0.0, "teacher_warmup": 0.0},
}


def build(name: str) -> BoxInst:
    """A method whose average is sure of everything, so that there are pseudo masks and tutors from the start."""
    method_class, config_class = METHODS[name]
    torch.manual_seed(0)
    network = CondInst(config := config_class(**(TINY | EASY[name] | {"flip": True})), 2)
    with torch.no_grad():
        for bias, value in ((network.head.classes.bias, 2.0), (network.head.controller.bias, 1.0)):
            assert bias is not None
            bias.fill_(value)
    method: BoxInst = method_class(network, config)
    return method


def batches(places: Any) -> Batch:
    whole = draw(4)
    return collate(
        [whole.images[place] for place in places],
        [whole.targets[place] for place in places],
        names=[whole.names[place] for place in places],
    )


def train(name: str, folder: Path, *, killed: bool) -> dict[str, Any]:
    method = build(name)
    if killed:
        after = method.after_step

        def after_step(step: int) -> None:
            after(step)
            if step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)

        method.after_step = after_step  # type: ignore[method-assign]  # where the kill falls
    config = FitConfig(steps=STEPS, batch_size=2, checkpoint_every=CHECKPOINT_EVERY)
    first = fit(method, batches, 4, folder, config)
    digest = hashlib.sha256()
    for key, value in method.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(key.encode() + value.numpy().tobytes())
    tutors = method.bank.tutors if isinstance(method, BoxTeacher) else []
    for tutor in tutors:
        digest.update(tutor.pixels.numpy().tobytes() + tutor.mask.numpy().tobytes())
    return {"first": first, "sha256": digest.hexdigest(), "tutors": len(tutors)}


def in_a_process(name: str, folder: Path, result: Path, *, killed: bool) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        result.write_text(json.dumps(train(name, folder, killed=killed)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    assert os.waitstatus_to_exitcode(status) == 0
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def main() -> None:
    torch.set_num_threads(1)
    folder, name = Path(sys.argv[1]), sys.argv[2]
    result = folder / "result.json"
    print(
        json.dumps(
            {
                "undisturbed": in_a_process(name, folder / "one", result, killed=False),
                "killed": in_a_process(name, folder / "two", result, killed=True),
                "resumed": in_a_process(name, folder / "two", result, killed=False),
            }
        )
    )


if __name__ == "__main__":
    main()
