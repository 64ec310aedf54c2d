"""`infer-teacher`: a trained teacher's soft masks for every given box."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, ManifestImage, usable_images, with_classes
from pseudolabel.errors import InputError, RejectError
from pseudolabel.pipelines.options.stages.infer_teacher import InferTeacherConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Resources, Shard, Stage
from pseudolabel.pipelines.stages.candidate_rows import candidate_rows
from pseudolabel.pipelines.stages.planned_images import planned_pixels
from pseudolabel.pipelines.work import tally
from pseudolabel.registry import load_target
from pseudolabel.teachers.base import Teacher, TeacherInput

_IMAGES_AT_ONCE = 32
MEETS_IOU = 0.5  # of boxes; what `fuse` asks for unless told otherwise

Row = dict[str, Any]


class InferTeacherStage(Stage[InferTeacherConfig]):
    """One row per candidate mask, an `empty` row for an image without one."""

    name = "infer-teacher"
    version = 4
    config_class = InferTeacherConfig
    resources = Resources(gpu=True)
    schema = records.CANDIDATES

    _teacher: Teacher  # these five from `setup` on
    _category_ids: list[int | None]
    _classes: dict[int, int]
    _has_boxes: bool
    _heard: dict[str, int]

    def __init__(self, config: InferTeacherConfig, run: RunPaths) -> None:
        super().__init__(config, run)
        self.writes = f"candidates/{config.name}"

    def weights(self) -> Mapping[str, Path]:
        """The trained model and the config beside it.

        Raises:
            InputError: nobody has trained one in this run.
        """
        weights = self._weights_file()
        if self.config.weights is None and not weights.exists():
            raise InputError(
                f"{weights}: no such file; train it with  pseudolabel train-teacher {self.run_paths.typed}"
            )
        return {"teacher": weights, "config": weights.with_suffix(".yaml")}

    def _weights_file(self) -> Path:
        given = self.config.weights
        if given is None:
            return self.run_paths.model("teacher")
        return self.run_paths.model("student") if str(given) == "student" else given

    def setup(self, device: str) -> None:
        """Load the teacher that the config beside the weights names.

        Raises:
            InputError: weights and config do not belong together, or are no teacher's.
        """
        import torch

        from pseudolabel.teachers.table import find_teacher
        from pseudolabel.training.checkpoint import read_config

        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        weights = self.weights()["teacher"]
        config = read_config(weights)
        if "method" not in config:
            raise InputError(f"{weights}: its config names no method; this is no teacher that train-teacher wrote")
        load = load_target(find_teacher(config["method"]).load)
        limits = {"candidates": self.config.per_box, "detections": self.config.detections}
        self._teacher = load(weights, config, device=device, **limits)
        self._heard = _heard(config.get("model") or {})
        plan = read_plan(self.run_paths)
        self._has_boxes = plan.n_objects > 0
        self._category_ids = category_ids(config.get("categories") or [], plan.categories)
        self._classes = {number: index for index, number in enumerate(self._category_ids) if number is not None}

    def learned_from(self) -> Mapping[str, int]:
        return self._heard

    def run(self, shard: Shard, inputs: Mapping[str, pa.Table]) -> pa.Table:
        images = usable_images(inputs["manifest"])
        rows: list[Row] = []
        for first in range(0, len(images), _IMAGES_AT_ONCE):
            several = images[first : first + _IMAGES_AT_ONCE]
            rows += self._rows(several, shard)
            tally.add(len(several))
        return records.with_notes(records.table_from_rows(rows, self.schema), _noted(rows))

    def _rows(self, images: Sequence[ManifestImage], shard: Shard) -> list[Row]:
        read = [self._read(image, shard) for image in images]
        found = iter(self._teacher.predict([one for one in read if isinstance(one, TeacherInput)]))
        rows: list[Row] = []
        for image, one in zip(images, read, strict=True):
            answer = self._checked(next(found)) if isinstance(one, TeacherInput) else one or []
            rows += candidate_rows(image, answer, self.name)
        return rows

    def _read(self, image: ManifestImage, shard: Shard) -> TeacherInput | RejectError | None:
        """What the teacher is asked: nothing of an image without objects, where others of the run have boxes."""
        try:
            pixels = planned_pixels(image, shard)
        except RejectError as reject:
            return reject
        if self._has_boxes and not image.objects:
            return None
        return TeacherInput(pixels, with_classes(image.objects, self._classes))

    def _checked(self, found: Sequence[Candidate]) -> list[Candidate] | RejectError:
        """The teacher's candidates under the name of the table, with the run's categories."""
        if not all(math.isfinite(one.box_score) for one in found):
            return RejectError("non_finite", "the teacher's masks")
        return [replace(one, source=self.config.name, category_id=self._category(one)) for one in found]

    def _category(self, one: Candidate) -> int | None:
        return one.category_id if one.class_index is None else self._category_ids[one.class_index]


def _noted(rows: Sequence[Row]) -> Counter[str]:
    """Given boxes that no candidate of theirs meets, for which `fuse` has the box alone; masks of no known class."""
    best: dict[int, float] = {}
    for row in rows:
        if row.get("annotation_id") is not None:
            best[row["annotation_id"]] = max(row["box_iou"], best.get(row["annotation_id"], 0.0))
    found = [row for row in rows if row["status"] == "ok"]
    return Counter(
        unmet=sum(overlap < MEETS_IOU for overlap in best.values()),
        classless=sum(row["category_id"] is None for row in found),
    )


def category_ids(of_teacher: Sequence[Mapping[str, Any]], of_run: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """The run's category of each class of the teacher: the one of its name, or none.

    A run of bare images names no categories; there a teacher's classes keep the ids that they were trained with.
    """
    known = {row["name"]: int(row["id"]) for row in of_run}
    return [known.get(row["name"]) if known else int(row["id"]) for row in of_teacher]


def _heard(trained: Mapping[str, Any]) -> dict[str, int]:
    """In how many of its rounds a teacher learned from which guides."""
    guides = trained.get("guides")
    return dict.fromkeys(guides, trained["rounds"] - trained["guided_from"] + 1) if guides else {}
