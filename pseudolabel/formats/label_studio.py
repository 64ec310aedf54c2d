"""`label-studio`: tasks.json with brush masks as predictions that have a score, label_config.xml, and images/.

Label Studio packs the four channels of a brush mask as a stream of bits (`@thi.ng/rle-pack`): the number of values in
32 bits, the bits of a value less one in 5, the bits of four sizes of runs less one in 4 each; then for each run a bit
that it is one, the size's place in 2, its length less one in so many bits, and the value.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from pseudolabel import rle
from pseudolabel.files import atomic_file, write_text_atomically
from pseudolabel.formats.coco import JsonList
from pseudolabel.formats.profile import About, ExportImage, ExportObject, ExportOptions, Profile

Row = dict[str, Any]
_SIZES_BITS = (4, 8, 12, 16)
_WORD_BITS = 8
_CHANNELS = 4


class LabelStudioProfile(Profile):
    """A task per image, a line of tasks.json each."""

    takes_boxes: ClassVar[bool] = True
    about_loss: ClassVar[str] = "crowds; the split"

    def __init__(self, folder: Path, about: About, options: ExportOptions) -> None:
        super().__init__(folder, about, options)
        self._path = folder / "tasks.json"
        self._file = atomic_file(self._path)
        self._tasks = JsonList(self._file.__enter__())
        self._again: Iterator[bytes] | None = None

    def add(self, image: ExportImage) -> None:
        here = f"/data/local-files/?d={quote(f'images/{image.name}')}"
        results = [_result(one, image.size_hw) for one in image.objects]
        mean = float(np.mean([one.score for one in image.objects])) if image.objects else 0.0
        prediction = {"model_version": "pseudolabel", "score": mean, "result": results}
        data = {"image": image.file_name if self.options.images == "none" else here}
        meta = {**image.extra, "file_name": image.file_name, "image_id": image.id, "split": image.split}
        self._tasks.add({"data": data, "meta": meta, "predictions": [prediction]})

    def close(self) -> None:
        self._tasks.end()
        self._file.__exit__(None, None, None)
        write_text_atomically(self.folder / "label_config.xml", _config([one.name for one in self.about.categories]))

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        self._again = self._again or self._lines()
        results = json.loads(next(self._again).rstrip(b",\n"))["predictions"][0]["result"]
        return [_mask(one["value"], image.size_hw) if one["type"] == "brushlabels" else None for one in results]

    def next_step(self, out: Path) -> str:
        serving = "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true"
        root = f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={out.resolve()}"
        files = f"{out / 'label_config.xml'}, then import {out / 'tasks.json'}"
        return f"{serving} {root} label-studio start; a project with {files}"

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            next(file)  # the bracket
            yield from file


def packed_runs(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, " n"]:
    """A mask as the bytes of Label Studio's brush, 255 inside and 0 outside in each of four channels."""
    values, lengths = _runs(mask)
    size = np.searchsorted(2 ** np.array(_SIZES_BITS), lengths)
    bits = np.array(_SIZES_BITS)[size]
    code = (((0b100 | size) << bits | (lengths - 1)) << _WORD_BITS) | values * 255
    head = [(mask.size * _CHANNELS, 32), (_WORD_BITS - 1, 5), *((one - 1, 4) for one in _SIZES_BITS)]
    codes = np.concatenate([[value for value, _ in head], code]).astype(np.int64)
    widths = np.concatenate([[width for _, width in head], 3 + bits + _WORD_BITS]).astype(np.int64)
    first = np.cumsum(widths) - widths
    place = np.arange(widths.sum()) - np.repeat(first, widths)
    return np.packbits((np.repeat(codes, widths) >> (np.repeat(widths, widths) - 1 - place)) & 1)


def unpacked_runs(packed: UInt8[np.ndarray, " n"], size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of a brush that holds runs alone, as `packed_runs` writes them: what is more than half opaque."""
    stream = _Bits(packed)
    count, word = stream.read(32), stream.read(5) + 1
    sizes = [stream.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.uint8)
    at = 0
    while at < count:
        if not stream.read(1):
            raise ValueError("a stretch of single values, which this reader of runs does not take")
        end = at + 1 + stream.read(sizes[stream.read(2)])
        values[at:end] = stream.read(word)
        at = end
    return values.reshape(*size_hw, _CHANNELS)[:, :, 3] > 127


class _Bits:
    def __init__(self, packed: UInt8[np.ndarray, " n"]) -> None:
        self._text = "".join(map(str, np.unpackbits(packed)))
        self._at = 0

    def read(self, count: int) -> int:
        self._at += count
        return int(self._text[self._at - count : self._at], 2)


def _runs(mask: Bool[np.ndarray, "h w"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Value 0 or 1 and length of each run of the four channels along the rows, none longer than a size can tell."""
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    values = flat[ends - 1].astype(np.int64)
    longest = 2 ** _SIZES_BITS[-1]
    pieces = -(-lengths // longest)
    rest = lengths - (pieces - 1) * longest
    cut = np.full(pieces.sum(), longest, dtype=np.int64)
    cut[np.cumsum(pieces) - 1] = rest
    return np.repeat(values, pieces), cut


def _result(one: ExportObject, size_hw: tuple[int, int]) -> Row:
    height, width = size_hw
    common = {
        "id": str(one.id),
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": one.score,
        "meta": one.attributes,
    }
    if one.mask is None:
        x, y, w, h = one.box_xywh
        place = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
        value = {**place, "rotation": 0, "rectanglelabels": [one.category.name]}
        return {**common, "type": "rectanglelabels", "from_name": "box", "value": value}
    packed = packed_runs(rle.decode(one.mask)).tolist()
    brush = {"format": "rle", "rle": packed, "brushlabels": [one.category.name]}
    return {**common, "type": "brushlabels", "from_name": "mask", "value": brush}


def _mask(value: Row, size_hw: tuple[int, int]) -> rle.Rle:
    return rle.encode(unpacked_runs(np.array(value["rle"], dtype=np.uint8), size_hw))


def _config(names: list[str]) -> str:
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in names)
    brush = f'  <BrushLabels name="mask" toName="image">\n{labels}  </BrushLabels>\n'
    boxes = f'  <RectangleLabels name="box" toName="image">\n{labels}  </RectangleLabels>\n'
    return f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{brush}{boxes}</View>\n'
