"""Objects of one image, from their candidates to one mask each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32

from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.condinst.ranking import (
    Ranking,
    adaptive_k,
    box_quality_ranking,
    bpma,
    keep_after_nms,
    ranking_of_assignment,
)
from pseudolabel.fusion.agreement import opinions, pairwise_iou, source_agreement, support
from pseudolabel.fusion.fuse import TAU_PIXEL, passing, qmf_weights
from pseudolabel.fusion.grid import MAX_CELLS, box_cells, cells_inside, common_grid, object_window, on_grid
from pseudolabel.fusion.matching import box_ious, may_serve
from pseudolabel.fusion.quality_aware import (
    FusionRule,
    candidate_weights,
    fuse_masks,
    quality_of_means,
    threshold_of,
)
from pseudolabel.fusion.scoring import Opinion, detection_rank, mean_kept, opinion, vote_score
from pseudolabel.masks import Grid, resample, resample_above

BoxScores = Literal["raw", "support"]
_AT_ONCE = 16  # objects whose candidates are in memory together


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
    tau_pixel: float = TAU_PIXEL  # what a probability had to exceed


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What the sources say on the cells of an object's box, and how far one of them contradicts itself."""

    grid: Grid
    inside: tuple[slice, slice]  # the box's cells, rows and columns
    probability: Float32[np.ndarray, "s h w"]  # of each source
    spread: float | None  # None where no source has several candidates

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
    if not targets:
        return []
    ious = torch.from_numpy(box_ious(targets, candidates)).float()
    allowed = torch.from_numpy(may_serve(targets, candidates))
    ranking = rank(targets, candidates, ious, allowed, settings)
    chosen = [index[valid].tolist() for index, valid in zip(ranking.index, ranking.valid, strict=True)]
    fused: list[FusedObject | None] = [None] * len(targets)
    served = [row for row, indices in enumerate(chosen) if indices]
    for start in range(0, len(served), _AT_ONCE):
        rows = served[start : start + _AT_ONCE]
        stacks = [
            _stack(targets[i], [candidates[j] for j in chosen[i]], ious[i, chosen[i]], size_hw, settings) for i in rows
        ]
        for row, one in zip(rows, _fuse_stacks(stacks, settings), strict=True):
            fused[row] = one
    return fused


def rank(
    targets: Sequence[GivenBox],
    candidates: Sequence[Candidate],
    ious: torch.Tensor,
    allowed: torch.Tensor,
    settings: FusionSettings,
) -> Ranking:
    """Which candidates each object gets, by the rule of the settings: K of every source, or one in all."""
    if settings.ranking == "bpma":
        return ranking_of_assignment(_assign(candidates, torch.where(allowed, ious, -1.0), settings))
    areas = torch.tensor([target.area_px for target in targets])
    k = adaptive_k(areas) if settings.per_source is None else settings.per_source
    names = np.array([candidate.source for candidate in candidates], dtype=object)
    own = [allowed & torch.from_numpy(names == name) for name in sorted(set(names))] or [allowed]
    rankings = [box_quality_ranking(ious, k, min_iou=settings.min_iou, allowed=mine) for mine in own]
    return Ranking(torch.cat([r.index for r in rankings], dim=1), torch.cat([r.valid for r in rankings], dim=1))


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
    voice: torch.Tensor  # (k,), the weight that the candidate's source gives it beside its quality
    box_score: torch.Tensor  # (k,), on one scale
    box_iou: torch.Tensor  # (k,)
    rule: FusionRule  # with the object's own pixel threshold


