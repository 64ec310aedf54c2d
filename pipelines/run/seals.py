"""Files of a run that are no parts: what they were when they were written, so that damage and loss are seen.

Beside a run's exports, models and configs `_seals/PATH.json` says how many bytes a file has, their sha256, how many
entries it holds, and what it was made of; its own digest stands in its first line.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pseudolabel.files import write_text_atomically
from pseudolabel.pipelines.run.commit import DamagedPartError, damage_named
from pseudolabel.pipelines.run.fingerprint import content_sha256
from pseudolabel.pipelines.run.paths import RunPaths


@dataclass(frozen=True, slots=True)
class Seal:
    """What a file was when it was written."""

    size_bytes: int
    sha256: str
    made_of: str = ""  # a hash of what it was made from
    entries: Mapping[str, int] = field(default_factory=dict)


def seal(run: RunPaths, path: Path, *, made_of: str = "", entries: Mapping[str, int] | None = None) -> Seal:
    """Write down what a file of the run is now."""
    made = Seal(path.stat().st_size, content_sha256(path), made_of, dict(entries or {}))
    text = json.dumps(asdict(made), sort_keys=True) + "\n"
    write_text_atomically(run.seal(path), f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    return made


def read_seal(run: RunPaths, path: Path) -> Seal | None:
    """What was written down about a file, None where nothing was.

    Raises:
        DamagedPartError: the note itself is damaged.
    """
    note = run.seal(path)
    try:
        with damage_named(note):
            digest, _, text = note.read_bytes().partition(b"\n")
            if digest.decode() != hashlib.sha256(text).hexdigest():
                raise ValueError("its digest is not that of its content")
            return Seal(**json.loads(text))
    except FileNotFoundError:
        return None


def check_seal(run: RunPaths, path: Path) -> Seal:
    """The seal of a file that is what it was.

    Raises:
        DamagedPartError: it has no seal, is gone, or is another one now.
    """
    made = read_seal(run, path)
    if made is None:
        raise DamagedPartError(f"{path}: nobody wrote down what it was; make it again")
    if not path.is_file():
        raise DamagedPartError(f"{path}: missing; run the command that writes it again")
    if (path.stat().st_size, content_sha256(path)) != (made.size_bytes, made.sha256):
        raise DamagedPartError(f"{path}: damaged: its sha256 is not what was written; delete it and make it again")
    return made


def sealed(run: RunPaths) -> Iterator[Path]:
    """Every file of the run that has a seal, whether it is there or not."""
    top = run.root / "_seals"
    for note in sorted(top.rglob("*.json")):
        if not note.name.startswith("."):
            yield run.root / note.relative_to(top).with_suffix("")


def is_current(run: RunPaths, path: Path, made_of: str) -> bool:
    """Whether a file is there, is what was written, and was made of this."""
    try:
        return check_seal(run, path).made_of == made_of
    except DamagedPartError:
        return False
