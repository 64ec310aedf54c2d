"""Existing label maps, one PNG per image, as a segmenter that needs no network."""

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int32, Shaped, UInt8
from PIL import Image

from pseudolabel.errors import ConfigError, InputError, RejectError
from pseudolabel.images import read_file
from pseudolabel.registry import did_you_mean
from pseudolabel.segmenters.base import IGNORE_INDEX, Photo, SegmenterOptions, SemanticResult
from pseudolabel.segmenters.class_map import load_classes
from pseudolabel.sources.place import plain_name

_SHOWN_IDS = 8


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """How the values of a PNG mean classes: class index = value + `offset`, except where `ids` lists the values."""

    classes: tuple[str, ...]
    ignore_index: int
    offset: int = 0
    ids: tuple[int, ...] | None = None  # value of each class, where they are not consecutive
    ignored_ids: tuple[int, ...] = ()

    def table(self) -> Int32[np.ndarray, "65536"]:
        """Class index of every possible value, IGNORE_INDEX to be ignored, -1 for unknown."""
        table = np.full(65536, -1, dtype=np.int32)
        values = self.ids if self.ids is not None else range(-self.offset, len(self.classes) - self.offset)
        for index, value in enumerate(values):
            if 0 <= value < 65536:
                table[value] = index
        table[[self.ignore_index, *self.ignored_ids]] = IGNORE_INDEX
        return table


def label_format(name: str) -> LabelFormat:
    """A format by name: `voc`, `ade20k`, `cityscapes-labelids`, `cityscapes-trainids`.

    Raises:
        ConfigError: no such format; the message names the nearest.
    """
    if name not in _FORMATS:
        known = ", ".join([*_FORMATS, "raw"])
        raise ConfigError(f"--label-format {name!r}: not known{did_you_mean(name, _FORMATS)} (known: {known})")
    return _FORMATS[name]()


def _voc() -> LabelFormat:
    return LabelFormat(load_classes("voc").names, 255)


def _ade20k() -> LabelFormat:
    """The value 0 is "other objects": with the offset of -1 no class is left for it, so it is ignored."""
    return LabelFormat(load_classes("ade20k").names, 0, offset=-1)


def _cityscapes_train_ids() -> LabelFormat:
    return LabelFormat(load_classes("cityscapes").names, 255)


def _cityscapes_label_ids() -> LabelFormat:
    listed = load_classes("cityscapes")
    return LabelFormat(listed.names, 255, ids=listed.label_ids, ignored_ids=listed.ignored_label_ids)


_FORMATS: dict[str, Callable[[], LabelFormat]] = {
    "voc": _voc,
    "ade20k": _ade20k,
    "cityscapes-labelids": _cityscapes_label_ids,
    "cityscapes-trainids": _cityscapes_train_ids,
}


_IMAGE_ENDING = "_leftImg8bit"  # Cityscapes'
_ENDINGS = {  # of its label maps, by format
    "cityscapes-labelids": ("_gtFine_labelIds", "_gtCoarse_labelIds"),
    "cityscapes-trainids": ("_gtFine_labelTrainIds", "_gtCoarse_labelTrainIds"),
}


