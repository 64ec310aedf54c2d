"""Models that are known to work: where they come from, under which licence, how to fetch and how to name them.

The list is `data/models.yaml`, the segmenters' cards are in `data/cards`. Nothing here fetches anything.
"""

import hashlib
import importlib.resources
from pathlib import Path
from typing import Any

from pydantic import Field

from pseudolabel.config import Config, parse_config
from pseudolabel.errors import InputError
from pseudolabel.yaml_file import read_yaml

KINDS = ("segmenters", "promptable models", "encoders")


class KnownModel(Config):
    """One entry. A hash or size that nobody has seen is left out; `sha256_begins` is what a publisher promises."""

    kind: str
    name: str
    what: str
    source: str
    licence: str
    size_bytes: int | None = Field(None, ge=1)
    size_mb: float | None = Field(None, gt=0)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    sha256_begins: str | None = Field(None, pattern="^[0-9a-f]{8,63}$")
    fetch: str | None = None  # what to type where there is a network; None where no such file is published
    use: str
    card: str | None = None

    @property
    def size_text(self) -> str:
        """Its size for people, empty where nobody knows it."""
        size_mb = self.size_bytes / 1e6 if self.size_bytes else self.size_mb
        return f"{size_mb:.1f} MB" if size_mb else ""

    def is_file(self, path: Path) -> bool:
        """Whether a file is this model, by its content."""
        if self.sha256:
            return path.stat().st_size == self.size_bytes and _sha256(path) == self.sha256
        return bool(self.sha256_begins and self.sha256_begins in path.name) and _sha256(path).startswith(
            str(self.sha256_begins)
        )


def known_models() -> list[KnownModel]:
    """All of them, in the order of the file."""
    content: dict[str, list[dict[str, Any]]] = read_yaml(_data() / "models.yaml")
    return [
        parse_config(KnownModel, {"kind": kind, **entry}, where=f"models.yaml, {kind}")
        for kind in KINDS
        for entry in content[kind]
    ]


def shipped_cards() -> dict[str, Path]:
    """The cards that come with the package, by name."""
    return {path.stem: path for path in sorted((_data() / "cards").glob("*.yaml"))}


def card_path(weights: Path, card: Path | None = None) -> Path | None:
    """The card of a file of weights; None where there is none.

    Args:
        card: a file, or the name of a card that ships; None looks beside the weights, and then whether the file is one
            of the known models, by its content.

    Raises:
        InputError: `card` is neither.
    """
    shipped = shipped_cards()
    if card is not None:
        if not card.exists() and str(card) not in shipped:
            raise InputError(f"{card}: no such model card, nor one that ships ({', '.join(shipped)})")
        return card if card.exists() else shipped[str(card)]
    beside = weights.with_suffix(".yaml")
    if beside.is_file() or not weights.is_file():
        return beside if beside.is_file() else None
    return next((shipped[one.card] for one in known_models() if one.card and one.is_file(weights)), None)


def _data() -> Path:
    return Path(str(importlib.resources.files("pseudolabel.data")))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
