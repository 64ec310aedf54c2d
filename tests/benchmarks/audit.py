"""How many planted errors `audit` finds, of each kind, and how often it is right.

    python tests/benchmarks/audit.py --weights deeplabv3.onnx --work FOLDER [--seed 0] [--out FILE.json]

Errors are planted in the boxes of coco-dev, each in `SHARE` of the objects, one an object: a box given twice (moved by
up to 2 %), enlarged by 30 % on every side, cut by 30 % on one side, of another class of the same file, or left out. A
run is made over the planted file (infer-semantic, fuse), and the audit asked. An issue is right where its kind was
planted in that object; a missing object is found where a suggested box has IoU 0.5 or more with one that was left out.
Precision is a lower bound: the file's own errors count as false. `in_reach` counts the planted errors of objects whose
class, as it stands in the planted file, the segmenter knows (where the kind needs that), `recall_in_reach` the share of
them that was found; `precision_of_first` is that of the `FIRST` issues of a kind.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from harness import report, script_parser, shared_folder

from pseudolabel.boxes import iou_matrix, xywh_to_xyxy
from pseudolabel.pipelines.api import Run
from pseudolabel.pipelines.options.audit import AuditConfig
from pseudolabel.pipelines.tools.audit import audit
from pseudolabel.segmenters.class_map import match_classes

KINDS = ("doubled", "loose", "tight", "wrong_class", "missing")
SHARE = 0.05
FIRST = 10  # of a kind, likeliest first
Row = dict[str, Any]


def planted(content: Mapping[str, Any], seed: int) -> tuple[Row, dict[str, list[Row]]]:
    """The file with errors, and the annotations that have each kind (of left-out ones: as they were)."""
    rng, out = np.random.default_rng(seed), copy.deepcopy(dict(content))
    sizes = {image["id"]: (image["width"], image["height"]) for image in out["images"]}
    rows = [row for row in out["annotations"] if not row.get("iscrowd")]
    count = round(SHARE * len(rows))
    chosen = [rows[place] for place in rng.permutation(len(rows))[: count * len(KINDS)]]
    errors = {kind: chosen[place * count : (place + 1) * count] for place, kind in enumerate(KINDS)}
    classes = sorted({row["category_id"] for row in rows})
    next_id = max(row["id"] for row in out["annotations"]) + 1
    for number, row in enumerate(errors["doubled"]):
        twin = row | {"id": next_id + number, "bbox": _moved(row["bbox"], rng)}
        out["annotations"].append(twin)
    for row in errors["loose"]:
        row["bbox"] = _clipped(_grown(row["bbox"], 0.3), sizes[row["image_id"]])
    for row in errors["tight"]:
        row["bbox"] = _cut(row["bbox"], 0.3, int(rng.integers(4)))
    for row in errors["wrong_class"]:
        row["category_id"] = int(rng.choice([one for one in classes if one != row["category_id"]]))
    gone = {row["id"] for row in errors["missing"]}
    out["annotations"] = [row for row in out["annotations"] if row["id"] not in gone]
    return out, errors


def _moved(bbox: list[float], rng: np.random.Generator) -> list[float]:
    x, y, width, height = bbox
    return [x + width * rng.uniform(0, 0.02), y + height * rng.uniform(0, 0.02), width, height]


def _grown(bbox: list[float], share: float) -> list[float]:
    x, y, width, height = bbox
    return [x - share * width, y - share * height, (1 + 2 * share) * width, (1 + 2 * share) * height]


def _cut(bbox: list[float], share: float, side: int) -> list[float]:
    x, y, width, height = bbox
    return [
        [x + share * width, y, (1 - share) * width, height], [x, y + share * height, width, (1 - share) * height],
        [x, y, (1 - share) * width, height], [x, y, width, (1 - share) * height],
    ][side]  # fmt: skip


def _clipped(bbox: list[float], size: tuple[int, int]) -> list[float]:
    x, y, width, height = bbox
    left, top = max(x, 0.0), max(y, 0.0)
    return [left, top, min(x + width, size[0]) - left, min(y + height, size[1]) - top]


def made_run(work: Path, images: Path, boxes: Path, model: str) -> Run:
    """A run over the planted boxes; what is done already is not done again."""
    run = Run.create(work / "run", images=images, boxes=boxes, shards=8)
    run.step("infer-semantic", model=model, zoom=False)
    run.step("fuse")
    return run


def scored(issues: list[Row], errors: Mapping[str, list[Row]], known: set[int]) -> list[Row]:
    """Precision and recall of each kind."""
    rows = []
    for kind in KINDS:
        found = [one for one in issues if one["issue"] == kind]
        right, caught = _missing_hits(found, errors[kind]) if kind == "missing" else _hits(found, errors[kind])
        likeliest = found[:FIRST]
        of_first = _missing_hits(likeliest, errors[kind]) if kind == "missing" else _hits(likeliest, errors[kind])
        first = of_first[0] / len(likeliest) if likeliest else None
        near = [
            row for row in errors[kind] if row["category_id"] in known or kind in ("doubled", "loose", "wrong_class")
        ]
        rows.append(
            {
                "kind": kind, "planted": len(errors[kind]), "told": len(found),
                "precision": right / len(found) if found else None, "precision_of_first": first,
                "recall": len(caught) / len(errors[kind]),
                "in_reach": len(near),
                "recall_in_reach": sum(row["id"] in caught for row in near) / len(near) if near else None,
            }
        )  # fmt: skip
    return rows


def _hits(found: list[Row], planted_rows: list[Row]) -> tuple[int, set[int]]:
    """How many issues are of a planted error, and which of those were found; of twins either may be told."""
    ids = {row["id"]: row["id"] for row in planted_rows}
    caught = [ids.get(one["id"]) or ids.get(one["other"]) for one in found]
    return sum(one is not None for one in caught), {one for one in caught if one is not None}


def _missing_hits(found: list[Row], gone: list[Row]) -> tuple[int, set[int]]:
    right, caught = 0, set()
    for one in found:
        near = [row for row in gone if row["image_id"] == one["image_id"]]
        if not near:
            continue
        ious = iou_matrix(xywh_to_xyxy(np.array([one["bbox"]])), xywh_to_xyxy(np.array([row["bbox"] for row in near])))[
            0
        ]
        if ious.max() >= 0.5:
            right += 1
            caught.add(near[int(ious.argmax())]["id"])
    return right, caught


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--weights", required=True, help="an ONNX segmenter below the shared weights/")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data, weights = shared_folder() / "data" / "coco-dev", shared_folder() / "weights" / given.weights
    content, errors = planted(json.loads((data / "boxes.json").read_text()), given.seed)
    given.work.mkdir(parents=True, exist_ok=True)
    boxes = given.work / "boxes.json"
    if not boxes.exists():
        boxes.write_text(json.dumps(content))
    run = made_run(given.work, data / "images", boxes, f"onnx:{weights}")
    config = AuditConfig(images=data / "images", run=run.paths.root, out=given.work / "audit", pictures=0)
    names = {row["id"]: row["name"] for row in content["categories"]}
    known = set(match_classes(run_classes(run), names).index_of)
    report("audit", scored(audit(boxes, config)["issues"], errors, known), on="coco-dev", seeds=[given.seed])


def run_classes(run: Run) -> list[str]:
    """The classes of the run's segmenter."""
    from pseudolabel.pipelines.run.commit import read_part

    for part in sorted(run.paths.table("semantic").glob("part-*.parquet")):
        for classes in read_part(part, ["classes"])["classes"].to_pylist():
            if classes:
                return list(classes)
    raise SystemExit(f"{run.paths.root}: no label maps")


if __name__ == "__main__":
    main()
