"""`infer-colors`: one candidate mask per given box from the box and the image's colours alone; needs no model."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, ManifestImage, usable_images
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.options.stages.infer_colors import InferColorsConfig
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.stages.candidate_rows import candidate_rows
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted


class InferColorsStage(Stage[InferColorsConfig]):
    """One row per candidate; an `empty` row for an image without one."""

    name = "infer-colors"
    version = 2
    config_class = InferColorsConfig
    schema = records.CANDIDATES
    writes = "candidates/colors"

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for image in counted(usable_images(inputs["manifest"])):
            rows += candidate_rows(image, self._candidates(image, shard), self.name)
        return records.table_from_rows(rows, self.schema)

    def _candidates(self, image: ManifestImage, shard: Shard) -> list[Candidate] | RejectError:
        from pseudolabel.segmenters.candidates import color_candidates

        try:
            return color_candidates(image.boxes, planned_pixels(image, shard)) if image.boxes else []
        except RejectError as reject:
            return reject
