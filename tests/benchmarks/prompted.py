"""What a class-agnostic salience model is worth as a gated source of `fuse`, beside a segmenter, on coco-dev's boxes.

    npm pack @imgly/background-removal-data@1.4.5
    python tests/benchmarks/prompted.py --package imgly-background-removal-data-1.4.5.tgz --folder RUNS

The package's `models/medium` is an ISNet in pieces (weights MIT, package AGPL-3.0): it is put together here, brought to
the side at which crops enter, and never kept with the results. `infer-prompted --model crop:` asks it about every
box. True masks serve the figures alone. `gain` is the mean IoU above that of the semantics alone, object by object,
with its 95 % interval under resampling of images. RUNS/coco is made or gone on with; `--shards` measures a part of it.
"""

import hashlib
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from fusion_ablation import CASES, SEGMENTER, gain, measured, predictions_of, selected
from harness import report, script_parser, shared_folder
from onnx import numpy_helper

from pseudolabel.datasets.coco_file import read_coco
from pseudolabel.metrics.mask_iou import object_ious
from pseudolabel.metrics.objects import Truth, read_truth
from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.options.stages.infer_prompted import CROP_GATE, InferPromptedConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, run_stage
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.fuse import FuseStage

MODEL = "/models/medium"
TRAINED_PX = 1024
CARD = """name: isnet-medium
license: MIT
input: {mean: [0.502, 0.502, 0.502], std: [1.004, 1.004, 1.004], size: [%d, %d]}  # (x - 128) / 256
output: {kind: probability}
"""
GATES = (0.0, 0.5, CROP_GATE, 0.7, 0.8)
Row = dict[str, Any]


def unpacked(package: Path, folder: Path, side_px: int) -> Path:
    """The model of the npm package as one ONNX file for square crops of `side_px`, its card beside it."""
    path = folder / f"isnet-{side_px}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        model = onnx.load(io.BytesIO(_joined(package)))
        _resize(model.graph, side_px)
        onnx.save(model, path)
    path.with_suffix(".yaml").write_text(CARD % (side_px, side_px))
    return path


def _joined(package: Path) -> bytes:
    """The pieces in their order, each checked against its name, which is its hash."""
    with tarfile.open(package) as archive:

        def member(name: str) -> bytes:
            file = archive.extractfile(f"package/dist/{name}")
            assert file is not None
            return file.read()

        entry = json.loads(member("resources.json"))[MODEL]
        pieces = [(one["hash"], member(one["hash"])) for one in entry["chunks"]]
    for name, piece in pieces:
        assert hashlib.sha256(piece).hexdigest() == name, f"{name} is damaged"
    whole = b"".join(piece for _, piece in pieces)
    assert len(whole) == entry["size"], f"{len(whole)} of {entry['size']} bytes"
    return whole


def _resize(graph: Any, side_px: int) -> None:
    """Another input side: the targets of all enlargements are constants of the graph, and shrink alike."""
    del graph.output[1:]
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for axis in (2, 3):
            value.type.tensor_type.shape.dim[axis].dim_value = side_px
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    concats = {node.output[0]: node for node in graph.node if node.op_type == "Concat"}
    for sizes in {node.input[3] for node in graph.node if node.op_type == "Resize"}:
        tensor = constants[concats[sizes].input[1]].attribute[0].t
        smaller = numpy_helper.to_array(tensor) * side_px // TRAINED_PX
        tensor.CopyFrom(numpy_helper.from_array(smaller, tensor.name))


def with_candidates(run: RunPaths, model: Path, rooms: list[float], shards: tuple[int, ...], workers: int) -> float:
    """The run with a table of ungated answers for each room; seconds that it took."""
    start = time.monotonic()
    for room in rooms:
        options = {"model": f"crop:{model}", "name": table_of(room), "crop_room": [room], "least_score": 0.0}
        config = InferPromptedConfig(**options, workers=workers, device="cpu")
        run_stage(run, "infer-prompted", config, RunOptions(shards=shards))
    return time.monotonic() - start


def table_of(room: float) -> str:
    """The table of one room."""
    return f"crop-{round(room * 100)}"


