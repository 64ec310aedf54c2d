"""Instances behind a user's own segmenter (a PSPNet of SMP), on pictures that nobody has annotated."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import yaml

from pseudolabel.pipelines.demo.scenes import draw_scene, write_dataset
from pseudolabel.pipelines.demo.segmenter import card, class_names, normalised
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.options.train_siseg import TrainSisegConfig
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import StageConfig
from pseudolabel.pipelines.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.stages.infer_siseg import InferSisegConfig
from pseudolabel.pipelines.stages.shard import ShardConfig
from pseudolabel.pipelines.trainers.base import run_training
from pseudolabel.pipelines.work.job import ShardWorker, make_job
from pseudolabel.rle import area, decode

SIZE = 96


@pytest.fixture(scope="module")
def pspnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PSPNet that knows objects from ground, as `save_pretrained` writes it, with a card beside it."""
    torch.manual_seed(0)
    network = smp.PSPNet("tu-test_resnet", encoder_weights=None, classes=len(class_names()), psp_out_channels=64)
    scenes = [draw_scene(1_000_003 * 3 + index, (SIZE, SIZE)) for index in range(2)]
    images = normalised(np.stack([scene.image for scene in scenes]))
    labels = torch.from_numpy(np.stack([scene.semantic for scene in scenes]).astype(np.int64))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("pspnet")
    network.eval().save_pretrained(folder)
    (folder / "model.yaml").write_text(yaml.safe_dump(card()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bare(pspnet: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run over a bare folder, up to fused labels."""
    folder = tmp_path_factory.mktemp("bare")
    write_dataset(folder / "data", 2, 3, size_hw=(SIZE, SIZE))  # the same two scenes
    run = RunPaths(folder / "run")
    make_plan(run, PlanConfig(images=str(folder / "data" / "images"), shards=1))
    _work(run, "shard", ShardConfig())
    _work(run, "infer-semantic", InferSemanticConfig(model=f"smp:{pspnet}"))
    small: dict[str, Any] = {"head_width": 64, "crop": 96, "radius": 5, "steps": 2, "batch_size": 2, "device": "cpu"}
    run_training(run, "train-siseg", TrainSisegConfig(backbone="tiny", backbone_weights="none", **small))
    _work(run, "infer-siseg", InferSisegConfig())
    _work(run, "fuse", FuseConfig())
    return run


def _work(run: RunPaths, stage: str, config: StageConfig) -> None:
    worker = ShardWorker(make_job(run, stage, config, "cpu"))
    assert worker.attempt(0), run.failure(stage, 0).read_text()
    worker.stage.finish([run.part(worker.stage.writes, 0, 1)])


def test_instances_come_out_of_a_pspnet_of_smp(bare: RunPaths) -> None:
    rows = read_part(run_part := bare.part("candidates/siseg", 0, 1)).to_pylist()
    assert run_part.is_file()
    found = [row for row in rows if row["status"] == "ok"]
    assert {row["category_id"] for row in found} <= set(range(1, len(class_names())))
    assert {row["annotation_id"] for row in found} == {None}


def test_pictures_without_annotations_get_scored_masks_on_their_objects(bare: RunPaths) -> None:
    content = json.loads((bare.table("pseudo") / "instances.json").read_text())
    assert content["annotations"]
    names = {image["id"]: image["file_name"] for image in content["images"]}
    inside, total = 0, 0
    for row in content["annotations"]:
        scene = draw_scene(1_000_003 * 3 + sorted(names.values()).index(names[row["image_id"]]), (SIZE, SIZE))
        mask = decode(row["segmentation"])
        assert area(row["segmentation"]) == row["area"] > 0
        assert 0 < row["score"] <= 1
        inside, total = inside + int((scene.semantic[mask] > 0).sum()), total + int(mask.sum())
    assert inside / total > 0.7


@pytest.mark.parametrize(
    "model", ["deeplabv3_mobilenetv2_voc21", "deeplabv3_mobilenetv2_050_voc21_513"], ids=["full", "half-fixed-size"]
)
def test_instances_on_a_photograph_come_out_of_an_onnx_segmenter(model: str, bare: RunPaths, tmp_path: Path) -> None:
    run = _photograph_run(tmp_path, _shared())
    _work(run, "infer-semantic", InferSemanticConfig(model=f"onnx:{_shared() / 'weights' / model}.onnx"))
    _work(run, "infer-siseg", InferSisegConfig(weights=bare.model("siseg")))
    (semantic,) = _image_rows(run, "semantic")
    found = [row for row in read_part(run.part("candidates/siseg", 0, 1)).to_pylist() if row["status"] == "ok"]
    assert found
    assert {row["category_id"] for row in found} <= set(range(1, len(semantic["classes"])))


def _photograph_run(folder: Path, shared: Path) -> RunPaths:
    """A run over one photograph of coco-dev, without its annotations."""
    content = json.loads((shared / "data" / "coco-dev" / "boxes.json").read_text())
    (folder / "images").mkdir()
    person = next(row["image_id"] for row in content["annotations"] if row["category_id"] == 1)
    name = next(row["file_name"] for row in content["images"] if row["id"] == person)
    shutil.copy(shared / "data" / "coco-dev" / "images" / name, folder / "images" / Path(name).name)
    run = RunPaths(folder / "run")
    make_plan(run, PlanConfig(images=str(folder / "images"), shards=1))
    _work(run, "shard", ShardConfig())
    return run


def _image_rows(run: RunPaths, table: str) -> list[dict[str, Any]]:
    return [row for row in read_part(run.part(table, 0, 1)).to_pylist() if row["status"] == "ok"]


def _shared() -> Path:
    place = Path(os.environ.get("PSEUDOLABEL_SHARED", str(Path(__file__).resolve().parents[2].parent / "shared")))
    if not (place / "weights").is_dir():
        pytest.skip(f"NO SHARED WEIGHTS at {place}: the ONNX segmenters were not tried; set PSEUDOLABEL_SHARED")
    return place
