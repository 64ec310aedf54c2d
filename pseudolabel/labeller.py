"""One picture in memory and its boxes to scored masks, as the stages do it over a run.

The parts are the stages' own: candidates of `infer-semantic` (or `infer-colors`), then `fuse`. Between the two a
candidate is what its table would hold, so that the masks are those of a run, bit for bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from pydantic import TypeAdapter, ValidationError

from pseudolabel import records
from pseudolabel.boxes import check_xywh, clip_xywh, xyxy_to_xywh
from pseudolabel.candidates import Candidate, GivenBox, candidates_by_image
from pseudolabel.config import parse_config
from pseudolabel.errors import ConfigError, InputError, RejectError
from pseudolabel.fusion.image_rows import image_rows
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.score_model import load_score_model
from pseudolabel.fusion.settings import label_settings
from pseudolabel.labels import STAGE, Labels
from pseudolabel.masks import SoftMask
from pseudolabel.segmenters.base import Photo, Segmenter, SegmenterOptions, open_segmenter
from pseudolabel.segmenters.candidates import color_candidates, semantic_candidates
from pseudolabel.segmenters.closer_looks import CloserLooks
from pseudolabel.segmenters.known_classes import KnownClasses
from pseudolabel.segmenters.network import NetworkSegmenter

Pixels = UInt8[np.ndarray, "h w 3"]
_ONE_CLASS = "object"


def label_image(
    rgb: Any,
    boxes_xyxy: Float[np.ndarray, "n 4"] | Sequence[Sequence[float]],
    model: Segmenter | str | None = None,
    classes: str | Sequence[str] | None = None,
    **options: Any,
) -> Labels:
    """A mask and a score for every box on one picture.

    Without a model the masks come from boxes and colours alone, as of `infer-colors`; with one, from what it sees of
    each box's class, as of `infer-semantic`. A model that is used again should be loaded once, by `load_segmenter`.

    Args:
        rgb: the picture, (h, w, 3) uint8, or what numpy makes that of, such as a PIL image.
        boxes_xyxy: left, top, right and bottom of every box in pixels.
        model: `onnx:FILE`, `smp:DIR` or `torchvision:NAME`, or a loaded one.
        classes: the class of every box by name, or one for all; a model needs them.
        options: those of `pseudolabel fuse --help-all` that are no run's, with underscores.

    Raises:
        InputError: the picture or a box is not what it should be.
        ConfigError: an unknown option, or a model without classes.
    """
    pixels = _pixels(rgb)
    boxes, names = _given(boxes_xyxy, classes, pixels, needed=model is not None)
    config = parse_config(FuseOptions, options, where="label_image")
    segmenter = None if model is None else _opened(model)
    found = color_candidates(boxes, pixels) if segmenter is None else _seen(segmenter, pixels, boxes, names)
    calibration = load_score_model(config.calibration) if config.calibration else None
    rows = image_rows(
        boxes,
        as_stored(found),
        (pixels.shape[0], pixels.shape[1]),
        label_settings(config, calibration=calibration),
        calibration=calibration,
        rgb=pixels,
    )
    return Labels.of_image(rows, pixels, [{"id": number, "name": name} for number, name in names.items()])


def load_segmenter(model: str, **options: Any) -> Segmenter:
    """A pretrained semantic segmenter, ready to be asked.

    Args:
        model: `onnx:FILE`, `smp:DIR-or-hub-id` or `torchvision:NAME`.
        options: fields of `segmenters.base.SegmenterOptions`, such as `classes`, `card`, `weights`, `long_side` and
            `device` (`cpu` if not given).

    Raises:
        ConfigError: a bad spec or an unknown option.
        InputError: a file is missing or is not what it should be.
    """
    if not isinstance(model, str):
        raise ConfigError(f"model: expected onnx:FILE, smp:DIR or torchvision:NAME, got {model!r:.60}")
    segmenter = open_segmenter(model, _checked(options))
    segmenter.probe()
    return segmenter


def as_stored(found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates as a table gives them back: numbers in single precision."""
    rows = [{"image_key": "", **one.to_row(), **records.ok(STAGE)} for one in found]
    return candidates_by_image([records.table_from_rows(rows, records.CANDIDATES)]).get("", [])


