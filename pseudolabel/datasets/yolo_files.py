"""Where a YOLO data set has its class names, its splits and its label files.

Names stand in data.yaml (a list, or numbers with names), in a list of one per line, or in the file that Darknet's and
CVAT's `obj.data` names. The label file of `a/b.jpg` is `a/b.txt` or `a/b.jpg.txt`: in the folder of labels that was
given, where the last `images` of the whole path is `labels` instead (as ultralytics and Roboflow have it), in a folder
`labels` beside or in the folder of images, or beside the image.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pseudolabel.datasets.text_file import read_text
from pseudolabel.errors import InputError, RejectError
from pseudolabel.images import read_file
from pseudolabel.sources.names import named_like_image

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "obj.data", "obj.names", "classes.txt", "predefined_classes.txt")
_SPLITS = ("train", "val", "valid", "test")
_MAX_TEXT_BYTES = 64 << 20
_SEEN_LINES = 50
_KITTI_VALUES, _DOTA_VALUES = 15, 10


@dataclass
class YoloNames:
    """Classes by number, and what else the file of names says.

    Args:
        categories: sorted by id.
        keypoint_values: how many numbers of key points stand behind each box.
        splits: of every split the folders of images or the images that it names.
    """

    categories: list[dict[str, Any]]
    keypoint_values: int = 0
    splits: dict[str, list[Path]] = field(default_factory=dict)

    def split_of(self, image: Path) -> str | None:
        """The split that an image belongs to."""
        if not self.splits:
            return None
        resolved = image.resolve()
        return next((name for name, places in self._resolved.items() if places & {resolved, *resolved.parents}), None)

    @cached_property
    def _resolved(self) -> dict[str, set[Path]]:
        return {name: {place.resolve() for place in places} for name, places in self.splits.items()}


class LabelFiles:
    """The label files of the images below a folder.

    Args:
        images: the folder of images.
        labels: the folder of labels, where one was given.
    """

    def __init__(self, images: Path, labels: Path | None) -> None:
        self._images, self._labels = images.absolute(), labels

    def of(self, path: str) -> Path | None:
        """The label file of an image, None where it has none."""
        for folder, relative in self._places(path):
            for name in (relative.with_suffix(".txt"), relative.with_name(relative.name + ".txt")):
                if (folder / name).is_file():
                    return folder / name
        return None

    def lines(self, path: str) -> list[str]:
        """The lines of an image's label file, none where it has none.

        Raises:
            RejectError: `bad_record`, the file cannot be read.
        """
        file = self.of(path)
        if file is None:
            return []
        try:
            text = read_file(file.parent, file.name, max_bytes=_MAX_TEXT_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RejectError("bad_record", f"the label file {file.name!r} is not UTF-8 text") from None
        except RejectError as error:
            if error.reason in ("missing", "empty_file"):
                return []
            raise RejectError("bad_record", f"the label file {file.name!r}: {error.reason}") from None
        return [line for line in text.splitlines() if line.strip()]

    def nobody_has_one(self, paths: list[str]) -> str:
        """The message where no image has a label file, with the nearest that there are."""
        folder, relative = self._places(paths[0])[0]
        wanted = folder / relative.with_suffix(".txt")
        near = self._labels or self._images
        there = sorted(file for file in near.rglob("*.txt") if file.name not in NAME_FILES)
        hint = (
            f"; there is {there[0]} ({len(there)} files of text): give their folder as --annotations" if there else ""
        )
        return f"0 of {len(paths)} images below {self._images} have a label file; {paths[0]} wants {wanted}{hint}"

    def _places(self, path: str) -> list[tuple[Path, PurePosixPath]]:
        """Folders, and the image's path there, in the order in which label files are looked for."""
        relative = PurePosixPath(path)
        if self._labels is not None:
            given = [(self._labels, relative), (self._labels, PurePosixPath(relative.name))]
            return [*given, *self._swapped(relative), (self._images, relative)]
        around = [(self._images.parent / "labels", relative), (self._images / "labels", relative)]
        return [*self._swapped(relative), *around, (self._images, relative)]

    def _swapped(self, relative: PurePosixPath) -> list[tuple[Path, PurePosixPath]]:
        parts = (self._images / relative).parts
        if "images" not in parts[:-1]:
            return []
        place = len(parts) - 2 - parts[-2::-1].index("images")
        return [(Path(*parts[:place], "labels"), PurePosixPath(*parts[place + 1 :]))]


def find_yolo(images: Path, annotations: Path | None) -> tuple[YoloNames, Path | None]:
    """The class names, and the folder of labels where one was given.

    Raises:
        InputError: no class names, no such folder, or labels of another kind.
    """
    if annotations is not None and annotations.is_file():
        return _of_file(annotations), None
    if annotations is not None and not annotations.is_dir():
        raise InputError(f"{annotations}: no such folder of labels")
    folders = [annotations, annotations.parent] if annotations else [images.parent / "labels", images]
    for folder in dict.fromkeys((*folders, images.parent, images.parent.parent, images)):
        for name in NAME_FILES:
            if (folder / name).is_file():
                own = annotations if annotations is not None and _holds_labels(annotations) else None
                return read_names(folder / name), own
    where = annotations or images
    raise InputError(f"{where}: no class names; put data.yaml or classes.txt there, or give it as --annotations")


