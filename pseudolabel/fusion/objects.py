"""Objects of one image, from their candidates to one mask each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32

from pseudolabel.fusion.agreement import pairwise_iou, source_agreement, support
from pseudolabel.fusion.candidates import Candidate, Target, box_ious, may_serve
from pseudolabel.fusion.grid import MAX_CELLS, box_cells, common_grid, object_window, on_grid, to_pixels
from pseudolabel.fusion.quality_aware import FusionRule, candidate_weights, fuse_masks, passing, quality_of
from pseudolabel.fusion.ranking import (
    Ranking,
    adaptive_k,
    box_quality_ranking,
    bpma,
    keep_after_nms,
    ranking_of_assignment,
)
from pseudolabel.fusion.scoring import Quality, detection_rank
from pseudolabel.masks import Grid

Scale = Literal["raw", "support"]


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How the candidates of an object become one mask."""

    rule: FusionRule = field(default_factory=FusionRule)
    ranking: Literal["bqr", "bpma"] = "bqr"
    candidates: int | None = None  # None: adaptive, by the box's area
    min_iou: float = 0.5
    scale: Scale = "support"
    max_cells: int = MAX_CELLS


@dataclass(frozen=True, slots=True)
class FusedObject:
    """One object's mask, soft, at the pixels of its box."""

    target: Target
    window: Grid
    probability: Float32[np.ndarray, "h w"]
    score: float
    box_quality: float
    pixel_quality: float
    candidates_used: int
    sources: tuple[str, ...]
    agreement: float | None  # mean IoU between the sources' own masks; None where only one source speaks


def fuse_image(
    targets: Sequence[Target], candidates: Sequence[Candidate], size_hw: tuple[int, int], settings: FusionSettings
) -> list[FusedObject | None]:
    """A mask for every object, None where no candidate is usable; in the order of `targets`."""
    if not targets:
        return []
    ious = torch.from_numpy(box_ious(targets, candidates)).float()
    allowed = torch.from_numpy(may_serve(targets, candidates))
    ranking = rank(targets, candidates, ious, allowed, settings)
    fused = []
    for target, iou, index, valid in zip(targets, ious, ranking.index, ranking.valid, strict=True):
        chosen = index[valid].tolist()
        fused.append(fuse_object(target, [candidates[i] for i in chosen], iou[chosen].tolist(), size_hw, settings))
    return fused


def rank(
    targets: Sequence[Target],
    candidates: Sequence[Candidate],
    ious: torch.Tensor,
    allowed: torch.Tensor,
    settings: FusionSettings,
) -> Ranking:
    """Which candidates each object gets, by the rule of the settings."""
    if settings.ranking == "bpma":
        return ranking_of_assignment(_assign(candidates, torch.where(allowed, ious, -1.0), settings))
    areas = torch.tensor([target.area_px for target in targets])
    k = adaptive_k(areas) if settings.candidates is None else settings.candidates
    return box_quality_ranking(ious, k, min_iou=settings.min_iou, allowed=allowed)


def fuse_object(
    target: Target,
    candidates: Sequence[Candidate],
    ious: Sequence[float],
    size_hw: tuple[int, int],
    settings: FusionSettings,
) -> FusedObject | None:
    """The mask of one object from the candidates that were chosen for it, None where none passes the threshold."""
    if not candidates:
        return None
    window = object_window(target.box_xyxy, size_hw)
    grid = common_grid([c.mask.grid for c in candidates], window, max_cells=settings.max_cells)
    probability = on_grid([c.mask for c in candidates], grid)
    overlap = pairwise_iou((probability > settings.rule.tau_pixel) & box_cells(grid, window))
    sources = [c.source for c in candidates]
    box_iou = torch.tensor([list(ious)])
    score = torch.tensor([_scaled([c.box_score for c in candidates], overlap, sources, settings.scale)])
    kept = passing(score, torch.ones_like(score, dtype=torch.bool), tau_box=settings.rule.tau_box)
    weights = candidate_weights(score, box_iou, kept, settings.rule)
    if not bool((weights > 0).any()):
        return None
    soft = torch.from_numpy(probability)[None]
    on_cells = fuse_masks(soft, weights, kept, settings.rule)
    pixels = to_pixels(on_cells[0].numpy(), grid, window)
    quality = _quality(on_cells, soft, pixels, score, kept, box_cells(grid, window), settings.rule)
    speaking = (kept & (weights > 0))[0].numpy()
    return FusedObject(
        target=target,
        window=window,
        probability=pixels,
        score=float(quality.score),
        box_quality=float(quality.box),
        pixel_quality=float(quality.pixel),
        candidates_used=int(speaking.sum()),
        sources=tuple(sorted({s for s, speaks in zip(sources, speaking, strict=True) if speaks})),
        agreement=source_agreement(overlap, sources, speaking),
    )


def _scaled(scores: list[float], overlap: Float32[np.ndarray, "k k"], sources: list[str], scale: Scale) -> list[float]:
    if scale == "raw":
        return scores
    return [float(value) for value in np.asarray(scores) * support(overlap, sources)]


def _quality(
    on_cells: torch.Tensor,
    soft: torch.Tensor,
    pixels: Float32[np.ndarray, "h w"],
    score: torch.Tensor,
    kept: torch.Tensor,
    inside: Bool[np.ndarray, "h w"],
    rule: FusionRule,
) -> Quality:
    """The score at the pixels; the released code's, which compares candidates, on the grid where these are."""
    if rule.score == "code":
        return quality_of(on_cells, soft, score, kept, torch.from_numpy(inside)[None], rule)
    everywhere = torch.ones(1, *pixels.shape, dtype=torch.bool)
    return quality_of(torch.from_numpy(pixels)[None], soft, score, kept, everywhere, rule)


def _assign(candidates: Sequence[Candidate], ious: torch.Tensor, settings: FusionSettings) -> torch.Tensor:
    """BoxTeacher's baseline: suppression among the free candidates of a class, then one candidate per object."""
    if not candidates:
        return torch.full((ious.shape[0],), -1, dtype=torch.int64)
    scores = torch.tensor([c.box_score for c in candidates])
    masks = [torch.from_numpy(c.mask.probability.astype(np.float32) / 255)[None] for c in candidates]
    order = torch.stack([detection_rank(s[None], m)[0] for s, m in zip(scores, masks, strict=True)])
    owner = [(c.annotation_id, c.category_id) for c in candidates]
    groups = {key: i for i, key in enumerate(dict.fromkeys(owner))}
    boxes = torch.tensor([c.box_xyxy for c in candidates])
    survivors = keep_after_nms(boxes, scores, torch.tensor([groups[key] for key in owner]), top=len(candidates))
    left = torch.full_like(ious, -1.0)
    left[:, survivors] = ious[:, survivors]
    return bpma(left, order, min_iou=settings.min_iou)