def _seen(segmenter: Segmenter, pixels: Pixels, boxes: Sequence[GivenBox], names: Mapping[int, str]) -> list[Candidate]:
    """What `infer-semantic` makes of one picture."""
    if not segmenter.needs_pixels:
        raise ConfigError("this model knows pictures by their file names alone; a picture in memory has none")
    known, photo = KnownClasses(names), Photo("image", (pixels.shape[0], pixels.shape[1]), pixels)
    if isinstance(segmenter, NetworkSegmenter):
        seen = CloserLooks(segmenter, known).of([(boxes, photo)])[0]
    else:
        seen = Seen(segmenter.predict([photo])[0])
    if isinstance(seen.maps, RejectError):
        raise seen.maps
    closer: dict[int | None, list[SoftMask]] = {}
    for number, mask in seen.looks or ():
        if isinstance(mask, RejectError):
            raise mask
        closer.setdefault(number, []).append(mask)
    return semantic_candidates(known.of(boxes, segmenter.classes), seen.maps, pixels, closer=closer)


def _pixels(rgb: Any) -> Pixels:
    pixels = np.asarray(rgb)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise InputError(
            f"the picture: expected (height, width, 3) of uint8, got {pixels.shape} of {pixels.dtype}; "
            "a PIL image becomes that by  image.convert('RGB')"
        )
    return pixels


def _given(
    boxes_xyxy: Any, classes: str | Sequence[str] | None, pixels: Pixels, *, needed: bool
) -> tuple[list[GivenBox], dict[int, str]]:
    """Boxes numbered from 1, clipped to the picture as `shard` does it, and the names of their categories."""
    corners = _corners(boxes_xyxy)
    if classes is None and needed:
        raise ConfigError("a model has to be told the boxes' classes: classes=['car', ...], or classes='car' for all")
    said = [classes or _ONE_CLASS] * len(corners) if classes is None or isinstance(classes, str) else _names(classes)
    if len(said) != len(corners):
        raise InputError(f"expected a class for each of {len(corners)} boxes, got {len(said)} classes")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(said), start=1)}
    boxes = [
        GivenBox(place, numbers[name], _clipped(place, box, pixels))
        for place, (box, name) in enumerate(zip(corners, said, strict=True), start=1)
    ]
    return boxes, {number: name for name, number in numbers.items()}


def _corners(boxes_xyxy: Any) -> Float[np.ndarray, "n 4"]:
    try:
        corners = np.asarray(boxes_xyxy, dtype=np.float64)
        return corners.reshape(-1, 4) if corners.size else np.zeros((0, 4))
    except (TypeError, ValueError):
        raise InputError(
            f"boxes: expected rows of four numbers, left, top, right, bottom, got {str(boxes_xyxy)[:60]}"
        ) from None


def _clipped(place: int, box_xyxy: Any, pixels: Pixels) -> tuple[float, float, float, float]:
    try:
        return clip_xywh(check_xywh(xyxy_to_xywh(box_xyxy[None])[0].tolist()), (pixels.shape[0], pixels.shape[1]))
    except RejectError as error:
        raise InputError(
            f"box {place} of {box_xyxy.tolist()}, taken as left, top, right, bottom in pixels: {error.detail}"
        ) from None


def _opened(model: Any) -> Segmenter:
    loaded: Segmenter = model if hasattr(model, "needs_pixels") else load_segmenter(model)
    return loaded


def _names(classes: Any) -> list[str]:
    names = list(classes) if isinstance(classes, Iterable) and not isinstance(classes, Mapping) else [classes]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"classes: expected a name for all boxes, or a list with one for each, got {classes!r:.60}")
    return names


def _checked(options: Mapping[str, Any]) -> SegmenterOptions:
    """The options of `load_segmenter`: tuples for lists, paths for their text."""
    try:
        SegmenterOptions(**options)  # pydantic lets unknown names pass
        return TypeAdapter(SegmenterOptions).validate_python(dict(options))
    except TypeError as error:
        raise ConfigError(f"load_segmenter: {str(error).removeprefix('SegmenterOptions.__init__() ')}") from None
    except ValidationError as error:
        found = [f"{one['loc'][0]}: {one['msg']} (got {one['input']!r:.60})" for one in error.errors()]
        raise ConfigError(f"load_segmenter: {'; '.join(found)}") from None
