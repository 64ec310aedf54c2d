import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.errors import InputError
from pseudolabel.pipelines.chain import parse_chain, plan_lines
from pseudolabel.pipelines.forecast import COSTS, TRAININGS, Cost, Size, megabytes, minutes, training_forecast
from pseudolabel.teachers.mal.config import MalConfig


def _input(folder: Path) -> dict[str, object]:
    """Forty images of 8x6, with two boxes each."""
    (folder / "images").mkdir()
    for number in range(40):
        Image.new("RGB", (8, 6)).save(folder / "images" / f"{number}.png")
    content = {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": 8, "height": 6} for n in range(40)],
        "annotations": [
            {"id": n + 1, "image_id": n // 2 + 1, "category_id": 1, "bbox": [1, 1, 4, 3]} for n in range(80)
        ],
        "categories": [{"id": 1, "name": "cup"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content), encoding="utf-8")
    shard = {"images": str(folder / "images"), "annotations": str(folder / "boxes.json")}
    return {"run": str(folder / "run"), "shard": shard, "infer-colors": {}, "fuse": {}}


def test_a_dry_run_of_a_new_run_counts_images_boxes_and_shards_and_writes_nothing(tmp_path: Path) -> None:
    lines = plan_lines(parse_chain(_input(tmp_path), where="test"))
    assert lines[0] == f"run folder {tmp_path / 'run'}: 40 images with 80 boxes, 3 shards"
    assert lines[2].startswith("infer-colors: to be made; about ")
    assert not (tmp_path / "run").exists()
    assert lines[-1].endswith(f" GB free in {tmp_path}")


def test_a_dry_run_of_a_sample_counts_the_sample(tmp_path: Path) -> None:
    values = _input(tmp_path)
    values["shard"] = {**values["shard"], "sample": 0.25}  # type: ignore[dict-item]
    assert "10 images with 20 boxes, 1 shards" in plan_lines(parse_chain(values, where="test"))[0]


def test_a_dry_run_over_images_that_are_not_there_says_so(tmp_path: Path) -> None:
    values = {"run": str(tmp_path / "run"), "shard": {"images": str(tmp_path / "none")}}
    with pytest.raises(InputError, match="no such folder of images"):
        plan_lines(parse_chain(values, where="test"))


def test_what_a_stage_takes_grows_with_images_and_boxes() -> None:
    cost = Cost(image_s=0.5, box_s=0.1, image_bytes=1000, box_bytes=200, worker_mb=1)
    assert cost.seconds(Size(100, 300, 1)) == pytest.approx(50 + 30)
    assert cost.disk_bytes(Size(100, 300, 1)) == 100_000 + 60_000


def test_times_and_sizes_have_the_digits_that_count() -> None:
    assert [minutes(s) for s in (11.2, 95, 3600, 36_000)] == [
        "0.19 core minutes", "1.6 core minutes", "60 core minutes", "10 core hours"
    ]  # fmt: skip
    assert [megabytes(b) for b in (200_000, 52e6, 3.04e9)] == ["0.2 MB", "52.0 MB", "3.0 GB"]


def test_stages_that_every_way_has_are_measured() -> None:
    assert {"shard", "infer-colors", "infer-semantic", "infer-teacher", "fuse"} <= set(COSTS)


def test_a_training_takes_what_its_pixels_take() -> None:
    """8 epochs over 1000 objects in batches of 8 are 1000 steps of 8 crops of 128 px, and of as many drawn ones."""
    config = MalConfig()
    assert config.megapixels(images=100, objects=1000) == pytest.approx(1000 * 16 * 128**2 / 1e6)
    assert MalConfig(drawn=0).megapixels(100, 1000) == pytest.approx(1000 * 8 * 128**2 / 1e6)
    assert config.megapixels(100, 10**9) == config.megapixels(100, config.max_objects)
    found = training_forecast("train-teacher", config, Size(100, 1000, 1))
    assert found is not None
    rate = TRAININGS["train-teacher", "mal", "mobilenet_v2"]
    assert found.seconds == pytest.approx(rate * 1000 * 16 * 128**2 / 1e6)


def test_several_rounds_take_the_sum_of_their_crops() -> None:
    config = MalConfig(rounds=2, last_crop_px=256, drawn=0)
    assert config.megapixels(10, 1000) == pytest.approx(1000 * 8 * (128**2 + 256**2) / 1e6)


def test_a_dry_run_foresees_a_training_and_says_what_nobody_measured(tmp_path: Path) -> None:
    values = _input(tmp_path) | {"train-teacher": {"preset": "small"}, "train-student": {"backbone": "tiny"}}
    lines = plan_lines(parse_chain(values, where="test"))
    teacher = next(line for line in lines if line.startswith("train-teacher"))
    assert re.search(r"\(to be trained\); about [0-9.]+ core minutes", teacher)
    assert lines[-2].endswith(", without 1 steps that nobody measured")
