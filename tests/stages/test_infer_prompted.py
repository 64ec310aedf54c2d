"""`infer-prompted` over runs of drawn scenes and of pictures that a camera turned."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pseudolabel import records
from pseudolabel.config import parse_config, result_relevant
from pseudolabel.errors import ConfigError, RejectError, StaleOutputError
from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.options.stages.fuse import FuseConfig
from pseudolabel.pipelines.options.stages.infer_prompted import InferPromptedConfig
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import Footer, commit_table, read_footer, read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions, StageSummary, run_stage
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.infer_prompted import InferPromptedStage
from pseudolabel.pipelines.stages.shard import ShardStage
from pseudolabel.pipelines.work.job import ShardWorker, make_job
from pseudolabel.prompted.base import PromptedMask, Prompts
from pseudolabel.records import soft_mask_from_struct

CARD = "name: bright\ninput: {mean: [0, 0, 0], std: [1, 1, 1], size: [64, 64]}\noutput: {kind: probability}\n"


class _Bright(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels.mean(dim=1, keepdim=True) - 0.3) * 50).sigmoid()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes what is bright for the object."""
    path = tmp_path_factory.mktemp("crop") / "bright.onnx"
    torch.onnx.export(
        _Bright(), (torch.rand(1, 3, 64, 64),), path, input_names=["x"], output_names=["alpha"], dynamo=False
    )
    path.with_suffix(".yaml").write_text(CARD)
    return path


def _run_stage(run: RunPaths, name: str, config: Any) -> StageSummary:
    """In this process: what workers do is tested elsewhere."""
    return run_stage(run, name, config, RunOptions(engine="inline"))


def _planned(folder: Path, run: Path, *, boxes: bool = True, shards: int = 2) -> RunPaths:
    paths = RunPaths(run)
    annotations = {"annotations": folder / "boxes.json"} if boxes else {}
    make_plan(paths, PlanConfig(images=folder / "images", shards=shards, **annotations))
    _run_stage(paths, "shard", ShardStage.config_class(workers=1))
    return paths


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 6, 0, size_hw=(96, 120))
    return folder


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> RunPaths:
    return _planned(scenes, tmp_path / "run")


def _config(model_file: Path, **options: Any) -> InferPromptedConfig:
    return InferPromptedConfig(model=f"crop:{model_file}", workers=1, device="cpu", least_score=0.0, **options)


def _rows(run: RunPaths, table: str) -> list[dict[str, Any]]:
    shards = read_plan(run).num_shards
    return [row for shard in range(shards) for row in read_part(run.part(table, shard, shards)).to_pylist()]


def _objects(run: RunPaths) -> dict[int, dict[str, Any]]:
    return {one["annotation_id"]: one for image in _rows(run, "manifest") for one in image["objects"] or ()}


def test_every_mask_belongs_to_a_box_and_lies_in_it(run: RunPaths, model_file: Path) -> None:
    summary = _run_stage(run, "infer-prompted", _config(model_file))
    objects = _objects(run)
    rows = [row for row in _rows(run, "candidates/prompted") if row["status"] == "ok"]
    assert summary.n_in == 6
    assert rows
    for row in rows:
        x, y, width, height = objects[row["annotation_id"]]["bbox_xywh"]
        left, top, right, bottom = soft_mask_from_struct(row["mask"]).grid.extent_xyxy
        assert left >= np.floor(x)
        assert top >= np.floor(y)
        assert right <= np.ceil(x + width)
        assert bottom <= np.ceil(y + height)
        assert row["category_id"] == objects[row["annotation_id"]]["category_id"]
        assert (row["source"], row["knows_class"]) == ("prompted", False)


def test_fuse_takes_them_as_a_source(run: RunPaths, model_file: Path) -> None:
    _run_stage(run, "infer-prompted", _config(model_file, name="bright"))
    _run_stage(run, "fuse", FuseConfig(workers=1))
    sources = {source for row in _rows(run, "pseudo") for source in row["sources"] or ()}
    assert sources == {"bright"}


def test_how_many_shards_there_are_changes_no_row(scenes: Path, tmp_path: Path, model_file: Path) -> None:
    tables = []
    for shards in (1, 3):
        one = _planned(scenes, tmp_path / str(shards), shards=shards)
        _run_stage(one, "infer-prompted", _config(model_file))
        tables.append(
            sorted(_rows(one, "candidates/prompted"), key=lambda row: (row["image_key"], str(row["annotation_id"])))
        )
    assert tables[0] == tables[1]


