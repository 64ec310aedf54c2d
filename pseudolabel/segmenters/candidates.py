"""Candidate masks from a label map, one per object, or from closer looks at the boxes, one for each look.

The evidence of a label map with confidences at a pixel is p(class) = confidence where the class won, and at most
min(confidence, 1 - confidence) where another one did; the bound is what is used. `region` candidates are that, cut to
the box. `refined` ones, the default, go through the random field of `pseudolabel.random_field`, with a prior that
knows the box: an object fills the ellipse in its box rather than its corners, a pixel that two boxes of one class share
belongs to the one whose centre is nearer (in units of the box), and a much smaller box of another class lies in front.
Where the segmenter does not know the class, or sees next to nothing of it in the box, its evidence is even odds:
box and colours decide. The object may then be a stick on a diagonal of its box as well: of such priors the one is taken
whose mask explains the colours best, if it does so clearly better than that of the ellipse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image

from pseudolabel.boxes import area_xyxy, iou_matrix
from pseudolabel.candidates import COLORS, Candidate, GivenBox
from pseudolabel.masks import Grid, SoftMask, pixel_window
from pseudolabel.random_field import Colours, Refinement, explained_share, refine, rgb_to_lab
from pseudolabel.segmenters.base import IGNORE_INDEX, SemanticResult
from pseudolabel.segmenters.shapes import ROUND, STICKS, Shape, centres, in_box

SEMANTIC = "semantic"  # what the source is called
CELLS_PER_SIDE = 72
_MARGIN = 0.2  # of the box's side, at least 4 px: where background is learned
_UNSEEN = 0.1  # mean evidence in a box below which the segmenter has missed the object
_UNDECIDED = np.uint8(128)  # evidence where a label map is ignored
CLEARLY = 0.15  # share of the doubt about a cell that a stick's mask explains more than the round one's
_ALL = slice(None)
_FRONT_AREA = 0.6  # a box of another class below this share of the area counts as lying in front


@dataclass(frozen=True, slots=True)
class PriorWeights:
    """Weights of the prior's parts, in log-odds."""

    evidence: float = 0.65
    floor: float = 0.02  # no probability is believed beyond this
    bias: float = 0.9
    ellipse: float = 1.5
    rival: float = 2.0
    front: float = 1.5


@dataclass(frozen=True, slots=True)
class Window:
    """A box with its surroundings as cells: `grid` is all of it, `rows` and `columns` say where the box is."""

    grid: Grid
    rows: slice
    columns: slice

    @property
    def inside(self) -> Bool[np.ndarray, "h w"]:
        inside = np.zeros((self.grid.height, self.grid.width), dtype=bool)
        inside[self.rows, self.columns] = True
        return inside


def semantic_candidates(
    boxes: Sequence[GivenBox],
    semantic: SemanticResult,
    rgb: UInt8[np.ndarray, "h w 3"] | None,
    *,
    source: str = SEMANTIC,
    masks: Literal["refined", "region"] = "refined",
    closer: Mapping[int | None, Sequence[SoftMask]] | None = None,
    unknown: Literal["colors", "none"] = "colors",
) -> list[Candidate]:
    """The candidates of every box in turn, none for a crowd and where nothing of the box would be foreground.

    Args:
        boxes: all boxes of an image with their classes in the segmenter's list, each being the others' rival.
        semantic: label map and confidence at image size.
        rgb: the image; only `refined` needs it.
        source: what the candidates call theirs; those of box and colours alone are of the source `colors`.
        masks: `refined`, or the bare `region` of the class in the box.
        closer: by annotation id, the probability of the box's class on the cells of its `box_window` as closer
            looks found it; such a box asks the label map nothing and gets a candidate of each look.
        unknown: what a box whose class the segmenter does not know gets: a refined mask from its box and colours alone,
            or none. With `colors`, that is also what a box gets in which it saw next to nothing of the class.
    """
    found: list[Candidate] = []
    contenders = Contenders.among(boxes)
    for index, box in enumerate(boxes):
        if box.is_crowd or (box.class_index is None and (unknown == "none" or masks == "region")):
            continue
        window = box_window(box.box_xyxy, semantic.label_map.shape)
        colours = _colours(window, rgb) if masks == "refined" else None
        rivals = contenders.rivals(index, window.grid) if masks == "refined" else []
        for evidence in _evidences(window, box, semantic, (closer or {}).get(box.annotation_id, ())):
            probability, knows_class = evidence, box.class_index is not None
            if colours is not None:
                if unknown == "colors" and evidence[window.rows, window.columns].mean() < _UNSEEN:
                    evidence, knows_class = _even_odds(window), False
                fitted = partial(_refined, window, box, rivals, evidence, colours)
                probability = fitted() if knows_class else _of_some_shape(fitted, colours)
            name = source if knows_class else COLORS
            found += _candidate(window, box, probability, evidence, source=name, knows_class=knows_class)
    return found


