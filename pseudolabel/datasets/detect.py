"""What annotations are, by what stands in them and not by their suffix; and the way out where no reader knows them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel.datasets.json_file import first_members
from pseudolabel.datasets.text_file import read_text
from pseudolabel.datasets.yolo_files import NAME_FILES, label_kind
from pseudolabel.errors import InputError
from pseudolabel.sources.names import named_like_image

Row = dict[str, Any]
_HEAD_BYTES = 4 << 20
_LOOKED_AT = 20
_GLOBOX = "convert it, for example with globox (AnnotationSet.{0}, then .save_coco), and give that file"
_RESULTS = "it has no images and categories: name the COCO file that has them with  --images-json FILE.json"


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A format that no reader knows: its name, how it is told by the members that a file begins with, the way out."""

    name: str
    tells: Callable[[Row], bool]
    way: str


def detect_format(annotations: Path | None, *, has_images_json: bool = False) -> str:
    """The reader for a path, by what lies there.

    Args:
        annotations: a file or folder; None for bare images.
        has_images_json: whether a list of boxes has the file that it belongs to.

    Raises:
        InputError: it is none of those that readers know; where it is a known one, the message names it and what to do.
    """
    if annotations is None:
        return "folder"
    if annotations.is_dir():
        return _of_folder(annotations)
    head = _first_bytes(annotations)
    if head.startswith(b"PAR1"):
        raise InputError(f"{annotations}: Parquet files with boxes are given as  --images {annotations}  alone")
    text = read_text(annotations, max_bytes=_HEAD_BYTES).lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        return _of_xml(annotations, text)
    if text.startswith(("{", "[")) and annotations.suffix.lower() not in (".yaml", ".yml"):
        return _of_json(annotations, text, has_images_json)
    return _of_text(annotations, text)


def _first_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: cannot be read: neither a file nor a folder")
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _of_folder(folder: Path) -> str:
    if any((folder / name).is_file() for name in NAME_FILES):
        return "yolo"
    for suffix, look in ((".xml", _of_xml), (".json", _of_json_in_folder), (".txt", _of_labels)):
        files = _some_files(folder, suffix)
        if files:
            return look(files[0], read_text(files[0], max_bytes=_HEAD_BYTES).lstrip("\ufeff \t\r\n"))
    raise InputError(f"{folder}: neither XML, JSON nor text files of annotations lie there")


def _some_files(folder: Path, suffix: str) -> list[Path]:
    """The first files of that suffix, in the folder itself before those below it."""
    own = sorted(path for path in folder.iterdir() if path.suffix.lower() == suffix and path.is_file())
    return own or sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())


def _of_xml(path: Path, text: str) -> str:
    if "<annotation>" in text or "<annotation " in text or "<annotation\n" in text:
        if path.is_file() and "<object" not in text and "<annotations" in text:
            return "cvat"
        return "voc"
    if "<annotations" in text:
        return "cvat"
    raise InputError(f"{path}: XML, but neither VOC's <annotation> nor CVAT's <annotations>")


def _of_json_in_folder(path: Path, text: str) -> str:
    members, is_array = first_members(text)
    if not is_array and "shapes" in members:
        return "labelme"
    kind = _of_json(path, text, False)
    raise InputError(f"{path.parent}: a folder; give its file, such as  --annotations {path}  (it looks like {kind})")


def _of_json(path: Path, text: str, has_images_json: bool) -> str:
    members, is_array = first_members(text)
    if is_array and "bbox" in members and ("image_id" in members or "category_id" in members):
        if has_images_json:
            return "coco"
        raise InputError(f"{path}: this is a bare list of boxes, as detectors write it; {_RESULTS}")
    if is_array and ("data" in members and members.keys() & {"annotations", "predictions", "completions"}):
        return "label-studio"
    if not is_array and "shapes" in members:
        return "labelme"
    foreign = next((one for one in _FOREIGN if one.tells(members)), None)
    if foreign is not None:
        raise InputError(f"{path}: this is {foreign.name}; {foreign.way}")
    if is_array:
        named = ", ".join(list(members)[:6]) or "no objects"
        raise InputError(f"{path}: a JSON list of no format that is known here (its first element has: {named})")
    return "coco"


