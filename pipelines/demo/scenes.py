"""Drawn scenes with exact truth: textured objects of five classes that overlap and touch on textured ground.

They are for `pseudolabel demo` and for tests: no photograph of anybody is needed, every mask is exact, and a scene
depends on its seed alone. A class is told by its shape and its pattern; colours vary within a class and overlap between
classes, grounds carry patterns too, and objects throw shadows, so that a segmenter has something to learn.
"""

# mypy: disable-error-code="no-any-return"
# (numpy's ufuncs return Any)

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

CLASSES = ("disc", "ring", "star", "blob", "bar")
CATEGORY_IDS = {"disc": 1, "ring": 2, "star": 4, "blob": 7, "bar": 11}  # with gaps, as real data sets have them

_HUES = {"disc": 0.02, "ring": 0.20, "star": 0.42, "blob": 0.62, "bar": 0.80}
_HUE_SPREAD = 0.05  # one standard deviation; the classes' centres are about 0.2 apart
_MIN_VISIBLE_SHARE = 0.35
_MIN_VISIBLE_PX = 30

Plane = Float32[np.ndarray, "h w"]


@dataclass(frozen=True, slots=True)
class Scene:
    """One drawn picture and all that is true about it.

    `masks` hold what is visible of every object, `labels` their class as an index into `CLASSES`; `semantic` is 0 on
    the ground and that index plus one on objects.
    """

    image: UInt8[np.ndarray, "h w 3"]
    masks: Bool[np.ndarray, "n h w"]
    labels: tuple[int, ...]
    semantic: UInt8[np.ndarray, "h w"]

    def boxes_xyxy(self) -> list[tuple[int, int, int, int]]:
        """The exact extent of every mask, ends exclusive."""
        return [_extent(mask) for mask in self.masks]


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where and what an object is; lengths in pixels."""

    label: int
    x: float
    y: float
    radius: float
    angle: float
    elongation: float
    lobes: tuple[float, ...]

    @property
    def kind(self) -> str:
        return CLASSES[self.label]


@dataclass(slots=True)
class _Canvas:
    image: Float32[np.ndarray, "h w 3"]
    noise: Plane
    owner: np.ndarray  # index of the object that shows at a pixel, -1 on the ground
    shapes: list[_Shape] = field(default_factory=list)
    whole_px: list[int] = field(default_factory=list)  # area of each object before anything hid it


def draw_scene(
    seed: int, size_hw: tuple[int, int] = (256, 256), *, classes: Sequence[str] = CLASSES, count: int | None = None
) -> Scene:
    """The scene of a seed.

    Args:
        seed: everything random comes from it.
        size_hw: at least 64 x 64 pixels.
        classes: which of `CLASSES` may occur.
        count: objects to try to place; by default a draw from 7 to 13, scaled by the area.

    Raises:
        ValueError: the picture is too small, or a class has no such name.
    """
    if min(size_hw) < 64 or not classes or set(classes) - set(CLASSES):
        raise ValueError(f"expected at least 64 x 64 pixels and classes out of {CLASSES}, got {size_hw} and {classes}")
    random = np.random.default_rng([seed, *size_hw])
    canvas = _ground(random, size_hw)
    wanted = count if count is not None else round(random.integers(7, 14) * size_hw[0] * size_hw[1] / 256**2)
    for _ in range(max(wanted, 1)):
        _place(canvas, _next_shape(random, canvas, classes), random)
    return _finish(canvas, random)


def write_dataset(
    folder: Path, count: int, seed: int, *, size_hw: tuple[int, int] = (256, 256), classes: Sequence[str] = CLASSES
) -> None:
    """Draws `count` scenes and writes them as a COCO data set, with and without its masks.

    `images/*.jpg`, `boxes.json` (boxes and classes alone: what a user has), `instances.json` (the same with masks) and
    `labels/*.png` (semantic label maps: 0 ground, then `classes.txt`'s order).
    """
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene(seed * 1_000_003 + index, size_hw, classes=classes)
        images.append(_write_scene(folder, scene, index))
        annotations += _annotations(scene, image_id=index + 1, first_id=len(annotations) + 1)
    (folder / "labels" / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n")
    _write_json(folder / "instances.json", images, annotations)
    boxes = [{key: value for key, value in row.items() if key not in ("segmentation", "area")} for row in annotations]
    _write_json(folder / "boxes.json", images, boxes)


# --- the ground ------------------------------------------------------------------------------------------------------


def _ground(random: np.random.Generator, size_hw: tuple[int, int]) -> _Canvas:
    noise = _noise(random, size_hw)
    first, second = _colour(random, random.random(), 0.35), _colour(random, random.random(), 0.35)
    rows, columns = _pixel_centres((0, 0, size_hw[1], size_hw[0]))
    angle, period = random.uniform(0, np.pi), random.uniform(9, 40)
    waves = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * (2 * np.pi / period))
    mix = np.clip(0.5 + 0.8 * (noise - 0.5) + random.uniform(0, 0.22) * waves, 0, 1)[..., None]
    image = (first * mix + second * (1 - mix)).astype(np.float32)
    return _Canvas(image, noise, np.full(size_hw, -1, dtype=np.int32))


def _noise(random: np.random.Generator, size_hw: tuple[int, int]) -> Plane:
    """Smooth noise of four octaves, in [0, 1]."""
    total = np.zeros(size_hw, dtype=np.float32)
    for knots_px, weight in ((64, 0.45), (24, 0.25), (9, 0.18), (3, 0.12)):
        height, width = (-(-side // knots_px) + 1 for side in size_hw)
        knots = random.random((height, width), dtype=np.float32)
        total += weight * _between(_between(knots, size_hw[0], knots_px).T, size_hw[1], knots_px).T
    return np.clip((total - 0.5) * 1.6 + 0.5, 0, 1)


def _between(knots: Plane, count: int, knots_px: int) -> Plane:
    """Rows read linearly between rows of knots; no matrix product, whose threads would cost more than they give."""
    position = (np.arange(count, dtype=np.float32) + 0.5) / knots_px
    low = np.minimum(position.astype(np.int64), len(knots) - 2)
    fraction = (position - low)[:, None].astype(np.float32)
    return knots[low] * (1 - fraction) + knots[low + 1] * fraction


def _colour(random: np.random.Generator, hue: float, saturation: float) -> Float32[np.ndarray, " 3"]:
    """A colour of about that hue, in [0, 1], from the cosine wheel."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - np.array([0, 1 / 3, 2 / 3])))
    value = random.uniform(0.45, 0.95)
    amount = np.clip(saturation + random.normal(0, 0.12), 0.05, 0.9)
    return (value * (1 - amount + amount * wheel)).astype(np.float32)


# --- objects ---------------------------------------------------------------------------------------------------------


def _next_shape(random: np.random.Generator, canvas: _Canvas, classes: Sequence[str]) -> _Shape:
    """A new object somewhere; three in ten touch an earlier one of their class."""
    height, width = canvas.owner.shape
    label = CLASSES.index(classes[int(random.integers(len(classes)))])
    radius = float(np.exp(random.uniform(np.log(9), np.log(56))) * min(height, width) / 256)
    x, y = random.uniform(0.05, 0.95) * width, random.uniform(0.05, 0.95) * height
    if canvas.shapes and random.random() < 0.3:
        other = canvas.shapes[random.integers(len(canvas.shapes))]
        label, radius = other.label, other.radius * random.uniform(0.7, 1.2)
        direction = random.uniform(0, 2 * np.pi)
        reach = (other.radius + radius) * random.uniform(0.75, 1.0)
        x, y = other.x + reach * np.cos(direction), other.y + reach * np.sin(direction)
    lobes = tuple(random.normal(0, 1, 8).tolist())
    return _Shape(label, float(x), float(y), radius, random.uniform(0, 2 * np.pi), random.uniform(0, 1), lobes)


def _place(canvas: _Canvas, shape: _Shape, random: np.random.Generator) -> None:
    """Draws the object, unless it or one that it hides would have too little left to be seen."""
    window = _window(shape, canvas.owner.shape)
    if window is None:
        return
    u, v = _local(shape, window)
    depth = _DEPTHS[shape.kind](shape, u, v)
    inside = depth > 0
    if _hides_too_much(canvas, window, inside):
        return
    _paint_shadow(canvas, window, depth)
    _paint(canvas, window, depth, _pattern(canvas, shape, window, u, v, random))
    x0, y0, x1, y1 = window
    canvas.owner[y0:y1, x0:x1][inside] = len(canvas.shapes)
    canvas.shapes.append(shape)
    canvas.whole_px.append(int(inside.sum()))


def _window(shape: _Shape, size_hw: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Pixels that the object and its rim may cover, None where that is outside the picture."""
    reach = shape.radius * 1.5 + 2
    x0, y0 = max(int(shape.x - reach), 0), max(int(shape.y - reach), 0)
    x1, y1 = min(int(shape.x + reach) + 1, size_hw[1]), min(int(shape.y + reach) + 1, size_hw[0])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _pixel_centres(window: tuple[int, int, int, int]) -> tuple[Plane, Plane]:
    x0, y0, x1, y1 = window
    rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    return rows + 0.5, columns + 0.5


def _local(shape: _Shape, window: tuple[int, int, int, int]) -> tuple[Plane, Plane]:
    """Pixel centres in the object's own turned frame, in pixels."""
    rows, columns = _pixel_centres(window)
    dx, dy = columns - np.float32(shape.x), rows - np.float32(shape.y)
    cosine, sine = np.float32(np.cos(shape.angle)), np.float32(np.sin(shape.angle))
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def _disc(shape: _Shape, u: Plane, v: Plane) -> Plane:
    squeeze = np.float32(1 - 0.35 * shape.elongation)
    return (np.float32(shape.radius) - np.hypot(u, v / squeeze)) * squeeze


def _ring(shape: _Shape, u: Plane, v: Plane) -> Plane:
    distance = np.hypot(u, v)
    return np.minimum(shape.radius - distance, distance - shape.radius * (0.35 + 0.25 * shape.elongation))


def _star(shape: _Shape, u: Plane, v: Plane) -> Plane:
    """A star of five to seven points: in polar form every side of it is one straight line."""
    points = 5 + int(3 * shape.elongation)
    sector = np.pi / points
    turn = np.abs(np.mod(np.arctan2(v, u) + sector, 2 * sector) - sector)
    distance = np.hypot(u, v)
    along, across = distance * np.cos(turn), distance * np.sin(turn)
    inner = 0.48 * shape.radius
    tip, notch = np.array([shape.radius, 0.0]), inner * np.array([np.cos(sector), np.sin(sector)])
    edge = notch - tip
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return ((tip[0] - along) * normal[0] - across * normal[1]).astype(np.float32)


def _blob(shape: _Shape, u: Plane, v: Plane) -> Plane:
    turn = np.arctan2(v, u)
    rim = np.full_like(u, 0.95)
    for order in range(2, 6):
        size = np.clip(shape.lobes[order - 2], -1.2, 1.2) * 0.16 / np.sqrt(order - 1)
        rim += np.float32(size) * np.cos(order * turn + np.float32(shape.lobes[order + 2] * np.pi))
    return shape.radius * np.clip(rim, 0.4, 1.45) - np.hypot(u, v)


def _bar(shape: _Shape, u: Plane, v: Plane) -> Plane:
    thickness = shape.radius * (0.2 + 0.15 * shape.elongation)
    return np.minimum(shape.radius * 1.2 - np.abs(u), thickness - np.abs(v))


_DEPTHS = {"disc": _disc, "ring": _ring, "star": _star, "blob": _blob, "bar": _bar}  # > 0 inside, about in pixels


def _hides_too_much(canvas: _Canvas, window: tuple[int, int, int, int], inside: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the new object is too small, or an earlier one would show too few of its pixels."""
    whole = int(inside.sum())
    if whole < 2 * _MIN_VISIBLE_PX:
        return True
    x0, y0, x1, y1 = window
    owner = canvas.owner[y0:y1, x0:x1]
    for index in np.unique(owner[inside]):
        if index >= 0:
            left = int((canvas.owner == index).sum() - (owner[inside] == index).sum())
            if left < max(_MIN_VISIBLE_PX, _MIN_VISIBLE_SHARE * canvas.whole_px[index]):
                return True
    return False


# --- paint -----------------------------------------------------------------------------------------------------------


def _pattern(
    canvas: _Canvas,
    shape: _Shape,
    window: tuple[int, int, int, int],
    u: Plane,
    v: Plane,
    random: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    """Colours of an object: its class's pattern between two colours of about its class's hue, with light and noise."""
    hue = _HUES[shape.kind] + random.normal(0, _HUE_SPREAD)
    bright, dark = _colour(random, hue, 0.55), _colour(random, hue + random.normal(0, 0.04), 0.55) * 0.6
    x0, y0, x1, y1 = window
    noise = canvas.noise[y0:y1, x0:x1]
    mix = np.clip(_MIXES[shape.kind](shape, u, v, noise) + 0.6 * (noise - 0.5), 0, 1)
    light = 1 + 0.18 * (u * np.cos(shape.angle) - v * np.sin(shape.angle)) / shape.radius
    colours: Float32[np.ndarray, "h w 3"] = (bright * mix[..., None] + dark * (1 - mix[..., None])) * light[..., None]
    return colours


def _mix_disc(shape: _Shape, u: Plane, v: Plane, noise: Plane) -> Plane:
    return 1 - 0.8 * np.hypot(u + 0.3 * shape.radius, v) / shape.radius


def _mix_ring(shape: _Shape, u: Plane, v: Plane, noise: Plane) -> Plane:
    return 0.5 + 0.5 * np.sign(np.sin(np.arctan2(v, u) * 8))


def _mix_star(shape: _Shape, u: Plane, v: Plane, noise: Plane) -> Plane:
    return 0.2 + 0.8 * np.hypot(u, v) / shape.radius


def _mix_blob(shape: _Shape, u: Plane, v: Plane, noise: Plane) -> Plane:
    period = 2 * np.pi / max(0.45 * shape.radius, 6)
    return (np.sin(u * period) * np.sin(v * period) > 0.25).astype(np.float32)


def _mix_bar(shape: _Shape, u: Plane, v: Plane, noise: Plane) -> Plane:
    return 0.5 + 0.45 * np.sin(u * (2 * np.pi / max(0.3 * shape.radius, 5)))


_MIXES = {"disc": _mix_disc, "ring": _mix_ring, "star": _mix_star, "blob": _mix_blob, "bar": _mix_bar}


def _paint(
    canvas: _Canvas, window: tuple[int, int, int, int], depth: Plane, colours: Float32[np.ndarray, "h w 3"]
) -> None:
    x0, y0, x1, y1 = window
    cover = np.clip(depth + 0.5, 0, 1)[..., None]
    part = canvas.image[y0:y1, x0:x1]
    part += cover * (colours - part)


def _paint_shadow(canvas: _Canvas, window: tuple[int, int, int, int], depth: Plane) -> None:
    """Darkens below and to the right of the object, fading out over a few pixels."""
    x0, y0, x1, y1 = window
    shade = np.clip((depth + 3) / 6, 0, 1) * 0.4
    canvas.image[y0 + 3 : y1, x0 + 3 : x1] *= 1 - shade[: y1 - y0 - 3, : x1 - x0 - 3, None]


def _finish(canvas: _Canvas, random: np.random.Generator) -> Scene:
    """Uneven light and the sensor's grain over everything, then the truth."""
    height, width = canvas.owner.shape
    slope = random.normal(0, 0.15, 2)
    light = 1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)[None]
    grain = random.standard_normal((height, width, 1), dtype=np.float32) * random.uniform(0.01, 0.05)
    image = np.clip(canvas.image * light[..., None] + grain, 0, 1) * 255
    labels = tuple(shape.label for shape in canvas.shapes)
    masks = (
        np.stack([canvas.owner == index for index in range(len(labels))]) if labels else np.zeros((0, height, width))
    )
    classes = np.array([*(label + 1 for label in labels), 0], dtype=np.uint8)
    return Scene(np.round(image).astype(np.uint8), masks, labels, classes[canvas.owner])


# --- files -----------------------------------------------------------------------------------------------------------


def _extent(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _write_scene(folder: Path, scene: Scene, index: int) -> dict[str, Any]:
    name = f"{index:05d}.jpg"
    Image.fromarray(scene.image).save(folder / "images" / name, quality=92)
    Image.fromarray(scene.semantic).save(folder / "labels" / f"{index:05d}.png", compress_level=1)
    height, width = scene.semantic.shape
    return {"id": index + 1, "file_name": name, "height": height, "width": width}


def _annotations(scene: Scene, *, image_id: int, first_id: int) -> list[dict[str, Any]]:
    from pycocotools import mask as codec

    rows = []
    for offset, (mask, label, box) in enumerate(zip(scene.masks, scene.labels, scene.boxes_xyxy(), strict=True)):
        rle = codec.encode(np.asfortranarray(mask.astype(np.uint8)))
        rows.append(
            {
                "id": first_id + offset,
                "image_id": image_id,
                "category_id": CATEGORY_IDS[CLASSES[label]],
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "iscrowd": 0,
                "area": int(mask.sum()),
                "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
            }
        )
    return rows


def _write_json(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    categories = [{"id": CATEGORY_IDS[name], "name": name, "supercategory": "drawn"} for name in CLASSES]
    info = {"description": "Drawn scenes of pseudolabel.pipelines.demo.scenes"}
    content = {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
