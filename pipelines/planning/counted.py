"""What hangs on the number of images: how many shards there are, and which images a sample has."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pseudolabel.errors import ConfigError
from pseudolabel.files import machine_faults_named

_SMALL, _LARGE = 16, 256  # images of a shard: at least, and at most where there are many shards
_MANY = 16
_ALL = "all"


def default_shards(n_images: int) -> int:
    """Number of shards for so many images: of 16 images and more each, of 256 where that makes more than 16 shards."""
    return max(1, min(_MANY, -(-n_images // _SMALL)), -(-n_images // _LARGE))


class CountedRows:
    """A reader's rows on disk, so that they can be counted before they are given.

    Args:
        rows: images, each followed by what was refused on it under the same image key.
        folder: takes one file, as large as the rows.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
        self._path = folder / _ALL
        keys: dict[str, None] = {}
        with machine_faults_named(folder), self._path.open("w", encoding="utf-8") as file:
            for row in rows:
                keys[row["image_key"]] = None
                file.write(json.dumps(row, sort_keys=True) + "\n")
        self._ranks = sorted(map(_rank, keys))

    @property
    def n_images(self) -> int:
        """Images with a row, usable or not."""
        return len(self._ranks)

    def rows(self, n_wanted: int | None = None) -> Iterator[Mapping[str, Any]]:
        """The rows of all images, or of so many, drawn by a hash of their keys, whatever the order."""
        last = None if n_wanted is None else self._ranks[min(n_wanted, self.n_images) - 1]
        with machine_faults_named(self._path), self._path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if last is None or _rank(row["image_key"]) <= last:
                    yield row


def sample_size(sample: float, n_images: int) -> int:
    """How many images a sample has: below 1 a share of them, at least one; else a number.

    Raises:
        ConfigError: a number of images that is not whole.
    """
    if sample < 1:
        return max(1, round(sample * n_images))
    if sample != int(sample):
        raise ConfigError(f"--sample {sample}: expected a share such as 0.01, or a whole number of images such as 500")
    return min(int(sample), n_images)


def _rank(image_key: str) -> bytes:
    """Says nothing of the shard that an image goes to, which another hash decides."""
    return hashlib.blake2b(image_key.encode("utf-8", "surrogateescape"), digest_size=8, person=b"sample").digest()
