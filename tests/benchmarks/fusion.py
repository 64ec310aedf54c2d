"""Speed of fusing one image's candidates, against the plain loop over objects at full resolution.

Eight objects with ten candidates each on 640 x 480 pixels, boxes about 9 % of the image, masks at stride 4. The
reference brings every candidate to full resolution and evaluates BoxSeg's equations 2 and 5 there, object by object.
Ours is `fuse_image`: ranking, agreement, fusion on the stride and one upsampled crop per object. Both start from the
same uint8 cells.
"""

import numpy as np
import torch
from harness import interleaved, report, script_parser
from torch.nn import functional as F

from pseudolabel.fusion.candidates import Candidate, Target
from pseudolabel.fusion.grid import object_window
from pseudolabel.fusion.objects import FusionSettings, fuse_image
from pseudolabel.masks import Grid, SoftMask

SIZE_HW = (480, 640)
STRIDE, OBJECTS, CANDIDATES = 4, 8, 10
SETTINGS = FusionSettings(candidates=CANDIDATES, scale="raw")
IMAGES = 8  # fused one after the other, as in a shard


def scene(seed: int) -> tuple[list[Target], list[Candidate]]:
    """Objects whose boxes lie on whole cells, with candidates that are smooth noise around an ellipse."""
    random = np.random.default_rng(seed)
    targets, candidates = [], []
    for number in range(OBJECTS):
        width, height = (int(STRIDE * random.integers(34, 50)) for _ in range(2))
        x = int(STRIDE * random.integers(1, (SIZE_HW[1] - width) // STRIDE - 1))
        y = int(STRIDE * random.integers(1, (SIZE_HW[0] - height) // STRIDE - 1))
        target = Target(number + 1, 1, (float(x), float(y), float(width), float(height)))
        targets.append(target)
        candidates += [_candidate(target, random) for _ in range(CANDIDATES)]
    return targets, candidates


def _candidate(target: Target, random: np.random.Generator) -> Candidate:
    x, y, width, height = target.bbox_xywh
    rows_count, columns_count = int(height) // STRIDE + 2, int(width) // STRIDE + 2  # a cell beyond the box all around
    grid = Grid(x - STRIDE, y - STRIDE, float(STRIDE), float(STRIDE), rows_count, columns_count)
    rows, columns = np.linspace(-1, 1, grid.height)[:, None], np.linspace(-1, 1, grid.width)[None, :]
    noise = random.normal(0, 0.2, (grid.height, grid.width))
    probability = 1 / (1 + np.exp(-8 * (0.8 - rows**2 - columns**2 + noise)))
    score, iou = random.uniform(0.3, 1.0), random.uniform(0.6, 1.0)
    cells = np.rint(probability * 255).astype(np.uint8)
    return Candidate("teacher", target.annotation_id, 1, target.box_xyxy, score, iou, SoftMask(grid, cells))


def full_masks(candidates: list[Candidate]) -> torch.Tensor:
    """What a network gives: every candidate on the whole image at stride 4, as (candidates, 120, 160) in [0, 1]."""
    out = torch.zeros(len(candidates), SIZE_HW[0] // STRIDE, SIZE_HW[1] // STRIDE)
    for mask, candidate in zip(out, candidates, strict=True):
        grid = candidate.mask.grid
        row, column = int(grid.y0) // STRIDE, int(grid.x0) // STRIDE
        cells = torch.from_numpy(candidate.mask.probability).float() / 255
        mask[row : row + grid.height, column : column + grid.width] = cells
    return out


def loop(targets: list[Target], candidates: list[Candidate], masks: torch.Tensor) -> list[tuple[torch.Tensor, float]]:
    """Equations 2 and 5 as they stand: every candidate at full resolution, one object after the other."""
    out = []
    for target in targets:
        own = [i for i, candidate in enumerate(candidates) if candidate.annotation_id == target.annotation_id]
        score = torch.tensor([candidates[i].box_score for i in own])
        iou = torch.tensor([candidates[i].box_iou or 0.0 for i in own])
        full = F.interpolate(masks[own][:, None], size=SIZE_HW, mode="bilinear", align_corners=False)[:, 0]
        passes = (score > SETTINGS.rule.tau_box).float()
        quality = (score * iou).sqrt() * passes
        fused = ((quality / quality.sum())[:, None, None] * full).sum(0)
        window = object_window(target.box_xyxy, SIZE_HW)
        box = torch.zeros(SIZE_HW)
        box[int(window.y0) : int(window.y0) + window.height, int(window.x0) : int(window.x0) + window.width] = 1
        above = box * (fused > SETTINGS.rule.tau_pixel)
        pixel = (fused * above).sum() / above.sum().clamp(min=1)
        out.append((fused, float((((score * passes).sum() / passes.sum()) * pixel).sqrt())))
    return out


def largest_differences(targets: list[Target], candidates: list[Candidate], masks: torch.Tensor) -> tuple[float, float]:
    """Of probabilities in the box, and of scores."""
    pixel, score = 0.0, 0.0
    pairs = zip(fuse_image(targets, candidates, SIZE_HW, SETTINGS), loop(targets, candidates, masks), strict=True)
    for ours, (fused, reference_score) in pairs:
        assert ours is not None
        x, y = int(ours.window.x0), int(ours.window.y0)
        crop = fused[y : y + ours.window.height, x : x + ours.window.width].numpy()
        pixel = max(pixel, float(np.abs(crop - ours.probability).max()))
        score = max(score, abs(ours.score - reference_score))
    return pixel, score


def main() -> None:
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    scenes = [scene(seed) for seed in range(IMAGES)]
    inputs = [(*one, full_masks(one[1])) for one in scenes]
    seconds = interleaved(
        {
            "loop": lambda: [loop(*one) for one in inputs],
            "ours": lambda: [fuse_image(*one, SIZE_HW, SETTINGS) for one in scenes],
        },
        repeats=9,
    )
    differences = [largest_differences(*one) for one in inputs]
    row = {
        "case": f"{OBJECTS} objects x {CANDIDATES} candidates, {SIZE_HW[1]}x{SIZE_HW[0]}",
        "reference_s": seconds["loop"] / IMAGES,
        "ours_s": seconds["ours"] / IMAGES,
        "ratio": seconds["loop"] / seconds["ours"],
        "max_abs_diff": max(pixel for pixel, _ in differences),
        "max_score_diff": max(score for _, score in differences),
        "candidates_per_s": IMAGES * OBJECTS * CANDIDATES / seconds["ours"],
    }
    report("fusion", [row], on="drawn candidates, one thread", seeds=list(range(IMAGES)))


if __name__ == "__main__":
    main()
