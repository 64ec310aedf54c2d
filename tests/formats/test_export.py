"""`export`: which labels go out, under which names, and that nothing half done is ever seen."""

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import yaml

from pseudolabel import rle
from pseudolabel.errors import ConfigError, InputError, QualityGateError, StaleOutputError
from pseudolabel.formats.export import MARK
from pseudolabel.formats.file_names import clashing_names, safe_name, unlike_others
from pseudolabel.formats.profiles import PROFILES
from pseudolabel.pipelines.tools.export import export_text
from tests.formats.exporting import SIZE_HW, exported, square, tables
from tests.formats.tables import pieces, ring


def _coco(out: Path, split: str = "train") -> dict[str, object]:
    return json.loads((out / "annotations" / f"instances_{split}.json").read_text())


def test_by_default_masks_of_keep_and_review_go_out_and_the_box_of_box_only(tmp_path: Path) -> None:
    told = exported(tables(), "coco", tmp_path / "out")
    rows = {row["id"]: row for row in _coco(tmp_path / "out")["annotations"]}
    assert sorted(rows) == [1, 2, 3, 5, 100, 200]
    assert rows[3]["segmentation"] == []
    assert rows[3]["bbox"] == [0.5, 1.25, 20.0, 10.75]
    assert rows[5]["iscrowd"] == 1
    assert (rle.decode(rows[1]["segmentation"]) == ring(SIZE_HW)).all()
    assert told["left_out"] == {"decision ignore": 1}
    assert (told["masks"], told["boxes_alone"], told["crowds"]) == (4, 1, 1)


def test_decisions_and_a_least_score_choose(tmp_path: Path) -> None:
    told = exported(tables(), "coco", tmp_path / "out", decisions=("keep",), min_score=0.6)
    assert sorted(row["id"] for row in _coco(tmp_path / "out")["annotations"]) == [1, 5]
    assert told["left_out"] == {
        "a score below the limit": 2,
        "decision box_only": 1,
        "decision ignore": 1,
        "decision review": 1,
    }


def test_categories_count_from_one_or_keep_their_ids(tmp_path: Path) -> None:
    exported(tables(), "coco", tmp_path / "new")
    exported(tables(), "coco", tmp_path / "old", ids="keep")
    new = _coco(tmp_path / "new")["categories"]
    assert [(row["id"], row["source_id"], row["name"]) for row in new] == [(1, 3, "cat"), (2, 17, "dog")]
    assert [row["id"] for row in _coco(tmp_path / "old")["categories"]] == [3, 17]
    assert {row["category_id"] for row in _coco(tmp_path / "old")["annotations"]} == {3, 17}


def test_licences_and_the_users_own_attributes_stay(tmp_path: Path) -> None:
    extra = {"image_extra": json.dumps({"license": 4, "coco_url": "http://x/a.jpg"})}
    own = {
        "extra": json.dumps({"attributes": {"occluded": True}, "area_mm": 3}),
        "segmentation": None,
        "iscrowd": False,
    }
    boxes = [{"annotation_id": 1, "category_id": 3, "bbox_xywh": [0, 0, 9, 9], **own}]
    exported(tables(["a.jpg"], **extra, objects=boxes), "coco", tmp_path / "out")
    content = _coco(tmp_path / "out")
    assert content["licenses"] == [{"id": 4, "name": "CC0"}]
    assert (content["images"][0]["license"], content["images"][0]["coco_url"]) == (4, "http://x/a.jpg")
    row = next(row for row in content["annotations"] if row["id"] == 1)
    assert (row["attributes"]["occluded"], row["area_mm"], row["attributes"]["decision"]) == (True, 3, "keep")


@pytest.mark.parametrize("spelling", ["uncompressed", "polygon"])
def test_coco_can_be_spelled_otherwise_without_loss(tmp_path: Path, spelling: str) -> None:
    told = exported(tables(), "coco", tmp_path / "out", segmentation=spelling)
    rows = {row["id"]: row["segmentation"] for row in _coco(tmp_path / "out")["annotations"]}
    assert [len(rows[1]), len(rows[2])] == ([2, 2] if spelling == "uncompressed" else [1, 2])
    assert isinstance(rows[5]["counts"], list)
    assert (told["round_trip"]["mean_iou"], told["round_trip"]["masks"]) == (1.0, 5)


