"""Where images lie: a folder, a prefix of an object store, tar shards (WebDataset), Parquet files with embedded images.

A place is one string, as `shard --images` takes it:

    images/                                  a folder
    s3://bucket/images                       a prefix of an S3-compatible store (gs:// and abfs:// go the same way)
    shards/train-{000000..000099}.tar        tar shards, by a range, by `*`, or one of them; local or on a store
    s3://bucket/data/train-*.parquet#image   Parquet files; `#column` where more than one column holds images

`open_source` gives the object that turns a file name into bytes; nothing else in the package opens an image.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pseudolabel.sources.place import archive_suffix, is_url

ImagesRoot = str | Path


class ImageSource(Protocol):
    """File names to bytes. An instance may be used by several threads at once."""

    def check(self) -> None:
        """Pass if the place is there and may be read.

        Raises:
            InputError: no such folder, bucket, archive or column.
            MachineError: the store refuses us, or cannot be reached.
        """

    def read(self, file_name: str, *, max_bytes: int, first_bytes: int | None = None) -> bytes:
        """The bytes of one image.

        Raises:
            RejectError: this image cannot be had: `missing`, `too_large`, `empty_file`, `outside_root`, ...
            MachineError, OSError: the machine's or the store's fault, after some tries.
        """

    def names(self) -> Iterator[str]:
        """Names of all images, sorted, each with its place where it has one (see `pseudolabel.sources.place`)."""

    def damage(self) -> Iterator[tuple[str, str]]:
        """Archives that could be listed in part only, each with what is wrong with it."""

    def located(self, file_name: str) -> str:
        """The name with its place in an archive, so that whoever reads it needs no index; else the name itself.

        Raises:
            RejectError: `missing`, or `duplicate_image` where several archives hold that name.
        """

    def shard_key(self, file_name: str) -> str | None:
        """What images that are cheaply read together have in common; None where there is no such thing."""


def open_source(root: ImagesRoot) -> ImageSource:
    """The source of a place; the same object for the same place.

    Raises:
        ConfigError: the place holds credentials, or is of a kind that we cannot read.
    """
    return _open(str(root))


@lru_cache(maxsize=16)
def _open(root: str) -> ImageSource:
    suffix = archive_suffix(root)
    if suffix == ".tar":
        from pseudolabel.sources.tar import TarShards

        return TarShards(root)
    if suffix == ".parquet":
        from pseudolabel.sources.parquet import ParquetImages

        return ParquetImages(root)
    if is_url(root):
        from pseudolabel.sources.store import StoreFolder

        return StoreFolder(root)
    from pseudolabel.sources.folder import Folder

    return Folder(Path(root))


# a loader's forked process opens its own connections
os.register_at_fork(after_in_child=_open.cache_clear)
