"""Which part of a command's CPU seconds its network fills, and what a picture of a large photograph costs.

`share` is the network's own seconds over all. Of `infer-semantic` those are of a process that starts, loads, decodes,
looks closer, makes candidates and writes them, for 100 photographs of coco-dev behind one of the segmenters that lie
beside them, and of the calls of onnxruntime in it; `colours_s` are those of the fields that make masks sharp, and that
make them alone for the three quarters of the classes that the segmenter does not know. Teachers and students are those
of `gpu_stages.py`, on drawn scenes with random weights: the whole beside bare passes of the same batch. One thread.

    python tests/benchmarks/throughput.py --out docs/results/throughput.json      # about five minutes
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness import report, script_parser, shared_folder
from PIL import Image
from start_up import cost

PHOTOGRAPHS = 100
SEGMENTER = "deeplabv3_mobilenetv2_050_voc21_513.onnx"
STAGES = ("infer_teacher_mal", "infer_teacher_condinst", "train_mal", "train_boxseg", "train_student")
MEGAPIXELS = {12: (3000, 4000), 48: (6000, 8000)}
Row = dict[str, Any]


def semantic_row(folder: Path) -> Row:
    """A run of 100 photographs through `infer-semantic`, in a process of its own."""
    from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
    from pseudolabel.pipelines.run.paths import RunPaths
    from pseudolabel.pipelines.runner import run_stage
    from pseudolabel.pipelines.stage import StageConfig

    data, run = shared_folder() / "data" / "coco-dev", RunPaths(folder / "run")
    whole = json.loads((data / "boxes.json").read_text())
    images = sorted(whole["images"], key=lambda one: one["id"])[:PHOTOGRAPHS]
    ids = {one["id"] for one in images}
    boxes = [one for one in whole["annotations"] if one["image_id"] in ids]
    (folder / "boxes.json").write_text(json.dumps(whole | {"images": images, "annotations": boxes}))
    make_plan(run, PlanConfig(images=str(data / "images"), annotations=folder / "boxes.json", shards=1))
    run_stage(run, "shard", StageConfig(workers=1))
    command = [sys.executable, __file__, "--inside", str(run.root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_one_thread())
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return {"case": f"infer-semantic, {len(images)} photographs, {len(boxes)} boxes", **found}


def semantic_seconds(root: Path) -> Row:
    """CPU seconds of this process since it began, and in it those of the network and of the colour fields."""
    from pseudolabel.pipelines.engines.base import EngineOptions
    from pseudolabel.pipelines.run.paths import RunPaths
    from pseudolabel.pipelines.runner import RunOptions
    from pseudolabel.pipelines.steps import parse_step
    from pseudolabel.segmenters import candidates
    from pseudolabel.segmenters.onnx import OnnxNetwork

    spent = {"network": 0.0, "colours": 0.0}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            output = work(*given, **named)
            spent[name] += time.process_time() - start
            return output

        return measured

    options = {"model": f"onnx:{shared_folder() / 'weights' / SEGMENTER}", "workers": 1, "device": "cpu"}
    network = patch.object(OnnxNetwork, "__call__", timed("network", OnnxNetwork.__call__))
    colours = patch.object(candidates, "_refined", timed("colours", candidates._refined))
    with network, colours:
        for _ in parse_step("infer-semantic", options).run(RunPaths(root), RunOptions(EngineOptions("inline"))):
            pass
    whole = time.process_time()
    shares = {"bare_s": spent["network"], "whole_s": whole, "share": spent["network"] / whole}
    return shares | {"colours_s": spent["colours"]}


def stage_rows() -> Iterator[Row]:
    """Teachers and students at the size of a CPU's preset."""
    import torch
    from gpu_stages import STAGES as OF_ALL
    from gpu_stages import Size

    torch.set_num_threads(1)
    size = Size("cpu", images=4, width=64, short_px=320, batch=4, steps=24, repeats=7)
    for name in STAGES:
        yield OF_ALL[name](size)


def picture_row(folder: Path, megapixels: int) -> Row:
    """`picture` of one enlarged scene whose boxes enlarge with it, in a process of its own."""
    from pseudolabel.pipelines.demo.scenes import draw_scene

    scene, (height, width) = draw_scene(0, (480, 640)), MEGAPIXELS[megapixels]
    images, run = folder / f"images-{megapixels}", folder / f"run-{megapixels}"
    images.mkdir()
    Image.fromarray(scene.image).resize((width, height)).save(images / "scene.jpg")
    rows = [
        {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0,
         "bbox": [float(v) * height / 480 for v in (x0, y0, x1 - x0, y1 - y0)]}
        for number, (x0, y0, x1, y1) in enumerate(scene.boxes_xyxy(), start=1)
    ]  # fmt: skip
    image = {"id": 1, "file_name": "scene.jpg", "width": width, "height": height}
    boxes = folder / f"boxes-{megapixels}.json"
    boxes.write_text(json.dumps({"images": [image], "categories": [{"id": 1, "name": "thing"}], "annotations": rows}))
    for arguments in (
        ["shard", str(run), "--images", str(images), "--annotations", str(boxes)],
        ["infer-colors", str(run)],
        ["fuse", str(run)],
    ):
        cost(["-m", "pseudolabel", *arguments], _one_thread())
    seconds, mib = cost(["-m", "pseudolabel", "picture", str(run)], _one_thread())
    return {"case": f"picture, {megapixels} megapixels", "cpu_s": seconds, "peak_mib": mib}


def _one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--inside", type=Path, help="of a run: do it in this process and print its seconds")
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(semantic_seconds(given.inside)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        # pictures first, while this process is small: another starts with the memory of who starts it
        rows = [picture_row(Path(scratch), megapixels) for megapixels in MEGAPIXELS]
        rows += [semantic_row(Path(scratch)), *stage_rows()]
    report("throughput", rows, on="photographs of coco-dev, drawn scenes; one thread")


if __name__ == "__main__":
    main()
