"""Speed of masks from colours: the random field of one window, and all boxes of an image, against plain loops.

Reference: the same field as loops over pairs and cells (numba), its colours looked at anew for every prior, and a prior
that draws every other box of the image. One thread, CPU time, in turns; every posterior is compared bit by bit. The
windows are as large as candidates (72 cells and a margin) and `fuse` (96) make them, and as small objects have them.
"""

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from harness import interleaved, report, script_parser

from pseudolabel import random_field
from pseudolabel.candidates import GivenBox
from pseudolabel.random_field import Colours, Refinement, refine
from pseudolabel.segmenters.candidates import Contenders, PriorWeights, box_window, color_candidates, prior_logit

SIZES = {"a small object": (26, 26), "a candidate": (100, 100), "a fused mask": (96, 96)}
BOXES = (1, 10, 100, 1000, 3000)
IMAGE_HW = (1200, 1600)
ASKED = 10  # windows whose priors are timed with every rival
REPEATS = 5
SEED = 0
OFFSETS = np.array([(0, 1), (1, 0), (1, 1), (1, -1), (0, 3), (3, 0), (3, 3), (3, -3)], dtype=np.int64)


def reference_refine(
    prior_logit: np.ndarray, lab: np.ndarray, inside: np.ndarray, unknown: np.ndarray, settings: Refinement
) -> np.ndarray:
    colours = lab.reshape(-1, 3)
    order = np.argsort(colours[:, 0], kind="stable")
    seeds = order[np.linspace(0, len(colours) - 1, min(settings.clusters, len(colours))).astype(np.int64)]
    cluster = k_means(np.ascontiguousarray(colours), colours[seeds].copy(), 6).reshape(inside.shape)
    weights = np.float32(settings.smoothness) * contrast_weights(lab, settings.contrast)
    prior = np.where(inside, prior_logit, random_field._OUTSIDE)
    posterior = np.where(inside, random_field._sigmoid(prior), 0).astype(np.float32)
    for _ in range(settings.rounds):
        colour = colour_logit(cluster, posterior, unknown, settings.colour_limit)
        unary = np.where(inside, prior + settings.colour * colour, random_field._OUTSIDE).astype(np.float32)
        posterior, logit = mean_field(unary, weights, inside, posterior, settings.steps)
        prior = prior + random_field._tightness_pull(logit, inside, settings.pull_limit)
    return posterior


def colour_logit(cluster: np.ndarray, posterior: np.ndarray, unknown: np.ndarray, limit: float) -> np.ndarray:
    ids, count = cluster.ravel(), int(cluster.max()) + 1
    front = np.bincount(ids, posterior.ravel(), count)
    back = np.bincount(ids, np.where(unknown, 0, 1 - posterior).ravel(), count)
    share = front.sum() / max(front.sum() + back.sum(), 1e-6)
    share = min(max(share, 1e-3), 1 - 1e-3)
    ratio = np.log((front + 6 * share) / (back + 6 * (1 - share))) - np.log(share / (1 - share))
    return np.clip(ratio, -limit, limit).astype(np.float32)[cluster]


def contrast_weights(lab: np.ndarray, contrast: float) -> np.ndarray:
    height, width, _ = lab.shape
    near = [np.square(lab[:, 1:] - lab[:, :-1]).sum(-1), np.square(lab[1:] - lab[:-1]).sum(-1)]
    scale = np.mean([d.mean() for d in near]) + 1e-3
    weights = np.zeros((len(OFFSETS), height, width), dtype=np.float32)
    for index, (down, right) in enumerate(OFFSETS):
        rows, first = slice(height - down), max(0, -right)
        here, there = slice(first, width - max(0, right)), slice(first + right, width - max(0, right) + right)
        difference = np.square(lab[rows, here] - lab[down:, there]).sum(-1)
        weights[index, rows, here] = np.exp(-difference / (2 * contrast * scale)) / np.hypot(down, right)
    return weights


@numba.njit(cache=True)  # type: ignore[untyped-decorator]  # numba has no types
def k_means(colours: np.ndarray, centres: np.ndarray, rounds: int) -> np.ndarray:
    labels = np.zeros(colours.shape[0], dtype=np.int64)
    for step in range(rounds):
        sums = np.zeros(centres.shape, dtype=np.float64)
        counts = np.zeros(centres.shape[0], dtype=np.int64)
        for i in range(colours.shape[0]):
            nearest = 0
            smallest = np.float32(np.inf)
            for k in range(centres.shape[0]):
                d0 = colours[i, 0] - centres[k, 0]
                d1 = colours[i, 1] - centres[k, 1]
                d2 = colours[i, 2] - centres[k, 2]
                distance = d0 * d0 + d1 * d1 + d2 * d2
                if distance < smallest:
                    smallest = distance
                    nearest = k
            labels[i] = nearest
            counts[nearest] += 1
            for channel in range(3):
                sums[nearest, channel] += colours[i, channel]
        if step + 1 < rounds:
            for k in range(centres.shape[0]):
                for channel in range(3):
                    if counts[k] > 0:
                        centres[k, channel] = sums[k, channel] / counts[k]
    return labels


