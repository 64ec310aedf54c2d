"""What annotations are is told by what stands in them; a format that nobody reads is named with the way out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.datasets import detect_format
from pseudolabel.errors import InputError

COCO = {"images": [], "annotations": [], "categories": []}
TASK = {"id": 1, "data": {"image": "a.jpg"}, "annotations": []}
LABELME = {"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg", "imageData": "A" * 100}
KITTI = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
DOTA = "imagesource:GoogleEarth\ngsd:0.1\n1 2 3 2 3 4 1 4 plane 0\n"


def made(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("x.json", COCO, "coco", id="COCO"),
        pytest.param("x.txt", COCO, "coco", id="COCO under another suffix"),
        pytest.param("x.json.gz", gzip.compress(json.dumps(COCO).encode()), "coco", id="COCO gzipped"),
        pytest.param("x", json.dumps(COCO).encode("utf-16"), "coco", id="COCO in UTF-16"),
        pytest.param("x.json", '{"images": [{"id": 1}, {"id', "coco", id="COCO cut off"),
        pytest.param("x.json", [TASK], "label-studio", id="Label Studio"),
        pytest.param("x.json", [{"id": 1, "data": {}, "predictions": []}], "label-studio", id="its predictions"),
        pytest.param("x.json", LABELME, "labelme", id="labelme"),
        pytest.param(
            "x.xml", '<?xml version="1.0"?>\n<annotations><version>1.1</version></annotations>', "cvat", id="CVAT"
        ),
        pytest.param("x.xml", "<annotation><object/></annotation>", "voc", id="VOC"),
        pytest.param("data.yaml", "names: [cat]", "yolo", id="data.yaml"),
        pytest.param("data.yaml", "{names: [cat]}", "yolo", id="data.yaml in braces"),
        pytest.param("obj.names", "cat\ndog\n", "yolo", id="names"),
        pytest.param("classes.txt", "cat\ndog\n", "yolo", id="classes"),
        pytest.param("obj.data", "classes = 2\nnames = obj.names", "yolo", id="obj.data"),
    ],
)
def test_a_file_is_known_by_its_content(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    assert detect_format(made(tmp_path / name, content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.xml", "<annotation><object/></annotation>", "voc", id="VOC"),
        pytest.param("deep/a.xml", "<annotation></annotation>", "voc", id="VOC below"),
        pytest.param("annotations.xml", "<annotations><image/></annotations>", "cvat", id="CVAT"),
        pytest.param("a.json", LABELME, "labelme", id="labelme"),
        pytest.param("a.txt", "0 0.5 0.5 0.1 0.1\n", "yolo", id="YOLO"),
        pytest.param("train/a.txt", "", "yolo", id="YOLO below, empty"),
        pytest.param("data.yaml", "names: [a]", "yolo", id="data.yaml"),
    ],
)
def test_a_folder_is_known_by_its_files(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    made(tmp_path / name, content)
    assert detect_format(tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param(
            "x.json", [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}], "--images-json", id="results"
        ),
        pytest.param("x.json", {"_via_settings": {}, "_via_img_metadata": {}}, "VIA", id="VIA's project"),
        pytest.param("x.json", {"a.jpg1": {"filename": "a.jpg", "regions": []}}, "VIA", id="VIA's regions"),
        pytest.param("x.json", {"classes": ["a"], "labels": {"a": []}}, "FiftyOne", id="FiftyOne's detections"),
        pytest.param("x.json", {"samples": [{}]}, "FiftyOne", id="FiftyOne's samples"),
        pytest.param("x.json", [{"image": "a.jpg", "annotations": [{"label": "x"}]}], "CreateML", id="CreateML"),
        pytest.param("x.json", {"info": {}, "categories": {"label": {}}, "items": []}, "Datumaro", id="Datumaro"),
        pytest.param("x.json", {"size": {}, "objects": []}, "Supervisely", id="Supervisely"),
        pytest.param("x.json", [{"name": "a.jpg", "labels": []}], "Scalabel", id="BDD100K"),
        pytest.param("x.json", {"asset": {}, "regions": []}, "VoTT", id="VoTT"),
        pytest.param("x.json", [{"what": 1}], "its first element has: what", id="another list"),
        pytest.param("x.csv", "ImageID,Source,LabelName,Confidence,XMin,XMax\n", "Open Images", id="Open Images"),
        pytest.param("x.csv", "filename,width,height,class,xmin\n", "CSV of boxes", id="another CSV"),
        pytest.param("x.csv", "filename,region_shape_attributes\n", "VIA", id="VIA's CSV"),
        pytest.param("x.zip", b"PK\x03\x04....", "zip archive; unpack", id="zip"),
        pytest.param("x.parquet", b"PAR1....", "--images", id="Parquet"),
        pytest.param("a.txt", KITTI, "give the folder", id="a KITTI file"),
        pytest.param("a.txt", "0 0.5 0.5 0.1 0.1\n", "give the folder", id="a YOLO file"),
        pytest.param("x.xml", "<svg></svg>", "neither VOC", id="another XML"),
        pytest.param("x.bin", "what\n", "not known as annotations", id="nothing known"),
    ],
)
def test_another_format_is_named_with_the_way_out(tmp_path: Path, name: str, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        detect_format(made(tmp_path / name, content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param({"a.txt": KITTI}, "KITTI", id="KITTI"),
        pytest.param({"a.txt": DOTA}, "DOTA", id="DOTA"),
        pytest.param(
            {"a.txt": DOTA.partition("\n1")[2] and "1 2 3 2 3 4 1 4 plane 0\n"}, "DOTA", id="DOTA without head"
        ),
        pytest.param({"boxes.json": COCO}, "give its file, such as", id="a folder with a COCO file"),
        pytest.param({"a.jpg": ""}, "neither XML", id="images alone"),
    ],
)
def test_a_folder_of_another_format_is_named_with_the_way_out(tmp_path: Path, content: Any, said: str) -> None:
    for name, one in content.items():
        made(tmp_path / name, one)
    with pytest.raises(InputError, match=said):
        detect_format(tmp_path)
