"""What a stage is: it reads tables of one shard and returns one table of the same shard."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal

import pyarrow as pa
from typing_extensions import TypeVar

from pseudolabel.pipelines.options.base import StageConfig
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pixel_rule import ExifRule, PixelRule, Stretch


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


ConfigT = TypeVar("ConfigT", bound=StageConfig, default=Any)


class Stage(ABC, Generic[ConfigT]):
    """One step over the shards of a run.

    An instance belongs to one worker process. The driver also makes one, to ask for `reads` and `weights`, and never
    calls `setup` on it; so does `pseudolabel status`. Modules of stages therefore import torch in `setup` and in what
    works on images, not at their top.
    """

    name: ClassVar[str]  # as the user types it: "infer-semantic"
    version: ClassVar[int]  # raise it whenever the same input and config give other output
    config_class: ClassVar[type[StageConfig]]
    resources: ClassVar[Resources] = Resources()
    unit: ClassVar[Literal["image", "object"]] = "image"  # what n_in, n_ok and n_rejected count
    schema: ClassVar[pa.Schema]
    writes: str  # the table it writes: "semantic", "candidates/siseg"
    exports: ClassVar[tuple[str, ...]] = ()  # names of the files that `finish` writes beside the parts
    made_again: ClassVar[bool] = False  # without being asked, where other input is all that changed

    def __init__(self, config: ConfigT, run: RunPaths) -> None:
        self.config = config
        self.run_paths = run

    def prepare(self) -> None:
        """In the driver, before anybody asks what it reads: bring tables up to date that are no stage's."""

    def waiting(self) -> Mapping[int, int]:
        """How many things per shard `prepare` would bring in that the stage's table does not know; changes nothing."""
        return {}

    def reads(self) -> tuple[str, ...]:
        """The tables it needs for a shard; their fingerprints become part of its own."""
        return ("manifest",)

    def weights(self) -> Mapping[str, Path]:
        """Files whose content decides the result, by a name for the message; their sha256 enters the fingerprint."""
        return {}

    def setup(self, device: str) -> None:
        """Load weights and check them on a probe batch; once per worker, before the first shard."""

    @abstractmethod
    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        """The shard's table, sorted by image key; a function of the shard and the config alone.

        Columns `status, reason, detail, stage` are filled on every row, and every unit of the input is there.
        Raise for what retrying may cure; return a rejected row for what it cannot.
        """

    def learned_from(self) -> Mapping[str, int]:
        """From which candidate tables its model was trained, and in how many rounds; asked after `setup`."""
        return {}

    def finish(self, paths: list[Path]) -> Mapping[str, Mapping[str, int]] | None:
        """After the last shard, in the driver: exports from all parts, in shard order.

        Returns how many entries of what each file of `exports` holds, where they are to be checked later.
        """
        return None
