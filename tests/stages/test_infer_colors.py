"""`infer-colors`: one candidate per box out of the picture alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pseudolabel import records
from pseudolabel.masks import pixel_window, resample
from pseudolabel.pipelines.planning.plan import Plan, plan_text
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.infer_colors import InferColorsConfig, InferColorsStage

BOX = (10.0, 5.0, 30.0, 20.0)


def _row(name: str, objects: list[dict[str, Any]], width: int = 60) -> dict[str, Any]:
    sizes = {"image_id": 1, "file_name": name, "width": width, "height": 40, "exif_orientation": 1, "split": ""}
    return {"image_key": name, **sizes, "objects": objects, **records.ok("shard")}


def _object(annotation_id: int, *, crowd: bool = False) -> dict[str, Any]:
    return {
        "annotation_id": annotation_id,
        "category_id": 3,
        "bbox_xywh": list(BOX),
        "iscrowd": crowd,
        "segmentation": None,
    }


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Candidates of a red triangle in its box, of an empty picture, of one that is none, and of one of another size."""
    rgb = np.full((40, 60, 3), (40, 140, 60), dtype=np.uint8)
    rgb[_triangle()] = (200, 40, 40)
    for name in ("a.png", "b.png", "d.png"):
        Image.fromarray(rgb).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"not a picture")
    manifest = [_row("a.png", [_object(1), _object(2, crowd=True)]), _row("b.png", []), _row("c.png", [_object(3)])]
    manifest.append(_row("d.png", [_object(4)], width=61))
    run = RunPaths(tmp_path / "run")
    run.root.mkdir()
    categories = [{"id": 3, "name": "thing"}]
    run.plan.write_text(plan_text(Plan(1, "", "transpose", "", 1, 1, {}, categories, {}, [], "")))
    stage = InferColorsStage(InferColorsConfig(), run)
    stage.setup("cpu")
    table = stage.run(
        Shard(0, 1, tmp_path, "transpose"), {"manifest": records.table_from_rows(manifest, records.MANIFEST)}
    )
    assert isinstance(table, pa.Table)
    assert table.schema == records.CANDIDATES
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def _triangle() -> np.ndarray:
    y, x = np.mgrid[:40, :60] + 0.5
    inside: np.ndarray = (y > 5) & (y < 25) & (np.abs(x - 25) < 0.75 * (y - 5))
    return inside


def test_every_image_has_its_row_and_failures_say_why(rows: list[dict[str, Any]]) -> None:
    assert [(row["image_key"], row["annotation_id"], row["status"], row["reason"]) for row in rows] == [
        ("a.png", 1, "ok", None),
        ("b.png", None, "empty", None),
        ("c.png", None, "rejected", "unsupported_format"),
        ("d.png", None, "rejected", "changed_since_plan"),
    ]


def test_the_mask_follows_the_colours_and_not_the_box(rows: list[dict[str, Any]]) -> None:
    mask = records.soft_mask_from_struct(rows[0]["mask"])
    window = pixel_window((0, 0, 60, 40), (40, 60))
    found = resample(mask.probability.astype(np.float32) / 255, mask.grid, window) > 0.5
    true = _triangle()
    assert true.sum() / (BOX[2] * BOX[3]) == pytest.approx(0.5, abs=0.02)  # what the box itself would have
    assert (found & true).sum() / (found | true).sum() > 0.7
    assert rows[0]["source"] == "colors"
    assert 0.1 < rows[0]["box_score"] < 0.5
