"""Objects of one image, from their candidates to one mask each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32

from pseudolabel.candidates import COLORS, Candidate, GivenBox
from pseudolabel.fusion.agreement import opinions, pairwise_iou, source_agreement, support
from pseudolabel.fusion.fuse import TAU_PIXEL, passing, qmf_weights
from pseudolabel.fusion.grid import MAX_CELLS, box_cells, cells_inside, common_grid, object_window, on_grid
from pseudolabel.fusion.matching import Served, adaptive_k, best_boxes
from pseudolabel.fusion.quality_aware import (
    FusionRule,
    candidate_weights,
    fuse_masks,
    quality_of_means,
    threshold_of,
)
from pseudolabel.fusion.scoring import Opinion, mean_kept, opinion, tells_doubt, vote_score
from pseudolabel.masks import Grid, resample, resample_above

BoxScores = Literal["raw", "support"]


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """How the candidates of an object become one mask."""

    rule: FusionRule = field(default_factory=FusionRule)
    ranking: Literal["bqr", "bpma"] = "bqr"
    per_source: int | None = 10  # None: adaptive, by the box's area
    min_iou: float = 0.5
    box_scores: BoxScores = "raw"
    balance: bool = True  # every source has the same weight in all, however many candidates it has
    source_weights: tuple[tuple[str, float], ...] = ()  # 1 for the others
    tau_by_sources: bool = True  # the pixel threshold is what an object's own sources need, not the rule's
    max_cells: int = MAX_CELLS


@dataclass(frozen=True, slots=True)
class FusedObject:
    """One object's mask, soft, at the pixels of its box."""

    target: GivenBox
    window: Grid
    probability: Float32[np.ndarray, "h w"]
    score: float
    box_quality: float
    pixel_quality: float
    candidates_used: int
    sources: tuple[str, ...]
    agreement: float | None  # mean IoU between the sources' own masks; None where only one source speaks
    witnesses: "Witnesses"
    knows_class: bool  # one of its sources tells the object's class from others
    prompted: bool  # one of its sources was asked by the box: neither a segmenter that knows classes, nor colours
    tau_pixel: float = TAU_PIXEL  # what a probability had to exceed


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What the sources say on the cells of an object's box, and how far one of them contradicts itself."""

    grid: Grid
    inside: tuple[slice, slice]  # the box's cells, rows and columns
    probability: Float32[np.ndarray, "s h w"]  # of each source
    spread: float | None  # None where no source has several candidates

    @property
    def tell_doubt(self) -> bool:
        """Whether it means something how sure they are: two or more speak, or one with probabilities."""
        return len(self.probability) > 1 or tells_doubt(self.probability[0])

    def on_average(self, window: Grid) -> Float32[np.ndarray, "h w"]:
        """The mean of what the sources say, at the pixels of a window."""
        rows, columns = self.inside
        stride_x, stride_y = self.grid.stride_x, self.grid.stride_y
        x0, y0 = self.grid.x0 + columns.start * stride_x, self.grid.y0 + rows.start * stride_y
        grid = Grid(x0, y0, stride_x, stride_y, *self.probability.shape[1:])
        return resample(self.probability.mean(axis=0), grid, window)

    def asked(self, pixels: Bool[np.ndarray, "h w"], window: Grid) -> list[Opinion]:
        """What each source says about a mask at the pixels of a window."""
        mask = resample(pixels.astype(np.float32), window, self.grid)[self.inside]
        return [opinion(one, mask) for one in self.probability]


def fuse_image(
    targets: Sequence[GivenBox], candidates: Sequence[Candidate], size_hw: tuple[int, int], settings: FusionSettings
) -> list[FusedObject | None]:
    """A mask for every object, None where no candidate is usable; in the order of `targets`."""
    return [
        _fuse(_stack(target, [candidates[place] for place in served.columns], served.iou, size_hw, settings))
        if served.columns
        else None
        for target, served in zip(targets, served_by(targets, candidates, settings), strict=True)
    ]


def served_by(targets: Sequence[GivenBox], candidates: Sequence[Candidate], settings: FusionSettings) -> list[Served]:
    """Which candidates each object gets, by the rule of the settings: K of every source, or one in all."""
    if settings.ranking == "bpma":
        from pseudolabel.fusion.assignment import assigned  # torch, which the fusion does without otherwise

        return assigned(targets, candidates, min_iou=settings.min_iou)
    areas = np.array([target.area_px for target in targets], dtype=np.float32)
    k = adaptive_k(areas) if settings.per_source is None else settings.per_source
    return best_boxes(targets, candidates, k, min_iou=settings.min_iou)


