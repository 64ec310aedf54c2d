"""`audit`: what is likely wrong with given boxes and masks, as CSV, JSON and pictures of the worst."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.audit.kinds import FACTS
from pseudolabel.candidates import usable_images
from pseudolabel.errors import InputError, QualityGateError, RejectError
from pseudolabel.files import atomic_path, write_text_atomically
from pseudolabel.pipelines.options.audit import AuditConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths

if TYPE_CHECKING:
    from pseudolabel.audit.evidence import Evidence
    from pseudolabel.audit.issues import GivenObject, Issue

Row = dict[str, Any]
_COLUMNS = ("file", "id", "issue", "score", "suggestion", "class", "other")
_SAME_BOX_PX = 1.0
_BAD_MASK_IOU, _GOOD_SCORE = 0.5, 0.75
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of the file with its annotations that are no crowds."""

    image_id: int
    file_name: str
    size_hw: tuple[int, int]
    objects: list["GivenObject"] = field(default_factory=list)
    segmentations: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a run knows of an image."""

    evidence: "Evidence | None"
    pseudo: dict[int, Row]


def audit(annotations: Path, config: AuditConfig) -> Row:
    """Write the issues of a COCO file, worst first; `issues`, `counts` of each kind, `objects`, and `out`.

    Raises:
        InputError: the file, or the run, cannot be read.
    """
    images = _images(annotations)
    objects = [(image, one) for image in images for one in image.objects]
    found = [(image, issue) for image in images for issue in _of_boxes(image)]
    found += _odd(objects)
    if config.run is not None:
        found += _by_run(RunPaths(config.run), images)
    found = [(image, issue) for image, issue in found if issue.score >= config.least_score]
    found.sort(key=lambda one: (one[1].kind not in FACTS, -one[1].score, one[0].file_name, one[1].annotation_id or -1))
    rows = [_row(image, issue) for image, issue in found]
    _write(config.out, rows)
    pictures = _draw(config, found) if config.images is not None else []
    counts = Counter(row["issue"] for row in rows)
    return {
        "annotations": str(annotations), "objects": len(objects), "images": len(images), "counts": dict(counts),
        "out": str(config.out), "pictures": pictures, "issues": rows,
    }  # fmt: skip


def format_audit(result: Mapping[str, Any]) -> str:
    """How many of each kind, the worst few, and where the rest stands."""
    counts = sorted(result["counts"].items())
    sure = ", ".join(f"{count} {name}" for name, count in counts if name in FACTS) or "no errors for sure"
    hints = ", ".join(f"{count} {name}" for name, count in counts if name not in FACTS)
    lines = [f"audit: {result['objects']} objects on {result['images']} images: {sure}"]
    lines += [f"worth a look, most of them right as they are: {hints}"] if hints else []
    lines += [_line(row) for row in result["issues"][:_SHOWN]]
    return "\n".join([*lines, f"all of them, likeliest first: {Path(result['out']) / 'issues.csv'}"])


def check_audit(result: Mapping[str, Any], config: AuditConfig) -> None:
    """Pass where there is no issue of the kinds that are too much.

    Raises:
        QualityGateError: there is.
    """
    bad = {kind: result["counts"][kind] for kind in config.fail_on if result["counts"].get(kind)}
    if bad:
        raise QualityGateError(
            f"--fail-on: {', '.join(f'{count} {kind}' for kind, count in bad.items())}; see {config.out / 'issues.csv'}"
        )


def _images(path: Path) -> list[_Image]:
    from pseudolabel.audit.issues import GivenObject
    from pseudolabel.boxes import check_xywh
    from pseudolabel.datasets.coco_file import read_coco

    content = read_coco(path)
    names = {row["id"]: str(row["name"]) for row in content["categories"]}
    images = {
        row["id"]: _Image(row["id"], row["file_name"], (row["height"], row["width"])) for row in content["images"]
    }
    for row in content["annotations"]:
        if row.get("iscrowd") in (1, "1", True):
            continue
        where = f"{path}, annotation {row['id']}"
        if row["image_id"] not in images or row["category_id"] not in names:
            raise InputError(f"{where}: its image or its category is not in the file; pseudolabel shard names all such")
        try:
            x, y, width, height = check_xywh(row.get("bbox"))
        except RejectError as error:
            raise InputError(f"{where}: {error.detail}; pseudolabel shard names all such") from None
        image, category = images[row["image_id"]], row["category_id"]
        image.objects.append(GivenObject(row["id"], category, names[category], (x, y, x + width, y + height)))
        if row.get("segmentation"):
            image.segmentations[row["id"]] = row["segmentation"]
    return list(images.values())


def _of_boxes(image: _Image) -> Iterator["Issue"]:
    from pseudolabel.audit.issues import doubled, ill_placed

    yield from doubled(image.objects)
    yield from ill_placed(image.objects, image.size_hw)


def _odd(objects: Sequence[tuple[_Image, "GivenObject"]]) -> list[tuple[_Image, "Issue"]]:
    from pseudolabel.audit.issues import odd_sizes

    of_id = {one.annotation_id: image for image, one in objects}
    issues = odd_sizes([one for _, one in objects], [image.size_hw for image, _ in objects])
    return [(of_id[issue.annotation_id], issue) for issue in issues if issue.annotation_id is not None]


def _by_run(run: RunPaths, images: Sequence[_Image]) -> Iterator[tuple[_Image, "Issue"]]:
    """The issues that the tables of a run show, shard by shard."""
    by_name = {image.file_name: image for image in images}
    plan, met = read_plan(run), 0
    categories = {one.category_id: one.class_name for image in images for one in image.objects}
    for shard in range(plan.num_shards):
        for name, seen in _seen(run, shard, plan.num_shards, categories):
            if name in by_name:
                met += 1
                yield from ((by_name[name], issue) for issue in _of_evidence(by_name[name], seen))
    if not met:
        raise InputError(f"{run.root}: not one of its images is in the annotations, by file name")


def _seen(run: RunPaths, shard: int, num_shards: int, categories: Mapping[int, str]) -> Iterator[tuple[str, _Seen]]:
    pseudo: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in _rows(run.part("pseudo", shard, num_shards)):
        if row["status"] == "ok" and row["annotation_id"] is not None:
            pseudo[row["image_key"]][row["annotation_id"]] = row
    maps = {row["image_key"]: row for row in _rows(run.part("semantic", shard, num_shards)) if row["status"] == "ok"}
    for image in usable_images(read_part(run.part("manifest", shard, num_shards))):
        evidence = _evidence(maps[image.key], categories, image.size_hw) if image.key in maps else None
        yield image.file_name, _Seen(evidence, pseudo[image.key])


def _rows(part: Path) -> list[Row]:
    """The rows of a part, none where the run has no such table."""
    rows: list[Row] = read_part(part).to_pylist() if part.exists() else []
    return rows


def _evidence(row: Row, categories: Mapping[int, str], size_hw: tuple[int, int]) -> "Evidence":
    from pseudolabel.audit.evidence import Evidence
    from pseudolabel.segmenters.class_map import match_classes
    from pseudolabel.segmenters.label_maps import decode_indices

    index_of = match_classes(row["classes"], categories).index_of
    maps = decode_indices(row["label_map"]), decode_indices(row["confidence"])
    return Evidence(*maps, index_of, row["classes"], size_hw)


def _of_evidence(image: _Image, seen: _Seen) -> Iterator["Issue"]:
    from pseudolabel.audit.evidence import missing, of_other_class, too_loose, too_tight

    for place, one in enumerate(image.objects):
        others = image.objects[:place] + image.objects[place + 1 :]
        if seen.evidence is not None:
            yield from too_tight(one, others, seen.evidence)
            yield from too_loose(one, seen.evidence)
            yield from of_other_class(one, others, seen.evidence)
        row = seen.pseudo.get(one.annotation_id)
        if row is not None and _is_same_box(row, one):
            yield from _of_mask(image, one, row)
    if seen.evidence is not None:
        yield from missing(image.objects, seen.evidence)


def _of_mask(image: _Image, one: "GivenObject", row: Row) -> Iterator["Issue"]:
    """What a fused mask shows against the mask that the file has."""
    from pseudolabel.audit.issues import Issue
    from pseudolabel.metrics.mask_iou import rle_iou
    from pseudolabel.rle import from_segmentation

    if not row["candidates_used"] or row["decision"] in ("box_only", "ignore"):
        return
    own = image.segmentations.get(one.annotation_id)
    if own is None:
        return
    try:
        iou = rle_iou(from_segmentation(own, image.size_hw), row["segmentation"])
    except RejectError as error:
        yield Issue("bad_mask", 1.0, error.detail, one.annotation_id)
        return
    if iou < _BAD_MASK_IOU and row["score"] >= _GOOD_SCORE:
        text = f"IoU {iou:.2f} with the fused mask, whose score is {row['score']:.2f}"
        yield Issue("bad_mask", (1 - iou) * row["score"], text, one.annotation_id)


def _is_same_box(row: Row, one: "GivenObject") -> bool:
    x, y, width, height = row["source_bbox_xywh"]
    corners = (x, y, x + width, y + height)
    return all(abs(a - b) <= _SAME_BOX_PX for a, b in zip(corners, one.box_xyxy, strict=True))


def _row(image: _Image, issue: "Issue") -> Row:
    names = {one.annotation_id: one.class_name for one in image.objects}
    box = issue.box_xyxy
    return {
        "file": image.file_name,
        "id": issue.annotation_id,
        "issue": issue.kind,
        "score": round(issue.score, 4),
        "suggestion": issue.suggestion,
        "class": names.get(issue.annotation_id) if issue.annotation_id is not None else None,
        "other": issue.other_id,
        "image_id": image.image_id,
        "bbox": None if box is None else [round(v, 2) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
    }


def _write(folder: Path, rows: Sequence[Row]) -> None:
    write_text_atomically(folder / "issues.json", json.dumps(rows, indent=1) + "\n")
    with atomic_path(folder / "issues.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _line(row: Row) -> str:
    about = f"id {row['id']}" if row["id"] is not None else "no annotation"
    return f"  {row['score']:.2f} {row['issue']:<12} {row['file']} {about}: {row['suggestion']}"


def _draw(config: AuditConfig, found: Sequence[tuple[_Image, "Issue"]]) -> list[str]:
    from pseudolabel.audit.pictures import issue_picture
    from pseudolabel.images import load_image

    paths = []
    for place, (image, issue) in enumerate(found[: config.pictures]):
        boxes = {one.annotation_id: one.box_xyxy for one in image.objects}
        given = [boxes[number] for number in (issue.annotation_id, issue.other_id) if number in boxes]
        picture = issue_picture(load_image(config.images or "", image.file_name), given, issue)
        path = config.out / "pictures" / f"{place:03d}-{issue.kind}.png"
        with atomic_path(path) as temporary:
            picture.save(temporary, format="PNG")
        paths.append(str(path))
    return paths