def _of_text(path: Path, text: str) -> str:
    if path.suffix.lower() == ".csv" or ("," in text.partition("\n")[0] and path.suffix.lower() == ".tsv"):
        raise InputError(f"{path}: {_csv(text.partition(chr(10))[0])}")
    if path.suffix.lower() in (".yaml", ".yml", ".names", ".data"):
        return "yolo"
    lines = [line.strip() for line in text.splitlines()[:_LOOKED_AT] if line.strip()]
    if lines and all(named_like_image(line) for line in lines):
        return "yolo"  # whose reader looks for the names beside the list
    if kind := label_kind(text):
        raise InputError(f"{path}: this is one label file ({kind}); give the folder of them all")
    if path.suffix.lower() == ".txt" and lines:
        return "yolo"
    raise InputError(f"{path}: not known as annotations; say what it is with  --source, or see docs/formats.md")


def _of_labels(path: Path, text: str) -> str:
    kind = label_kind(text)
    if kind == "KITTI":
        way = "labelformat convert --task object-detection --input-format kitti --output-format coco ..."
        raise InputError(f"{path.parent}: these are KITTI labels; convert them, for example with  {way}")
    if kind == "DOTA":
        way = "datum convert -i DIR -if dota -f coco"
        raise InputError(f"{path.parent}: these are DOTA labels; convert them, for example with  {way}")
    return "yolo"


def _csv(header: str) -> str:
    names = header.lower()
    if "imageid" in names and "xmin" in names:
        return f"this is Open Images' CSV; {_GLOBOX.format('from_openimage')}"
    if "region_shape_attributes" in names:
        return "this is VIA's CSV; export it as COCO: Annotation, Export Annotations (COCO format)"
    if "xmin" in names or "x1" in names:
        return "this is a CSV of boxes, one per line; export it as COCO or VOC from the tool that wrote it"
    return "a CSV is not read; export COCO's JSON from the tool that wrote it"


def _is_via(members: Row) -> bool:
    regions = any(isinstance(value, dict) and "regions" in value and "filename" in value for value in members.values())
    return (
        regions
        or "_via_img_metadata" in members
        or "_via_settings" in members
        or ("file" in members and "config" in members)
    )


def _is_fiftyone(members: Row) -> bool:
    return "samples" in members or ("classes" in members and "labels" in members and "images" not in members)


_FOREIGN = (
    _Foreign("VIA's project", _is_via, "export it as COCO: Annotation, Export Annotations (COCO format)"),
    _Foreign(
        "a FiftyOne data set",
        _is_fiftyone,
        "export it as COCO: dataset.export(labels_path=..., dataset_type=fo.types.COCODetectionDataset)",
    ),
    _Foreign(
        "CreateML's JSON",
        lambda members: bool(members.keys() & {"image", "imagefilename"}) and "annotations" in members,
        "convert it to COCO, for example with Roboflow or supervision, or export COCO from the tool that wrote it",
    ),
    _Foreign(
        "Datumaro's JSON",
        lambda members: "items" in members and "categories" in members,
        "convert it with  datum convert -i DIR -if datumaro -f coco_instances",
    ),
    _Foreign("VoTT's project", lambda members: "visitedMetadata" in members or "asset" in members, "export it as VOC"),
    _Foreign(
        "Supervisely's JSON",
        lambda members: "objects" in members and "size" in members and "images" not in members,
        "export the project as COCO or Pascal VOC",
    ),
    _Foreign(
        "Label Studio's JSON-MIN",
        lambda members: "annotator" in members and "annotation_id" in members,
        "export the project as JSON or COCO",
    ),
    _Foreign(
        "BDD100K's or Scalabel's JSON",
        lambda members: "name" in members and "labels" in members,
        "convert it to COCO with  python -m scalabel.label.to_coco",
    ),
)
