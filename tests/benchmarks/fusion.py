"""Speed of fusing one image's candidates, against the plain loop over objects at full resolution.

Eight objects on 640 x 480 pixels, boxes about 9 % of the image. The reference brings every candidate to full resolution
and evaluates there, object by object, what is asked: BoxSeg's equations 2 and 5, and for the consensus also what every
source expects of the mask and how far the candidates of one contradict each other. Ours is `fuse_image`: ranking,
agreement, fusion on the candidates' own cells and one upsampled crop per object. Both start from the same uint8 cells.
Candidates of one source lie on one lattice, there both give the same; two sources meet on a common grid, where the
coarser one is read twice. The spread, and with it the consensus, is taken on cells: at pixels the same noise is less,
as bilinear reading averages it between the cells' centres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from harness import interleaved, report, script_parser
from torch.nn import functional as F

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.fusion.grid import object_window
from pseudolabel.fusion.objects import FusedObject, FusionSettings, fuse_image
from pseudolabel.fusion.quality_aware import FusionRule, threshold_of
from pseudolabel.fusion.scoring import Opinion, consensus_score, opinion, outline_iou
from pseudolabel.masks import Grid, SoftMask

SIZE_HW = (480, 640)
OBJECTS, STEP_PX = 8, 8  # boxes lie on steps, so on whole cells of every stride
IMAGES = 8  # fused one after the other, as in a shard


@dataclass(frozen=True)
class Case:
    """Sources as (name, stride, candidates per object)."""

    sources: tuple[tuple[str, int, int], ...]
    consensus: bool

    def __str__(self) -> str:
        masks = " + ".join(f"{count} at stride {stride}" for _, stride, count in self.sources)
        return f"{OBJECTS} objects x {masks}, {'consensus' if self.consensus else 'equations 2 and 5'}"

    @property
    def settings(self) -> FusionSettings:
        rule = FusionRule(tau_pixel=threshold_of([1.0] * len(self.sources)))
        most = max(count for _, _, count in self.sources)
        return FusionSettings(rule, per_source=most, box_scores="raw", tau_by_sources=False)


CASES = (
    Case((("teacher", 4, 10),), consensus=False),
    Case((("teacher", 4, 10),), consensus=True),
    Case((("teacher", 4, 6), ("semantic", 8, 3)), consensus=True),
)
Scene = tuple[list[GivenBox], list[Candidate]]


def scene(case: Case, seed: int) -> Scene:
    """Objects with candidates that are smooth noise around an ellipse."""
    random = np.random.default_rng(seed)
    targets, candidates = [], []
    for number in range(OBJECTS):
        width, height = (int(STEP_PX * random.integers(17, 25)) for _ in range(2))
        x = int(STEP_PX * random.integers(1, (SIZE_HW[1] - width) // STEP_PX - 1))
        y = int(STEP_PX * random.integers(1, (SIZE_HW[0] - height) // STEP_PX - 1))
        target = GivenBox(number + 1, 1, (float(x), float(y), float(width), float(height)))
        targets.append(target)
        for name, stride, count in case.sources:
            candidates += [_candidate(target, name, stride, random) for _ in range(count)]
    return targets, candidates


def _candidate(target: GivenBox, source: str, stride: int, random: np.random.Generator) -> Candidate:
    x, y, width, height = target.bbox_xywh
    rows_count, columns_count = int(height) // stride + 2, int(width) // stride + 2  # a cell beyond the box all around
    grid = Grid(x - stride, y - stride, float(stride), float(stride), rows_count, columns_count)
    rows, columns = np.linspace(-1, 1, grid.height)[:, None], np.linspace(-1, 1, grid.width)[None, :]
    noise = random.normal(0, 0.2, (grid.height, grid.width))
    probability = 1 / (1 + np.exp(-8 * (0.8 - rows**2 - columns**2 + noise)))
    score, iou = random.uniform(0.3, 1.0), random.uniform(0.6, 1.0)
    cells = np.rint(probability * 255).astype(np.uint8)
    return Candidate(source, target.annotation_id, 1, target.box_xyxy, score, iou, SoftMask(grid, cells))


def full_masks(candidates: Sequence[Candidate]) -> list[torch.Tensor]:
    """What the networks give: every candidate on the whole image at its stride, in [0, 1]."""
    out = []
    for candidate in candidates:
        grid = candidate.mask.grid
        stride = int(grid.stride_x)
        mask = torch.zeros(SIZE_HW[0] // stride, SIZE_HW[1] // stride)
        row, column = int(grid.y0) // stride, int(grid.x0) // stride
        cells = torch.from_numpy(candidate.mask.probability).float() / 255
        mask[row : row + grid.height, column : column + grid.width] = cells
        out.append(mask)
    return out


def loop(one: Scene, masks: list[torch.Tensor], case: Case) -> list[tuple[torch.Tensor, float]]:
    """What is asked as it stands in the formulas: every candidate at full resolution, one object after the other."""
    targets, candidates = one
    rule = case.settings.rule
    out = []
    for target in targets:
        own = [i for i, candidate in enumerate(candidates) if candidate.annotation_id == target.annotation_id]
        score = torch.tensor([candidates[i].box_score for i in own])
        iou = torch.tensor([candidates[i].box_iou or 0.0 for i in own])
        names = [candidates[i].source for i in own]
        voice = torch.tensor([1 / names.count(name) for name in names])
        full = _at_full_resolution([masks[i] for i in own])
        passes = (score > rule.tau_box).float()
        quality = (score * iou).sqrt() * passes * voice
        fused = ((quality / quality.sum())[:, None, None] * full).sum(0)
        window = object_window(target.box_xyxy, SIZE_HW)
        rows = slice(int(window.y0), int(window.y0) + window.height)
        columns = slice(int(window.x0), int(window.x0) + window.width)
        box = torch.zeros(SIZE_HW)
        box[rows, columns] = 1
        above = box * (fused > rule.tau_pixel)
        pixel = (fused * above).sum() / above.sum().clamp(min=1)
        if case.consensus:
            out.append((fused, _consensus(fused * box, full * box, above, box, names, passes > 0)))
        else:
            out.append((fused, float((((score * passes).sum() / passes.sum()) * pixel).sqrt())))
    return out


def _at_full_resolution(masks: list[torch.Tensor]) -> torch.Tensor:
    """Candidates of one source at once, in the order given."""
    parts = []
    for size in dict.fromkeys(mask.shape for mask in masks):
        same = torch.stack([mask for mask in masks if mask.shape == size])
        parts.append(F.interpolate(same[:, None], size=SIZE_HW, mode="bilinear", align_corners=False)[:, 0])
    return torch.cat(parts)


def _consensus(
    fused: torch.Tensor,
    full: torch.Tensor,
    mask: torch.Tensor,
    box: torch.Tensor,
    names: list[str],
    passes: torch.Tensor,
) -> float:
    by_source, spread, most = [], None, 1
    for name in dict.fromkeys(names):
        own = full[torch.tensor([each == name for each in names]) & passes]
        if len(own):
            mean = own.mean(0)
            by_source.append(_opinion(mean, mask))
        if len(own) > most:
            most, spread = len(own), float((own - mean).square().mean(0).sqrt().sum() / box.sum())
    return consensus_score(_opinion(fused, mask), by_source, spread, outline=_outline(mask))


def _outline(mask: torch.Tensor) -> float:
    sides = F.pad(mask, (1, 1, 1, 1)).float()
    wrong = float((sides.diff(dim=0).abs().sum() + sides.diff(dim=1).abs().sum()) / 8)
    return (float(mask.sum()) - wrong) / (float(mask.sum()) + wrong)


def _opinion(probability: torch.Tensor, mask: torch.Tensor) -> Opinion:
    inside, area = (probability * mask).sum(), mask.sum()
    return Opinion(float(inside / (area + probability.sum() - inside)), float(inside / area))


def ours(one: Scene, case: Case) -> list[tuple[FusedObject, float]]:
    """The masks and their scores, before any refinement."""
    settings = case.settings
    out = []
    for fused in fuse_image(*one, SIZE_HW, settings):
        assert fused is not None
        if not case.consensus:
            out.append((fused, fused.score))
            continue
        pixels = fused.probability > settings.rule.tau_pixel
        by_source = fused.witnesses.asked(pixels, fused.window)
        own = opinion(fused.probability, pixels)
        score = consensus_score(own, by_source, fused.witnesses.spread, outline=outline_iou(pixels))
        out.append((fused, score))
    return out


def largest_differences(one: Scene, masks: list[torch.Tensor], case: Case) -> tuple[float, float]:
    """Of probabilities in the box, and of scores."""
    pixel, score = 0.0, 0.0
    for (fused, own_score), (reference, reference_score) in zip(ours(one, case), loop(one, masks, case), strict=True):
        x, y = int(fused.window.x0), int(fused.window.y0)
        crop = reference[y : y + fused.window.height, x : x + fused.window.width].numpy()
        pixel = max(pixel, float(np.abs(crop - fused.probability).max()))
        score = max(score, abs(own_score - reference_score))
    return pixel, score


def row(case: Case, images: int = IMAGES, repeats: int = 9) -> dict[str, object]:
    scenes = [scene(case, seed) for seed in range(images)]
    masks = [full_masks(candidates) for _, candidates in scenes]
    pairs = list(zip(scenes, masks, strict=True))
    seconds = interleaved(
        {"loop": lambda: [loop(*pair, case) for pair in pairs], "ours": lambda: [ours(one, case) for one in scenes]},
        repeats=repeats,
    )
    differences = [largest_differences(*pair, case) for pair in pairs]
    return {
        "case": str(case),
        "reference_s": seconds["loop"] / images,
        "ours_s": seconds["ours"] / images,
        "ratio": seconds["loop"] / seconds["ours"],
        "max_abs_diff": max(pixel for pixel, _ in differences),
        "max_score_diff": max(score for _, score in differences),
        "candidates_per_s": sum(len(candidates) for _, candidates in scenes) / seconds["ours"],
    }


def main() -> None:
    script_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    on = f"drawn candidates, {SIZE_HW[1]}x{SIZE_HW[0]}, one thread"
    report("fusion", [row(case) for case in CASES], on=on, seeds=list(range(IMAGES)))


if __name__ == "__main__":
    main()
