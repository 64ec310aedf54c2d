"""`infer-siseg`: images and their label maps to candidate masks of single objects."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, GivenBox, ManifestImage, usable_images, with_classes
from pseudolabel.errors import RejectError
from pseudolabel.pipelines.options.stages.infer_siseg import InferSisegConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.stage import Resources, Shard, Stage
from pseudolabel.pipelines.stages.candidate_rows import candidate_rows
from pseudolabel.pipelines.stages.field_predictor import FieldPredictor, siseg_files
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work.tally import counted

if TYPE_CHECKING:
    import numpy as np

    from pseudolabel.siseg.instances import FieldMaps, Found, ReadOut

_LOG = logging.getLogger(__name__)

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
        rows: list[Row] = []
        for number, image in enumerate(counted(usable_images(inputs["manifest"]))):
            found = self._found(image, semantic[image.key], shard, draw=number < self.config.pictures)
            rows += candidate_rows(image, found, self.name)
        return records.table_from_rows(rows, self.schema)

    def _found(self, image: ManifestImage, semantic: Row, shard: Shard, *, draw: bool) -> list[Candidate] | RejectError:
        if semantic["status"] != "ok":
            return RejectError("image_rejected", f"semantic: {semantic['reason']}")
        try:
            return self._candidates(image, semantic, shard, draw=draw)
        except RejectError as reject:
            return reject

    def _candidates(self, image: ManifestImage, semantic: Row, shard: Shard, *, draw: bool) -> list[Candidate]:
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
        if self._has_boxes:
            return boxed_candidates(found.instances, _boxes(image, index_of), image.size_hw)
        return standing_candidates(found.instances, {i: ids[0] for i, ids in index_of.items()}, image.size_hw)

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

    def _draw(self, image: ManifestImage, pixels: "np.ndarray", fields: "FieldMaps", found: "Found") -> None:
        from PIL import Image

        from pseudolabel.siseg.pictures import draw_sheet

        folder = self.run_paths.pictures(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{image.key.replace('/', '_')}.png"
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


def _boxes(image: ManifestImage, index_of: Mapping[int, Sequence[int]]) -> list[GivenBox]:
    class_of = {category: index for index, ids in index_of.items() for category in ids}
    return with_classes(image.objects, class_of)
