"""What a finished run holds, shard by shard, for pictures and pages; never all of it at once."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt8

from pseudolabel import rle
from pseudolabel.candidates import Candidate
from pseudolabel.errors import InputError
from pseudolabel.formats.extras import own_ids
from pseudolabel.images import load_image
from pseudolabel.pipelines.planning.made_categories import made_categories
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths

Row = dict[str, Any]


class FusedRun:
    """The pseudo labels of a run, its images and its candidates.

    Raises:
        InputError: the folder holds no run, or one without pseudo labels.
    """

    def __init__(self, run: RunPaths) -> None:
        self.paths, self.plan = run, read_plan(run)
        self.shards = [shard for shard in range(self.plan.num_shards) if self._part("pseudo", shard).exists()]
        if not self.shards:
            raise InputError(f"{run.root} has no pseudo labels yet; make them with  pseudolabel fuse {run.typed}")
        self.names = _class_names(run, self.plan, [self._part("pseudo", shard) for shard in self.shards])

    def unfinished(self) -> str:
        """What to say of shards that are not fused; empty where all are."""
        missing = self.plan.num_shards - len(self.shards)
        told = f"{missing} of {self.plan.num_shards} shards have no pseudo labels yet, and their objects are not here"
        return f"{told}: pseudolabel fuse {self.paths.typed}" if missing else ""

    def objects(self, shard: int, ids: Collection[int] | None = None) -> list[Row]:
        """The labelled objects of a shard that are no crowds, in the order of the table.

        Args:
            ids: annotations that are wanted; all where None.
        """
        return list(_rows(read_part(self._part("pseudo", shard)), ids))

    def all_objects(self) -> Iterator[tuple[int, Row]]:
        """Every labelled object with its shard."""
        return ((shard, row) for shard in self.shards for row in self.objects(shard))

    def file_names(self, shard: int) -> dict[str, str]:
        """The images' files by key; a refused annotation has a row of its image's key, too, and no file."""
        manifest = read_part(self._part("manifest", shard), ["image_key", "file_name", "annotation_id"])
        manifest = manifest.filter(pc.is_null(manifest["annotation_id"]))
        return dict(zip(manifest["image_key"].to_pylist(), manifest["file_name"].to_pylist(), strict=True))

    def candidates(self, shard: int, ids: Collection[int]) -> dict[int, list[Candidate]]:
        """The candidates that were made for these annotations, by annotation, in the order of the tables."""
        found: dict[int, list[Candidate]] = {}
        for table in self.paths.candidate_tables():
            part = self._part(table, shard)
            for row in _rows(read_part(part), ids) if part.exists() else ():
                found.setdefault(row["annotation_id"], []).append(Candidate.from_row(row))
        return found

    def pixels(self, file_name: str) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of an image, as every stage sees it."""
        return load_image(self.plan.images_root, file_name, rule=self.plan.pixel_rule)

    def own_ids(self) -> dict[int, int]:
        """The ids of the source by those of the run, where they differ."""
        return own_ids(read_part(self._part("manifest", shard)) for shard in self.shards)

    def _part(self, table: str, shard: int) -> Path:
        return self.paths.part(table, shard, self.plan.num_shards)


def true_masks(path: Path | None, fused: FusedRun) -> Callable[[Row, tuple[int, int]], rle.Rle | None]:
    """From a row of the pseudo table and the size of its image to the true mask of its object, if the file has one.

    Args:
        path: a COCO file; None for no truth at all.

    Raises:
        InputError: the file cannot be read, or the run has no ids of given boxes, by which masks are found in it.
    """
    if path is None:
        return lambda row, size_hw: None
    if not fused.plan.n_objects:
        raise InputError(
            f"{fused.paths.root} was made without boxes, so that no id says which true mask is whose; for figures:  "
            f"pseudolabel evaluate {fused.paths.typed} --ground-truth {path}"
        )
    from pseudolabel.datasets.coco_file import read_coco

    rows = read_coco(path)["annotations"]
    known = {row["id"]: row.get("segmentation") for row in rows if not row.get("iscrowd")}
    other = fused.own_ids()

    def of(row: Row, size_hw: tuple[int, int]) -> rle.Rle | None:
        number = row["annotation_id"]
        segmentation = known.get(other.get(number, number))
        return rle.from_segmentation(segmentation, size_hw) if segmentation else None

    return of


def _rows(table: pa.Table, ids: Collection[int] | None) -> Iterator[Row]:
    chosen = pc.equal(table["status"], "ok")
    if "iscrowd" in table.column_names:
        chosen = pc.and_kleene(chosen, pc.invert(pc.fill_null(table["iscrowd"], False)))
    if ids is not None:
        chosen = pc.and_kleene(chosen, pc.is_in(table["annotation_id"], pa.array(list(ids), pa.int64())))
    return iter(table.filter(chosen).to_pylist())


def _class_names(run: RunPaths, plan: Plan, parts: list[Path]) -> dict[int, str]:
    categories = plan.categories or made_categories(run, parts)
    return {category["id"]: str(category["name"]) for category in categories}
