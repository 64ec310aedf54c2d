"""`demo`: draw scenes, train a small segmenter on part of them, and run the whole chain on the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.demo import DemoSegmenter, make_demo_data, train_demo_segmenter
from pseudolabel.pipelines.picture import PictureConfig, draw_pictures
from pseudolabel.pipelines.runner import RunOptions

Say = Callable[[str], None]

# heads on the features of the demo's own segmenter; one thread, as with the segmenter's own training
_SISEG = {"head_width": 64, "crop": 192, "steps": 60, "learning_rate": 4e-3, "threads": 1, "device": "cpu"}


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo shows at its end."""

    figures: dict[str, Any]
    summaries: list[dict[str, Any]]
    pictures: list[Path]


def run_demo(folder: Path, say: Say, on_summary: Callable[[dict[str, Any]], None]) -> DemoResult:
    """The whole chain on drawn scenes below `folder`; what an earlier call finished is not done again.

    Args:
        say: gets one line before each step that takes a while.
        on_summary: gets each stage's summary as it ends.
    """
    data = make_demo_data(folder / "data")
    say(f"scenes drawn in {data.scenes}")
    segmenter = _segmenter(data, folder, say)
    truth = data.scenes / "instances.json"
    chain = parse_chain(_run_file(folder, data.scenes, segmenter, truth), where="demo")
    summaries = []
    for summary in run_chain(chain, RunOptions()):
        summaries.append(summary)
        on_summary(summary)
    pictures = draw_pictures(chain.run, PictureConfig(images=4, objects=36, ground_truth=truth))
    return DemoResult(summaries[-1]["figures"], summaries, pictures)


def _segmenter(data: Any, folder: Path, say: Say) -> Path:
    """The trained segmenter's SMP folder; kept from an earlier call, since the same scenes give the same network."""
    trained = folder / "models" / "segmenter"
    if (folder / "models" / "segmenter.onnx.done").exists():
        say(f"segmenter kept from before: {trained}")
        return trained
    say("training a small segmenter on drawn scenes (less than a minute)")
    result: DemoSegmenter = train_demo_segmenter(data, folder / "models")
    say(
        f"segmenter: mean class IoU {result.mean_class_iou:.3f} on scenes it has not seen; "
        f"its ONNX form differs by {result.export_difference:.1e} in logits"
    )
    (folder / "models" / "segmenter.onnx.done").touch()
    return result.smp_folder


def _run_file(folder: Path, scenes: Path, segmenter: Path, truth: Path) -> dict[str, Any]:
    return {
        "run": str(folder / "run"),
        "shard": {"images": str(scenes / "images"), "annotations": str(scenes / "boxes.json"), "shards": 4},
        "infer-semantic": {"model": f"smp:{segmenter}"},
        "train-siseg": {"backbone": f"smp:{segmenter}", **_SISEG},
        "infer-siseg": {"weak_cells": 0.7, "pictures": 1},
        "fuse": {},
        "evaluate": {"ground_truth": str(truth)},
    }
