"""Pictures of a run's pseudo labels: whole images with their masks, a sheet of objects by score, single objects."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import InputError
from pseudolabel.files import atomic_path
from pseudolabel.pipelines.look.sample import RankedSample
from pseudolabel.pipelines.options.tools import PictureConfig
from pseudolabel.pipelines.run.paths import RunPaths

if TYPE_CHECKING:
    from pseudolabel.pipelines.look.rows import FusedRun
    from pseudolabel.report.overlay import DrawnObject

Row = dict[str, Any]
_SAMPLED = 4000  # rows that the sheet's objects are chosen from
_MOST_OBJECTS_DRAWN = 400  # on one whole image
_Truth = Callable[[Row, tuple[int, int]], Any]


def draw_pictures(run: RunPaths, config: PictureConfig) -> list[Path]:
    """Write `pictures/fuse/*.png` below the run folder; the paths, the sheet last.

    Raises:
        InputError: the run has no pseudo labels yet, or none of an annotation that is asked for.
    """
    from pseudolabel.pipelines.look.rows import FusedRun, true_masks

    fused = FusedRun(run)
    truth, folder = true_masks(config.ground_truth, fused), run.pictures("fuse")
    if config.object:
        pictures = _objects(fused, truth, config.object)
        return [save_picture(folder / f"object-{number}.png", pixels) for number, pixels in pictures]
    per_shard, sample = _survey(fused, _SAMPLED)
    paths = [
        save_picture(folder / f"{place:03d}.png", _whole_image(fused, truth, file_name, rows))
        for place, (file_name, rows) in enumerate(_chosen_images(fused, per_shard, config.pictures))
    ]
    if config.objects:
        paths.append(save_picture(folder / "objects.png", _sheet(fused, truth, sample, config.objects)))
    return paths


def _survey(fused: "FusedRun", sampled: int) -> tuple[dict[int, int], list[tuple[int, Row]]]:
    """How many labelled images each shard has, and a sample of objects with their shards, from worst to best."""
    images: Counter[int] = Counter()
    sample = RankedSample(sampled)
    for shard in fused.shards:
        rows = fused.objects(shard)
        images[shard] = len({row["image_key"] for row in rows})
        for place, row in enumerate(rows):
            sample.add((row["score"], row["annotation_id"] or 0, row["image_key"], place), (shard, row))
    if not images.total():
        raise InputError(
            f"{fused.paths.root}: fuse labelled not one object; see  pseudolabel status {fused.paths.typed}"
        )
    return dict(images), sample.ranked()


def _chosen_images(fused: "FusedRun", per_shard: dict[int, int], count: int) -> Iterator[tuple[str, list[Row]]]:
    """Images at even steps through the run, with their objects."""
    from pseudolabel.report.overlay import even_places

    wanted, first = even_places(sum(per_shard.values()), count), 0
    for shard, images in per_shard.items():
        places = [place - first for place in wanted if first <= place < first + images]
        first += images
        if places:
            rows, files = defaultdict(list), fused.file_names(shard)
            for row in fused.objects(shard):
                rows[row["image_key"]].append(row)
            keys = sorted(rows)
            yield from ((files[keys[place]], rows[keys[place]]) for place in places)


def _whole_image(fused: "FusedRun", truth: _Truth, file_name: str, rows: list[Row]) -> Any:
    from pseudolabel.report.overlay import fitting_scale, overlay_picture

    pixels = fused.pixels(file_name)
    largest = sorted(rows, key=lambda row: -row["area"])[:_MOST_OBJECTS_DRAWN]
    drawn = [_drawn(fused, truth, row, pixels.shape[:2]) for row in largest]
    return overlay_picture(pixels, drawn, scale=fitting_scale(pixels.shape[:2]))


def _sheet(fused: "FusedRun", truth: _Truth, ranked: Sequence[tuple[int, Row]], count: int) -> Any:
    """Objects at even steps through the ranks of score; each image is opened once."""
    from pseudolabel.report.overlay import contact_sheet, even_places, object_picture, sheet_layout

    columns, side_px = sheet_layout(count)
    of_image: dict[tuple[int, str], list[tuple[int, Row]]] = defaultdict(list)
    for place, (shard, row) in enumerate(ranked[place] for place in even_places(len(ranked), count)):
        of_image[shard, row["image_key"]].append((place, row))
    cells = {}
    for (shard, key), entries in sorted(of_image.items()):
        pixels = fused.pixels(fused.file_names(shard)[key])
        for place, row in entries:
            cells[place] = object_picture(pixels, _drawn(fused, truth, row, pixels.shape[:2]), side_px=side_px)
        del pixels  # before the next one is opened
    return contact_sheet([cells[place] for place in sorted(cells)], columns=columns)


def _objects(fused: "FusedRun", truth: _Truth, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Each object as it was given, with every source's candidate, and as it was fused."""
    left = set(numbers)
    for shard in fused.shards:
        found = fused.objects(shard, left) if left else []
        candidates = fused.candidates(shard, {row["annotation_id"] for row in found}) if found else {}
        for row in found:
            left.discard(row["annotation_id"])
            pixels = fused.pixels(fused.file_names(shard)[row["image_key"]])
            yield row["annotation_id"], _panels(fused, truth, row, pixels, candidates.get(row["annotation_id"], []))
    if left:
        raise InputError(f"no labelled object has the annotation id {min(left)}; crowds and rejected ones have no mask")


def _panels(fused: "FusedRun", truth: _Truth, row: Row, pixels: Any, candidates: Sequence[Any]) -> Any:
    from pseudolabel.pipelines.look.candidates import best_of_each_source, candidate_label
    from pseudolabel.report.overlay import LONGEST_PX, DrawnObject, contact_sheet, object_picture, square_around

    fused_one = _drawn(fused, truth, row, pixels.shape[:2])
    window, box = square_around(fused_one), fused_one.box_xyxy
    shown = [DrawnObject(None, "given", box)]
    for one in best_of_each_source(candidates):
        shown.append(DrawnObject(one.mask, candidate_label(one), box))
    shown.append(replace(fused_one, label=f"fused: {fused_one.label}"))
    columns = min(len(shown), 4)
    side_px = min(480, LONGEST_PX // columns)
    return contact_sheet(
        [object_picture(pixels, one, side_px=side_px, window=window) for one in shown], columns=columns
    )


def _drawn(fused: "FusedRun", truth: _Truth, row: Row, size_hw: tuple[int, int]) -> "DrawnObject":
    from pseudolabel.labels import drawn_label

    return replace(drawn_label(row, fused.names[row["category_id"]]), truth=truth(row, size_hw))


def save_picture(path: Path, pixels: Any) -> Path:
    """Write a PNG file, whole or not at all; its path."""
    from PIL import Image

    with atomic_path(path) as temporary:  # packed lightly: better packing took as long as all the rest
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)
    return path