@dataclass(frozen=True, slots=True)
class _Stack:
    """One object's candidates on their common grid."""

    target: GivenBox
    window: Grid
    grid: Grid
    probability: Float32[np.ndarray, "k h w"]
    overlap: Float32[np.ndarray, "k k"] | None  # IoU inside the box of every pair, where several sources speak
    sources: list[str]
    knows_class: Bool[np.ndarray, " k"]
    voice: Float32[np.ndarray, " k"]  # the weight that the candidate's source gives it beside its quality
    box_score: Float32[np.ndarray, " k"]  # on one scale
    box_iou: Float32[np.ndarray, " k"]
    rule: FusionRule  # with the object's own pixel threshold


def _stack(
    target: GivenBox,
    candidates: Sequence[Candidate],
    box_iou: Float32[np.ndarray, " k"],
    size_hw: tuple[int, int],
    settings: FusionSettings,
) -> _Stack:
    window = object_window(target.box_xyxy, size_hw)
    grid = common_grid([c.mask.grid for c in candidates], window, max_cells=settings.max_cells)
    probability = on_grid([c.mask for c in candidates], grid)
    sources = [c.source for c in candidates]
    score = np.array([c.box_score for c in candidates], dtype=np.float32)
    rule = _own_rule({c.source for c in candidates if c.box_score > settings.rule.tau_box}, settings)
    overlap = None
    if len(set(sources)) > 1:
        rows, columns = box_cells(grid, window)
        overlap = pairwise_iou(probability[:, rows, columns] > rule.tau_pixel)
    if settings.box_scores == "support" and overlap is not None:
        score = score * support(overlap, sources)
    voice, knows = _voices(sources, settings), np.array([c.knows_class for c in candidates])
    return _Stack(target, window, grid, probability, overlap, sources, knows, voice, score, box_iou, rule)


def _own_rule(speaking: set[str], settings: FusionSettings) -> FusionRule:
    """The rule with the pixel threshold of the sources that have something to say about the object.

    Colours do not raise it: their masks end at edges of the picture, and do not run over them as a network's do.
    """
    if not settings.tau_by_sources or not speaking:
        return settings.rule
    given = dict(settings.source_weights)
    networks = sorted(speaking - {COLORS}) or [COLORS]
    return replace(settings.rule, tau_pixel=threshold_of([given.get(source, 1.0) for source in networks]))


def _voices(sources: Sequence[str], settings: FusionSettings) -> Float32[np.ndarray, " k"]:
    """A source's weight, where sources are balanced shared out among its candidates."""
    given = dict(settings.source_weights)
    copies = [sources.count(source) if settings.balance else 1 for source in sources]
    weights = [given.get(source, 1.0) / count for source, count in zip(sources, copies, strict=True)]
    return np.array(weights, dtype=np.float32)


def _fuse(stack: _Stack) -> FusedObject | None:
    """One object's mask and scores; the formulas take a batch, here of one."""
    rule = stack.rule
    score, soft = stack.box_score[None], stack.probability[None]
    kept = passing(score, np.ones_like(score, dtype=bool), tau_box=rule.tau_box)
    weights = candidate_weights(score, stack.box_iou[None], kept, rule)
    if rule.fusion == "qmf":
        weights = qmf_weights(weights * stack.voice, kept)
    speaking: Bool[np.ndarray, " k"] = weights[0] > 0
    if not speaking.any():
        return None
    cells = fuse_masks(soft, weights, kept, rule)
    pixels, mean = resample_above(cells[0], stack.grid, stack.window, _tau(stack))
    quality = quality_of_means(mean_kept(score, kept), np.array([mean], dtype=np.float32), rule)
    if rule.score == "code":  # which compares candidates, on the grid where these are
        quality = replace(quality, score=vote_score(score, kept, soft, cells > 0.5, tau_pixel=rule.tau_pixel))
    return FusedObject(
        target=stack.target,
        window=stack.window,
        probability=pixels,
        score=float(quality.score[0]),
        box_quality=float(quality.box[0]),
        pixel_quality=float(quality.pixel[0]),
        candidates_used=int(speaking.sum()),
        sources=tuple(sorted({source for source, speaks in zip(stack.sources, speaking, strict=True) if speaks})),
        agreement=None if stack.overlap is None else source_agreement(stack.overlap, stack.sources, speaking),
        witnesses=_witnesses(stack, speaking),
        knows_class=bool((speaking & stack.knows_class).any()),
        prompted=bool((speaking & ~stack.knows_class & (np.array(stack.sources) != COLORS)).any()),
        tau_pixel=_tau(stack),
    )


def _tau(stack: _Stack) -> float:
    """What a fused probability has to exceed; of votes, each of which `tau_pixel` has decided, more than half count."""
    return 0.5 if stack.rule.fusion == "vote" else stack.rule.tau_pixel


def _witnesses(stack: _Stack, speaking: Bool[np.ndarray, " k"]) -> Witnesses:
    inside = cells_inside(stack.grid, stack.window)
    said, spread = opinions(stack.probability, inside, stack.sources, stack.box_iou, speaking)
    return Witnesses(stack.grid, inside, said, spread)
