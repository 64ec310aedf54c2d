"""`semantic-candidates`: label maps, or closer looks, and boxes to candidate masks of the objects."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.errors import RejectError
from pseudolabel.masks import SoftMask
from pseudolabel.pipelines.options.infer_semantic import SemanticCandidatesConfig
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.stages.planned_images import planned_pixels, usable_images
from pseudolabel.pipelines.stages.semantic_boxes import SemanticBoxes, candidate_rows
from pseudolabel.pipelines.work.tally import counted
from pseudolabel.segmenters.base import SemanticResult
from pseudolabel.segmenters.class_map import match_classes
from pseudolabel.segmenters.label_maps import decode_indices

if TYPE_CHECKING:
    from pseudolabel.segmenters.candidates import Box, Candidate

_LOG = logging.getLogger(__name__)
_NAMES_SAID = 5


class SemanticCandidatesStage(Stage[SemanticCandidatesConfig]):
    """One row per candidate; an `empty` row for an image without one."""

    name = "semantic-candidates"
    version = 6
    config_class = SemanticCandidatesConfig
    schema = records.CANDIDATES

    _boxes: SemanticBoxes  # from `setup` on

    def __init__(self, config: SemanticCandidatesConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self._maps = label_map_table(config.name)
        self.writes = f"candidates/{config.name}"

    def reads(self) -> tuple[str, ...]:
        return ("manifest", self._maps)

    def setup(self, device: str) -> None:
        self._boxes = SemanticBoxes(read_plan(self.run_paths))

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        semantic = {row["image_key"]: row for row in inputs[self._maps].to_pylist()}
        rows: list[dict[str, Any]] = []
        for image in counted(usable_images(inputs["manifest"])):
            rows += self._rows(image, semantic[image["image_key"]], shard)
        return records.table_from_rows(rows, self.schema)

    def finish(self, paths: list[Path]) -> None:
        """Says once, in the driver, how class names met; candidates are not exported."""
        categories = {category["id"]: category["name"] for category in read_plan(self.run_paths).categories}
        for classes in _class_lists(self.run_paths.table(self._maps) / path.name for path in paths):
            match = match_classes(classes, categories)
            _LOG.info("%d of %d categories met by %s", len(match.index_of), len(categories), match.used)
            if match.unmapped:
                instead = "box and colours alone" if self.config.unknown_classes == "colors" else "no candidates"
                _LOG.warning("no class of the segmenter for %s: %s", _shortened(match.unmapped), instead)

    def _rows(self, image: dict[str, Any], semantic: dict[str, Any], shard: Shard) -> list[dict[str, Any]]:
        key = {"image_key": image["image_key"]}
        if semantic["status"] != "ok":
            return [key | records.rejected(self.name, "image_rejected", f"{self._maps}: {semantic['reason']}")]
        try:
            candidates = self._candidates(image, image["objects"] or [], semantic, shard)
        except RejectError as reject:
            return [key | records.rejected(self.name, reject.reason, reject.detail)]
        return candidate_rows(image, candidates, source=self.config.name, stage=self.name)

    def _candidates(
        self, image: dict[str, Any], objects: list[dict[str, Any]], semantic: dict[str, Any], shard: Shard
    ) -> "list[list[Candidate]]":
        from pseudolabel.segmenters.candidates import semantic_candidates

        boxes = self._boxes.of(objects, tuple(semantic["classes"]))
        if not any(self._wants(box) for box in boxes):
            return [[] for _ in boxes]
        maps = SemanticResult(decode_indices(semantic["label_map"]), decode_indices(semantic["confidence"]))
        rgb = planned_pixels(image, shard) if self.config.masks == "refined" else None
        return semantic_candidates(
            boxes,
            maps,
            rgb,
            masks=self.config.masks,
            closer=_closer(objects, semantic),
            unknown=self.config.unknown_classes,
        )

    def _wants(self, box: "Box") -> bool:
        colors = self.config.unknown_classes == "colors" and self.config.masks == "refined"
        return not box.is_crowd and (box.class_index is not None or colors)


def label_map_table(name: str) -> str:
    """Where the label maps of the segmenter of that name lie: `semantic`, of a further one `semantic-NAME`."""
    return "semantic" if name == "semantic" else f"semantic-{name}"


def _closer(objects: list[dict[str, Any]], semantic: dict[str, Any]) -> dict[int, list[SoftMask]]:
    """What closer looks found, by the object's place."""
    masks: dict[int, list[SoftMask]] = defaultdict(list)
    for look in semantic["looks"] or []:
        masks[look["annotation_id"]].append(records.soft_mask_from_struct(look["mask"]))
    return {place: masks[one["annotation_id"]] for place, one in enumerate(objects) if one["annotation_id"] in masks}


def _class_lists(paths: Iterable[Path]) -> set[tuple[str, ...]]:
    """The lists of class names in the first part that has one; a run has one segmenter."""
    for path in paths:
        found = {tuple(classes) for classes in read_part(path, ["classes"])["classes"].to_pylist() if classes}
        if found:
            return found
    return set()


def _shortened(names: Sequence[str]) -> str:
    """The number of names and the first few: a data set may have hundreds."""
    more = ", ..." if len(names) > _NAMES_SAID else ""
    return f"{len(names)} categories: {', '.join(names[:_NAMES_SAID])}{more}"
