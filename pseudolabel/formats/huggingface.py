"""`huggingface`: Parquet with a row per image, its bytes and its objects, as `datasets.load_dataset` reads it."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from pseudolabel import rle
from pseudolabel.files import write_text_atomically
from pseudolabel.formats.profile import About, ExportImage, ExportObject, ExportOptions, Profile
from pseudolabel.records import RLE

Row = dict[str, Any]
_FILE_BYTES = 400 << 20
_GROUP_BYTES = 32 << 20
_GROUP_ROWS = 100
_NAMES = {"train": "train", "val": "validation", "test": "test"}
_OBJECTS = {
    "id": pa.int64(),
    "bbox": pa.list_(pa.float32()),
    "category": pa.int64(),
    "area": pa.float64(),
    "iscrowd": pa.bool_(),
    "segmentation": RLE,
    "score": pa.float32(),
    "decision": pa.string(),
    "attributes": pa.string(),
}
_SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "image_id": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "source": pa.string(),
        "objects": pa.struct({name: pa.list_(kind) for name, kind in _OBJECTS.items()}),
    }
)


class HuggingfaceProfile(Profile):
    """Files of at most some hundred megabytes of images per split."""

    takes_boxes: ClassVar[bool] = True
    takes_crowds: ClassVar[bool] = True
    about_loss: ClassVar[str] = "nothing"

    def __init__(self, folder: Path, about: About, options: ExportOptions) -> None:
        super().__init__(folder, about, options)
        schema = _SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": features(about)}})})
        self._files = {split: _Files(folder / "data", _NAMES[split], schema) for split in about.splits}
        self._again: dict[str, Iterator[Row]] = {}

    def image_path(self, image: ExportImage) -> PurePosixPath | None:
        return None

    def add(self, image: ExportImage) -> None:
        held = self.options.images == "copy"
        elsewhere = image.locate() if self.options.images == "link" else None
        path = str(image.name) if held else elsewhere or image.file_name
        objects = [_cell(one) for one in image.objects]
        row = {
            "image": {"bytes": image.load() if held else None, "path": path},
            "image_id": image.id,
            "width": image.size_hw[1],
            "height": image.size_hw[0],
            "source": json.dumps({"file_name": image.file_name, **image.extra}, ensure_ascii=False),
            "objects": {name: [one[name] for one in objects] for name in _OBJECTS},
        }
        self._files[image.split].add(row)

    def close(self) -> None:
        for files in self._files.values():
            files.close()
        licences = ", ".join(str(one.get("name")) for one in self.about.licenses if isinstance(one, dict))
        card = f"---\ntask_categories: [image-segmentation]\n---\nInstance masks by pseudolabel. {licences}\n"
        write_text_atomically(self.folder / "README.md", card)

    def reread(self, image: ExportImage) -> list[rle.Rle | None]:
        rows = self._again.setdefault(image.split, self._files[image.split].rows())
        cells = next(rows)["objects"]["segmentation"]
        return [None if cell is None else rle.check_rle(cell, image.size_hw) for cell in cells]

    def next_step(self, out: Path) -> str:
        return f"python -c \"from datasets import load_dataset; print(load_dataset('{out}')['train'][0])\""


class _Files:
    """The Parquet files of one split; their names tell how many there are, so they get them at the end."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._split, self._schema = folder, split, schema
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[Row] = []
        self._waiting_bytes = self._file_bytes = 0

    def add(self, row: Row) -> None:
        self._waiting.append(row)
        self._waiting_bytes += len(row["image"]["bytes"] or b"")
        if self._waiting_bytes >= _GROUP_BYTES or len(self._waiting) >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._end_file()
        for number, path in enumerate(self._paths):
            name = f"{self._split}-{number:05d}-of-{len(self._paths):05d}.parquet"
            self._paths[number] = path.rename(self._folder / name)

    def rows(self) -> Iterator[Row]:
        """All rows again, their objects alone."""
        for path in self._paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_GROUP_ROWS, columns=["objects"]):
                    yield from batch.to_pylist()

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            self._paths.append(self._folder / f"{self._split}-{len(self._paths):05d}.parquet")
            self._writer = pq.ParquetWriter(self._paths[-1], self._schema)
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._file_bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        if self._file_bytes >= _FILE_BYTES:
            self._end_file()

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._file_bytes = None, 0


def features(about: About) -> Row:
    """The columns as `datasets` describes them, from its version 4 on."""
    names = [one.name for one in about.categories]
    kinds = {name: _feature(kind) for name, kind in _OBJECTS.items()}
    kinds["category"] = {"names": names, "_type": "ClassLabel"}
    known = {name: _feature(_SCHEMA.field(name).type) for name in ("image_id", "width", "height", "source")}
    objects = {name: {"feature": kind, "_type": "List"} for name, kind in kinds.items()}
    return {"image": {"_type": "Image"}, **known, "objects": objects}


def _feature(kind: pa.DataType) -> Row:
    if pa.types.is_struct(kind):
        return {kind.field(place).name: _feature(kind.field(place).type) for place in range(kind.num_fields)}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


def _cell(one: ExportObject) -> Row:
    return {
        "id": one.id,
        "bbox": list(one.box_xywh),
        "category": one.category.place,
        "area": float(rle.area(one.mask) if one.mask else one.box_xywh[2] * one.box_xywh[3]),
        "iscrowd": one.is_crowd,
        "segmentation": one.mask,
        "score": one.score,
        "decision": one.attributes.get("decision"),
        "attributes": json.dumps({**one.fields, **one.attributes}, ensure_ascii=False),
    }
