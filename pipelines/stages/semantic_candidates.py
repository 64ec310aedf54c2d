"""`semantic-candidates`: label maps, or closer looks, and boxes to candidate masks of the objects."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, GivenBox, ManifestImage, usable_images
from pseudolabel.errors import RejectError
from pseudolabel.masks import SoftMask
from pseudolabel.pipelines.options.stages.infer_semantic import SemanticCandidatesConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard, Stage
from pseudolabel.pipelines.stages.candidate_rows import candidate_rows
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted
from pseudolabel.segmenters.base import SemanticResult
from pseudolabel.segmenters.class_map import match_classes
from pseudolabel.segmenters.known_classes import KnownClasses
from pseudolabel.segmenters.label_maps import decode_indices

_LOG = logging.getLogger(__name__)
_NAMES_SAID = 5


class SemanticCandidatesStage(Stage[SemanticCandidatesConfig]):
    """One row per candidate; an `empty` row for an image without one."""

    name = "semantic-candidates"
    version = 7
    config_class = SemanticCandidatesConfig
    schema = records.CANDIDATES

    _known: KnownClasses  # from `setup` on

    def __init__(self, config: SemanticCandidatesConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self._maps = label_map_table(config.name)
        self.writes = f"candidates/{config.name}"

    def reads(self) -> tuple[str, ...]:
        return ("manifest", self._maps)

    def setup(self, device: str) -> None:
        self._known = KnownClasses(read_plan(self.run_paths).class_names)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        semantic = {row["image_key"]: row for row in inputs[self._maps].to_pylist()}
        rows: list[dict[str, Any]] = []
        for image in counted(usable_images(inputs["manifest"])):
            rows += candidate_rows(image, self._found(image, semantic[image.key], shard), self.name)
        return records.table_from_rows(rows, self.schema)

    def finish(self, paths: list[Path]) -> None:
        """Says once, in the driver, how class names met; candidates are not exported."""
        categories = read_plan(self.run_paths).class_names
        for classes in class_lists(self.run_paths.table(self._maps) / path.name for path in paths):
            match = match_classes(classes, categories)
            _LOG.info("%d of %d categories matched by %s", len(match.index_of), len(categories), match.used)
            if match.unmapped:
                instead = "box and colours alone" if self.config.colors_unknown else "no candidates"
                _LOG.warning("no class of the segmenter for %s: %s", _shortened(match.unmapped), instead)

    def _found(self, image: ManifestImage, semantic: dict[str, Any], shard: Shard) -> list[Candidate] | RejectError:
        if semantic["status"] != "ok":
            return RejectError("image_rejected", f"{self._maps}: {semantic['reason']}")
        try:
            return self._candidates(image, semantic, shard)
        except RejectError as reject:
            return reject

    def _candidates(self, image: ManifestImage, semantic: dict[str, Any], shard: Shard) -> list[Candidate]:
        from pseudolabel.segmenters.candidates import semantic_candidates

        boxes = self._known.of(image.boxes, tuple(semantic["classes"]))
        if not any(self._wants(box) for box in boxes):
            return []
        maps = SemanticResult(decode_indices(semantic["label_map"]), decode_indices(semantic["confidence"]))
        rgb = planned_pixels(image, shard) if self.config.masks == "refined" else None
        return semantic_candidates(
            boxes,
            maps,
            rgb,
            source=self.config.name,
            masks=self.config.masks,
            closer=_closer(semantic),
            unknown=self.config.unknown_classes,
        )

    def _wants(self, box: GivenBox) -> bool:
        return not box.is_crowd and (box.class_index is not None or self.config.colors_unknown)


def label_map_table(name: str) -> str:
    """Where the label maps of the segmenter of that name lie: `semantic`, of a further one `semantic-NAME`."""
    return "semantic" if name == "semantic" else f"semantic-{name}"


def _closer(semantic: dict[str, Any]) -> dict[int | None, list[SoftMask]]:
    """What closer looks found, by annotation id."""
    masks: dict[int | None, list[SoftMask]] = defaultdict(list)
    for look in semantic["looks"] or []:
        masks[look["annotation_id"]].append(records.soft_mask_from_struct(look["mask"]))
    return masks


def class_lists(paths: Iterable[Path]) -> set[tuple[str, ...]]:
    """The lists of class names in the first of these parts of label maps that has one; a table has one segmenter."""
    for path in paths:
        found = {tuple(classes) for classes in read_part(path, ["classes"])["classes"].to_pylist() if classes}
        if found:
            return found
    return set()


def _shortened(names: Sequence[str]) -> str:
    """The number of names and the first few: a data set may have hundreds."""
    more = ", ..." if len(names) > _NAMES_SAID else ""
    return f"{len(names)} categories: {', '.join(names[:_NAMES_SAID])}{more}"
