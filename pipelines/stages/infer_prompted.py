"""`infer-prompted`: a pretrained model's mask for every box, by a promptable model or one that sees the box's crop."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, ManifestImage, usable_images
from pseudolabel.errors import ConfigError, RejectError
from pseudolabel.pipelines.options.stages.infer_prompted import InferPromptedConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Resources, Shard, Stage
from pseudolabel.pipelines.stages.box_candidates import Asked, boxes_of_candidates, given_boxes, prompted_candidate
from pseudolabel.pipelines.stages.candidate_rows import candidate_rows
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy import ndarray

    from pseudolabel.prompted.base import Prompted, PromptedMask, PromptedOptions

_AHEAD = 2  # images that are decoded while the model works

Row = dict[str, Any]


class InferPromptedStage(Stage[InferPromptedConfig]):
    """One row per candidate mask, an `empty` row for an image without one."""

    name = "infer-prompted"
    version = 1
    config_class = InferPromptedConfig
    resources = Resources(gpu=True)
    schema = records.CANDIDATES

    _model: "Prompted"  # from `setup` on

    def __init__(self, config: InferPromptedConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self.writes = f"candidates/{config.name}"

    def reads(self) -> tuple[str, ...]:
        """The manifest, and the candidates whose boxes are asked about."""
        if self.config.boxes_from is None:
            return ("manifest",)
        return ("manifest", f"candidates/{self.config.boxes_from}")

    def weights(self) -> Mapping[str, Path]:
        """Weights with what they keep in other files, config, card, and the library whose code prepares the images.

        Raises:
            ConfigError: the run has no boxes and none are named, or it has and others are.
        """
        from pseudolabel.prompted.base import deciding_files

        _check_boxes(self.config, read_plan(self.run_paths).n_objects)
        return deciding_files(self.config.model, self.config.card)

    def setup(self, device: str) -> None:
        """Load the model and ask it once.

        Raises:
            ConfigError, InputError, MachineError: it cannot be had, or is no model that hears boxes.
        """
        from pseudolabel.prompted.base import open_prompted

        self._model = open_prompted(self.config.model, prompted_options(self.config, device))
        self._model.probe()

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        images = usable_images(inputs["manifest"])
        given = {image.key: given_boxes(image) for image in images}
        if self.config.boxes_from is not None:
            given = boxes_of_candidates(inputs[f"candidates/{self.config.boxes_from}"])
        rows: list[Row] = []
        for image, read in counted(_read_ahead(images, given, shard)):
            rows += candidate_rows(image, self._found(given.get(image.key, []), read), self.name)
        return records.table_from_rows(rows, self.schema)

    def _found(
        self, asked: list[Asked], read: "UInt8[ndarray, 'h w 3'] | RejectError"
    ) -> list[Candidate] | RejectError:
        try:
            found = self._masks(asked, read)
        except RejectError as reject:
            return reject
        return [prompted_candidate(asked[one.given], one, self.config.name) for one in found]

    def _masks(self, asked: list[Asked], read: "UInt8[ndarray, 'h w 3'] | RejectError") -> "list[PromptedMask]":
        import numpy as np

        from pseudolabel.prompted.base import Prompts

        if isinstance(read, RejectError):
            raise read
        return self._model.predict(Prompts(read, np.array([one.box_xyxy for one in asked]))) if asked else []


def _read_ahead(
    images: list[ManifestImage], given: Mapping[str, list[Asked]], shard: Shard
) -> "Iterator[tuple[ManifestImage, UInt8[ndarray, 'h w 3'] | RejectError]]":
    """Images with their pixels, a few decoded in advance and never more."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting = [pool.submit(_read, image, shard) for image in images[:_AHEAD]]
        for place, image in enumerate(images):
            read = waiting.pop(0).result()
            if place + _AHEAD < len(images):
                waiting.append(pool.submit(_read, images[place + _AHEAD], shard))
            yield image, read


def _read(image: ManifestImage, shard: Shard) -> "UInt8[ndarray, 'h w 3'] | RejectError":
    try:
        return planned_pixels(image, shard)
    except RejectError as reject:
        return reject


def _check_boxes(config: InferPromptedConfig, n_objects: int) -> None:
    if n_objects and config.boxes_from is not None:
        raise ConfigError(f"--boxes-from {config.boxes_from}: this run has {n_objects} boxes of its own; omit it")
    if not n_objects and config.boxes_from is None:
        raise ConfigError(
            "infer-prompted needs boxes, and this run has none: name candidates that have some with  --boxes-from siseg"
        )


def prompted_options(config: InferPromptedConfig, device: str) -> "PromptedOptions":
    """What the options say of the model itself."""
    from pseudolabel.prompted.base import PromptedOptions

    return PromptedOptions(
        card=config.card,
        views=config.box_views,
        masks=config.mask_levels,
        rooms=tuple(config.crop_room),
        closer_px=config.closer_px,
        boxes_at_once=config.boxes_at_once,
        least_score=config.gate,
        bf16=config.precision == "bf16",
        threads=config.threads,
        device=device,
    )