def color_candidates(boxes: Sequence[GivenBox], rgb: UInt8[np.ndarray, "h w 3"]) -> list[Candidate]:
    """At most one candidate per box, from box, neighbours and the image's colours alone, whatever the classes are."""
    nothing = np.full(rgb.shape[:2], IGNORE_INDEX, dtype=np.uint8)
    unknown = [replace(box, class_index=None) for box in boxes]
    return semantic_candidates(unknown, SemanticResult(nothing, nothing), rgb, source=COLORS)


@dataclass(frozen=True, slots=True)
class Contenders:
    """The boxes of an image, as rows to be asked all at once which of them reach into a window."""

    boxes: Sequence[GivenBox]
    boxes_xyxy: Float64[np.ndarray, "n 4"]
    is_object: Bool[np.ndarray, " n"]

    @classmethod
    def among(cls, boxes: Sequence[GivenBox]) -> "Contenders":
        corners = np.array([box.box_xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)
        return cls(boxes, corners, np.array([not box.is_crowd for box in boxes], dtype=bool))

    def rivals(self, index: int, grid: Grid) -> list[GivenBox]:
        """The other objects' boxes in their order, without those that hold no cell's centre whatever its row."""
        x, y = centres(grid)
        left, top, right, bottom = self.boxes_xyxy.T
        across, down = (left < x[0, -1]) & (right > x[0, 0]), (top < y[-1, 0]) & (bottom > y[0, 0])
        return [self.boxes[k] for k in np.flatnonzero(self.is_object & across & down).tolist() if k != index]


def _evidences(
    window: Window, box: GivenBox, semantic: SemanticResult, looks: Sequence[SoftMask]
) -> list[Float32[np.ndarray, "h w"]]:
    if looks:
        return [look.probability.astype(np.float32) / np.float32(255) for look in looks]
    if box.class_index is None:
        return [_even_odds(window)]
    return [class_evidence(semantic, box.class_index, window.grid)]


def _even_odds(window: Window) -> Float32[np.ndarray, "h w"]:
    return np.full((window.grid.height, window.grid.width), 0.5, dtype=np.float32)


def class_evidence(semantic: SemanticResult, class_index: int, grid: Grid) -> Float32[np.ndarray, "h w"]:
    """Probability of a class on a grid: the module's bound, averaged over each cell."""
    x0, y0, x1, y1 = _pixels_of(grid, semantic.label_map.shape)
    labels, confidence = semantic.label_map[y0:y1, x0:x1], semantic.confidence[y0:y1, x0:x1]
    bound = np.where(labels == class_index, confidence, np.minimum(confidence, 255 - confidence))
    bound = np.where(labels == IGNORE_INDEX, _UNDECIDED, bound)
    means = _cell_means(bound, grid, (x0, y0))
    means /= 255
    return means


def _colours(window: Window, rgb: UInt8[np.ndarray, "h w 3"] | None) -> Colours:
    """What the random field knows of the window's colours, whichever evidence it is asked about."""
    if rgb is None:
        raise ValueError("refined masks need the image")
    x0, y0, x1, y1 = _pixels_of(window.grid, rgb.shape)
    lab = rgb_to_lab(_cell_means(rgb[y0:y1, x0:x1], window.grid, (x0, y0)))
    return Colours.of(lab, Refinement())


def _refined(
    window: Window,
    box: GivenBox,
    rivals: Sequence[GivenBox],
    evidence: Float32[np.ndarray, "h w"],
    colours: Colours,
    shape: Shape = ROUND,
) -> Float32[np.ndarray, "h w"]:
    inside = window.inside
    prior = prior_logit(window.grid, box, rivals, evidence, PriorWeights(), shape)
    same_class_outside = ~inside & (evidence > 0.5)
    return refine(prior, colours, inside, same_class_outside, Refinement())


def _of_some_shape(
    fitted: Callable[[Shape], Float32[np.ndarray, "h w"]], colours: Colours
) -> Float32[np.ndarray, "h w"]:
    """The refined mask of the round prior, or of the stick's that explains the colours clearly better."""
    best = fitted(ROUND)
    most = explained_share(colours.cluster, best) + CLEARLY
    if most >= 1:  # nothing explains more than all
        return best
    for stick in STICKS:
        mask = fitted(stick)
        explained = explained_share(colours.cluster, mask)
        if explained > most:
            best, most = mask, explained
    return best


def prior_logit(
    grid: Grid,
    box: GivenBox,
    rivals: Sequence[GivenBox],
    evidence: Float32[np.ndarray, "h w"],
    weights: PriorWeights,
    shape: Shape = ROUND,
) -> Float32[np.ndarray, "h w"]:
    """Log-odds of every cell before colours are looked at."""
    believed = np.clip(evidence, weights.floor, 1 - weights.floor)
    own = _radius(grid, box.box_xyxy)
    logit = weights.evidence * np.log(believed / (1 - believed)) + weights.bias
    logit += weights.ellipse * np.clip(0.6 - shape.squared_radius(grid, box.box_xyxy), -1.5, 0.6) + shape.bias
    area = float(area_xyxy(np.array(box.box_xyxy)))
    for rival in rivals:
        rows, columns = _cells_in(grid, rival.box_xyxy)
        if rival.category_id == box.category_id:
            distance = np.clip(2 * (own[rows, columns] - _radius(grid, rival.box_xyxy, rows, columns)), -0.3, 2)
            logit[rows, columns] -= weights.rival * distance
        elif float(area_xyxy(np.array(rival.box_xyxy))) < _FRONT_AREA * area:
            depth = np.clip(1 - _radius(grid, rival.box_xyxy, rows, columns), 0, 1)
            logit[rows, columns] -= weights.front * depth
    prior: Float32[np.ndarray, "h w"] = logit.astype(np.float32)
    return prior


def _candidate(
    window: Window,
    box: GivenBox,
    probability: Float32[np.ndarray, "h w"],
    evidence: Float32[np.ndarray, "h w"],
    *,
    source: str,
    knows_class: bool,
) -> list[Candidate]:
    whole = window.grid
    cut = probability[window.rows, window.columns]
    foreground = cut > 0.5
    if not foreground.any():
        return []
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    grid = Grid(
        whole.x0 + window.columns.start * whole.stride_x,
        whole.y0 + window.rows.start * whole.stride_y,
        whole.stride_x,
        whole.stride_y,
        cut.shape[0],
        cut.shape[1],
    )
    tight = _clipped_extent(grid, rows, columns, box.box_xyxy)
    mask = SoftMask(grid, np.rint(cut * 255).astype(np.uint8))
    iou = float(iou_matrix(np.array([tight]), np.array([box.box_xyxy]))[0, 0])
    score = _score(cut, foreground, evidence[window.rows, window.columns])
    return [Candidate(source, box.annotation_id, box.category_id, tight, score, iou, mask, knows_class)]


def _score(
    cut: Float32[np.ndarray, "h w"], foreground: Bool[np.ndarray, "h w"], evidence: Float32[np.ndarray, "h w"]
) -> float:
    """Soft IoU of the mask and the segmenter's own opinion in the box: 0 where it saw none of the class there."""
    shared = np.minimum(foreground, evidence).sum()
    union = np.maximum(foreground, evidence).sum()
    return float(shared / union)


def _clipped_extent(
    grid: Grid, rows: np.ndarray, columns: np.ndarray, box_xyxy: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    left, top = grid.x0 + columns[0] * grid.stride_x, grid.y0 + rows[0] * grid.stride_y
    right, bottom = grid.x0 + (columns[-1] + 1) * grid.stride_x, grid.y0 + (rows[-1] + 1) * grid.stride_y
    clipped = (max(left, box_xyxy[0]), max(top, box_xyxy[1]), min(right, box_xyxy[2]), min(bottom, box_xyxy[3]))
    return (float(clipped[0]), float(clipped[1]), float(clipped[2]), float(clipped[3]))


def box_window(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, ...]) -> Window:
    """Cells over the box and a margin: the box's pixels fill whole cells, at most CELLS_PER_SIDE along a side."""
    pixels = pixel_window(box_xyxy, (size_hw[0], size_hw[1]))
    stride = max(1.0, max(pixels.height, pixels.width) / CELLS_PER_SIDE)
    columns, x0, stride_x, width = _axis(pixels.x0, pixels.width, size_hw[1], stride)
    rows, y0, stride_y, height = _axis(pixels.y0, pixels.height, size_hw[0], stride)
    return Window(Grid(x0, y0, stride_x, stride_y, height, width), rows, columns)


def _axis(start: float, length: int, limit: int, stride: float) -> tuple[slice, float, float, int]:
    """Where the box's cells are along one axis, where the first cell starts, the exact stride, how many cells."""
    count = max(1, round(length / stride))
    stride = length / count
    margin = int(np.ceil(max(4.0, _MARGIN * length) / stride))
    before = min(margin, int(start / stride))
    after = min(margin, int((limit - start - length) / stride))
    return slice(before, before + count), start - before * stride, stride, before + count + after


def _pixels_of(grid: Grid, size_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The smallest rectangle of whole pixels around a grid, ends exclusive."""
    x0, y0, x1, y1 = grid.extent_xyxy
    left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
    return left, top, min(size_hw[1], int(np.ceil(x1 - 1e-6))), min(size_hw[0], int(np.ceil(y1 - 1e-6)))


def _cell_means(pixels: UInt8[np.ndarray, "..."], grid: Grid, origin_xy: tuple[int, int]) -> Float32[np.ndarray, "..."]:
    """Mean of the pixels of every cell; a cell that shares a pixel with its neighbour takes its part of it."""
    x0, y0, x1, y1 = grid.extent_xyxy
    height, width = pixels.shape[:2]
    box = (
        max(x0 - origin_xy[0], 0.0),
        max(y0 - origin_xy[1], 0.0),
        min(x1 - origin_xy[0], float(width)),
        min(y1 - origin_xy[1], float(height)),
    )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((grid.width, grid.height), Image.Resampling.BOX, box=box), dtype=np.float32)


def _radius(
    grid: Grid, xyxy: tuple[float, float, float, float], rows: slice = _ALL, columns: slice = _ALL
) -> Float64[np.ndarray, "h w"]:
    """Distance of some cells' centres from a box's centre, 1 being the ellipse that touches its sides."""
    across, down = in_box(grid, xyxy)
    radius: Float64[np.ndarray, "h w"] = np.sqrt(across[:, columns] ** 2 + down[rows] ** 2)
    return radius


def _cells_in(grid: Grid, xyxy: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of the cells whose centre lies in a box."""
    x, y = centres(grid)
    return _between(y[:, 0], xyxy[1], xyxy[3]), _between(x[0], xyxy[0], xyxy[2])


def _between(ordered: Float64[np.ndarray, " n"], low: float, high: float) -> slice:
    """Of increasing numbers those between two others, which they do not reach."""
    return slice(int(np.searchsorted(ordered, low, "right")), int(np.searchsorted(ordered, high, "left")))
