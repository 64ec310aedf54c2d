"""Exports read by tools that are not ours, and by our own readers of other programs' files.

tests/benchmarks/export_consumers.py does the same with tools that need an environment of their own.
"""

import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pseudolabel.datasets import READERS
from pseudolabel.formats import huggingface
from pseudolabel.formats.export import Exportable, ExportRequest, export
from pseudolabel.formats.label_studio import packed_runs, unpacked_runs
from pseudolabel.formats.profile import ExportOptions
from pseudolabel.formats.voc import voc_colors
from tests.formats.exporting import SIZE_HW, DrawnPictures, exported, square, tables
from tests.formats.tables import HEADER, pieces, ring

MASKS = {1: ring(SIZE_HW), 2: pieces(SIZE_HW), 100: square(2, 3), 200: square(2, 3)}
WITH_MASKS = ("keep", "review")


@pytest.mark.parametrize("spelling", ["rle", "uncompressed", "polygon"])
def test_pycocotools_has_the_masks(tmp_path: Path, spelling: str) -> None:
    exported(tables(), "coco", tmp_path / "out", segmentation=spelling)
    coco = COCO(str(tmp_path / "out/annotations/instances_train.json"))
    for number, mask in MASKS.items():
        assert (coco.annToMask(coco.anns[number]) == mask).all()


def test_the_conversion_of_torchvisions_references_has_the_masks(tmp_path: Path) -> None:
    """`frPyObjects` on every segmentation of an image, whose parts are put together by `any`."""
    exported(tables(), "coco", tmp_path / "out", segmentation="polygon", decisions=WITH_MASKS)
    for row in json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["annotations"]:
        if not row["iscrowd"]:
            parts = coco_mask.decode(coco_mask.frPyObjects(row["segmentation"], *SIZE_HW))
            assert (parts.any(axis=2) == MASKS[row["id"]]).all()


def test_torchvision_has_images_and_masks(tmp_path: Path) -> None:
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

    exported(tables(), "coco", tmp_path / "out", decisions=WITH_MASKS)
    data = CocoDetection(str(tmp_path / "out/images"), str(tmp_path / "out/annotations/instances_train.json"))
    image, target = wrap_dataset_for_transforms_v2(data, target_keys=("masks", "labels"))[1]
    assert image.size == (SIZE_HW[1], SIZE_HW[0])
    assert (target["masks"][0].numpy() == MASKS[200]).all()
    assert target["labels"].tolist() == [2]


@pytest.mark.parametrize(
    ("to", "where", "source"),
    [
        ("coco", "annotations/instances_train.json", "coco"),
        ("yolo", "data.yaml", "yolo"),
        ("voc", "Annotations", "voc"),
        ("labelme", "images", "labelme"),
    ],
)
def test_our_own_readers_find_classes_and_boxes_again(tmp_path: Path, to: str, where: str, source: str) -> None:
    chosen = {"split": 1} if to == "yolo" else {"segmentation": "polygon"}
    exported(tables(["a.jpg", "b.jpg"]), to, tmp_path / "out", decisions=WITH_MASKS, min_round_trip=0, **chosen)
    images = tmp_path / "out" / ("JPEGImages" if to == "voc" else "images")
    reader = READERS.load(source)(images, tmp_path / "out" / where)
    names = {row["id"]: row["name"] for row in reader.categories}
    rows = [row for row in reader.rows() if row["status"] == "ok"]
    found = [
        (names[one["category_id"]], one["bbox_xywh"])
        for row in rows
        for one in row["objects"]
        if "b." in row["file_name"]
    ]
    ((name, box),) = found
    assert name == "dog"
    assert box == pytest.approx([3, 2, 5, 5], abs=0.11)


def test_label_studios_brush_of_two_pixels_is_its_bits_by_hand() -> None:
    packed = packed_runs(np.array([[True, False]]))
    head = f"{8:032b}" + f"{7:05b}" + "".join(f"{bits - 1:04b}" for bits in (4, 8, 12, 16))
    runs = "1" + "00" + f"{3:04b}" + f"{255:08b}" + "1" + "00" + f"{3:04b}" + f"{0:08b}"
    text = head + runs
    wanted = [int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8)]
    assert packed.tolist() == wanted


def test_label_studios_brush_of_a_large_image_comes_back() -> None:
    rng = np.random.default_rng(3)
    mask = np.zeros((300, 400), bool)
    mask[150:290, 20:390] = rng.random((140, 370)) < 0.3
    assert (unpacked_runs(packed_runs(mask), (300, 400)) == mask).all()


