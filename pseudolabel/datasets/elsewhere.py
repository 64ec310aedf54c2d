"""Images that lie in a store or in archives: bare, or with the annotations of another reader.

Every row of the manifest gets the place of its image (`pseudolabel.sources.place`), so that no later stage looks an
image up, and where images are read together cheaply, the key that keeps them in one shard.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudolabel.datasets.base import Dataset
from pseudolabel.datasets.manifest import image_row, rejected_image, rejected_with_objects
from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources import ImageSource
from pseudolabel.sources.folder import check_name
from pseudolabel.sources.listing import printable_key
from pseudolabel.sources.place import plain_name

Row = dict[str, Any]


class SourceDataset:
    """All images of a source, without boxes; ids count from 1 in the order of the names."""

    def __init__(self, source: ImageSource, annotations: Path | None) -> None:
        if annotations is not None:
            raise InputError(f"{annotations}: bare images have no annotations; name another format or leave them out")
        self.categories: list[Row] = []
        self.info: Row = {}
        self.licenses: list[Any] = []
        self.notes: list[str] = []
        self._source = source

    def rows(self) -> Iterator[Row]:
        keys: set[str] = set()
        for number, name in enumerate(self._source.names(), start=1):
            yield self._row(name, number, keys)
        for archive, what in self._source.damage():
            yield rejected_image(archive, None, None, RejectError("undecodable", what))

    def _row(self, name: str, number: int, keys: set[str]) -> Row:
        try:
            key = check_name(plain_name(name))
            if key in keys:
                raise RejectError("duplicate_image", f"another image has the name {key!r}")
        except RejectError as error:
            return rejected_image(f"images[{number}] {printable_key(plain_name(name))[:200]}", number, None, error)
        keys.add(key)
        row = image_row(key, number, file_name=name, size_hw=None, objects=[])
        return row | {"shard_key": self._source.shard_key(name)}


class LocatedDataset:
    """Another reader's rows, with the places of their images."""

    def __init__(self, dataset: Dataset, source: ImageSource) -> None:
        self.categories, self.info, self.licenses = dataset.categories, dataset.info, dataset.licenses
        self.notes = dataset.notes
        self._dataset, self._source = dataset, source

    def rows(self) -> Iterator[Row]:
        for row in self._dataset.rows():
            if row["status"] == "rejected":
                yield row
            else:
                yield from self._located(row)

    def _located(self, row: Row) -> Iterator[Row]:
        try:
            name = self._source.located(row["file_name"])
        except RejectError as error:
            numbers = [cell["annotation_id"] for cell in row["objects"]]
            yield from rejected_with_objects(row["image_key"], row["image_id"], row["file_name"], numbers, error)
            return
        yield row | {"file_name": name, "shard_key": self._source.shard_key(name)}