def _holds_labels(folder: Path) -> bool:
    return any(file.name not in NAME_FILES for file in folder.rglob("*.txt"))


def _of_file(path: Path) -> YoloNames:
    """Names from a file; a list of images, which lies beside the file of names, is not one."""
    if path.suffix.lower() in (".yaml", ".yml") or path.name.lower().endswith(".data"):
        return read_names(path)
    lines = [line.strip() for line in read_text(path, max_bytes=1 << 20).splitlines() if line.strip()]
    if lines and all(named_like_image(line) for line in lines[:_SEEN_LINES]):
        beside = next((path.parent / name for name in NAME_FILES if (path.parent / name).is_file()), None)
        if beside is None:
            raise InputError(f"{path}: this lists images; give the file of class names, such as obj.data or data.yaml")
        return read_names(beside)
    return read_names(path)


def read_names(path: Path) -> YoloNames:
    """Class names of data.yaml, of obj.data's list, or of a file with one per line.

    Raises:
        InputError: it holds none.
    """
    text = read_text(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _of_yaml(path, text)
    if path.name.lower().endswith(".data"):
        return _of_darknet(path, text)
    names = [line.strip() for line in text.split("\n")]
    if any(named_like_image(name) for name in names[:_SEEN_LINES]):
        raise InputError(f"{path}: this lists images, not classes; give the file of class names")
    if kind := label_kind(text):
        raise InputError(f"{path}: this is a label file ({kind}), not a list of class names; give its folder")
    return YoloNames(_categories(path, names))


def _of_yaml(path: Path, text: str) -> YoloNames:
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    values = values if isinstance(values, dict) else {}
    shape = values.get("kpt_shape")
    keypoints = shape[0] * shape[1] if isinstance(shape, list) and len(shape) == 2 else 0
    splits = {name: _split_places(path.parent, values.get("path"), values.get(name)) for name in _SPLITS}
    return YoloNames(
        _categories(path, values.get("names")), keypoints, {name: places for name, places in splits.items() if places}
    )


def _of_darknet(path: Path, text: str) -> YoloNames:
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    values = {key.strip(): value.strip() for key, value in pairs.items()}
    names = PurePosixPath(values.get("names", "").replace("\\", "/"))
    for file in (path.parent / names, path.parent / names.name):
        if names.name and file.is_file():
            return read_names(file)
    raise InputError(f"{path}: names = {str(names)!r}, and no such file lies beside it")


def _split_places(folder: Path, base: Any, entry: Any) -> list[Path]:
    """The folders and images that a split of data.yaml names and that are there."""
    places: list[Path] = []
    for one in entry if isinstance(entry, list) else [entry]:
        if not isinstance(one, str) or not one:
            continue
        plain = one.removeprefix("./")
        outside = plain.lstrip("./")  # Roboflow writes ../train/images for train/images
        tried = [folder / str(base or "") / plain, folder / plain, folder / outside]
        place = next((candidate for candidate in tried if candidate.exists()), None)
        if place is not None and place.is_file() and place.suffix == ".txt":
            places += _listed_images(place)
        elif place is not None:
            places.append(place)
    return places


def _listed_images(path: Path) -> list[Path]:
    lines = [line.strip().removeprefix("./") for line in read_text(path).splitlines() if line.strip()]
    return [path.parent / line for line in lines]


def label_kind(text: str) -> str:
    """What the lines of a label file are: `YOLO`, `KITTI`, `DOTA`, or empty for none of these."""
    lines = [line.split() for line in text.splitlines()[:_SEEN_LINES] if line.strip()]
    if any(line[0].startswith(("imagesource:", "gsd:")) for line in lines):
        return "DOTA"
    if not lines:
        return ""
    kitti = all(len(line) in (_KITTI_VALUES, _KITTI_VALUES + 1) and _numbers(line[1:]) for line in lines)
    if kitti and not _numbers(lines[0][:1]):
        return "KITTI"
    dota = all(len(line) in (_DOTA_VALUES - 1, _DOTA_VALUES) and _numbers(line[:8]) for line in lines)
    if dota and not _numbers(lines[0][8:9]):
        return "DOTA"
    return "YOLO" if all(len(line) >= 5 and _numbers(line) for line in lines) else ""


def _numbers(texts: Any) -> bool:
    try:
        return all(isinstance(float(text), float) for text in texts)
    except (TypeError, ValueError):
        return False


def _categories(path: Path, names: Any) -> list[dict[str, Any]]:
    if isinstance(names, list):
        names = dict(enumerate(name.strip() if isinstance(name, str) else name for name in names))
    if not isinstance(names, dict):
        raise InputError(f"{path}: 'names' is neither a list nor numbers with names")
    numbered = {_key(number): name for number, name in names.items() if name != ""}  # empty lines at a list's end
    for number, name in numbered.items():
        if type(number) is not int or number < 0 or not isinstance(name, str | int | float) or name is True:
            raise InputError(f"{path}: names: {number!r}: {name!r}; expected a class number and its name")
    if not numbered:
        raise InputError(f"{path}: no class names")
    return [{"id": number, "name": str(numbered[number])} for number in sorted(numbered)]


def _key(number: Any) -> Any:
    return int(number) if isinstance(number, str) and number.isascii() and number.isdigit() else number
