"""Categories of a run whose images came without any: the classes that its segmenter names."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths


def made_categories(run: RunPaths, parts: Iterable[Path]) -> list[dict[str, Any]]:
    """One category per class but the background, under its index in the segmenter's classes.

    Where no segmenter has run, the ids that occur in `parts` (tables with `category_id`) are their own names.
    """
    classes = _segmenter_classes(run)
    if classes:
        from pseudolabel.segmenters.class_map import normalised

        return [{"id": i, "name": name} for i, name in enumerate(classes) if normalised(name) != "background"]
    used = {value for path in parts for value in _column(path, "category_id") if value is not None}
    return [{"id": value, "name": str(value)} for value in sorted(used)]


def coco_header(run: RunPaths, parts: Sequence[Path]) -> dict[str, Any]:
    """What a COCO file of the run's labels says besides images and annotations.

    Args:
        parts: of the table of the labels.
    """
    plan = read_plan(run)
    made = {} if plan.n_objects else {"pseudolabel": {"annotation_ids": "made"}}  # no ids were given
    categories = plan.categories or made_categories(run, parts)
    return {"info": plan.info | made, "licenses": plan.licenses, "categories": categories}


def _segmenter_classes(run: RunPaths) -> list[str]:
    for path in sorted(run.table("semantic").glob("part-*.parquet")):
        for classes in _column(path, "classes"):
            if classes:
                return list(classes)
    return []


def _column(path: Path, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(path, columns=[name]).column(name).to_pylist()
    return values