def test_yolo_has_a_line_per_object_and_an_empty_file_for_none(tmp_path: Path) -> None:
    told = exported(tables(), "yolo", tmp_path / "out", split=1, decisions=("keep", "review"), min_score=0.7)
    lines = (tmp_path / "out/labels/train/a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    assert (tmp_path / "out/labels/train/b/a.txt").read_text() == ""
    assert told["round_trip"]["mean_iou"] == 1.0
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert content == {"train": "images/train", "val": "images/train", "names": {0: "cat", 1: "dog"}}


def test_a_square_in_yolo_is_its_edges_as_shares_of_the_image(tmp_path: Path) -> None:
    exported(tables(["a.jpg", "b.jpg"]), "yolo", tmp_path / "out", split=1)
    (line,) = (tmp_path / "out/labels/train/b.txt").read_text().splitlines()
    wanted = [3.05, 2.05, 7.95, 2.05, 7.95, 6.95, 3.05, 6.95]
    shares = np.array(line.split()[1:], float) * np.tile([32, 24], 4)
    assert shares == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("parts", "lines"), [("largest", 1), ("bridge", 1), ("split", 2)])
def test_a_mask_of_two_parts_in_yolo(tmp_path: Path, parts: str, lines: int) -> None:
    told = exported(tables(), "yolo", tmp_path / "out", split=1, parts=parts, decisions=("review",), min_round_trip=0)
    assert len((tmp_path / "out/labels/train/a.txt").read_text().splitlines()) == lines
    kept = 20 / pieces(SIZE_HW).sum() if parts == "largest" else 1.0
    assert told["round_trip"]["worst_iou"] == pytest.approx(kept)


def test_filled_holes_are_measured_and_refused_below_the_limit(tmp_path: Path) -> None:
    chosen = {"split": 1, "holes": "fill", "decisions": ("keep",), "min_score": 0.6}
    with pytest.raises(QualityGateError, match=r"0\.8889.*a\.jpg id 1"):
        exported(tables(), "yolo", tmp_path / "out", **chosen)
    assert list(tmp_path.iterdir()) == []
    told = exported(tables(), "yolo", tmp_path / "out", min_round_trip=0.8, **chosen)
    assert told["round_trip"]["worst_iou"] == pytest.approx(96 / 108)


@pytest.mark.parametrize("to", ["label-tiff", "voc", "panoptic", "yolo"])
def test_what_overlaps_take_is_refused_with_the_way_to_masks_that_share_no_pixel(tmp_path: Path, to: str) -> None:
    with pytest.raises(QualityGateError) as refused:
        exported(tables(), to, tmp_path / "out", min_round_trip=1.0, **({"holes": "fill"} if to == "yolo" else {}))
    assert ("pseudolabel fuse RUN --exclusive all" in str(refused.value)) == (to != "yolo")


