"""`add-candidates`: masks that another program made become a candidate table of the run, a source of `fuse`.

Parts carry the run's own footer; their fingerprint is a hash of their rows, so that other masks under the same name
make `fuse` go again and the same masks leave everything as it is.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from pseudolabel import records
from pseudolabel.candidates import Candidate, usable_images
from pseudolabel.config import parse_config
from pseudolabel.errors import IncompleteError, InputError, StaleOutputError
from pseudolabel.pipelines.options.stages.add_candidates import AddCandidatesConfig
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.brought import brought_footer, footer_there, known_by
from pseudolabel.pipelines.run.commit import commit_table, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.work.job import library_versions

if TYPE_CHECKING:
    from pseudolabel.brought.base import KnownRun
    from pseudolabel.brought.match import Matched, Matching

STAGE = "add-candidates"
VERSION = 2
_SHOWN = 3
Row = dict[str, Any]
Match = Literal["auto", "id", "box"]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the masks that were brought."""

    table: str
    by: str  # what they were matched by
    masks: int  # that were brought
    candidates: int  # that were written
    objects: int  # of the run
    objects_with_mask: int
    empty_masks: list[str]  # nothing of them lies in the box of their object
    far_from_box: int  # written, but their extent overlaps the box by less than one half: fuse leaves them out
    foreign_ids: list[int | str | None]
    foreign_images: list[str]
    without_box: list[str]
    shards_written: int

    def as_dict(self) -> Row:
        return asdict(self)


def write_candidates(
    run: RunPaths | Path | str,
    name: str,
    masks: Path | str | Mapping[int, Any] | pa.Table | Iterable[Mapping[str, Any]],
    *,
    match: Match = "auto",
    min_iou: float = 0.5,
    knows_class: bool = False,
    overwrite: bool = False,
) -> Added:
    """Write `candidates/NAME` of a run from masks that another program made.

    Args:
        run: the run, or its folder; its manifest must be there.
        masks: a path as the command takes it; masks by annotation id (boolean arrays or probabilities of the image's
            size, RLE or polygons; a list of arrays or RLE for several); or rows with the columns of docs/formats.md.
        name, match, min_iou, knows_class: as the command's options.
        overwrite: replace other masks of the same name.

    Raises:
        ConfigError: an option is none that the command would take.
        InputError: a mask is damaged (the message names file, entry and field), or none of them is for this run.
        StaleOutputError: the table holds other masks, or is a stage's.
        IncompleteError: the manifest is not complete.
    """
    from pseudolabel.brought.match import match_masks
    from pseudolabel.brought.read import read_masks

    options = {"name": name, "match": match, "min_iou": min_iou, "knows_class": knows_class, "overwrite": overwrite}
    parse_config(AddCandidatesConfig, {"masks": ".", **options}, where=STAGE)
    run = run if isinstance(run, RunPaths) else RunPaths(Path(run))
    plan, table = read_plan(run), f"candidates/{name}"
    _refuse_stage(run, plan, table)
    manifests = [_manifest(run, shard, plan.num_shards) for shard in range(plan.num_shards)]
    known = known_by(manifests)
    brought = list(read_masks(masks))
    if not brought:
        raise InputError(f"{masks}: not one mask in it")
    matching = match_masks(brought, known, by=match, min_iou=min_iou)
    rows, empty = _rows(matching, name, knows_class)
    if not rows:
        raise InputError(_nothing_text(matching, empty, known, len(brought)))
    written = _write(run, plan, table, manifests, rows, overwrite=overwrite)
    return _added(table, len(brought), matching, known, rows, empty, written)


def add_candidates(run: RunPaths, config: AddCandidatesConfig) -> Row:
    """The same by the options of the command; the fields of `Added` by name."""
    return write_candidates(
        run,
        config.name,
        config.masks,
        match=config.match,
        min_iou=config.min_iou,
        knows_class=config.knows_class,
        overwrite=config.overwrite,
    ).as_dict()


def format_added(figures: Mapping[str, Any]) -> str:
    """What a person is told: what was written, and everything that was left out."""
    added = Added(**figures)
    lines = [
        f"{STAGE}: {added.table}: {added.candidates} of {added.masks} masks, for {added.objects_with_mask} of "
        f"{added.objects} objects, matched by {added.by}"
        + ("" if added.shards_written else "; the table holds them already")
    ]
    named: dict[str, list[Any]] = {
        "are of no object of the run (annotation ids {})": added.foreign_ids,
        "are of no image of the run ({})": added.foreign_images,
        "are no box's mask ({})": added.without_box,
        "are empty in the box of their object ({})": added.empty_masks,
    }
    lines += [f"{len(found)} {text.format(_shown(found))}" for text, found in named.items() if found]
    if added.far_from_box:
        lines.append(
            f"{added.far_from_box} overlap their box by less than one half, which fuse leaves out (--min-iou); "
            "are they of other objects?"
        )
    return "\n".join(lines)


def _manifest(run: RunPaths, shard: int, num_shards: int) -> pa.Table:
    try:
        return read_part(run.part("manifest", shard, num_shards))
    except FileNotFoundError:
        raise IncompleteError(
            f"{STAGE} needs the manifest, and shard {shard} of {num_shards} is missing; run  pseudolabel shard  first"
        ) from None