def rows_of(
    run: RunPaths, rooms: list[float], shards: tuple[int, ...], truth: Truth, sources: list[str]
) -> Iterator[Row]:
    """Semantics alone, the crop model alone, and both under several gates."""
    settings: dict[str, tuple[bool, float | None, Row]] = {
        "semantic": (True, None, {}),
        "crop alone, no gate": (False, 0.0, {}),
        **{f"semantic + crop, gate {gate}": (True, gate, {}) for gate in GATES},
    }
    best: dict[str, np.ndarray] = {}
    for name, (semantic, gate, options) in settings.items():
        rows = fused(run, rooms, shards, gate, options, sources if semantic else [])
        for case in ("all", "voc32"):
            objects = selected(truth, CASES[case])
            ious = object_ious(objects, predictions_of(rows, truth))
            best.setdefault(case, ious)
            figures = measured(rows, truth, CASES[case]) | {"gain": gain(ious, best[case], objects)}
            with_crop = sum("crop" in row["sources"] for row in rows if row["sources"])
            yield {"setting": name, "case": case, **figures, "objects_with_crop": with_crop}


def fused(
    run: RunPaths, rooms: list[float], shards: tuple[int, ...], gate: float | None, options: Row, sources: list[str]
) -> list[Row]:
    """What `fuse` says with the answers above a gate as one source, those of all rooms being its candidates."""
    num_shards = read_plan(run).num_shards
    rows: list[Row] = []
    stage = FuseStage(FuseConfig(**options), run)
    stage.setup("cpu")
    for index in shards:
        tables = {name: read_part(run.part(name, index, num_shards)) for name in ("manifest", *sources)}
        if gate is not None:
            tables["candidates/crop"] = _gated(run, rooms, index, num_shards, gate)
        plan = read_plan(run)
        place = Shard(index, num_shards, Path(plan.images_root), plan.exif)
        rows += stage.run(place, tables).to_pylist()
    return [row for row in rows if row["status"] == "ok" and not row["iscrowd"]]


def _gated(run: RunPaths, rooms: list[float], shard: int, num_shards: int, gate: float) -> Any:
    import pyarrow as pa

    parts = [read_part(run.part(f"candidates/{table_of(room)}", shard, num_shards)) for room in rooms]
    rows = [row for part in parts for row in part.to_pylist() if row["status"] == "ok" and row["box_score"] >= gate]
    return pa.Table.from_pylist([row | {"source": "crop"} for row in rows], schema=parts[0].schema.remove_metadata())


def made_run(folder: Path) -> RunPaths:
    """The run of coco-dev's boxes with a segmenter's candidates; what is there is kept."""
    data, weights = shared_folder() / "data" / "coco-dev", shared_folder() / "weights"
    sections = {
        "run": str(folder / "coco"),
        "shard": {"images": str(data / "images"), "annotations": str(data / "boxes.json"), "shards": 8},
        "infer-semantic": {"model": f"onnx:{weights / SEGMENTER}"},
    }
    chain = parse_chain(sections, where="prompted")
    for _ in run_chain(chain, RunOptions()):
        pass
    return chain.run


def truth_of(run: RunPaths, shards: tuple[int, ...]) -> Truth:
    """The true objects of the images of some shards."""
    path = shared_folder() / "data" / "coco-dev" / "instances.json"
    truth = read_truth(read_coco(path))
    num_shards = read_plan(run).num_shards
    parts = [read_part(run.part("manifest", shard, num_shards), columns=["image_id"]) for shard in shards]
    images = {image_id for part in parts for image_id in part["image_id"].to_pylist()}
    return replace(truth, objects=tuple(one for one in truth.objects if one.image_id in images))


def main() -> None:
    torch.set_num_threads(1)
    parser = script_parser(__doc__)
    parser.add_argument("--package", type=Path, required=True, help="what npm pack wrote")
    parser.add_argument("--folder", type=Path, help="where model and run are made and kept")
    parser.add_argument("--side", type=int, default=512, help="px at which crops enter")
    parser.add_argument("--room", type=float, action="append", help="around the box; 0.1 and 0.25 if not given")
    parser.add_argument("--shards", type=int, default=8, help="of 8: how many are measured")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        rooms, shards = given.room or [0.1, 0.25], tuple(range(given.shards))
        run = made_run(folder)
        model = unpacked(given.package, folder, given.side)
        seconds = with_candidates(run, model, rooms, shards, given.workers)
        truth = truth_of(run, shards)
        rows = list(rows_of(run, rooms, shards, truth, ["candidates/semantic"]))
    print(f"infer-prompted: {seconds:.0f} s")
    report(
        "prompted",
        rows,
        on=f"coco-dev, boxes of {given.shards} of 8 shards, crops with room {rooms} at {given.side} px",
    )


if __name__ == "__main__":
    main()