def test_a_run_goes_on_where_a_worker_was_killed(
    run: RunPaths, model_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first shard is committed, the second one's worker dies in its midst: the same command does that one alone."""
    job = make_job(run, "infer-prompted", _config(model_file), "cpu")
    assert ShardWorker(job).attempt(0)
    before = run.part("candidates/prompted", 0, 2).stat().st_mtime_ns

    def killed(self: InferPromptedStage, *_: object) -> pa.Table:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(InferPromptedStage, "run", killed)
        with pytest.raises(SystemExit):
            ShardWorker(job).attempt(1)
    assert not run.part("candidates/prompted", 1, 2).exists()
    summary = _run_stage(run, "infer-prompted", _config(model_file))
    assert summary.attempted == 1
    assert run.part("candidates/prompted", 0, 2).stat().st_mtime_ns == before
    whole = RunPaths(tmp_path / "whole")
    shutil.copytree(run.root, whole.root, ignore=shutil.ignore_patterns("candidates", "_*"))
    _run_stage(whole, "infer-prompted", _config(model_file))
    for shard in range(2):
        assert (
            run.part("candidates/prompted", shard, 2).read_bytes()
            == whole.part("candidates/prompted", shard, 2).read_bytes()
        )


def test_another_card_makes_the_table_stale(run: RunPaths, model_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "bright.onnx"
    own.write_bytes(model_file.read_bytes())
    own.with_suffix(".yaml").write_text(CARD)
    _run_stage(run, "infer-prompted", _config(own))
    own.with_suffix(".yaml").write_text(CARD.replace("std: [1, 1, 1]", "std: [0.9, 0.9, 0.9]"))
    with pytest.raises(StaleOutputError, match="the content of card changed"):
        _run_stage(run, "infer-prompted", _config(own))


def test_a_run_without_boxes_says_so(scenes: Path, tmp_path: Path, model_file: Path) -> None:
    bare = _planned(scenes, tmp_path / "bare", boxes=False)
    with pytest.raises(ConfigError, match=r"infer-prompted needs boxes, and this run has none: .*--boxes-from siseg"):
        _run_stage(bare, "infer-prompted", _config(model_file))


def test_a_run_with_boxes_takes_no_others(run: RunPaths, model_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"this run has \d+ boxes of its own; omit it"):
        _run_stage(run, "infer-prompted", _config(model_file, boxes_from="siseg"))


def test_another_sources_boxes_are_refined(scenes: Path, tmp_path: Path, model_file: Path, run: RunPaths) -> None:
    """Free candidates of a run without boxes: the masks of the same boxes, given, with the other source's certainty."""
    bare = _planned(scenes, tmp_path / "bare", boxes=False, shards=1)
    given = [row for row in _rows(run, "manifest") if row["objects"]]
    found = [
        {
            "image_key": image["image_key"], "source": "siseg", "category_id": one["category_id"],
            "box_xyxy": [one["bbox_xywh"][0], one["bbox_xywh"][1], one["bbox_xywh"][0] + one["bbox_xywh"][2],
                         one["bbox_xywh"][1] + one["bbox_xywh"][3]],
            "box_score": 0.5, **records.ok("infer-siseg"),
        }
        for image in given for one in image["objects"]
    ]  # fmt: skip
    footer = Footer("infer-siseg", 1, "0", 0, 1, 6, 6, 0)
    commit_table(records.table_from_rows(found, records.CANDIDATES), bare.part("candidates/siseg", 0, 1), footer)
    _run_stage(bare, "infer-prompted", _config(model_file, boxes_from="siseg"))
    _run_stage(run, "infer-prompted", _config(model_file))
    free = [row for row in _rows(bare, "candidates/prompted") if row["status"] == "ok"]
    bound = [row for row in _rows(run, "candidates/prompted") if row["status"] == "ok"]
    assert len(free) == len(bound) > 0
    assert all(row["annotation_id"] is None and row["box_iou"] is None for row in free)
    key = lambda row: (row["image_key"], row["box_xyxy"], row["mask"]["probability"])  # noqa: E731
    for own, other in zip(sorted(free, key=key), sorted(bound, key=key), strict=True):
        assert own["box_score"] == pytest.approx(other["box_score"] / 2, rel=1e-6)
        assert own["category_id"] == other["category_id"]


class _Echo:
    """Answers with the box it is asked about, all of it foreground, and remembers the picture."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def predict(self, prompts: Prompts) -> list[PromptedMask]:
        from pseudolabel.masks import SoftMask, box_cells

        self.seen.append(prompts.pixels)
        found = []
        for place, box in enumerate(prompts.boxes_xyxy.tolist()):
            cells = box_cells(tuple(box), prompts.pixels.shape[:2])
            mask = SoftMask(cells, np.full((cells.height, cells.width), 255, dtype=np.uint8))
            found.append(PromptedMask(place, 0.9, 1.0, tuple(box), mask))
        return found


def test_a_turned_picture_is_asked_about_as_the_plan_turned_it(tmp_path: Path, model_file: Path) -> None:
    """The picture is stored on its side with an EXIF orientation of 6; the boxes are of the upright one."""
    (tmp_path / "images").mkdir()
    stored = np.zeros((60, 100, 3), dtype=np.uint8)  # upright: 100 high, 60 wide
    stored[40:, :, 0] = 255  # the lowest rows: the left side of the upright picture
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    (tmp_path / "images" / "turned.png").write_bytes(buffer.getvalue())
    (tmp_path / "boxes.json").write_text(
        '{"images": [{"id": 1, "file_name": "turned.png", "width": 60, "height": 100}], '
        '"categories": [{"id": 1, "name": "thing"}], '
        '"annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [3, 70, 50, 25], "iscrowd": 0}]}'
    )
    run = _planned(tmp_path, tmp_path / "run", shards=1)
    stage = InferPromptedStage(_config(model_file), run)
    stage._model = echo = _Echo()
    plan = read_plan(run)
    rows = stage.run(
        Shard(0, 1, plan.images_root, plan.exif), {"manifest": read_part(run.part("manifest", 0, 1))}
    ).to_pylist()
    assert echo.seen[0].shape == (100, 60, 3)
    assert (echo.seen[0][:, :19, 0] == 255).all()
    assert [(row["annotation_id"], row["box_xyxy"]) for row in rows] == [(5, [3, 70, 53, 95])]


class _Broken(_Echo):
    def predict(self, prompts: Prompts) -> list[PromptedMask]:
        raise RejectError("non_finite", "the model's answer")


def test_an_image_whose_answer_is_not_finite_is_a_reject_and_the_others_go_on(run: RunPaths, model_file: Path) -> None:
    stage = InferPromptedStage(_config(model_file), run)
    stage._model = _Broken()
    plan, manifest = read_plan(run), read_part(run.part("manifest", 0, 2))
    rows = stage.run(Shard(0, 2, plan.images_root, plan.exif), {"manifest": manifest}).to_pylist()
    images = {row["image_key"] for row in manifest.to_pylist()}
    assert {row["image_key"] for row in rows} == images
    assert {(row["status"], row["reason"]) for row in rows} == {("rejected", "non_finite")}


def test_an_image_without_objects_costs_no_forward_pass(run: RunPaths, model_file: Path) -> None:
    stage = InferPromptedStage(_config(model_file), run)
    stage._model = echo = _Echo()
    plan, manifest = read_plan(run), read_part(run.part("manifest", 0, 2))
    bare = pa.Table.from_pylist([row | {"objects": []} for row in manifest.to_pylist()], schema=manifest.schema)
    rows = stage.run(Shard(0, 2, plan.images_root, plan.exif), {"manifest": bare}).to_pylist()
    assert {row["status"] for row in rows} == {"empty"}
    assert echo.seen == []


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("crop:a.onnx", {"box_views": 3}, "box_views does nothing for a crop: model"),
        ("sam:a", {"crop_room": [0.5]}, "crop_room does nothing for a sam: model"),
        ("sam-onnx:a", {"precision": "bf16"}, "precision does nothing for a sam-onnx: model"),
    ],
)
def test_an_option_that_the_model_does_not_have_is_refused(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(InferPromptedConfig, {"model": model, **options}, where="infer-prompted")


def test_the_gate_is_for_crop_models_unless_it_is_said() -> None:
    assert InferPromptedConfig(model="crop:a.onnx").gate == 0.6
    assert InferPromptedConfig(model="sam:a").gate == 0.0
    assert InferPromptedConfig(model="sam:a", least_score=0.3).gate == 0.3


def test_where_it_runs_is_no_part_of_the_result() -> None:
    relevant = result_relevant(InferPromptedConfig(model="sam:a"))
    assert not {"threads", "device", "workers"} & relevant.keys()
    assert {"model", "box_views", "boxes_at_once", "precision", "closer_px"} <= relevant.keys()


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_a_folder_of_transformers_is_run_from_the_command_on(
    kind: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "prompted"))
    from tiny import save_tiny

    folder: Callable[..., Path] = save_tiny
    run = _planned(scenes, tmp_path / "run", shards=1)
    config = InferPromptedConfig(model=f"sam:{folder(kind, tmp_path / kind)}", workers=1, device="cpu", box_views=2)
    _run_stage(run, "infer-prompted", config)
    footer = read_footer(run.part("candidates/prompted", 0, 1))
    assert set(footer.weights) == {"config.json", "preprocessor_config.json", "model.safetensors", "transformers"}
    assert any(row["status"] == "ok" for row in _rows(run, "candidates/prompted"))