def _stack(
    target: GivenBox,
    candidates: Sequence[Candidate],
    box_iou: torch.Tensor,
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
        overlap = pairwise_iou((probability > rule.tau_pixel) & box_cells(grid, window))
    if settings.box_scores == "support" and overlap is not None:
        score = score * support(overlap, sources)
    voice, knows = _voices(sources, settings), np.array([c.knows_class for c in candidates])
    scores = torch.from_numpy(score)
    return _Stack(target, window, grid, probability, overlap, sources, knows, voice, scores, box_iou, rule)


def _own_rule(speaking: set[str], settings: FusionSettings) -> FusionRule:
    """The rule with the pixel threshold of the sources that have something to say about the object."""
    if not settings.tau_by_sources or not speaking:
        return settings.rule
    given = dict(settings.source_weights)
    return replace(settings.rule, tau_pixel=threshold_of([given.get(source, 1.0) for source in sorted(speaking)]))


def _voices(sources: Sequence[str], settings: FusionSettings) -> torch.Tensor:
    """A source's weight, where sources are balanced shared out among its candidates."""
    given = dict(settings.source_weights)
    copies = [sources.count(source) if settings.balance else 1 for source in sources]
    return torch.tensor([given.get(source, 1.0) / count for source, count in zip(sources, copies, strict=True)])


def _fuse_stacks(stacks: Sequence[_Stack], settings: FusionSettings) -> list[FusedObject | None]:
    """The masks of some objects: weights and scores of all at once, pixels one object after the other."""
    rule = settings.rule
    score, valid = _padded([stack.box_score for stack in stacks])
    box_iou, _ = _padded([stack.box_iou for stack in stacks])
    kept = passing(score, valid, tau_box=rule.tau_box)
    weights = candidate_weights(score, box_iou, kept, rule)
    if rule.fusion == "qmf":
        weights = qmf_weights(weights * _padded([stack.voice for stack in stacks])[0], kept)
    cells = [_on_cells(stack, weights[i : i + 1], kept[i : i + 1]) for i, stack in enumerate(stacks)]
    read = [resample_above(c, stack.grid, stack.window, _tau(stack)) for c, stack in zip(cells, stacks, strict=True)]
    quality = quality_of_means(mean_kept(score, kept), torch.tensor([mean for _, mean in read]), rule)
    if rule.score == "code":
        quality = replace(quality, score=_released_scores(stacks, cells, score, kept))
    columns = (quality.score.tolist(), quality.box.tolist(), quality.pixel.tolist(), (weights > 0).numpy())
    return [
        _fused(stack, pixels, *numbers) if numbers[3].any() else None
        for stack, (pixels, _), numbers in zip(stacks, read, zip(*columns, strict=True), strict=True)
    ]


def _fused(
    stack: _Stack,
    pixels: Float32[np.ndarray, "h w"],
    score: float,
    box: float,
    pixel: float,
    speaking: Bool[np.ndarray, " k"],
) -> FusedObject:
    speaking = speaking[: len(stack.sources)]
    knows_class = bool((speaking & stack.knows_class).any())
    sources = {source for source, speaks in zip(stack.sources, speaking, strict=True) if speaks}
    return FusedObject(
        target=stack.target,
        window=stack.window,
        probability=pixels,
        score=score,
        box_quality=box,
        pixel_quality=pixel,
        candidates_used=int(speaking.sum()),
        sources=tuple(sorted(sources)),
        agreement=None if stack.overlap is None else source_agreement(stack.overlap, stack.sources, speaking),
        witnesses=_witnesses(stack, speaking),
        knows_class=knows_class,
        tau_pixel=_tau(stack),
    )


def _tau(stack: _Stack) -> float:
    """What a fused probability has to exceed; of votes, each of which `tau_pixel` has decided, more than half count."""
    return 0.5 if stack.rule.fusion == "vote" else stack.rule.tau_pixel


def _witnesses(stack: _Stack, speaking: Bool[np.ndarray, " k"]) -> Witnesses:
    inside = cells_inside(stack.grid, stack.window)
    said, spread = opinions(stack.probability, inside, stack.sources, stack.box_iou.numpy(), speaking)
    return Witnesses(stack.grid, inside, said, spread)


def _on_cells(stack: _Stack, weights: torch.Tensor, kept: torch.Tensor) -> Float32[np.ndarray, "h w"]:
    k = len(stack.sources)
    soft = torch.from_numpy(stack.probability)[None]
    cells: Float32[np.ndarray, "h w"] = fuse_masks(soft, weights[:, :k], kept[:, :k], stack.rule)[0].numpy()
    return cells


def _released_scores(
    stacks: Sequence[_Stack],
    cells: Sequence[Float32[np.ndarray, "h w"]],
    score: torch.Tensor,
    kept: torch.Tensor,
) -> torch.Tensor:
    """The released code's score, which compares candidates, on the grid where these are."""
    out = []
    for i, (stack, fused) in enumerate(zip(stacks, cells, strict=True)):
        k = len(stack.sources)
        voted = torch.from_numpy(fused > 0.5)[None]
        soft = torch.from_numpy(stack.probability)[None]
        tau = stack.rule.tau_pixel
        out.append(vote_score(score[i : i + 1, :k], kept[i : i + 1, :k], soft, voted, tau_pixel=tau))
    return torch.cat(out)


def _padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different length as one matrix padded with zeros, and where it is filled."""
    values = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return values, torch.arange(values.shape[1]) < lengths[:, None]


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
