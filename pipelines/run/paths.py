"""The one file that spells a path inside a run folder."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pseudolabel.errors import ConfigError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_PART = re.compile(r"part-(\d{5,})-of-(\d{5,})\.parquet")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where everything of one run stands."""

    root: Path

    def __post_init__(self) -> None:
        """Raises ConfigError for a URL, whose `//` a path has lost already."""
        if self.root.parts and _SCHEME.fullmatch(self.root.parts[0]):
            raise ConfigError(
                f"the run folder is on an object store ({self.root.parts[0]}//...): shards are committed by an atomic "
                "rename, which stores do not have; give a folder on a local or network file system. "
                "Images may stay on the store: --images s3://bucket/prefix"
            )

    @property
    def typed(self) -> str:
        """The run folder as a shell takes it, for messages that say what to type."""
        return shlex.quote(str(self.root))

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    def table(self, table: str) -> Path:
        """Folder of a table: `manifest`, `semantic`, `candidates/siseg`, `pseudo`, or `plan` for the frozen inputs."""
        return self.root / table

    def part(self, table: str, shard: int, num_shards: int) -> Path:
        """The one file of a table's shard."""
        return self.table(table) / f"part-{shard:05d}-of-{num_shards:05d}.parquet"

    def failure(self, stage: str, shard: int) -> Path:
        """What the last failed attempt at a shard said, as JSON."""
        return self.root / "_failures" / stage / f"{shard:05d}.json"

    def running(self, stage: str) -> Path:
        """Folder of notes about who works on which shard now."""
        return self.root / "_running" / stage

    def known(self, table: str) -> Path:
        """Which parts of a table were found whole, as JSON; see `known_parts.py`."""
        return self.root / "_known" / f"{table}.json"

    def seal(self, path: Path) -> Path:
        """What is known of a file of the run that is no part, as JSON; see `seals.py`."""
        return self.root / "_seals" / f"{path.relative_to(self.root).as_posix()}.json"

    def crashes(self, stage: str, shard: int) -> Path:
        """Which images of a shard killed a decoder, as JSON."""
        return self.root / "_crashes" / stage / f"{shard:05d}.json"

    def submissions(self) -> Path:
        """Folder of what was handed to a scheduler: job, lists of shards, script and logs of each submission."""
        return self.root / "_slurm"

    def config(self, table: str) -> Path:
        """The effective config with which a table was last written."""
        return self.root / "config" / f"{table}.yaml"

    def model(self, name: str) -> Path:
        """Weights that a training stage of this run wrote: `siseg`, `teacher`, `student`."""
        return self.root / "models" / f"{name}.safetensors"

    def logs(self, stage: str) -> Path:
        """Training logs of a stage."""
        return self.root / "logs" / stage

    def pictures(self, stage: str) -> Path:
        """Pictures that a stage draws for people."""
        return self.root / "pictures" / stage

    @property
    def reviews(self) -> Path:
        """Folder of what people answered: NAME.jsonl of each reviewer; see `pseudolabel.reviews`."""
        return self.root / "reviews"

    def round(self, number: int) -> "RunPaths":
        """The run folder of a further round of self-training."""
        return RunPaths(self.root / "rounds" / str(number))

    def candidate_tables(self) -> tuple[str, ...]:
        """Names of the candidate tables, sorted; one whose parts are gone is among them, and missed."""
        folders = sorted((self.root / "candidates").glob("[!.]*/"))
        return tuple(f"candidates/{folder.name}" for folder in folders)


def parse_part_name(name: str) -> tuple[int, int] | None:
    """(shard, number of shards) of a part's file name, None for any other name."""
    match = _PART.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None
