"""`infer-boundary`: how probable a boundary between things is, cell by cell, for `fuse --refine walk`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.config import option
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Resources, Shard, StageConfig
from pseudolabel.pipelines.stages.field_predictor import FieldPredictor, siseg_files
from pseudolabel.pipelines.stages.planned_images import planned_pixels, usable_images


class InferBoundaryConfig(StageConfig):
    """Options of `infer-boundary`."""

    weights: Path | None = option(None, "a model that train-siseg wrote; default: the run's own")
    flip: bool = option(True, "average with the boundary of the mirrored image")
    threads: int = option(1, "CPU threads of one worker's forward pass", changes_result=False, ge=1)


class InferBoundaryStage:
    """One row per image: SISeg's class-agnostic boundary on the network's grid, which covers the image."""

    name = "infer-boundary"
    version = 1
    config_class = InferBoundaryConfig
    resources = Resources(cpus=1, gpu=True)
    unit = "image"
    schema = records.BOUNDARY
    writes = "boundary"

    def __init__(self, config: StageConfig, run: RunPaths) -> None:
        assert isinstance(config, InferBoundaryConfig)
        self._config, self._run = config, run
        self._predict: FieldPredictor | None = None

    def reads(self) -> tuple[str, ...]:
        return ("manifest",)

    def weights(self) -> Mapping[str, Path]:
        return siseg_files(self._run, self._config.weights)

    def setup(self, device: str) -> None:
        weights = self.weights()["siseg"]
        self._predict = FieldPredictor(weights, device=device, threads=self._config.threads, flip=self._config.flip)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        return records.table_from_rows(
            [self._row(image, shard) for image in usable_images(inputs["manifest"])], self.schema
        )

    def finish(self, paths: list[Path]) -> None:
        """Boundaries are not exported."""

    def _row(self, image: dict[str, Any], shard: Shard) -> dict[str, Any]:
        import numpy as np

        from pseudolabel.segmenters.label_maps import encode_indices

        assert self._predict is not None, "setup comes first"
        key = {"image_key": image["image_key"]}
        try:
            boundary = self._predict(planned_pixels(image, shard)).boundary
        except RejectError as reject:
            return key | records.rejected(self.name, reject.reason, reject.detail)
        cells = np.rint(np.clip(boundary, 0, 1) * 255).astype(np.uint8)
        return key | {"boundary": encode_indices(cells)} | records.ok(self.name)
