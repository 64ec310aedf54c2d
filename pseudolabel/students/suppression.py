"""Greedy suppression of doubles as a fixed number of steps, for graphs without loops."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ROUNDS = 32  # a chain of 32 boxes of one class, each the next one's rival, is longer than any seen


def greedy(iou: Float[Tensor, "n n"], label: Int[Tensor, "n"], *, limit: float) -> Bool[Tensor, "n"]:
    """Which boxes, best first, greedy suppression within each class keeps, without a loop over boxes.

    A box is kept when no better kept box of its class overlaps it by more than `limit`. Starting from all, each round
    settles every box whose better ones are settled, so that the result is exact for chains of up to `ROUNDS` boxes.

    Args:
        iou: row by column; only what a better box (row) has in common with a worse one (column) counts.
    """
    rank = torch.arange(len(label), device=label.device)
    rivals = (iou > limit) & (label[:, None] == label[None]) & (rank[:, None] < rank[None])
    kept = torch.ones_like(label, dtype=torch.bool)
    for _ in range(ROUNDS):
        kept = ~(rivals & kept[:, None]).any(dim=0)
    return kept
