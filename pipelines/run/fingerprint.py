"""What decides a shard's content, as one hash."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pseudolabel.errors import InputError
from pseudolabel.registry import no_such_file

_CHUNK_BYTES = 1 << 20


def fingerprint(
    stage: str, version: int, config: Mapping[str, Any], weights: Mapping[str, str], inputs: Mapping[str, str]
) -> str:
    """sha256 over the stage and its version, the result-relevant config, the weights and the input shards."""
    content = {
        "stage": stage,
        "version": version,
        "config": dict(config),
        "weights": dict(weights),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Content hash of a file, or of all files below a folder with their names.

    Raises:
        InputError: there is nothing at `path`.
    """
    if path.is_dir():
        return _folder_sha256(path)
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise InputError(no_such_file(path)) from None
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def content_sha256(path: Path) -> str:
    """Content hash of a file, read now whatever was known of it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _folder_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:  # the last two only tell one content from the next
    return content_sha256(path)
