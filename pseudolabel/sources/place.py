"""How a place of images is spelled, and how the name of an image tells where in an archive it lies.

`dir/a.jpg@train-0003.tar:1536+20480` is the image `dir/a.jpg`, 20480 bytes from byte 1536 of `train-0003.tar`;
`a.jpg@train-0.parquet:17` the one in row 17. A row of the manifest carries its place in its `file_name`, so a worker
opens the one range that it needs, and no index has to be kept or held in memory.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pseudolabel.errors import ConfigError, hide_credentials

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
ARCHIVES = (".tar", ".parquet")

_PLACE = re.compile(r"(?s)(.+)@([^/@:]+\.(?:tar|parquet)):(\d{1,18})(?:\+(\d{1,18}))?")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_ARCHIVES = 100_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies: its plain name, the archive's base name, and a byte range or (`size` None) a row."""

    name: str
    archive: str
    start: int
    size: int | None = None

    def __str__(self) -> str:
        extent = "" if self.size is None else f"+{self.size}"
        return f"{self.name}@{self.archive}:{self.start}{extent}"


def parse_place(file_name: str) -> Place | None:
    """The place that a name carries, None where it carries none."""
    match = _PLACE.fullmatch(file_name)
    if match is None:
        return None
    return Place(match[1], match[2], int(match[3]), int(match[4]) if match[4] else None)


def plain_name(file_name: str) -> str:
    """The name as the user knows it, without its place."""
    place = parse_place(file_name)
    return place.name if place else file_name


def is_url(root: str) -> bool:
    return "://" in root


def archive_suffix(root: str) -> str | None:
    """`.tar` or `.parquet` where a place names archives.

    Raises:
        ConfigError: a compressed tar, in which no range can be read.
    """
    path = _without_extras(root).lower()
    if path.endswith((".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise ConfigError(f"{hide_credentials(root)}: a compressed tar cannot be read in ranges; unpack it to .tar")
    return next((suffix for suffix in ARCHIVES if path.endswith(suffix)), None)


def check_url(url: str) -> str:
    """The URL, which may hold no credentials and has to be of a known scheme.

    Raises:
        ConfigError: neither is shown in the message.
    """
    parts = urlsplit(url)
    shown = hide_credentials(url)
    if parts.username or parts.password or shown != url:
        raise ConfigError(
            f"{shown}: credentials do not belong into a URL, which ends up in plan.json and in logs; "
            "use the store's own means, such as AWS_PROFILE, AWS_ACCESS_KEY_ID, ~/.aws or the machine's role"
        )
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"{shown}: images are read from a folder or from {', '.join(f'{s}://' for s in SCHEMES)}")
    if not parts.netloc:
        raise ConfigError(f"{shown}: the name of the bucket is missing")
    return url


def absolute(root: str) -> str:
    """The place as every process of a run can use it, whatever its working directory.

    Raises:
        ConfigError: as `check_url`.
    """
    if is_url(root):
        return check_url(root)
    path, mark, column = root.partition("#") if archive_suffix(root) else (root, "", "")
    return str(Path(path).resolve()) + mark + column


def split_archives(root: str) -> tuple[str, str, str, str]:
    """A place of archives as (folder or URL of the folder, pattern of base names, column or "", query with its "?").

    Raises:
        ConfigError: a wildcard stands in the folder.
    """
    path, _, column = root.partition("#")
    query = ""
    if is_url(path):
        path, mark, rest = path.partition("?")
        query = mark + rest
    folder, _, pattern = path.rpartition("/")
    if any(sign in folder for sign in "*{["):
        raise ConfigError(f"{root}: `*` and {{000..009}} may stand in the last part alone; archives lie in one folder")
    return folder or ("." if not path.startswith("/") else "/"), pattern, column, query


def base_names(pattern: str) -> list[str] | None:
    """The archives that a pattern without `*` names; None where the folder has to be listed.

    Raises:
        ConfigError: a range that runs backwards or without end.
    """
    if any(sign in pattern for sign in "*?["):
        return None
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MAX_ARCHIVES:
        raise ConfigError(f"{pattern}: {{{match[1]}..{match[2]}}} is no range of up to {_MAX_ARCHIVES} archives")
    before, after, digits = pattern[: match.start()], pattern[match.end() :], len(match[1])
    return [f"{before}{number:0{digits}}{after}" for number in range(first, last + 1)]


def _without_extras(root: str) -> str:
    path = root.partition("#")[0] if _has_column(root) else root
    return urlsplit(path).path if is_url(path) else path


def _has_column(root: str) -> bool:
    return ".parquet#" in root or ".parquet?" in root


def query_of(url: str) -> dict[str, str]:
    """The options of a store that a URL carries, such as `endpoint_override`."""
    return dict(parse_qsl(urlsplit(url).query))
