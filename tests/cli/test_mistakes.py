"""Mistakes of new users: each ends with a message that says what, where and what to type, and with its exit code."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from pseudolabel.cli.main import exit_codes, main
from pseudolabel.pipelines.planning.convention import BoxConvention

INLINE = ("--engine", "inline")
_CATEGORIES = [{"id": 1, "name": "traffic light"}, {"id": 2, "name": "cup"}]


def _boxes() -> dict[str, Any]:
    images = [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in (1, 2, 3)]
    annotations = [
        {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": [10, 8, 30, 24], "iscrowd": 0}
        for number in (1, 2, 3)
    ]
    return {"images": images, "annotations": annotations, "categories": _CATEGORIES}


def _masks() -> dict[str, Any]:
    content = _boxes()
    square = [[10, 8, 40, 8, 40, 32, 10, 32]]
    annotations = [row | {"segmentation": square, "area": 720} for row in content["annotations"]]
    return content | {"annotations": annotations}


def _typed(*arguments: str) -> int:
    """The exit code of a command."""
    try:
        with exit_codes():
            main.main(list(arguments), standalone_mode=False, prog_name="pseudolabel")
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images, annotations, a run `new`, one with candidates, `half`, and one fused, `done`."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("mistakes")
    os.chdir(folder)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in (1, 2, 3):
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        pixels[8:32, 10:40] += 150
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    _write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pseudolabel.cli.main.signal.signal", lambda number, handler: None)
        shard = ("--images", "images", "--annotations", "boxes.json", *INLINE)
        for run in ("new", "half", "done"):
            assert _typed("shard", run, *shard) == 0
        assert _typed("shard", "no_boxes", "--images", "images", *INLINE) == 0
        for run in ("half", "done"):
            assert _typed("infer-colors", run, *INLINE) == 0
        assert _typed("fuse", "done", *INLINE) == 0
        yield folder
    os.chdir(before)


def _write_files(folder: Path) -> None:
    boxes, masks = _boxes(), _masks()
    other = [row | {"id": row["id"] + 100} for row in masks["annotations"]]
    corners = [row | {"bbox": [70, 50, 100, 90]} for row in boxes["annotations"]]
    others = {"corners_inside": [30, 20, 60, 44], "centres": [44, 36, 40, 24], "shares": [0.1, 0.2, 0.5, 0.5]}
    files: dict[str, Any] = {
        "boxes.json": boxes,
        "masks.json": masks,
        "other_ids.json": masks | {"annotations": other},
        "corners.json": boxes | {"annotations": corners},
        "results.json": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
        "foreign_masks.json": [{"annotation_id": 77, "image_id": 99, "category_id": 1, "segmentation": []}],
    }
    for name, box in others.items():
        files[f"{name}.json"] = boxes | {"annotations": [row | {"bbox": box} for row in boxes["annotations"]]}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "run.yaml").write_text("run: new\nfusee: {}\n", encoding="utf-8")
    (folder / "keys.yaml").write_text("run: new\nfuse: {keep_scores: 0.5}\n", encoding="utf-8")
    (folder / "boxes.csv").write_text("ImageID,Source,LabelName,Confidence,XMin,XMax\n", encoding="utf-8")
    (folder / "half_image.png").write_bytes((folder / "images" / "1.png").read_bytes()[:100])
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.txt").write_text("mine", encoding="utf-8")
    (folder / "yolo").mkdir()
    (folder / "yolo" / "1.txt").write_text("0 0.4 0.4 0.4 0.5\n", encoding="utf-8")
    (folder / "broken.onnx").write_bytes(b"no graph")
    (folder / "bare.onnx").write_bytes(_bare_graph().SerializeToString())
    (folder / "last.ckpt").write_bytes(b"a checkpoint")


def _bare_graph() -> onnx.ModelProto:
    """A graph that gives its input back: three "classes", and nothing that says which."""
    shape = [1, 3, 32, 32]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "bare", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SHARD = ("shard", "fresh", "--images", "images")
# id: what is typed, the exit code, what the message says
MISTAKES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "images that are not there": (("shard", "fresh", "--images", "imagse"), 2, ("imagse", "no such folder")),
    "annotations that are not there": ((*SHARD, "--annotations", "box.json"), 2, ("box.json", "No such file")),
    "images and annotations swapped": (
        ("shard", "fresh", "--images", "boxes.json", "--annotations", "images"),
        2,
        ("say  --annotations boxes.json --images FOLDER",),
    ),
    "a run in a file": (("shard", "boxes.json", "--images", "images"), 2, ("boxes.json is a file", "give a folder")),
    "a run in a folder of other things": (("shard", "foreign", "--images", "images"), 2, ("choose another folder",)),
    "a run inside the images": (("shard", "images/run", "--images", "images"), 2, ("lies inside", "another place")),
    "a list of boxes for a COCO file": ((*SHARD, "--annotations", "results.json"), 2, ("--images-json",)),
    "YOLO without names": ((*SHARD, "--annotations", "yolo"), 2, ("data.yaml or classes.txt",)),
    "a format that nobody reads": ((*SHARD, "--annotations", "boxes.csv"), 2, ("boxes.csv",)),
    "a format misspelt": ((*SHARD, "--annotations", "boxes.json", "--source", "cocoo"), 2, ("did you mean 'coco'",)),
    "boxes as corners": (
        (*SHARD, "--annotations", "corners.json"),
        2,
        ("not one of 3 boxes", "lies beside the image of 64x48"),
    ),
    "boxes as corners that lie on the image": (
        (*SHARD, "--annotations", "corners_inside.json"),
        2,
        ("3 of 3 boxes reach far out", "fit as corners", "Subtract left from right"),
    ),
    "boxes by their centres": (
        (*SHARD, "--annotations", "centres.json"),
        2,
        ("3 of 3 boxes reach far out", "fit as centre x", "half the width"),
    ),
    "boxes as shares of the image": (
        (*SHARD, "--annotations", "shares.json"),
        2,
        ("all 3 boxes lie within one pixel", "Multiply them by its width"),
    ),
    "a folder without the images": (
        ("shard", "elsewhere", "--images", "yolo", "--annotations", "boxes.json", *INLINE),
        3,
        ("missing", "/yolo where they lie?", "pseudolabel status "),
    ),
    "no argument": (("infer-colors",), 2, ("Missing argument", "For example:  pseudolabel infer-colors runs/mine")),
    "no images": (("shard", "fresh"), 2, ("images is required: give --images",)),
    "an architecture of torchvision without weights": (
        ("infer-semantic", "new", "--model", "torchvision:lraspp_mobilenet_v3_large"),
        2,
        ("needs --weights FILE", "pseudolabel models"),
    ),
    "another plan in an old run": (
        ("shard", "new", "--images", "images", "--annotations", "boxes.json", "--shards", "2"),
        2,
        ("num_shards 1 -> 2", "another run folder"),
    ),
    "a sample of one and a half": ((*SHARD, "--sample", "1.5"), 2, ("a share such as 0.01",)),
    "no run there": (("infer-colors", "nowhere", *INLINE), 2, ("holds no plan", "pseudolabel shard ", "--images DIR")),
    "fuse without candidates": (("fuse", "new", *INLINE), 2, ("no table of candidates", "infer-colors")),
    "fuse without candidates or boxes": (
        ("fuse", "no_boxes", *INLINE),
        2,
        ("make one with  pseudolabel train-siseg ", "pseudolabel infer-siseg ", "no boxes"),
    ),
    "SISeg that nobody trained": (
        ("infer-siseg", "no_boxes", *INLINE),
        2,
        ("no such file; train it with  pseudolabel train-siseg ",),
    ),
    "a segmenter without a kind": (("infer-semantic", "new", "--model", "images"), 2, ("--model labels:images",)),
    "a kind of segmenter misspelt": (("infer-semantic", "new", "--model", "onxx:a.onnx"), 2, ("did you mean 'onnx'",)),
    "a segmenter that is not there": (
        ("infer-semantic", "new", "--model", "deeplab.onnx"),
        2,
        ("deeplab.onnx: no such", "pseudolabel models"),
    ),
    "a segmenter without a card": (
        ("infer-semantic", "new", "--model", "bare.onnx"),
        2,
        ("pseudolabel card bare.onnx",),
    ),
    "a checkpoint for a folder": (
        ("infer-semantic", "new", "--model", "smp:last.ckpt"),
        2,
        ("save_pretrained", "a file"),
    ),
    "no segmenter": (("infer-semantic", "new"), 2, ("model is required",)),
    "a card that is not there": (
        ("infer-semantic", "new", "--model", "bare.onnx", "--card", "vocc"),
        2,
        ("vocc: no such model card", "torchvision-voc21"),
    ),
    "a card of no graph": (("card", "broken.onnx"), 2, ("broken.onnx", "not an ONNX model")),
    "evaluate before fuse": (("evaluate", "half", "--ground-truth", "masks.json"), 2, ("pseudolabel fuse half",)),
    "masks for a run": (
        ("evaluate", "masks.json", "--ground-truth", "other_ids.json"),
        2,
        ("masks.json is a file", "pseudolabel evaluate RUN --predictions masks.json --ground-truth other_ids.json"),
    ),
    "a file for a run": (("report", "masks.json"), 2, ("masks.json is a file", "expected a run folder")),
    "boxes as truth": (
        ("evaluate", "done", "--ground-truth", "boxes.json"),
        2,
        ("boxes.json: not one true mask", "a box without a mask"),
    ),
    "a truth with other ids": (("evaluate", "done", "--ground-truth", "other_ids.json"), 2, ("another boxes file",)),
    "a class in another spelling": (
        ("evaluate", "done", "--ground-truth", "masks.json", "--categories", "traffic_light"),
        2,
        ("did you mean 'traffic light'",),
    ),
    "pictures before fuse": (("picture", "half"), 2, ("pseudolabel fuse half",)),
    "a student before fuse": (("train-student", "half", "--backbone", "tiny"), 3, ("pseudolabel fuse half",)),
    "masks before a teacher": (("infer-teacher", "new", *INLINE), 2, ("pseudolabel train-teacher new",)),
    "weights that are not there": (
        ("train-teacher", "new", "--backbone-weights", "enc.safetensors"),
        2,
        ("enc.safetensors", "no such"),
    ),
    "a backbone misspelt": (("train-teacher", "new", "--backbone", "resnet5O"), 2, ("did you mean 'resnet50'",)),
    "an option of another method": (("train-teacher", "new", "--anchors", "3"), 2, ("--anchors",)),
    "a command misspelt": (("evalaute", "done"), 2, ("did you mean 'evaluate'",)),
    "half a command": (("infer", "done"), 2, ("infer-semantic", "infer-colors")),
    "an option misspelt": (("infer-semantic", "new", "--modle", "a.onnx"), 2, ("--model",)),
    "a section misspelt": (("run", "run.yaml"), 2, ("did you mean 'fuse'",)),
    "a key misspelt": (("run", "keys.yaml"), 2, ("did you mean 'keep_score'",)),
    "a run file that is not there": (("run", "mine.yaml"), 2, ("mine.yaml",)),
    "other options over old outputs": (
        ("fuse", "done", "--exclusive", "all", *INLINE),
        2,
        ("exclusive class -> all", "pseudolabel fuse ", "done --exclusive all --overwrite"),
    ),
    "a number out of its range": (
        ("evaluate", "done", "--ground-truth", "masks.json", "--min-mean-iou", "85"),
        2,
        ("min_mean_iou", "less than or equal to 1"),
    ),
    "a student that is a run": (("predict", "done", "--images", "images", "--out", "found"), 2, ("done",)),
    "an export of nothing": (("export-model", "done/models/student.safetensors"), 2, ("--onnx FILE",)),
    "a name that is too long for a file": (
        ("add-candidates", "new", "--name", 300 * "s", "--masks", "masks.json"),
        2,
        ("name", "0,63"),
    ),
    "masks of a file misspelt": (
        ("add-candidates", "new", "--name", "sam", "--masks", "mask.json"),
        2,
        ("mask.json: no such file", "did you mean 'masks.json'"),
    ),
    "masks of other objects": (
        ("add-candidates", "new", "--name", "sam", "--masks", "foreign_masks.json"),
        2,
        ("foreign_masks.json",),
    ),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_told_with_what_to_type(
    mistake: str, place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, code, words = MISTAKES[mistake]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    capfd.readouterr()
    found = _typed(*typed)
    told = capfd.readouterr().err
    assert [word for word in words if word not in told] == [], told
    assert found == code, told
    assert "Traceback" not in told


def test_what_to_type_next_is_quoted_where_a_path_has_spaces(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _typed("shard", "my run", "--images", "images", "--annotations", "boxes.json", *INLINE) == 0
    assert "next: pseudolabel infer-colors 'my run'," in capfd.readouterr().err
    assert _typed("report", "my run") == 2
    assert "pseudolabel fuse 'my run'" in capfd.readouterr().err


def test_what_to_type_next_names_what_was_said(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "true masks.json").write_bytes((place / "masks.json").read_bytes())
    assert _typed("evaluate", "done", "--ground-truth", "true masks.json") == 0
    assert "next: pseudolabel report done --ground-truth 'true masks.json'  shows" in capfd.readouterr().err
    assert _typed("audit", "boxes.json", "--images", "images", "--out", "my audit") == 0
    told = capfd.readouterr().err
    assert "look at 'my audit', correct" in told
    assert told.rstrip().endswith("pseudolabel shard RUN --images images --annotations boxes.json")
    _typed("doctor", "boxes.json", "--images", "images")
    assert "pseudolabel shard RUN --images images --annotations boxes.json  or" in capfd.readouterr().err
    _typed("doctor", "done")
    assert "pseudolabel shard RUN --images DIR --annotations FILE  or" in capfd.readouterr().err


@pytest.mark.parametrize("trouble", ["boxes", "corners_inside", "centres"])
def test_a_few_odd_boxes_among_many_are_no_other_convention(trouble: str) -> None:
    box = {"boxes": [10, 8, 30, 24], "corners_inside": [30, 20, 60, 44], "centres": [44, 36, 40, 24]}[trouble]
    convention = BoxConvention()
    cells = [{"bbox_xywh": box}] * 3 + [{"bbox_xywh": [10, 8, 30, 24]}] * 40
    convention.add({"objects": cells, "width": 64, "height": 48})
    assert convention.trouble() is None
