"""The config with which a table was last written, as a YAML file in the run that tells when it is damaged."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.run.commit import DamagedPartError, damage_named
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.yaml_file import dump_yaml, read_yaml

_TABLE = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)?")
_DIGEST = "\n# sha256 of the lines above: "


@dataclass(frozen=True, slots=True)
class SavedConfig:
    """What a stage was asked."""

    stage: str
    table: str  # that it writes
    device: str
    config: Mapping[str, Any]
    weights: Mapping[str, str]


def save_config(run: RunPaths, saved: SavedConfig) -> None:
    """Write the config, its digest in the last line."""
    values = {name: getattr(saved, name) for name in SavedConfig.__slots__}
    text = dump_yaml(json.loads(json.dumps(values, default=dict))).rstrip("\n")
    write_text_atomically(run.config(saved.table), f"{text}{_DIGEST}{_sha256(text)}\n")


def read_saved_config(path: Path) -> SavedConfig:
    """The config in a file of `RUN/config`.

    Raises:
        DamagedPartError: it is not what was written.
    """
    with damage_named(path):
        text, _, digest = path.read_text(encoding="utf-8").partition(_DIGEST)
        if digest != _sha256(text) + "\n":
            raise ValueError("its digest is not that of its content")
        saved = SavedConfig(**read_yaml(path))
        if not _TABLE.fullmatch(saved.table):
            raise ValueError(f"no table can be called {saved.table!r:.60}")
    return saved


def saved_configs(run: RunPaths) -> tuple[list[SavedConfig], list[DamagedPartError]]:
    """The config of every table that a stage wrote here, and what is damaged of them.

    A file that version 0.1.0 named by its stage tells of its table where no other does.
    """
    saved: dict[str, SavedConfig] = {}
    damaged: list[DamagedPartError] = []
    for path in sorted((run.root / "config").rglob("*.yaml")):
        try:
            one = read_saved_config(path)
        except DamagedPartError as error:
            damaged.append(error)
            continue
        if one.table not in saved or path == run.config(one.table):
            saved[one.table] = one
    return list(saved.values()), damaged


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