def _rows(matching: "Matching", name: str, knows_class: bool) -> tuple[dict[int, list[Row]], list[str]]:
    """Rows by shard, and where the masks stand of which nothing is in the box of their object."""
    rows: dict[int, list[Row]] = defaultdict(list)
    empty: list[str] = []
    for one in matching.matched:
        row = _row(one, name, knows_class)
        if row is None:
            empty.append(one.brought.where)
        else:
            rows[one.image.shard].append(row)
    return dict(rows), empty


def _row(one: "Matched", name: str, knows_class: bool) -> Row | None:
    """The candidate of a mask; None where nothing of it is foreground in the box."""
    import numpy as np

    from pseudolabel.boxes import iou_matrix
    from pseudolabel.brought.soft import cut_to_box, extent_xyxy, is_empty

    brought, target = one.brought, one.target
    mask = brought.paint(one.image.size_hw)
    extent = extent_xyxy(mask)
    if extent is None:
        return None
    cut = cut_to_box(mask, target.box_xyxy if target else brought.box_xyxy or extent, one.image.size_hw)
    if is_empty(cut):
        return None
    box = brought.box_xyxy or extent
    overlap = float(iou_matrix(np.array([box]), np.array([target.box_xyxy]))[0, 0]) if target else None
    candidate = Candidate(
        source=brought.source or name,
        annotation_id=target.annotation_id if target else None,
        category_id=target.category_id if target else brought.category_id,
        box_xyxy=box,
        box_score=brought.score if brought.score is not None else 1.0 if overlap is None else overlap,
        box_iou=overlap,
        mask=cut,
        knows_class=brought.knows_class or knows_class,
    )
    return {"image_key": one.image.key, **candidate.to_row(), **records.ok(STAGE)}


def _write(
    run: RunPaths,
    plan: Plan,
    table: str,
    manifests: list[pa.Table],
    rows: Mapping[int, list[Row]],
    *,
    overwrite: bool,
) -> int:
    """How many parts were written; all are made before the first one takes its place."""
    staging = RunPaths(run.root / "_adding")
    shutil.rmtree(staging.root, ignore_errors=True)
    changed: list[int] = []
    for shard, manifest in enumerate(manifests):
        part = _part(rows.get(shard, []), manifest)
        manifest_footer = read_footer(run.part("manifest", shard, plan.num_shards))
        footer = brought_footer(
            part, manifest, manifest_footer, stage=STAGE, version=VERSION, versions=library_versions()
        )
        there = footer_there(run.part(table, shard, plan.num_shards))
        if there is not None and there.fingerprint == footer.fingerprint:
            continue
        if there is not None and not overwrite:
            raise StaleOutputError(f"{run.table(table)} holds other masks: use --overwrite, or another --name")
        commit_table(part, staging.part(table, shard, plan.num_shards), footer)
        changed.append(shard)
    run.table(table).mkdir(parents=True, exist_ok=True)
    for shard in changed:
        staging.part(table, shard, plan.num_shards).replace(run.part(table, shard, plan.num_shards))
    shutil.rmtree(staging.root, ignore_errors=True)
    return len(changed)


def _part(rows: list[Row], manifest: pa.Table) -> pa.Table:
    """The shard's rows in order of image and object, with an `empty` row for each image without any."""
    there = {row["image_key"] for row in rows}
    empty = [
        {"image_key": image.key, **records.empty(STAGE)} for image in usable_images(manifest) if image.key not in there
    ]
    return records.table_from_rows(sorted(rows + empty, key=_place), records.CANDIDATES)


def _place(row: Row) -> tuple[str, int]:
    """Stable: several candidates of an object stay in the order in which they were brought."""
    return (row["image_key"], row.get("annotation_id") or -1)


def _refuse_stage(run: RunPaths, plan: Plan, table: str) -> None:
    """A table of one of the run's own stages is not to be mixed with brought masks."""
    for shard in range(plan.num_shards):
        there = footer_there(run.part(table, shard, plan.num_shards))
        if there is not None and there.stage != STAGE:
            raise StaleOutputError(f"{run.table(table)} was written by {there.stage}; give another --name")


def _added(
    table: str,
    brought: int,
    matching: "Matching",
    known: "KnownRun",
    rows: Mapping[int, list[Row]],
    empty: list[str],
    written: int,
) -> Added:
    everything = [row for several in rows.values() for row in several]
    objects = {row["annotation_id"] for row in everything if row["annotation_id"] is not None}
    return Added(
        table=table,
        by=matching.by,
        masks=brought,
        candidates=len(everything),
        objects=len(known.by_object),
        objects_with_mask=len(objects),
        empty_masks=empty,
        far_from_box=sum(row["box_iou"] is not None and row["box_iou"] < 0.5 for row in everything),
        foreign_ids=matching.foreign_ids,
        foreign_images=matching.foreign_images,
        without_box=matching.without_box,
        shards_written=written,
    )


def _nothing_text(matching: "Matching", empty: list[str], known: "KnownRun", brought: int) -> str:
    if empty:
        return f"nothing of {len(empty)} of {brought} masks is in the box of their object: {_shown(empty)}"
    said = matching.foreign_ids or matching.foreign_images or matching.without_box
    ids = list(known.by_source_id or known.by_object)[:3]
    return (
        f"not one of {brought} masks is for an object of this run (matched by {matching.by}); theirs: {_shown(said)}; "
        f"the run's annotation ids begin {_shown(ids)}, its images {_shown(sorted(known.images)[:3])}"
    )


def _shown(values: list[Any]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")
