"""Where the classes of a segmenter and the categories of a data set meet."""

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from pseudolabel.errors import InputError

SHIPPED_MAPS = ("voc-coco", "ade20k-coco", "cityscapes-coco")


@dataclass(frozen=True, slots=True)
class ClassList:
    """Names of a data set's classes, in the order of their indices."""

    names: tuple[str, ...]
    label_ids: tuple[int, ...] = ()  # values in its own label maps, where they are not the indices
    ignored_label_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassMatch:
    """Class index of every category that has one, the source of the match, and the categories that have none."""

    index_of: Mapping[int, int]
    used: str  # "identical names", or the name of a shipped map
    unmapped: tuple[str, ...]


def match_classes(classes: Sequence[str], categories: Mapping[int, str]) -> ClassMatch:
    """Categories matched to classes: by identical names, and where more match with it, by one shipped map as well.

    Names are compared in lower case without spaces, `-` and `_`. Identical names always go first; a shipped map adds
    names for what is left.

    Args:
        classes: of the segmenter, by index.
        categories: name by category id.
    """
    indices = {normalised(name): index for index, name in reversed(list(enumerate(classes)))}
    best = _match(indices, categories, {}, "identical names")
    for name in SHIPPED_MAPS:
        pairs = load_map(name)
        for renamed in (pairs, {second: first for first, second in reversed(list(pairs.items()))}):
            found = _match(indices, categories, {b: a for a, b in reversed(list(renamed.items()))}, name)
            if len(found.index_of) > len(best.index_of):
                best = found
    return best


def _match(
    indices: Mapping[str, int], categories: Mapping[int, str], other_name: Mapping[str, str], used: str
) -> ClassMatch:
    index_of: dict[int, int] = {}
    for category_id, name in categories.items():
        plain = normalised(name)
        index = indices.get(plain, indices.get(other_name.get(plain, "")))
        if index is not None:
            index_of[category_id] = index
    unmapped = tuple(name for category_id, name in categories.items() if category_id not in index_of)
    return ClassMatch(index_of, used, unmapped)


def normalised(name: str) -> str:
    """A name as it is compared."""
    return re.sub(r"[\s_\-]+", "", name).lower()


@cache
def load_classes(name: str) -> ClassList:
    """A shipped list of classes: `voc`, `coco`, `ade20k` or `cityscapes`."""
    content = _read(f"{name}.yaml")
    label_ids, ignored = content.get("label_ids", ()), content.get("ignored_label_ids", ())
    return ClassList(tuple(content["classes"]), tuple(label_ids), tuple(ignored))


@cache
def load_map(name: str) -> Mapping[str, str]:
    """Normalised names of the first data set to those of the second, in the order of the file."""
    pairs = _read(f"{name}.yaml")["pairs"]
    return {normalised(first): normalised(second) for first, second in pairs.items()}


def _read(file_name: str) -> dict[str, Any]:
    text = importlib.resources.files("pseudolabel.data").joinpath(file_name).read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise InputError(f"pseudolabel.data/{file_name}: expected keys and values")
    return content