def test_the_smaller_of_two_objects_has_the_pixel_of_a_label_tiff(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    exported(tables(), "label-tiff", tmp_path / "out", min_round_trip=0)
    numbers = tifffile.imread(tmp_path / "out/masks/a.tif")
    assert numbers.dtype == np.uint16
    assert (numbers == 1).sum() == 25  # the square, which lies on the ring
    assert ((numbers == 2) == (ring(SIZE_HW) & ~square(2, 3) & ~pieces(SIZE_HW))).sum() == numbers.size
    lines = (tmp_path / "out/masks/a.csv").read_text().splitlines()
    assert lines[1:3] == ["1,100,dog,0.5,keep", "2,1,cat,0.9,keep"]


def test_an_image_that_a_viewer_turns_becomes_an_upright_png(tmp_path: Path) -> None:
    exported(tables(["a.jpg"], exif_orientation=6), "coco", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["a.png"]
    assert (tmp_path / "out/images/a.png").read_bytes().startswith(b"\x89PNG")


def test_without_images_coco_has_the_names_that_the_user_knows(tmp_path: Path) -> None:
    exported(tables(["/data/x/a.jpg"]), "coco", tmp_path / "out", images="none")
    assert _coco(tmp_path / "out")["images"][0]["file_name"] == "/data/x/a.jpg"
    assert not (tmp_path / "out/images").exists()


HOSTILE = {
    "../../etc/passwd.jpg": "etc/passwd.jpg",
    "/abs/a.jpg": "abs/a.jpg",
    "C:\\x\\a.jpg": "C_/x/a.jpg",
    "a\0b.jpg": "a_b.jpg",
    "./.hidden": "_hidden",
    "..": "image",
    "x\ny.jpg": "x_y.jpg",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    assert safe_name(name) == PurePosixPath(HOSTILE[name])


def test_a_very_long_name_is_cut_and_marked() -> None:
    first, second = (safe_name("ä" * 400 + end) for end in ("1.jpg", "2.jpg"))
    assert first != second
    assert first.suffix == ".jpg"
    assert len(first.name.encode()) <= 200


def test_names_that_differ_by_suffix_or_case_alone_are_told_apart_and_others_stay() -> None:
    names = [PurePosixPath(name) for name in ("a.jpg", "A.png", "b/a.jpg", "c.jpg")]
    clashing = clashing_names(names)
    made = [str(unlike_others(name, str(name), clashing)) for name in names]
    assert made[2:] == ["b/a.jpg", "c.jpg"]
    assert len({name.rpartition(".")[0].lower() for name in made}) == 4


@pytest.mark.parametrize("to", list(PROFILES))
def test_hostile_names_of_one_target_all_arrive_inside(tmp_path: Path, to: str) -> None:
    names = ["../x.jpg", "/x.jpg", "x.jpg", "X.png", "s/x.jpg", "a\0.jpg", "a\n.jpg"]
    told = exported(tables(names), to, tmp_path / "in" / "out", min_round_trip=0)
    assert told["images"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    assert told["round_trip"]["lost"] == 0


@pytest.mark.parametrize("to", list(PROFILES))
def test_a_run_without_a_usable_image_is_refused_and_leaves_nothing(tmp_path: Path, to: str) -> None:
    with pytest.raises(InputError, match="no usable image to export"):
        exported([], to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", list(PROFILES))
def test_every_profile_says_what_to_type_and_writes_the_same_bytes_again(tmp_path: Path, to: str) -> None:
    told = exported(tables(), to, tmp_path / "one", min_round_trip=0)
    exported(tables(), to, tmp_path / "two", min_round_trip=0)
    assert str(tmp_path / "one") in told["next"]
    files = [path for path in sorted((tmp_path / "one").rglob("*")) if path.is_file() and path.name != MARK]
    assert files
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path


def test_a_folder_that_is_there_is_refused_and_only_an_export_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(StaleOutputError, match="no export of ours"):
        exported(tables(), "coco", tmp_path / "photos", overwrite=True)
    exported(tables(), "coco", tmp_path / "out")
    with pytest.raises(StaleOutputError, match="--overwrite"):
        exported(tables(), "coco", tmp_path / "out")
    exported(tables(), "yolo", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "annotations").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_an_export_that_breaks_off_leaves_nothing_and_the_earlier_one_stays(tmp_path: Path) -> None:
    exported(tables(), "coco", tmp_path / "out")
    before = (tmp_path / "out" / MARK).read_bytes()
    broken = [*tables(), *tables(["z.jpg"])]
    broken[2] = (broken[2][0], broken[2][1].drop_columns(["segmentation"]))
    with pytest.raises(KeyError):
        exported(broken, "coco", tmp_path / "out", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / MARK).read_bytes() == before


def test_a_split_is_the_same_whatever_other_images_there_are(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    exported(tables(names), "coco", tmp_path / "all", split=0.7)
    exported(tables(names[::2]), "coco", tmp_path / "half", split=0.7)
    of = {out: {row["file_name"] for row in _coco(tmp_path / out, "val")["images"]} for out in ("all", "half")}
    assert of["half"] == of["all"] & set(names[::2])
    assert 4 <= len(of["all"]) <= 20


def test_the_split_of_the_data_is_kept(tmp_path: Path) -> None:
    told = exported(tables(["a.jpg"], split="train") + tables(["b.jpg"], split="valid"), "yolo", tmp_path / "out")
    assert told["splits"] == {"train": 1, "val": 1}
    assert (tmp_path / "out/images/val/b.jpg").exists()


def test_an_unknown_profile_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'yolo'"):
        exported(tables(), "yollo", tmp_path / "out")


def test_nothing_that_was_read_again_is_like_nothing() -> None:
    told = {"images": 1, "splits": {"train": 1}, "masks": 0, "boxes_alone": 0, "crowds": 0, "folder": "out"}
    told |= {"left_out": {}, "round_trip": {"masks": 0, "mean_iou": 1.0}}
    assert export_text(told).splitlines()[-1] == "read again: 0 masks"