def test_label_studio_has_brushes_boxes_scores_and_a_config_of_all_classes(tmp_path: Path) -> None:
    exported(tables(), "label-studio", tmp_path / "out")
    first, second = json.loads((tmp_path / "out/tasks.json").read_text())
    assert second["data"]["image"] == "/data/local-files/?d=images/b/a.jpg"
    (prediction,) = first["predictions"]
    kinds = {row["id"]: row["type"] for row in prediction["result"]}
    assert kinds == {"1": "brushlabels", "2": "brushlabels", "100": "brushlabels", "3": "rectanglelabels"}
    box = next(row["value"] for row in prediction["result"] if row["id"] == "3")
    assert (box["x"], box["width"], box["rectanglelabels"]) == (100 * 0.5 / 32, 100 * 20 / 32, ["cat"])
    assert prediction["score"] == pytest.approx((0.5 + 0.9 + 0.75 + 0.9) / 4)
    config = (tmp_path / "out/label_config.xml").read_text()
    assert config.count('<Label value="dog"/>') == 2


def test_cvats_zip_has_images_masks_and_attributes_and_the_labels_declare_them(tmp_path: Path) -> None:
    exported(tables(), "cvat", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out/cvat.zip") as archive:
        assert sorted(archive.namelist()) == ["annotations/instances_default.json", "images/a.jpg", "images/b/a.jpg"]
        content = json.loads(archive.read("annotations/instances_default.json"))
    rows = {row["id"]: row for row in content["annotations"]}
    assert (rows[2]["attributes"]["decision"], rows[2]["attributes"]["score"]) == ("review", 0.75)
    labels = json.loads((tmp_path / "out/labels.json").read_text())
    assert [one["name"] for one in labels] == ["cat", "dog"]
    assert [one["name"] for one in labels[0]["attributes"]] == ["score", "decision"]


def test_roboflow_has_a_folder_per_split_and_classes_with_a_supercategory(tmp_path: Path) -> None:
    exported(tables([f"{number}.jpg" for number in range(20)]), "roboflow", tmp_path / "out", split=0.5)
    for split in ("train", "valid"):
        content = json.loads((tmp_path / "out" / split / "_annotations.coco.json").read_text())
        names = {row["file_name"] for row in content["images"]}
        assert names
        assert names == {path.name for path in (tmp_path / "out" / split).glob("*.jpg")}
        assert all(row["supercategory"] == "animal" for row in content["categories"])


def test_panoptic_segments_are_the_pixels_of_their_colour(tmp_path: Path) -> None:
    exported(tables(["a.jpg"]), "panoptic", tmp_path / "out", decisions=WITH_MASKS, min_round_trip=0)
    content = json.loads((tmp_path / "out/annotations/panoptic_train.json").read_text())
    rgb = np.asarray(Image.open(tmp_path / "out/annotations/panoptic_train/a.png")).astype(int)
    numbers = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    (row,) = content["annotations"]
    for segment in row["segments_info"]:
        assert (numbers == segment["id"]).sum() == segment["area"] > 0
    assert (numbers > 0).sum() == sum(segment["area"] for segment in row["segments_info"])
    assert {segment["annotation_id"]: segment["iscrowd"] for segment in row["segments_info"]} == {
        100: 0,
        1: 0,
        2: 0,
        5: 1,
    }


def test_vocs_colours_are_those_of_its_devkit() -> None:
    assert voc_colors()[[0, 1, 2, 3, 8, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def test_labelmes_mask_is_the_crop_between_two_pixels(tmp_path: Path) -> None:
    exported(tables(["a.jpg"]), "labelme", tmp_path / "out", decisions=("review",))
    content = json.loads((tmp_path / "out/images/a.json").read_text())
    (shape,) = content["shapes"]
    assert (shape["label"], shape["shape_type"], shape["description"]) == ("dog", "mask", "0.750 review")
    assert shape["points"] == [[3, 4], [31, 23]]
    assert content["imagePath"] == "a.jpg"


def test_hugging_face_has_a_row_per_image_with_its_bytes(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    exported(tables(), "huggingface", tmp_path / "out")
    table = pq.read_table(tmp_path / "out/data/train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["objects"]["category"] == {
        "feature": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "_type": "List",
    }
    first = table.to_pylist()[0]
    assert first["image"]["bytes"] == DrawnPictures().stored("a.jpg")
    assert first["objects"]["category"] == [1, 0, 1, 0, 0]
    assert first["objects"]["segmentation"][3] is None


@pytest.mark.parametrize("to", ["coco", "yolo", "huggingface", "label-studio"])
def test_memory_does_not_grow_with_the_number_of_shards(
    tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "_GROUP_ROWS", 8)

    def peak(count: int) -> int:
        request = ExportRequest(to, options=ExportOptions(images="none"))
        tracemalloc.start()
        export(Exportable(lambda: shards[:count], HEADER, DrawnPictures()), tmp_path / str(count), request)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    shards = [tables([f"{number}.jpg"])[0] for number in range(64)]
    peak(2)  # imports
    assert peak(64) < peak(16) + 200_000  # what is known of one image takes more than 10,000 bytes
