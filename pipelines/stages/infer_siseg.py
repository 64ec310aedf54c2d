"""`infer-siseg`: images and their label maps to candidate masks of single objects."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.options.infer_siseg import InferSisegConfig
from pseudolabel.pipelines.run.plan import read_plan
from pseudolabel.pipelines.stage import Resources, Shard, Stage
from pseudolabel.pipelines.stages.field_predictor import FieldPredictor, siseg_files
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted

if TYPE_CHECKING:
    import numpy as np

    from pseudolabel.siseg.candidates import Candidate, GivenBox
    from pseudolabel.siseg.instances import FieldMaps, Found, ReadOut

_LOG = logging.getLogger(__name__)
_SOURCE = "siseg"

Row = dict[str, Any]


class InferSisegStage(Stage[InferSisegConfig]):
    """One row per candidate, matched to boxes where the image has any; an `empty` row for an image without one."""

    name = "infer-siseg"
    version = 4
    config_class = InferSisegConfig
    resources = Resources(gpu=True)
    schema = records.CANDIDATES
    writes = "candidates/siseg"

    _predict: FieldPredictor  # these four from `setup` on
    _device: str
    _categories: list[Row]
    _has_boxes: bool

    def reads(self) -> tuple[str, ...]:
        return ("manifest", "semantic")

    def weights(self) -> Mapping[str, Path]:
        """The trained model and the YAML beside it."""
        return siseg_files(self.run_paths, self.config.weights)

    def setup(self, device: str) -> None:
        plan = read_plan(self.run_paths)
        self._categories, self._has_boxes, self._device = plan.categories, plan.n_objects > 0, device
        weights = self.weights()["siseg"]
        self._predict = FieldPredictor(weights, device=device, threads=self.config.threads, flip=self.config.mirror)

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        semantic = {row["image_key"]: row for row in inputs["semantic"].to_pylist()}
        manifest: list[Row] = inputs["manifest"].to_pylist()
        images = [row for row in manifest if row["status"] == "ok" and row["annotation_id"] is None]
        rows: list[Row] = []
        for number, image in enumerate(counted(sorted(images, key=lambda row: str(row["image_key"])))):
            draw = number < self.config.pictures
            rows += self._rows(image, semantic[image["image_key"]], shard, draw=draw)
        return records.table_from_rows(rows, self.schema)

    def _rows(self, image: Row, semantic: Row, shard: Shard, *, draw: bool) -> list[Row]:
        key = {"image_key": image["image_key"]}
        if semantic["status"] != "ok":
            return [key | records.rejected(self.name, "image_rejected", f"semantic: {semantic['reason']}")]
        try:
            candidates = self._candidates(image, semantic, shard, draw=draw)
        except RejectError as reject:
            return [key | records.rejected(self.name, reject.reason, reject.detail)]
        rows = [key | _columns(one) | records.ok(self.name) for one in candidates]
        return rows or [key | records.empty(self.name)]

    def _candidates(self, image: Row, semantic: Row, shard: Shard, *, draw: bool) -> "list[Candidate]":
        from pseudolabel.segmenters.label_maps import decode_indices
        from pseudolabel.siseg.candidates import boxed_candidates, standing_candidates
        from pseudolabel.siseg.cells import semantic_cells
        from pseudolabel.siseg.instances import find_instances

        pixels, labels = planned_pixels(image, shard), decode_indices(semantic["label_map"])
        index_of = categories_by_class(semantic["classes"], self._categories)
        fields = self._predict(pixels)
        confidence = decode_indices(semantic["confidence"])
        cells = semantic_cells(labels, confidence, fields.boundary.shape, objects=set(index_of))
        found = find_instances(fields, cells, self._read_out, device=self._device)
        if draw:
            self._draw(image, pixels, fields, found)
        size_hw = (image["height"], image["width"])
        if self._has_boxes:
            return boxed_candidates(found.instances, _boxes(image, index_of), size_hw)
        return standing_candidates(found.instances, {i: ids[0] for i, ids in index_of.items()}, size_hw)

    @property
    def _read_out(self) -> "ReadOut":
        from pseudolabel.siseg.instances import ReadOut

        config = self.config
        return ReadOut(
            background=config.background,
            constant=config.background_score,
            smallest_share=config.smallest_share,
            centroid_steps=config.centroid_steps,
            weak_cells=config.weak_cells,
            walk_steps=config.walk_steps,
            radius=config.walk_radius,
            exponent=config.walk_exponent,
        )

    def _draw(self, image: Row, pixels: "np.ndarray", fields: "FieldMaps", found: "Found") -> None:
        from PIL import Image

        from pseudolabel.siseg.pictures import draw_sheet

        folder = self.run_paths.pictures(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{image['image_key'].replace('/', '_')}.png"
        Image.fromarray(draw_sheet(pixels, fields, found)).save(folder / name)


def categories_by_class(classes: Sequence[str], categories: Iterable[Mapping[str, Any]]) -> dict[int, list[int]]:
    """Category ids of every class of the segmenter that is an object.

    Where the data set names no categories, every class but the background is one, under its own index.
    """
    from pseudolabel.segmenters.class_map import match_classes, normalised

    names = {category["id"]: category["name"] for category in categories}
    if not names:
        return {index: [index] for index, name in enumerate(classes) if normalised(name) != "background"}
    found: dict[int, list[int]] = {}
    for category_id, index in sorted(match_classes(classes, names).index_of.items()):
        found.setdefault(index, []).append(category_id)
    return found


def object_classes(classes: Sequence[str], categories: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """Indices of the segmenter's classes that are objects of the data set."""
    return frozenset(categories_by_class(classes, categories))


def _boxes(image: Row, index_of: Mapping[int, Sequence[int]]) -> "list[GivenBox]":
    from pseudolabel.siseg.candidates import GivenBox

    class_of = {category: index for index, ids in index_of.items() for category in ids}
    boxes = []
    for given in image["objects"] or []:
        x, y, width, height = given["bbox_xywh"]
        if not given["iscrowd"]:
            box = (x, y, x + width, y + height)
            index = class_of.get(given["category_id"])
            boxes.append(GivenBox(given["annotation_id"], given["category_id"], index, box))
    return boxes


def _columns(candidate: "Candidate") -> Row:
    return {
        "annotation_id": candidate.annotation_id,
        "source": _SOURCE,
        "category_id": candidate.category_id,
        "box_xyxy": list(candidate.box_xyxy),
        "box_score": candidate.box_score,
        "box_iou": candidate.box_iou,
        "mask": records.soft_mask_to_struct(candidate.mask),
        "knows_class": True,
    }
