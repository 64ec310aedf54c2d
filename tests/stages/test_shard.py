"""`shard`: the true size decides, boxes are clipped to it, and half a folder of broken images costs no sound one."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import ExifTags, Image

from pseudolabel import records
from pseudolabel.datasets.manifest import image_row, object_cell, rejected_annotation
from pseudolabel.errors import ConfigError, RejectError
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.shard import ShardConfig, ShardStage

Row = dict[str, Any]
SIZE_HW = (30, 40)


def picture(path: Path, size_hw: tuple[int, int] = SIZE_HW, orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (*size_hw, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)


def planned(name: str, *cells: Row, size_hw: tuple[int, int] | None = SIZE_HW, image_id: int = 1) -> Row:
    return image_row(name, image_id, file_name=name, size_hw=size_hw, objects=list(cells))


def run(root: Path, *plan: Row, exif: str = "transpose", **options: Any) -> list[Row]:
    stage = ShardStage(ShardConfig(**options), RunPaths(root / "run"))
    stage.setup("cpu")
    table = stage.run(Shard(0, 1, root, exif), {"plan": records.table_from_rows(list(plan), records.MANIFEST)})
    assert isinstance(table, pa.Table)
    assert table.schema == stage.schema
    return list(table.to_pylist())


def boxes_of(row: Row) -> list[list[float]]:
    return [cell["bbox_xywh"] for cell in row["objects"]]


def test_an_image_gets_its_true_size_and_orientation(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", orientation=8)
    (row,) = run(tmp_path, planned("a.png", object_cell(5, 1, (1, 2, 3, 4)), size_hw=None))
    assert (row["status"], row["width"], row["height"], row["exif_orientation"]) == ("ok", 30, 40, 8)
    assert boxes_of(row) == [[1, 2, 3, 4]]


def test_boxes_are_clipped_to_the_true_size_and_those_beside_it_are_rows(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    cells = [
        object_cell(1, 1, (-5, -5, 10, 10)), object_cell(2, 1, (39, 29, 100, 100)), object_cell(3, 1, (40, 0, 5, 5)),
        object_cell(4, 1, (0.25, 0.5, 39.75, 29.5), iscrowd=True),
    ]  # fmt: skip
    image, refused = run(tmp_path, planned("a.png", *cells))
    assert boxes_of(image) == [[0, 0, 5, 5], [39, 29, 1, 1], [0.25, 0.5, 39.75, 29.5]]
    assert [cell["iscrowd"] for cell in image["objects"]] == [False, False, True]
    assert (refused["annotation_id"], refused["reason"], refused["image_key"]) == (3, "empty_box", "a.png")
    assert (image["stage"], refused["stage"]) == ("shard", "shard")


@pytest.mark.parametrize(
    ("segmentation", "kept"),
    [
        pytest.param("[[1,1,9,1,9,9]]", True, id="sound"),
        pytest.param("[[1,1,9,1,17,1]]", False, id="no area"),
        pytest.param('{"size":[40,30],"counts":[1200]}', False, id="swapped size"),
        pytest.param('{"size":[30,40],"counts":[1200]}', False, id="nothing in it"),
        pytest.param("[[1,1,9,NaN,9,9]]", False, id="nan"),
    ],
)
def test_a_mask_that_cannot_be_painted_is_left_out_and_its_box_is_used(
    tmp_path: Path, segmentation: str, kept: bool
) -> None:
    picture(tmp_path / "a.png")
    rows = run(tmp_path, planned("a.png", object_cell(1, 1, (1, 1, 8, 8), segmentation=segmentation)))
    assert len(rows) == 1
    assert [cell["segmentation"] is not None for cell in rows[0]["objects"]] == [kept]


@pytest.mark.parametrize(
    ("exif", "claimed_hw", "said"),
    [
        pytest.param("auto", (30, 40), "if on the stored pixels,  --exif ignore", id="annotations as stored"),
        pytest.param("ignore", (40, 30), "Apply it with  --exif transpose", id="annotations as shown"),
    ],
)
def test_sizes_swapped_by_a_rotation_are_told_with_the_cure(
    tmp_path: Path, exif: str, claimed_hw: tuple[int, int], said: str
) -> None:
    picture(tmp_path / "a.jpg", orientation=6)
    row = planned("a.jpg", object_cell(9, 1, (1, 1, 5, 5)), size_hw=claimed_hw)
    image, refused = run(tmp_path, row, exif=exif)
    assert (image["reason"], refused["reason"], refused["annotation_id"]) == ("size_mismatch", "image_rejected", 9)
    assert said in image["detail"]
    assert "EXIF rotation" in image["detail"]
    (cured,) = run(tmp_path, row, exif="ignore" if exif == "auto" else "transpose")
    assert cured["status"] == "ok"


@pytest.mark.parametrize("claimed_hw", [(40, 30), (31, 40), (10**9, 10**9)])
def test_a_wrong_size_is_refused_without_talk_of_rotation(tmp_path: Path, claimed_hw: tuple[int, int]) -> None:
    picture(tmp_path / "a.png")
    (row,) = run(tmp_path, planned("a.png", size_hw=claimed_hw))
    assert row["reason"] == "size_mismatch"
    assert "size is 40x30" in row["detail"]
    assert "EXIF" not in row["detail"]


def test_when_half_the_images_are_broken_every_sound_one_comes_out(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    broken = {
        "empty.jpg": (b"", "empty_file"),
        "cut.jpg": (buffer.getvalue()[:1500], "undecodable"),
        "page.jpg": (b"<html>404</html>", "unsupported_format"),
        "large.jpg": (bytes(60_000), "too_large"),
    }
    for name, (data, _) in broken.items():
        (tmp_path / name).write_bytes(data)
    sound = [f"{number}.png" for number in range(5)]
    for name in sound:
        picture(tmp_path / name)
    names = [*broken, *sound, "missing.jpg"]
    plan = [planned(name, object_cell(number, 1, (1, 1, 5, 5)), size_hw=None) for number, name in enumerate(names)]
    rows = run(tmp_path, *plan, max_bytes=50_000)
    images = {row["image_key"]: row for row in rows if row["annotation_id"] is None}
    assert set(images) == set(names)
    assert [name for name in names if images[name]["status"] == "ok"] == sound
    for name, (_, reason) in broken.items():
        assert images[name]["reason"] == reason
    assert images["missing.jpg"]["reason"] == "missing"
    assert sorted(row["annotation_id"] for row in rows if row["reason"] == "image_rejected") == [0, 1, 2, 3, 9]


def test_too_many_pixels_for_the_option_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (row,) = run(tmp_path, planned("a.png"), max_pixels=1199)
    assert row["reason"] == "too_many_pixels"
    assert run(tmp_path, planned("a.png"), max_pixels=1200)[0]["status"] == "ok"


def test_what_the_reader_refused_is_passed_on_and_rows_are_sorted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    refused = [rejected_annotation("a.png", 1, n, RejectError("bad_box", f"box {n}")) for n in (7, -3)]
    rows = run(tmp_path, planned("b.png", image_id=2), *refused, planned("a.png"))
    assert [(row["image_key"], row["annotation_id"], row["detail"]) for row in rows] == [
        ("a.png", None, None), ("a.png", -3, "box -3"), ("a.png", 7, "box 7"), ("b.png", None, None),
    ]  # fmt: skip


def test_a_fault_of_the_machine_fails_the_shard_instead_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pseudolabel.pipelines.stages.shard.read_file", fails)
    with pytest.raises(OSError, match="Input/output error"):
        run(tmp_path, planned("a.png"))


def test_an_empty_shard_gives_an_empty_table(tmp_path: Path) -> None:
    assert run(tmp_path) == []


def test_limits_beyond_what_later_stages_would_open_are_refused() -> None:
    from pseudolabel.config import parse_config
    from pseudolabel.images import MAX_BYTES, MAX_PIXELS

    assert parse_config(ShardConfig, {"max_pixels": MAX_PIXELS, "max_bytes": MAX_BYTES}, where="shard")
    for beyond in ({"max_pixels": MAX_PIXELS + 1}, {"max_bytes": MAX_BYTES + 1}):
        with pytest.raises(ConfigError):
            parse_config(ShardConfig, beyond, where="shard")


def test_real_photographs_all_pass(shared_folder: Path) -> None:
    from pseudolabel.datasets import open_dataset

    folder = shared_folder / "data" / "coco-dev"
    dataset = open_dataset("coco", images=folder / "images", annotations=folder / "boxes.json")
    table = records.table_from_rows(list(dataset.rows()), records.MANIFEST)
    stage = ShardStage(ShardConfig(), RunPaths(folder))
    rows = stage.run(Shard(0, 1, folder / "images", "transpose"), {"plan": table}).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 142
    assert sum(not cell["iscrowd"] for row in rows for cell in row["objects"]) == 1302
