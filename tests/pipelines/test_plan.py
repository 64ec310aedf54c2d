import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pseudolabel import records
from pseudolabel.errors import InputError, StaleOutputError
from pseudolabel.pipelines.planning.plan import PlanRequest, read_plan, shard_of, write_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths


def _request(root: Path, shards: int = 4, exif: str = "transpose") -> PlanRequest:
    return PlanRequest(root, "coco:boxes.json", shards, exif, [{"id": 1, "name": "cat"}], {}, [])


def _rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rows = [_row(i) for i in range(count)]
    random.Random(seed).shuffle(rows)
    return rows


def _row(i: int) -> dict[str, Any]:
    box = {"annotation_id": i, "category_id": 1, "bbox_xywh": [0.0, 0.0, 5.0, 5.0], "iscrowd": False}
    return {
        "image_key": f"{i:04d}.jpg",
        "image_id": i,
        "file_name": f"{i:04d}.jpg",
        "width": 10,
        "height": 10,
        "objects": [box],
        **records.ok("shard"),
    }


def _planned_keys(run: RunPaths, shards: int) -> Iterator[str]:
    for shard in range(shards):
        yield from read_part(run.part("plan", shard, shards))["image_key"].to_pylist()


def test_every_image_is_in_exactly_one_shard(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    plan = write_plan(run, _request(tmp_path), _rows(100))
    assert (plan.n_images, plan.n_objects) == (100, 100)
    assert sorted(_planned_keys(run, 4)) == [f"{i:04d}.jpg" for i in range(100)]


def test_the_plan_does_not_depend_on_the_order_of_the_input(tmp_path: Path) -> None:
    one, two = RunPaths(tmp_path / "one"), RunPaths(tmp_path / "two")
    write_plan(one, _request(tmp_path), _rows(50, seed=1))
    write_plan(two, _request(tmp_path), _rows(50, seed=2))
    assert one.plan.read_text() == two.plan.read_text()
    for shard in range(4):
        assert one.part("plan", shard, 4).read_bytes() == two.part("plan", shard, 4).read_bytes()


def test_an_image_stays_in_its_shard_when_others_come(tmp_path: Path) -> None:
    assert [shard_of("a/b.jpg", n) for n in (1, 7, 64)] == [shard_of("a/b.jpg", n) for n in (1, 7, 64)]
    assert {shard_of(f"{i}", 7) for i in range(200)} == set(range(7))


def test_planning_the_same_again_is_kept_and_another_plan_is_refused(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    write_plan(run, _request(tmp_path), _rows(20))
    before = run.plan.stat().st_mtime_ns
    write_plan(run, _request(tmp_path), _rows(20, seed=5))
    assert run.plan.stat().st_mtime_ns == before
    with pytest.raises(StaleOutputError, match="num_shards 4 -> 5"):
        write_plan(run, _request(tmp_path, shards=5), _rows(20))
    with pytest.raises(StaleOutputError, match="n_images 20 -> 21"):
        write_plan(run, _request(tmp_path), _rows(21))
    with pytest.raises(StaleOutputError, match="exif transpose -> ignore"):
        write_plan(run, _request(tmp_path, exif="ignore"), _rows(20))


def test_eight_starters_at_once_agree_on_one_plan(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")

    def start(seed: int) -> str:
        try:
            return write_plan(run, _request(tmp_path, shards=2 + seed % 2), _rows(40, seed)).digest
        except StaleOutputError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(start, range(8)))
    assert Counter(digests) == {read_plan(run).digest: 4, "refused": 4}
    assert not [path for path in run.root.iterdir() if path.name.startswith(".")]


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        write_plan(RunPaths(tmp_path / "run"), _request(tmp_path), _rows(3))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_data_set_without_one_usable_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not one usable image"):
        write_plan(RunPaths(tmp_path / "run"), _request(tmp_path), [])
    rejected = {"image_key": "a", **records.rejected("shard", "bad_record")}
    with pytest.raises(InputError, match="bad_record"):
        write_plan(RunPaths(tmp_path / "run"), _request(tmp_path), [rejected])


def test_a_missing_plan_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pseudolabel shard"):
        read_plan(RunPaths(tmp_path))
