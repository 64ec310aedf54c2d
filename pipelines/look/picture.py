"""Pictures of a run's pseudo labels: whole images with their masks, and a sheet of objects in order of score."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import InputError
from pseudolabel.files import atomic_path
from pseudolabel.pipelines.options.tools import PictureConfig
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.made_categories import made_categories
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, read_plan

if TYPE_CHECKING:
    from pseudolabel.report.overlay import DrawnObject


@dataclass(frozen=True, slots=True)
class _Labelled:
    """One image of the run with its pseudo labels."""

    file_name: str
    rows: list[dict[str, Any]]


def draw_pictures(run: RunPaths, config: PictureConfig) -> list[Path]:
    """Write `pictures/fuse/*.png` below the run folder; the paths, the sheet last.

    Raises:
        InputError: the run has no pseudo labels yet.
    """
    from pseudolabel.report.overlay import even_places

    plan = read_plan(run)
    labelled = list(_labelled_images(run, plan))
    if not labelled:
        raise InputError(f"{run.root} has no pseudo labels yet; make them with  pseudolabel fuse {run.root}")
    truth = _truth(config.ground_truth)
    parts = sorted(run.table("pseudo").glob("part-*.parquet"))
    categories = plan.categories or made_categories(run, parts)
    names = {category["id"]: str(category["name"]) for category in categories}
    folder = run.pictures("fuse")
    paths = [
        _save(folder / f"{place:03d}.png", _whole_image(plan, image, names, truth))
        for place, image in enumerate(labelled[place] for place in even_places(len(labelled), config.pictures))
    ]
    if config.objects:
        paths.append(_save(folder / "objects.png", _sheet(plan, labelled, names, truth, config.objects)))
    return paths


def _labelled_images(run: RunPaths, plan: Plan) -> Iterator[_Labelled]:
    for shard in range(plan.num_shards):
        manifest, pseudo = (run.part(table, shard, plan.num_shards) for table in ("manifest", "pseudo"))
        if not pseudo.exists():
            continue
        images = read_part(manifest, ["image_key", "file_name"]).to_pylist()
        files = {row["image_key"]: row["file_name"] for row in images}
        rows = defaultdict(list)
        for row in read_part(pseudo).to_pylist():
            if row["status"] == "ok" and not row["iscrowd"]:
                rows[row["image_key"]].append(row)
        yield from (_Labelled(files[key], objects) for key, objects in sorted(rows.items()))


def _whole_image(plan: Plan, image: _Labelled, names: dict[int, str], truth: dict[int, Any]) -> Any:
    from pseudolabel.report.overlay import overlay_picture

    pixels = _load(plan, image.file_name)
    return overlay_picture(pixels, [_drawn(row, names, truth, pixels.shape[:2]) for row in image.rows], scale=2)


def _sheet(plan: Plan, labelled: list[_Labelled], names: dict[int, str], truth: dict[int, Any], count: int) -> Any:
    from pseudolabel.report.overlay import SheetEntry, contact_sheet, even_places

    ranked = sorted(
        ((row["score"], row["annotation_id"] or 0, image.file_name, row) for image in labelled for row in image.rows),
        key=lambda entry: entry[:3],
    )
    entries = []
    for place in even_places(len(ranked), count):
        score, _, file_name, row = ranked[place]
        pixels = _load(plan, file_name)
        entries.append(SheetEntry(pixels, _drawn(row, names, truth, pixels.shape[:2]), score))
    return contact_sheet(entries)


def _drawn(
    row: dict[str, Any], names: dict[int, str], truth: dict[int, Any], size_hw: tuple[int, int]
) -> "DrawnObject":
    from pseudolabel.labels import drawn_label
    from pseudolabel.rle import decode_crop, from_segmentation

    drawn, segmentation = drawn_label(row, names[row["category_id"]]), truth.get(row["annotation_id"])
    return replace(drawn, truth=decode_crop(from_segmentation(segmentation, size_hw))) if segmentation else drawn


def _truth(path: Path | None) -> dict[int, Any]:
    if path is None:
        return {}
    from pseudolabel.datasets.coco_file import read_coco

    rows = read_coco(path)["annotations"]
    return {row["id"]: row.get("segmentation") for row in rows if not row.get("iscrowd")}


def _load(plan: Plan, file_name: str) -> Any:
    from pseudolabel.images import load_image

    return load_image(plan.images_root, file_name, rule=plan.pixel_rule)


def _save(path: Path, pixels: Any) -> Path:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    return path
