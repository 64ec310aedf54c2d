"""A run over a store, tar shards or Parquet files gives the pseudo labels that the plain folder gives."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from breaking_proxy import BreakingProxy
from made_archives import KEY_ID, SECRET, write_parquet, write_tar
from own_chain import draw_scenes

from pseudolabel.pipelines.chain import parse_chain, run_chain
from pseudolabel.pipelines.look.picture import PictureConfig, draw_pictures
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.runner import RunOptions

Put = Callable[[Path, str], None]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes with boxes and label maps; the same images also as tar shards and Parquet files beside them."""
    scenes = draw_scenes(tmp_path_factory.mktemp("scenes"), 8)
    images = {path.name: path.read_bytes() for path in sorted((scenes / "images").iterdir())}
    for place in range(2):
        half = {name: images[name] for name in sorted(images)[place::2]}
        write_tar(scenes / "shards" / f"{place:02d}.tar", half)
        write_parquet(scenes / "data" / f"{place}.parquet", half)
    return scenes


def label(scenes: Path, run: Path, images: str, *, annotations: bool = True, max_reject_rate: float = 0.0) -> RunPaths:
    classes = (scenes / "labels" / "classes.txt").read_text().split()
    semantic = {"model": f"labels:{scenes}/labels", "label_format": "raw", "ignore_index": 255, "classes": classes}
    shard: dict[str, Any] = {"images": images, "shards": 3, "max_reject_rate": max_reject_rate}
    values: dict[str, Any] = {"run": str(run), "shard": shard}
    if annotations:
        shard["annotations"] = str(scenes / "boxes.json")
        values |= {"infer-semantic": {**semantic, "device": "cpu"}, "fuse": {"device": "cpu"}}
    for _ in run_chain(parse_chain(values, where="test"), RunOptions("inline")):
        pass
    return RunPaths(run)


def pseudo_rows(run: RunPaths) -> list[dict[str, Any]]:
    plan = read_plan(run)
    rows = [row for shard in range(plan.num_shards) for row in read_part(run.part("pseudo", shard, 3)).to_pylist()]
    return sorted(rows, key=lambda row: (row["image_key"], row["annotation_id"] or -1))


@pytest.fixture(scope="module")
def plain(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return label(scenes, tmp_path_factory.mktemp("plain") / "run", str(scenes / "images"))


@pytest.fixture
def put(s3: Any) -> Put:
    def upload(folder: Path, prefix: str) -> None:
        for path in folder.iterdir():
            s3.put_object(Bucket="pictures", Key=f"{prefix}/{path.name}", Body=path.read_bytes())

    return upload


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        pytest.param("images", "", id="store"),
        pytest.param("shards", "/{00..01}.tar", id="tar"),
        pytest.param("data", "/*.parquet", id="parquet"),
    ],
)
def test_pseudo_labels_and_exports_are_those_of_the_folder(
    scenes: Path, plain: RunPaths, tmp_path: Path, put: Put, proxy: BreakingProxy, folder: str, pattern: str
) -> None:
    put(scenes / folder, f"runs/{folder}")
    proxy.break_next, proxy.cut_after = 3, 700  # a few answers are cut off on the way
    proxy.when = lambda request: request.startswith("GET") and "list-type" not in request
    run = label(scenes, tmp_path / "run", f"s3://pictures/runs/{folder}{pattern}")
    assert proxy.broken == 3
    assert pseudo_rows(run) == pseudo_rows(plain)
    exported, expected = (json.loads((one.table("pseudo") / "instances.json").read_text()) for one in (run, plain))
    for part in ("images", "annotations"):
        assert sorted(exported[part], key=lambda row: row["id"]) == sorted(expected[part], key=lambda row: row["id"])
    assert draw_pictures(run, PictureConfig(pictures=1, objects=4))[0].stat().st_size > 0


def test_local_archives_give_the_folders_labels_too(scenes: Path, plain: RunPaths, tmp_path: Path) -> None:
    run = label(scenes, tmp_path / "run", str(scenes / "shards" / "*.tar"))
    assert pseudo_rows(run) == pseudo_rows(plain)


def test_images_of_a_row_group_are_in_one_shard(scenes: Path, tmp_path: Path) -> None:
    run = label(scenes, tmp_path / "run", str(scenes / "data" / "*.parquet"), annotations=False)
    shards: dict[str, set[int]] = {}
    for shard in range(3):
        for row in read_part(run.part("manifest", shard, 3)).to_pylist():
            name, _, number = row["image_key"].partition("/")
            shards.setdefault(f"{name} {int(number) // 2}", set()).add(shard)
    assert len(shards) == 4
    assert all(len(found) == 1 for found in shards.values())


def test_an_annotated_image_that_no_archive_has_is_a_row_and_its_boxes_are(scenes: Path, tmp_path: Path) -> None:
    boxes = json.loads((scenes / "boxes.json").read_text())
    gone = boxes["images"][0]
    run = label(scenes, tmp_path / "run", str(scenes / "shards" / "01.tar"), max_reject_rate=1.0)
    rows = [row for shard in range(3) for row in read_part(run.part("manifest", shard, 3)).to_pylist()]
    missing = [row for row in rows if row["image_key"] == gone["file_name"] and row["annotation_id"] is None]
    assert [(row["status"], row["reason"]) for row in missing] == [("rejected", "missing")]
    refused = {row["annotation_id"] for row in rows if row["reason"] == "image_rejected"}
    assert {box["id"] for box in boxes["annotations"] if box["image_id"] == gone["id"]} <= refused


def test_bare_shards_name_their_images_by_archive_and_member(scenes: Path, tmp_path: Path) -> None:
    run = label(scenes, tmp_path / "run", str(scenes / "shards" / "{00..01}.tar"), annotations=False)
    keys = [row["image_key"] for s in range(3) for row in read_part(run.part("manifest", s, 3)).to_pylist()]
    names = sorted(path.name for path in (scenes / "images").iterdir())
    assert sorted(keys) == sorted(f"{place % 2:02d}.tar/{name}" for place, name in enumerate(names))


def test_no_credential_is_in_any_file_of_a_run(scenes: Path, tmp_path: Path, put: Put) -> None:
    put(scenes / "images", "runs/images")
    run = label(scenes, tmp_path / "run", "s3://pictures/runs/images", annotations=False)
    files = [path for path in run.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert KEY_ID.encode() not in path.read_bytes()
        assert SECRET.encode() not in path.read_bytes()
    part = pq.read_table(run.part("manifest", 0, 3))
    assert part.num_rows > 0


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pseudolabel.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_a_run_folder_on_a_store_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    done = command("shard", "s3://pictures/run", "--images", tmp_path)
    assert done.returncode == 2
    assert "the run folder is on an object store" in done.stderr
    assert "give a folder on a local or network file system" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_file_with_a_run_folder_on_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"run: s3://pictures/run\nshard: {{images: {tmp_path}}}\n")
    done = command("run", tmp_path / "run.yaml")
    assert (done.returncode, "object store" in done.stderr) == (2, True)


def test_a_url_with_a_password_ends_the_command_without_repeating_it(tmp_path: Path) -> None:
    for more in ((), ("--print-config",)):
        done = command("shard", tmp_path / "run", "--images", "s3://AKID:hunter2@pictures/x", *more)
        assert "hunter2" not in done.stdout + done.stderr
        assert done.returncode == 2
    assert not (tmp_path / "run").exists()
