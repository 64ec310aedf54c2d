"""What a stage is: it reads tables of one shard and returns one table of the same shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import pyarrow as pa

from pseudolabel.config import Config, option
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pixel_rule import ExifRule, PixelRule, Stretch

TABLE_NAME = r"^[a-z0-9][a-z0-9_-]*$"  # of a candidate table that a command line names


class StageConfig(Config):
    """Options that every stage has; none of them can change a result."""

    workers: int = option(0, "worker processes; 0 = one per GPU, else one per core", changes_result=False, ge=0)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False, pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    max_reject_rate: float = option(
        0.05, "a shard of 20 or more units fails above this share of rejects", changes_result=False, ge=0, le=1
    )


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of the run an attempt works on, and where the images are."""

    index: int
    num_shards: int
    images_root: str | Path  # as `pseudolabel.sources` has it
    exif: ExifRule  # this and what follows: the rule that the plan fixed for the whole run
    stretch: Stretch = "auto"
    channels: tuple[int, ...] = ()
    page: int | None = None

    @property
    def rule(self) -> PixelRule:
        """How its images are decoded."""
        return PixelRule(self.exif, self.stretch, self.channels, self.page)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker of a stage wants."""

    cpus: int = 1
    gpu: bool = False  # uses a GPU where there is one


class Stage(Protocol):
    """One step over the shards of a run.

    An instance belongs to one worker process. The driver also makes one, to ask for `reads` and `weights`, and never
    calls `setup` on it.
    """

    name: ClassVar[str]  # as the user types it: "infer-semantic"
    version: ClassVar[int]  # raise it whenever the same input and config give other output
    config_class: ClassVar[type[StageConfig]]
    resources: ClassVar[Resources]
    unit: ClassVar[Literal["image", "object"]]  # what n_in, n_ok and n_rejected count
    schema: ClassVar[pa.Schema]
    writes: str  # the table it writes: "semantic", "candidates/siseg"

    def __init__(self, config: StageConfig, run: RunPaths) -> None: ...

    def reads(self) -> tuple[str, ...]:
        """The tables it needs for a shard; their fingerprints become part of its own."""

    def weights(self) -> Mapping[str, Path]:
        """Files whose content decides the result, by a name for the message; their sha256 enters the fingerprint."""

    def setup(self, device: str) -> None:
        """Load weights and check them on a probe batch; once per worker, before the first shard."""

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The shard's table, sorted by image key; a function of the shard and the config alone.

        Columns `status, reason, detail, stage` are filled on every row, and every unit of the input is there.
        Raise for what retrying may cure; return a rejected row for what it cannot.
        """

    def finish(self, paths: list[Path]) -> None:
        """After the last shard, in the driver: exports from all parts, in shard order."""


@runtime_checkable
class Taught(Protocol):
    """A stage whose model was trained on candidate tables of a run."""

    def learned_from(self) -> Mapping[str, int]:
        """In how many rounds from which; asked after `setup`, recorded in every part."""
