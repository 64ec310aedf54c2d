"""Every detecting teacher learns from a batch in which nothing lies, as parts of two photographs may be."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pseudolabel.condinst.network import CondInst
from pseudolabel.teachers.condinst.boxinst import BoxInst
from pseudolabel.teachers.condinst.boxseg import BoxSeg
from pseudolabel.teachers.condinst.boxteacher import BoxTeacher
from pseudolabel.teachers.condinst.config import BoxInstConfig, BoxSegConfig, BoxTeacherConfig, SimConfig
from pseudolabel.teachers.condinst.sim import Sim

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "boxinst": (BoxInst, BoxInstConfig, {}),
    "boxinst, boxes as bags": (BoxInst, BoxInstConfig, {"box_loss": "mil", "shape_loss": "smoothness"}),
    "boxinst, level set": (BoxInst, BoxInstConfig, {"shape_loss": "levelset"}),
    "boxinst, masks": (BoxInst, BoxInstConfig, {"supervision": "masks"}),
    "boxinst, masks by pairs": (BoxInst, BoxInstConfig, {"supervision": "masks", "mask_loss": "pairwise"}),
    "boxteacher": (BoxTeacher, BoxTeacherConfig, {}),
    "boxseg": (BoxSeg, BoxSegConfig, {}),
    "sim": (Sim, SimConfig, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_without_objects_is_learned_from(case: str, tiny: dict[str, Any], drawn: Any) -> None:
    method, config, changes = CASES[case]
    torch.manual_seed(0)
    options = tiny | changes
    if changes.get("supervision") == "masks":
        del options["bottom_px"]
    given = config(**options)
    batch = drawn(with_masks=changes.get("supervision") == "masks")
    none = tuple(
        replace(one, boxes=one.boxes[:0], labels=one.labels[:0], masks=None if one.masks is None else one.masks[:0])
        for one in batch.targets
    )
    learner = method(CondInst(given, 2), given)
    losses = learner.losses(replace(batch, targets=none), progress=0.9)
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(one.grad is None or one.grad.isfinite().all() for one in learner.parameters())
