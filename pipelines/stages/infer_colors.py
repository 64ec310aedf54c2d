"""`infer-colors`: one candidate mask per given box from the box and the image's colours alone; needs no model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from pseudolabel import records
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.stage import Resources, Shard, StageConfig
from pseudolabel.pipelines.stages.planned_images import planned_pixels, usable_images
from pseudolabel.pipelines.stages.semantic_boxes import SemanticBoxes, candidate_rows

if TYPE_CHECKING:
    from pseudolabel.segmenters.candidates import Candidate

_SOURCE = "colors"


class InferColorsConfig(StageConfig):
    """Nothing beyond what every stage has: the weights of the field are in `pseudolabel.segmenters`."""


class InferColorsStage:
    """One row per candidate; an `empty` row for an image without one."""

    name: ClassVar[str] = "infer-colors"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[StageConfig]] = InferColorsConfig
    resources: ClassVar[Resources] = Resources(cpus=1, gpu=False)
    unit: ClassVar[Literal["image", "object"]] = "image"
    schema: ClassVar[pa.Schema] = records.CANDIDATES
    writes = "candidates/colors"

    def __init__(self, config: StageConfig, run: RunPaths) -> None:
        assert isinstance(config, InferColorsConfig)
        self._run = run
        self._boxes: SemanticBoxes | None = None

    def reads(self) -> tuple[str, ...]:
        return ("manifest",)

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self, device: str) -> None:
        self._boxes = SemanticBoxes(read_plan(self._run))

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for image in usable_images(inputs["manifest"]):
            try:
                candidates = self._candidates(image, shard)
            except RejectError as reject:
                rows.append(
                    {"image_key": image["image_key"], **records.rejected(self.name, reject.reason, reject.detail)}
                )
            else:
                rows += candidate_rows(image, candidates, source=_SOURCE, stage=self.name)
        return records.table_from_rows(rows, self.schema)

    def finish(self, paths: list[Path]) -> None:
        """Candidates are not exported."""

    def _candidates(self, image: dict[str, Any], shard: Shard) -> "list[list[Candidate]]":
        from pseudolabel.segmenters.candidates import color_candidates

        assert self._boxes is not None, "setup comes first"
        boxes = self._boxes.of(image["objects"] or [], ())
        return color_candidates(boxes, planned_pixels(image, shard)) if boxes else []
