"""The situations of `../shared/cases`, as people had them: read right, or refused by a message with the way out."""

import shutil
from collections import Counter
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from pseudolabel.errors import InputError
from pseudolabel.pipelines.planning.make_plan import PlanConfig, make_plan
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard
from pseudolabel.pipelines.stages.shard import ShardConfig, ShardStage


@dataclass
class Case:
    """A folder of cases, what is typed, and what has to come of it."""

    folder: str
    annotations: str | None
    images: str = "images"
    n_images: int = 2
    n_boxes: int = 5
    rejected: dict[str, int] = field(default_factory=dict)
    said: str = ""  # of a note, of an image's detail, or of the message where all is refused
    refused: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return " ".join([self.folder, str(self.annotations), *map(str, self.options.values())])


TIFF = "32-multichannel-float-tiff"
CASES = [
    Case("01-string-ids", "boxes.json"),
    Case("03-odd-segmentation-good-box", "boxes.json"),
    Case("04-label-studio-coco", "result.json", said="by the end of their names"),
    Case("07-absolute-paths", "boxes.json", said="by the end of their names"),
    Case("08-exif-label-studio", "boxes.json"),
    Case("08-exif-label-studio", "boxes_upright.json"),
    Case(
        "08-exif-label-studio", "boxes.json", n_images=1, n_boxes=3, said="--exif transpose",
        rejected={"size_mismatch": 1, "image_rejected": 2}, options={"exif": "ignore"},
    ),
    Case("09-yolo-confidence-column", "data.yaml", images="."),
    Case("10-roboflow-yolo-root", "ds/data.yaml", images="ds"),
    Case("10-roboflow-yolo-root", "ds", images="ds"),
    Case("13-cvat-yolo-1.1", "obj.data", images="obj_train_data"),
    Case("13-cvat-yolo-1.1", "train.txt", images="obj_train_data"),
    Case("13-cvat-yolo-1.1", ".", images="."),
    Case("16-voc-wrong-filename", "annotations", said="names of their annotation files"),
    Case("18-same-name-subfolders", "boxes.json"),
    Case("18-same-name-subfolders", "basenames.json", refused=True, said="2 files end so: a/1.jpg, b/1.jpg"),
    Case("18-same-name-subfolders", "unique.json", images="images_unique"),
    Case("19-list-of-boxes", "boxes.json", refused=True, said="--images-json"),
    Case("20-roboflow-root-category", "boxes.json", said="left out"),
    Case("21-fields-missing", "boxes.json"),
    Case("21-fields-missing", "noid.json", said="numbered from 1"),
    Case("22-all-iscrowd", "boxes.json", said="all 5 objects"),
    Case("24-bbox-strings", "boxes.json"),
    Case("25-bom-utf16-gz", "bom.json"),
    Case("25-bom-utf16-gz", "utf16.json"),
    Case("25-bom-utf16-gz", "boxes.json.gz"),
    Case("25-bom-utf16-gz", "gbk.json", refused=True, said="iconv"),
    Case("26-lvis", "boxes.json"),
    Case("27-bad-boxes", "boxes.json", n_boxes=7, rejected={"empty_box": 2, "bad_box": 2}),
    Case("28-missing-images", "boxes.json", n_images=1, n_boxes=3, rejected={"missing": 1, "image_rejected": 2}),
    Case(TIFF, "boxes.json", n_images=5, said="5 channels: channel 1 is read"),
    Case(
        TIFF, "boxes.json", n_images=3, n_boxes=3, said="--stretch percentile",
        rejected={"unsupported_format": 2, "image_rejected": 2}, options={"stretch": "none"},
    ),
    Case("33-labelme-folder", "images"),
    Case("34-cvat-xml", "annotations.xml"),
    Case("34-cvat-xml", "xmldir"),
    Case("35-label-studio-native-json", "project.json", n_images=1, n_boxes=1),
    Case("46-annotation-id-zero", "boxes.json", said="numbered from 1"),
    Case("47-image-licence-lost", "boxes.json"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_people_have_is_read_or_refused_with_the_way_out(case: Case, tmp_path: Path, shared_folder: Path) -> None:
    root = copied(case, shared_folder, tmp_path / "case")
    run = RunPaths(tmp_path / "run")
    annotations = root / case.annotations if case.annotations else None
    config = PlanConfig(images=str(root / case.images), annotations=annotations, shards=1, **case.options)
    if case.refused:
        with pytest.raises(InputError) as caught:
            make_plan(run, config)
        assert case.said in str(caught.value)
        return
    plan = make_plan(run, config)
    stage = ShardStage(ShardConfig(), run)
    place = Shard(0, 1, plan.images_root, *astuple(plan.pixel_rule))
    rows = stage.run(place, {"plan": read_part(run.part("plan", 0, 1))}).to_pylist()
    ok = [row for row in rows if row["status"] == "ok"]
    assert (len(ok), sum(len(row["objects"]) for row in ok)) == (case.n_images, case.n_boxes)
    assert Counter(row["reason"] for row in rows if row["status"] == "rejected") == case.rejected
    assert case.said in " ".join([*plan.notes, *(row["detail"] or "" for row in rows)])


def copied(case: Case, shared: Path, root: Path) -> Path:
    """The case's files with its photographs where they belong."""
    source, photographs = shared / "cases" / case.folder, shared / "data" / "coco-dev" / "images"
    if not (source / "expected.txt").is_file() or not photographs.is_dir():
        pytest.skip(f"{source} or {photographs} is not there")
    shutil.copytree(source, root)
    for line in (source / "photographs.tsv").read_text().splitlines():
        place, _, name = line.partition("\t")
        if place.strip():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photographs / name.strip(), root / place)
    if case.folder.startswith("08"):
        _save_turned(photographs / "000000331352.jpg", root / "images" / "000000331352.jpg")
    return root


def _save_turned(photograph: Path, path: Path) -> None:
    """The photograph turned by a quarter and stored with orientation 6, so that viewers show it upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(photograph) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