@numba.njit(cache=True)  # type: ignore[untyped-decorator]  # numba has no types
def mean_field(
    unary: np.ndarray, weights: np.ndarray, inside: np.ndarray, posterior: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    height, width = unary.shape
    vote = 2 * posterior - np.float32(1)
    logit = unary.copy()
    for _ in range(steps):
        logit[:] = unary
        for index in range(OFFSETS.shape[0]):
            down, right = OFFSETS[index]
            for y in range(height - down):
                for x in range(max(0, -right), width - max(0, right)):
                    weight = weights[index, y, x]
                    logit[y, x] += weight * vote[y + down, x + right]
                    logit[y + down, x + right] += weight * vote[y, x]
        for y in range(height):
            for x in range(width):
                vote[y, x] = np.tanh(logit[y, x] / 2) if inside[y, x] else np.float32(-1)
    return (vote + np.float32(1)) / 2, logit


def window(size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Prior, colours, box and unknown cells: a noisy disc of another colour in the middle of a window."""
    random = np.random.default_rng(SEED)
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    disc = np.hypot((y - height / 2) / height, (x - width / 2) / width) < 0.3
    lab = random.normal(0, 8, (height, width, 3)) + np.where(disc[..., None], (40, 30, 20), (60, -10, 5))
    inside = np.zeros(size_hw, dtype=bool)
    inside[height // 7 : height - height // 7, width // 7 : width - width // 7] = True
    prior = random.normal(0, 1, size_hw) + np.where(disc, 1, -1)
    return prior.astype(np.float32), lab.astype(np.float32), inside, ~inside & (random.random(size_hw) < 0.1)


def field_row(case: str, size_hw: tuple[int, int], priors: int) -> dict[str, Any]:
    """One window asked with some priors, as several looks at a box do."""
    prior, lab, inside, unknown = window(size_hw)
    settings = Refinement()
    asked = [prior + np.float32(0.1 * k) for k in range(priors)]

    def reference() -> list[np.ndarray]:
        return [reference_refine(one, lab, inside, unknown, settings) for one in asked]

    def ours() -> list[np.ndarray]:
        colours = Colours.of(lab, settings)
        return [refine(one, colours, inside, unknown, settings) for one in asked]

    difference = max(float(np.abs(a - b).max()) for a, b in zip(reference(), ours(), strict=True))
    return _row(f"{case}, {size_hw[0]} x {size_hw[1]} cells, {priors} priors", reference, ours, difference)


def prior_row(count: int) -> dict[str, Any]:
    """Priors of some windows, with every box of the image drawn or those that reach the window."""
    boxes = drawn_boxes(count)
    contenders = Contenders.among(boxes)
    grids = [box_window(box.box_xyxy, IMAGE_HW).grid for box in boxes[:ASKED]]
    evidence = [np.full((grid.height, grid.width), 0.5, dtype=np.float32) for grid in grids]

    def drawn(rivals: Callable[[int], list[GivenBox]]) -> list[np.ndarray]:
        weights = PriorWeights()
        return [prior_logit(grid, boxes[k], rivals(k), evidence[k], weights) for k, grid in enumerate(grids)]

    def reference() -> list[np.ndarray]:
        return drawn(lambda k: boxes[:k] + boxes[k + 1 :])

    def ours() -> list[np.ndarray]:
        return drawn(lambda k: contenders.rivals(k, grids[k]))

    difference = max(float(np.abs(a - b).max()) for a, b in zip(reference(), ours(), strict=True))
    return _row(f"priors of {len(grids)} windows, {count} boxes in the image", reference, ours, difference)


def drawn_boxes(count: int) -> list[GivenBox]:
    """Boxes of 20 to 60 px anywhere in the image."""
    random = np.random.default_rng(SEED)
    sides = random.uniform(20, 60, (count, 2))
    corners = random.random((count, 2)) * (np.array(IMAGE_HW[::-1]) - sides)
    rows = np.concatenate([corners, corners + sides], axis=1).tolist()
    return [GivenBox.from_xyxy(number, number % 3 + 1, row) for number, row in enumerate(rows)]


def growth_row(count: int) -> dict[str, Any]:
    """All colour candidates of an image with so many boxes, once."""
    rgb = np.random.default_rng(SEED).integers(0, 255, (*IMAGE_HW, 3), dtype=np.uint8)
    boxes = drawn_boxes(count)
    color_candidates(boxes[:1], rgb)
    start = time.process_time()
    found = color_candidates(boxes, rgb)
    seconds = time.process_time() - start
    return {"case": f"an image of {count} boxes", "ours_s": seconds, "ms_per_box": 1e3 * seconds / count,
            "candidates": len(found)}  # fmt: skip


def _row(case: str, reference: Callable[[], object], ours: Callable[[], object], difference: float) -> dict[str, Any]:
    seconds = interleaved({"reference": reference, "ours": ours}, REPEATS)
    return {
        "case": case,
        "reference_s": seconds["reference"],
        "ours_s": seconds["ours"],
        "ratio": seconds["reference"] / seconds["ours"],
        "max_abs_diff": difference,
    }


if __name__ == "__main__":
    script_parser(__doc__).parse_args()
    rows = [field_row(case, size_hw, 1) for case, size_hw in SIZES.items()]
    rows += [field_row("a candidate", SIZES["a candidate"], 3), prior_row(1000), prior_row(3000)]
    rows += [growth_row(count) for count in BOXES]
    report("colour_field", rows, on="drawn windows, and boxes of 20 to 60 px in an image of 2 megapixels", seeds=[SEED])
