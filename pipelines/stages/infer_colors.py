"""`infer-colors`: one candidate mask per given box from the box and the image's colours alone; needs no model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.options.infer_colors import InferColorsConfig
from pseudolabel.pipelines.run.conservation import COLORS
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.stages.planned_images import planned_pixels, usable_images
from pseudolabel.pipelines.stages.semantic_boxes import SemanticBoxes, candidate_rows
from pseudolabel.pipelines.work.tally import counted

if TYPE_CHECKING:
    from pseudolabel.segmenters.candidates import Candidate


class InferColorsStage(Stage[InferColorsConfig]):
    """One row per candidate; an `empty` row for an image without one."""

    name = "infer-colors"
    version = 1
    config_class = InferColorsConfig
    schema = records.CANDIDATES
    writes = "candidates/colors"

    _boxes: SemanticBoxes  # from `setup` on

    def setup(self, device: str) -> None:
        self._boxes = SemanticBoxes(read_plan(self.run_paths))

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for image in counted(usable_images(inputs["manifest"])):
            try:
                candidates = self._candidates(image, shard)
            except RejectError as reject:
                rows.append(
                    {"image_key": image["image_key"], **records.rejected(self.name, reject.reason, reject.detail)}
                )
            else:
                rows += candidate_rows(image, candidates, source=COLORS, stage=self.name)
        return records.table_from_rows(rows, self.schema)

    def _candidates(self, image: dict[str, Any], shard: Shard) -> "list[list[Candidate]]":
        from pseudolabel.segmenters.candidates import color_candidates

        boxes = self._boxes.of(image["objects"] or [], ())
        return color_candidates(boxes, planned_pixels(image, shard)) if boxes else []
