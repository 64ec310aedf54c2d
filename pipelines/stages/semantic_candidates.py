"""`semantic-candidates`: label maps and boxes to one candidate mask per object whose class the segmenter knows."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa

from pseudolabel import records
from pseudolabel.config import option
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.commit import read_part
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import read_plan
from pseudolabel.pipelines.stage import Resources, Shard, StageConfig

if TYPE_CHECKING:
    from pseudolabel.segmenters.candidates import Box, Candidate

_LOG = logging.getLogger(__name__)
_SOURCE = "semantic"
_NAMES_SAID = 5


class SemanticCandidatesConfig(StageConfig):
    """Options of the candidates that come from label maps."""

    masks: Literal["refined", "region"] = option(
        "refined", "refined: by colours, the box's shape and its tightness; region: the class's pixels as they are"
    )


class SemanticCandidatesStage:
    """One row per candidate; an `empty` row for an image without one."""

    name: ClassVar[str] = "semantic-candidates"
    version: ClassVar[int] = 1
    config_class: ClassVar[type[StageConfig]] = SemanticCandidatesConfig
    resources: ClassVar[Resources] = Resources(cpus=1, gpu=False)
    unit: ClassVar[Literal["image", "object"]] = "image"
    schema: ClassVar[pa.Schema] = records.CANDIDATES
    writes = "candidates/semantic"

    def __init__(self, config: StageConfig, run: RunPaths) -> None:
        assert isinstance(config, SemanticCandidatesConfig)
        self._config = config
        self._run = run
        self._categories: dict[int, str] = {}
        self._indices: dict[tuple[str, ...], Mapping[int, int]] = {}

    def reads(self) -> tuple[str, ...]:
        return ("manifest", "semantic")

    def weights(self) -> Mapping[str, Path]:
        return {}

    def setup(self, device: str) -> None:
        self._categories = {category["id"]: category["name"] for category in read_plan(self._run).categories}

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        semantic = {row["image_key"]: row for row in inputs["semantic"].to_pylist()}
        images = [
            row for row in inputs["manifest"].to_pylist() if row["status"] == "ok" and row["annotation_id"] is None
        ]
        rows: list[dict[str, Any]] = []
        for image in sorted(images, key=lambda row: str(row["image_key"])):
            rows += self._rows(image, semantic[image["image_key"]], shard)
        return records.table_from_rows(rows, self.schema)

    def finish(self, paths: list[Path]) -> None:
        """Says once, in the driver, how class names met; candidates are not exported."""
        from pseudolabel.segmenters.class_map import match_classes

        categories = {category["id"]: category["name"] for category in read_plan(self._run).categories}
        for classes in _class_lists(self._run.table("semantic") / path.name for path in paths):
            match = match_classes(classes, categories)
            _LOG.info("%d of %d categories met by %s", len(match.index_of), len(categories), match.used)
            if match.unmapped:
                _LOG.warning("no class of the segmenter for %s", _shortened(match.unmapped))

    def _rows(self, image: dict[str, Any], semantic: dict[str, Any], shard: Shard) -> list[dict[str, Any]]:
        key = {"image_key": image["image_key"]}
        if semantic["status"] != "ok":
            return [key | records.rejected(self.name, "image_rejected", f"semantic: {semantic['reason']}")]
        objects = image["objects"] or []
        try:
            candidates = self._candidates(image, objects, semantic, shard)
        except RejectError as reject:
            return [key | records.rejected(self.name, reject.reason, reject.detail)]
        rows = [
            key | _candidate_columns(given, candidate) | records.ok(self.name)
            for given, candidate in zip(objects, candidates, strict=True)
            if candidate is not None
        ]
        return rows or [key | records.empty(self.name)]

    def _candidates(
        self, image: dict[str, Any], objects: list[dict[str, Any]], semantic: dict[str, Any], shard: Shard
    ) -> "list[Candidate | None]":
        from pseudolabel.images import load_image
        from pseudolabel.segmenters.base import SemanticResult
        from pseudolabel.segmenters.candidates import semantic_candidates
        from pseudolabel.segmenters.label_maps import decode_indices

        boxes = self._boxes(objects, tuple(semantic["classes"]))
        if all(box.class_index is None for box in boxes):
            return [None] * len(boxes)
        maps = SemanticResult(decode_indices(semantic["label_map"]), decode_indices(semantic["confidence"]))
        rgb = None
        if self._config.masks == "refined":
            exif: Literal["transpose", "ignore"] = "transpose" if shard.exif == "transpose" else "ignore"
            rgb = load_image(shard.images_root, image["file_name"], exif=exif)
            if rgb.shape[:2] != maps.label_map.shape:
                raise RejectError("changed_since_plan", f"{rgb.shape[:2]} px now, {maps.label_map.shape} before")
        return semantic_candidates(boxes, maps, rgb, masks=self._config.masks)

    def _boxes(self, objects: list[dict[str, Any]], classes: tuple[str, ...]) -> "list[Box]":
        """Boxes of an image; a crowd is nobody's candidate, and its box claims nothing from others."""
        from pseudolabel.segmenters.candidates import Box

        index_of = self._matched(classes)
        boxes = []
        for given in objects:
            x, y, width, height = given["bbox_xywh"]
            index = None if given["iscrowd"] else index_of.get(given["category_id"])
            boxes.append(Box((x, y, x + width, y + height), given["category_id"], index, given["iscrowd"]))
        return boxes

    def _matched(self, classes: tuple[str, ...]) -> Mapping[int, int]:
        """Class index by category id."""
        from pseudolabel.segmenters.class_map import match_classes

        if classes not in self._indices:
            self._indices[classes] = match_classes(classes, self._categories).index_of
        return self._indices[classes]


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


def _candidate_columns(given: dict[str, Any], candidate: "Candidate") -> dict[str, Any]:
    return {
        "annotation_id": given["annotation_id"],
        "source": _SOURCE,
        "category_id": given["category_id"],
        "box_xyxy": list(candidate.box_xyxy),
        "box_score": candidate.box_score,
        "box_iou": candidate.box_iou,
        "mask": records.soft_mask_to_struct(candidate.mask),
    }
