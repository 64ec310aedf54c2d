import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.chain import parse_chain, plan_lines, run_chain
from pseudolabel.pipelines.forecast import COSTS, Cost, Size, TrainingCost, forecast, megabytes, minutes
from pseudolabel.pipelines.options.train_siseg import TrainSisegConfig
from pseudolabel.pipelines.options.train_student import TrainStudentConfig
from pseudolabel.pipelines.runner import RunOptions
from pseudolabel.siseg.config import VIEW_BYTES
from pseudolabel.teachers.mal.config import MalConfig
from pseudolabel.training.config import TrainConfig, Work


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


def test_a_file_of_a_later_step_that_is_not_there_is_told_before_the_first_one(tmp_path: Path) -> None:
    weights = str(tmp_path / "none.safetensors")
    student = {"backbone_weights": weights, "validation": str(tmp_path / "box.json")}
    values = {**_input(tmp_path), "train-student": student, "evaluate": {"ground_truth": str(tmp_path / "none.json")}}
    chain = parse_chain(values, where="test")
    wanted = (
        r"train-student: .*box.json: no such file; did you mean 'boxes.json'\?; "
        r"train-student: .*none.safetensors: no such file; evaluate: .*none.json: no such file"
    )
    for start in (plan_lines, lambda chain: list(run_chain(chain, RunOptions()))):
        with pytest.raises(InputError, match=wanted):
            start(chain)
    assert not (tmp_path / "run").exists()


def test_a_command_that_is_no_section_is_told_to_be_typed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'export' is no section of a run file; type it .* pseudolabel export "):
        parse_chain({**_input(tmp_path), "export": {}}, where="test")


def test_a_dry_run_of_a_new_run_counts_images_boxes_and_shards_and_writes_nothing(tmp_path: Path) -> None:
    lines = plan_lines(parse_chain(_input(tmp_path), where="test"))
    assert lines[0] == f"run folder {tmp_path / 'run'}: 40 images with 80 boxes, 3 shards"
    assert lines[2].startswith("infer-colors: to be made; about ")
    assert not (tmp_path / "run").exists()
    assert lines[-1].endswith(f" GB free in {tmp_path}")


def test_a_dry_run_foresees_what_is_left(tmp_path: Path) -> None:
    values = _input(tmp_path)
    first = parse_chain({name: values[name] for name in ("run", "shard", "infer-colors")}, where="test")
    for _ in run_chain(first, RunOptions()):
        pass
    chain = parse_chain(values, where="test")
    lines = {line.split(":")[0]: line for line in plan_lines(chain)}
    assert lines["infer-colors"] == "infer-colors: 3 shards done"
    assert "about" not in lines["shard"]
    assert lines["fuse"].startswith("fuse: 3 shards missing; about ")
    (tmp_path / "run" / "candidates" / "colors" / "part-00001-of-00003.parquet").unlink()
    again = {line.split(":")[0]: line for line in plan_lines(chain)}
    assert again["infer-colors"].startswith("infer-colors: 2 shards done, 1 shards missing; about ")
    assert chain.steps[1].outlook(chain.run).left == pytest.approx(1 / 3)


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
    work = config.work(images=100, objects=1000)
    assert work.megapixels == pytest.approx(1000 * 16 * 128**2 / 1e6)
    assert work.step_megapixels == pytest.approx(16 * 128**2 / 1e6)
    assert work.scratch_bytes == 1000 * 3 * 192**2, "every object has a canvas of half as many pixels again a side"
    assert MalConfig(drawn=0).work(100, 1000).megapixels == pytest.approx(1000 * 8 * 128**2 / 1e6)
    assert config.work(100, 10**9).megapixels == config.work(100, config.max_objects).megapixels


def test_several_rounds_take_the_sum_of_their_crops() -> None:
    work = MalConfig(rounds=2, last_crop_px=256, drawn=0).work(10, 1000)
    assert work.megapixels == pytest.approx(1000 * 8 * (128**2 + 256**2) / 1e6)
    assert work.step_megapixels == pytest.approx(8 * 256**2 / 1e6)


def test_a_student_sees_every_image_and_its_objects_once_an_epoch() -> None:
    """12 epochs of 100 images in batches of 4 are 300 steps of 4 pictures of 256 px, with 10 objects each."""
    work = TrainStudentConfig(preset="small").work(images=100, objects=1000)
    assert work.megapixels == pytest.approx(300 * 4 * 256**2 / 1e6)
    assert work.step_megapixels == pytest.approx(4 * 256**2 / 1e6)
    assert work.objects == pytest.approx(300 * 4 * 10)


def test_siseg_encodes_views_once_where_they_fit_and_every_crop_anew_where_not() -> None:
    """Two views of 30 images; of 10,000 images 2400 crops, and each image for the mean displacement."""
    config = TrainSisegConfig()
    few, many = config.work(30, 0), config.work(10_000, 0)
    assert (few.encoded, few.kept) == (60, 60)
    assert many.encoded == 600 * 4 + 10_000
    assert many.kept * VIEW_BYTES["mobilenet_v2"] == pytest.approx(4 * 2**30)
    assert few.megapixels == many.megapixels == pytest.approx(600 * 4 * 512**2 / 1e6)


def test_what_a_training_takes_is_the_sum_of_its_parts() -> None:
    cost = TrainingCost(5, 2, own_mb=700, megapixel_mb=1000, disk_mb=50, object_s=0.1, encoded_s=3, kept_mb=20)
    work = Work(megapixels=100, step_megapixels=0.25, objects=40, encoded=10, kept=6, scratch_bytes=7_000_000)
    assert cost.seconds(work) == pytest.approx(5 + 200 + 4 + 30)
    assert cost.process_mb(work) == 700 + 250 + 120
    assert cost.disk_bytes(work) == 57_000_000


def test_networks_of_every_default_and_preset_are_measured() -> None:
    configs: dict[str, list[TrainConfig]] = {
        "train-teacher": [MalConfig(), MalConfig(preset="small")],
        "train-student": [TrainStudentConfig(), TrainStudentConfig(preset="small")],
        "train-siseg": [TrainSisegConfig()],
    }
    assert all(forecast(name, one, Size(10, 90, 1)) for name, found in configs.items() for one in found)
    assert forecast("train-student", TrainStudentConfig(width=128), Size(10, 90, 1)) is None, "another network"


def test_a_dry_run_foresees_a_training_and_says_what_nobody_measured(tmp_path: Path) -> None:
    values = _input(tmp_path) | {"train-teacher": {"preset": "small"}, "train-student": {"backbone": "tiny"}}
    lines = plan_lines(parse_chain(values, where="test"))
    teacher = next(line for line in lines if line.startswith("train-teacher"))
    assert re.search(r"\(to be trained\); about [0-9.]+ core minutes", teacher)
    assert lines[-2].endswith(", without 1 of the steps, which nobody measured")