class LabelMaps:
    """Label maps below a folder. Their confidence is 1.

    The map of `a/b.jpg` is `a/b.png` or `b.png`, or one of these with an ending; `_leftImg8bit` is no part of `b` then.

    Args:
        folder: of label maps.
        layout: what their values mean.
        endings: what may stand behind an image's name in its label map's, such as `_gtFine_labelIds`.
    """

    batch_size = 1
    needs_pixels = False

    def __init__(self, folder: Path, layout: LabelFormat, endings: Sequence[str] = ("",)) -> None:
        self._endings = [ending.removesuffix(".png") for ending in endings]
        self.classes = layout.classes
        self.ignore_index = layout.ignore_index
        self._folder = folder
        self._table = layout.table()

    def probe(self) -> None:
        if not self._folder.is_dir():
            raise InputError(f"labels:{self._folder}: no such folder")

    def predict(self, photos: Sequence[Photo]) -> list[SemanticResult | RejectError]:
        return [self._predict_one(photo) for photo in photos]

    def _predict_one(self, photo: Photo) -> SemanticResult | RejectError:
        try:
            values = self._values(photo)
        except RejectError as reject:
            return reject
        if values.shape != photo.size_hw:
            said = (
                f"the label map is {values.shape[0]}x{values.shape[1]}, the image {photo.size_hw[0]}x{photo.size_hw[1]}"
            )
            return RejectError("label_size_mismatch", said)
        indices = self._table[values]
        if (indices < 0).any():
            return RejectError("unknown_label_ids", histogram_text(values[indices < 0]))
        label_map = indices.astype(np.uint8)
        return SemanticResult(label_map, np.where(label_map == IGNORE_INDEX, 0, 255).astype(np.uint8))

    def _values(self, photo: Photo) -> Shaped[np.ndarray, "h w"]:
        names = self._names(PurePosixPath(plain_name(photo.file_name)))
        found = next((name for name in names if (self._folder / name).is_file()), names[0])
        try:
            data = read_file(self._folder, found)
        except RejectError as reject:
            raise RejectError("no_label_file", f"{found}: {reject}{self._near()}") from None
        return decode_indices(data)

    def _names(self, image: PurePosixPath) -> list[str]:
        """What the label map of an image may be called, the likeliest first."""
        bare = image.stem.removesuffix(_IMAGE_ENDING)
        stems = [stem + ending for ending in self._endings for stem in dict.fromkeys((image.stem, bare))]
        return [str(folder / f"{stem}.png") for stem in stems for folder in (image.parent, PurePosixPath())]

    def _near(self) -> str:
        """One of the maps that are there, where names do not meet."""
        there = next(self._folder.rglob("*.png"), None)
        return f"; there is {there.relative_to(self._folder)}: --label-suffix says what ends its name" if there else ""


def open_label_maps(where: str, options: SegmenterOptions) -> LabelMaps:
    """The label maps of a folder; `raw` takes classes, offset and ignore index from the options.

    Raises:
        ConfigError: no format, an unknown one, or `raw` without classes and ignore index.
    """
    name = options.label_format
    if name is None:
        raise ConfigError(
            "labels:DIR needs --label-format voc, ade20k, cityscapes-labelids, cityscapes-trainids or raw"
        )
    layout = _raw(options) if name == "raw" else _with_options(label_format(name), options, name)
    endings = (options.label_suffix,) if options.label_suffix else ("", *_ENDINGS.get(name, ()))
    return LabelMaps(Path(where), layout, endings)


def _raw(options: SegmenterOptions) -> LabelFormat:
    if not options.classes or options.ignore_index is None:
        raise ConfigError("--label-format raw needs --classes and --ignore-index (a value that means: no class)")
    return LabelFormat(options.classes, options.ignore_index, offset=options.label_offset or 0)


def _with_options(layout: LabelFormat, options: SegmenterOptions, name: str) -> LabelFormat:
    if options.classes or options.label_offset is not None:
        raise ConfigError(f"--label-format {name} fixes classes and offset; use raw to give your own")
    if options.ignore_index is None:
        return layout
    kept = tuple({*layout.ignored_ids, layout.ignore_index})
    return LabelFormat(layout.classes, options.ignore_index, layout.offset, layout.ids, kept)


def decode_indices(data: bytes) -> Shaped[np.ndarray, "h w"]:
    """Indices in a PNG of mode L, P or I;16; a palette's colours are never looked at.

    Raises:
        RejectError: `undecodable`, or `unsupported_format` for a picture in colours.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            if image.mode not in ("1", "L", "P", "I;16"):
                raise RejectError(
                    "unsupported_format",
                    f"a label map holds class indices in one channel, this PNG is a picture in colours ({image.mode}); "
                    "convert its colours to indices",
                )
            return np.array(image if image.mode != "1" else image.convert("L").point(lambda v: v // 255))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RejectError("undecodable", f"{type(error).__name__}: {error}") from None


def histogram_text(values: Shaped[np.ndarray, " n"]) -> str:
    """The most frequent values with their counts, for a message."""
    ids, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{ids[i]} ({counts[i]} px)" for i in order[:_SHOWN_IDS])
    more = f" and {len(ids) - _SHOWN_IDS} others" if len(ids) > _SHOWN_IDS else ""
    return f"ids that the format does not know: {shown}{more}"


def encode_indices(values: UInt8[np.ndarray, "h w"]) -> bytes:
    """A gray PNG, compressed fast."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
