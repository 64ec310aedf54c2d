from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pyarrow as pa
import pytest
from PIL import Image

from pseudolabel import records
from pseudolabel.pipelines.planning.plan import Plan, plan_text
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.infer_semantic import InferSemanticConfig, InferSemanticStage
from pseudolabel.pipelines.stages.semantic_candidates import SemanticCandidatesConfig, SemanticCandidatesStage
from pseudolabel.segmenters.label_maps import decode_indices

CATEGORIES = [{"id": 3, "name": "airplane"}, {"id": 9, "name": "zebra"}]


def _manifest_row(name: str, objects: list[dict[str, Any]], status: dict[str, Any] | None = None) -> dict[str, Any]:
    sizes = {"image_id": 1, "file_name": name, "width": 60, "height": 40, "exif_orientation": 1, "split": ""}
    return {"image_key": name, **sizes, "objects": objects, **(status or records.ok("shard"))}


def _object(annotation_id: int, category_id: int, crowd: bool = False) -> dict[str, Any]:
    box = {"bbox_xywh": [10.0, 5.0, 30.0, 20.0], "iscrowd": crowd, "segmentation": None}
    return {"annotation_id": annotation_id, "category_id": category_id, **box}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Images a to d with label maps: `b` has unknown ids, `c` has no label map, `d.jpg` is no picture."""
    label = np.zeros((40, 60), dtype=np.uint8)
    label[5:25, 10:40] = 1
    (tmp_path / "labels").mkdir()
    for name in "abd":
        Image.fromarray(label * (99 if name == "b" else 1)).save(tmp_path / "labels" / f"{name}.png")
    rgb = np.where(label[..., None] == 1, (200, 40, 40), (40, 140, 60)).astype(np.uint8)
    for name in "abc":
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"not a picture")
    return tmp_path


@pytest.fixture
def manifest() -> pa.Table:
    rows = [
        _manifest_row("d.png", [_object(5, 3)]),
        _manifest_row("a.png", [_object(1, 3), _object(2, 9), _object(3, 3, crowd=True)]),
        _manifest_row("b.png", [_object(4, 3)]),
        _manifest_row("c.png", []),
        _manifest_row("e.png", [], records.rejected("shard", "missing")),
    ]
    return records.table_from_rows(rows, records.MANIFEST)


def _planned(place: Path) -> RunPaths:
    run = RunPaths(place / "run")
    run.root.mkdir(exist_ok=True)
    run.plan.write_text(plan_text(Plan(1, "", "transpose", "", 1, 1, {}, CATEGORIES, {}, [], "")))
    return run


def _semantic(place: Path, manifest: pa.Table) -> pa.Table:
    config = InferSemanticConfig(model=f"labels:{place / 'labels'}", label_format="voc")
    stage = InferSemanticStage(config, RunPaths(place / "run"))
    stage.setup("cpu")
    return stage.run(_shard(place), {"manifest": manifest})


def _shard(place: Path) -> Shard:
    return Shard(0, 1, place, "transpose")


def _candidates(
    place: Path, manifest: pa.Table, semantic: pa.Table, unknown_classes: Literal["colors", "none"] = "none"
) -> list[dict[str, Any]]:
    stage = SemanticCandidatesStage(SemanticCandidatesConfig(unknown_classes=unknown_classes), _planned(place))
    stage.setup("cpu")
    table = stage.run(_shard(place), {"manifest": manifest, "semantic": semantic})
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_every_usable_image_gives_one_row_and_failures_say_why(place: Path, manifest: pa.Table) -> None:
    table = _semantic(place, manifest)
    assert table.schema == records.SEMANTIC
    rows = {row["image_key"]: (row["status"], row["reason"]) for row in table.to_pylist()}
    assert list(rows.items()) == [
        ("a.png", ("ok", None)),
        ("b.png", ("rejected", "unknown_label_ids")),
        ("c.png", ("rejected", "no_label_file")),
        ("d.png", ("ok", None)),
    ]


def test_a_further_segmenter_has_tables_of_its_own_and_does_not_repeat_the_colours(
    place: Path, manifest: pa.Table
) -> None:
    config = InferSemanticConfig(model="labels:x", name="second")
    assert (InferSemanticConfig(model="labels:x").unknown_classes, config.unknown_classes) == ("colors", "none")
    assert InferSemanticStage(config, RunPaths(place)).writes == "semantic-second"
    stage = SemanticCandidatesStage(SemanticCandidatesConfig(name="second"), _planned(place))
    assert (stage.reads(), stage.writes) == (("manifest", "semantic-second"), "candidates/second")
    stage.setup("cpu")
    rows = stage.run(_shard(place), {"manifest": manifest, "semantic-second": _semantic(place, manifest)}).to_pylist()
    assert {row["source"] for row in rows if row["knows_class"]} == {"second"}
    assert {row["source"] for row in rows if row["knows_class"] is False} == {"colors"}


def test_label_map_and_confidence_are_stored_without_loss(place: Path, manifest: pa.Table) -> None:
    row = _semantic(place, manifest).to_pylist()[0]
    label_map = decode_indices(row["label_map"])
    assert label_map.shape == (40, 60)
    assert label_map.sum() == 600
    assert row["classes"][1] == "aeroplane"
    assert (decode_indices(row["confidence"]) == 255).all()


def test_candidates_come_for_known_classes_and_every_image_is_there(place: Path, manifest: pa.Table) -> None:
    rows = _candidates(place, manifest, _semantic(place, manifest))
    assert [(row["image_key"], row["annotation_id"], row["status"], row["reason"]) for row in rows] == [
        ("a.png", 1, "ok", None),
        ("b.png", None, "rejected", "image_rejected"),
        ("c.png", None, "rejected", "image_rejected"),
        ("d.png", None, "rejected", "unsupported_format"),
    ]
    mask = records.soft_mask_from_struct(rows[0]["mask"])
    assert mask.grid.extent_xyxy == (10, 5, 40, 25)
    assert (mask.probability > 127).all()
    assert rows[0]["source"] == "semantic"
    assert rows[0]["box_iou"] == pytest.approx(1)


def test_unknown_classes_get_candidates_from_colours_but_crowds_do_not(place: Path, manifest: pa.Table) -> None:
    rows = _candidates(place, manifest, _semantic(place, manifest), "colors")
    assert [row["annotation_id"] for row in rows if row["image_key"] == "a.png"] == [1, 2]


def test_files_of_label_maps_are_not_looked_at_closer(place: Path, manifest: pa.Table) -> None:
    assert set(_semantic(place, manifest).column("looks").to_pylist()) == {None}


def test_weights_of_an_onnx_model_are_the_file_and_its_card(tmp_path: Path) -> None:
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "nothing", [], [])), str(tmp_path / "net.onnx"))
    fields = "input: {mean: [0, 0, 0], std: [1, 1, 1], size: [64, 64]}\noutput: {kind: logits, align_corners: false}\n"
    (tmp_path / "net.yaml").write_text(f"name: net\n{fields}classes: [a, b]\n")
    stage = InferSemanticStage(InferSemanticConfig(model=f"onnx:{tmp_path / 'net.onnx'}"), RunPaths(tmp_path))
    assert stage.weights() == {"model": tmp_path / "net.onnx", "card": tmp_path / "net.yaml"}


@pytest.mark.slow
def test_the_real_segmenter_gives_the_same_bytes_for_any_batch_size(shared_folder: Path, tmp_path: Path) -> None:
    images = shared_folder / "data" / "coco-dev" / "images"
    names = sorted(path.name for path in images.iterdir())[:3]
    rows = []
    for name in names:
        with Image.open(images / name) as image:
            rows.append({**_manifest_row(name, [_object(1, 3)]), "width": image.width, "height": image.height})
    model = shared_folder / "weights" / "deeplabv3_mobilenetv2_voc21.onnx"
    tables = []
    for batch_size in (1, 2):
        config = InferSemanticConfig(model=f"onnx:{model}", batch_size=batch_size)
        stage = InferSemanticStage(config, _planned(tmp_path))
        stage.setup("cpu")
        inputs = {"manifest": records.table_from_rows(rows, records.MANIFEST)}
        tables.append(stage.run(Shard(0, 1, images, "transpose"), inputs))
    assert tables[0].column("status").to_pylist() == ["ok"] * 3
    assert tables[0].equals(tables[1])
    assert [len(looks) for looks in tables[0].column("looks").to_pylist()] == [2, 2, 2]
