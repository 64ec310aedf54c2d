"""From the file names that annotations have to the images that are there.

An annotation tool writes the path that it knew: an absolute one, one of its own storage, one with backslashes, without
the folder, without the suffix, in another case or in another Unicode form. A name that is a file below the images is
that file. Else it is looked for by its end: the file whose whole path ends the name, the longest first, or the one file
whose path the whole name ends. Two that fit equally, or two names for one file, are refused: never the wrong picture.
"""

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from pseudolabel.errors import InputError, RejectError
from pseudolabel.sources.folder import check_name
from pseudolabel.sources.listing import files_below
from pseudolabel.sources.names import named_like_image

_LABEL_STUDIO_HASH = re.compile(r"^[0-9a-f]{8}-")
_SCHEME = re.compile(r"^(?:[a-zA-Z][a-zA-Z0-9+.-]*://|[a-zA-Z]:/)")
_WEB = ("http://", "https://")  # whose folders, such as LVIS's train2017, need not be those below the images
_COMPARED = 5_000  # files that a mistyped name is compared to
_SHOWN = 3


class ImageNames:
    """The names of one data set's images.

    Args:
        root: the folder of images; None for images elsewhere, whose names cannot be looked for.
        strip_prefix: what names begin with and paths below `root` do not.
    """

    def __init__(self, root: Path | None, strip_prefix: str = "") -> None:
        self._root, self._prefix = root, strip_prefix.replace("\\", "/")
        self._by_base: dict[str, list[str]] | None = None
        self._by_stem: dict[str, list[str]] = {}
        self.found_elsewhere: dict[str, str] = {}

    def find(self, names: Iterable[object]) -> list[str | RejectError]:
        """For every name the path of its image, relative to the folder, or why there is none.

        Raises:
            InputError: no name begins with the prefix that is to be stripped.
        """
        given = list(names)
        stripped = self._without_prefix(given)
        found = [self.find_one(name) for name in stripped]
        owners: dict[str, set[object]] = {}
        for name, path in zip(stripped, found, strict=True):
            if isinstance(path, str):
                owners.setdefault(path, set()).add(name)
        for place, (name, path) in enumerate(zip(stripped, found, strict=True)):
            if isinstance(path, str) and clean_name(str(name)) != path:
                found[place] = self._sole(name, path, owners[path])
                if found[place] is path:
                    self.found_elsewhere[str(given[place])] = path
        return found

    def find_one(self, name: object) -> str | RejectError:
        """As `find` for one name, whoever else may lay claim to its image."""
        try:
            key = check_name(name)
        except RejectError as error:
            return self._looked_for(name, error) if isinstance(name, str) and "\0" not in name else error
        if self._root is None or os.path.lexists(self._root / key):
            return key
        return self._looked_for(key, RejectError("missing", "no such file"))

    def notes(self) -> list[str]:
        """What a user should know of names that were not found as they stand."""
        if not self.found_elsewhere:
            return []
        name, path = next(iter(self.found_elsewhere.items()))
        return [f"{len(self.found_elsewhere)} images were found by the end of their names, such as {name!r} as {path}"]

    def near(self, name: str) -> str:
        """Files that a missing name may mean, as the end of a message; empty where none comes near."""
        bases, stems = self._index()
        base = canonical(name).rpartition("/")[2]
        near = bases.get(base) or stems.get(_stem(base))
        if not near and 0 < len(bases) <= _COMPARED:
            near = [path for key in difflib.get_close_matches(base, bases, n=1, cutoff=0.8) for path in bases[key]]
        return f"; there is {_listed(near)}" if near else ""

    def _without_prefix(self, names: Sequence[object]) -> list[object]:
        if not self._prefix:
            return list(names)
        plain = [name.replace("\\", "/") if isinstance(name, str) else name for name in names]
        if names and not any(isinstance(name, str) and name.startswith(self._prefix) for name in plain):
            raise InputError(f"--strip-prefix {self._prefix}: no file name begins so; the first is {names[0]!r}")
        return [name.removeprefix(self._prefix).lstrip("/") if isinstance(name, str) else name for name in plain]

    def _sole(self, name: object, path: str, owners: set[object]) -> str | RejectError:
        others = sorted(str(other) for other in owners if other != name)
        if not others:
            return path
        return RejectError("duplicate_image", f"{str(name)[:100]!r} and {others[0][:100]!r} would both be {path}")

    def _looked_for(self, name: str, error: RejectError) -> str | RejectError:
        cleaned = clean_name(name)
        if self._root is None:
            return _checked("/".join(cleaned.split("/")[-2:]) if _SCHEME.match(name) else cleaned)
        for variant in _variants(cleaned):
            matches = self._matches(canonical(variant))
            if len(matches) == 1:
                return matches[0]
            if matches:
                return RejectError("missing", f"{len(matches)} files end so: {_listed(matches)}")
        if name.startswith(_WEB) and len(same := self._index()[0].get(canonical(cleaned).rpartition("/")[2], [])) == 1:
            return same[0]
        near = self.near(cleaned)
        if error.reason == "missing" and not near:
            return name  # the stage that opens images says so
        return RejectError(error.reason, f"{ascii(name)[:120]} is not below the images{near}")

    def _matches(self, key: str) -> list[str]:
        """Paths that end the key, the longest alone; else those that the key ends; else those that lack its suffix."""
        bases, stems = self._index()
        same_base = bases.get(key.rpartition("/")[2], [])
        inside = [path for path in same_base if f"/{key}".endswith(f"/{canonical(path)}")]
        longest = max((path.count("/") for path in inside), default=0)
        around = [path for path in same_base if f"/{canonical(path)}".endswith(f"/{key}")]
        without_suffix = [] if named_like_image(key) else stems.get(key.rpartition("/")[2], [])
        in_folder = [path for path in without_suffix if f"/{_stem(canonical(path))}".endswith(f"/{key}")]
        return [path for path in inside if path.count("/") == longest] or around or in_folder or without_suffix

    def _index(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """All files by their canonical base names, and images by those without suffix."""
        if self._by_base is None:
            self._by_base = {}
            for path in files_below(self._root)[0] if self._root is not None else ():
                base = canonical(path).rpartition("/")[2]
                self._by_base.setdefault(base, []).append(path)
                if named_like_image(base):
                    self._by_stem.setdefault(_stem(base), []).append(path)
        return self._by_base, self._by_stem


def clean_name(name: str) -> str:
    """A name as a relative path: the part behind `?d=`, without scheme, drive, leading slashes and dots.

    >>> clean_name("../../upload/1/a b.jpg"), clean_name("/data/local-files/?d=x/a%20b.jpg")
    ('upload/1/a b.jpg', 'x/a b.jpg')
    """
    text = name.replace("\\", "/").strip()
    if "?d=" in text:
        text = unquote(text.partition("?d=")[2])
    text = _SCHEME.sub("", text)
    return "/".join(part for part in text.split("/") if part not in ("", ".", ".."))


def canonical(path: str) -> str:
    """A path in which case and Unicode form no longer differ."""
    return unicodedata.normalize("NFC", path).casefold()


def shown_counts(errors: Iterable[RejectError]) -> str:
    """The reasons of some rejects with their counts, the most frequent first, and one of them in full."""
    listed = list(errors)
    counts = Counter(error.reason for error in listed)
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    return f"{reasons}; the first: {listed[0].detail or listed[0].reason}" if listed else ""


def _variants(cleaned: str) -> list[str]:
    """The name, decoded from a URL, and without what Label Studio puts before an uploaded file's name."""
    decoded = unquote(cleaned)
    folder, slash, base = decoded.rpartition("/")
    plain = folder + slash + _LABEL_STUDIO_HASH.sub("", base)
    return list(dict.fromkeys((cleaned, decoded, plain)))


def _checked(name: str) -> str | RejectError:
    try:
        return check_name(name)
    except RejectError as error:
        return error


def _stem(base: str) -> str:
    return base.rpartition(".")[0] or base


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(sorted(paths)[:_SHOWN]) + more
