"""Object stores through pyarrow's own file systems: opened by the store's usual means, tried again where that helps.

pyarrow brings clients for S3-compatible stores, Google's and Azure's with it, so no further package is needed. Where
the keys, the region and the endpoint come from is the client's affair: for S3 the environment (`AWS_PROFILE`,
`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...), `~/.aws` or the role of the machine; `AWS_NO_SIGN_REQUEST=1` reads public
buckets without any. Nothing of it is kept or logged.
"""

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pseudolabel.errors import (
    InputError,
    MachineError,
    PassingFaultError,
    PseudolabelError,
    RejectError,
    hide_credentials,
)
from pseudolabel.sources.folder import PlainFiles, check_name
from pseudolabel.sources.names import named_like_image
from pseudolabel.sources.place import check_url, is_url, query_of

TRIES = 5
FIRST_WAIT_S = 0.25
CONNECT_S, REQUEST_S = 10, 30
S3_OPTIONS = ("region", "endpoint_override", "scheme")

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_DENIED = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|INVALID_CLIENT_TOKEN_ID"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|INVALID_SIGNATURE)|HTTP status 40[13]\b"
)
_NO_BUCKET = re.compile(r"AWS Error NO_SUCH_BUCKET")


class StoreFolder(PlainFiles):
    """The objects below a prefix as a source of images."""

    def __init__(self, url: str) -> None:
        self._url = check_url(url)
        self._opened: tuple[Any, str] | None = None

    def check(self) -> None:
        system, root = self._store()
        check_there(system, root, self._url)

    def read(self, file_name: str, *, max_bytes: int, first_bytes: int | None = None) -> bytes:
        key = check_name(file_name)
        system, root = self._store()
        return retried(f"{self._url}: {key}", lambda: read_whole(system, f"{root}/{key}", max_bytes, first_bytes))

    def names(self) -> Iterator[str]:
        """What is named like an image; nothing is opened to find out."""
        yield from (name for name in self._listed() if named_like_image(name))

    def _listed(self) -> list[str]:
        system, root = self._store()
        return sorted(name for name in list_files(system, root, self._url, recursive=True) if not _hidden(name))

    def _store(self) -> tuple[Any, str]:
        if self._opened is None:
            self._opened = open_store(self._url)
        return self._opened


def open_store(url: str) -> tuple[Any, str]:
    """A pyarrow file system, and the path within it.

    Raises:
        InputError: the URL cannot be understood.
        ConfigError: it holds credentials.
    """
    from pyarrow import fs

    if not is_url(url):
        return fs.LocalFileSystem(), url
    check_url(url)
    if urlsplit(url).scheme == "s3":
        return _open_s3(url)
    try:
        system, path = fs.FileSystem.from_uri(url)
    except (ValueError, OSError) as error:
        raise InputError(f"{hide_credentials(url)}: {_one_line(error)}") from None
    return system, path.rstrip("/")


def _open_s3(url: str) -> tuple[Any, str]:
    """S3 with few tries of the client's own and time limits; else it may hold on to a dead line for minutes."""
    from pyarrow import fs

    place, options = urlsplit(url), query_of(url)
    unknown = sorted(set(options) - set(S3_OPTIONS))
    if unknown:
        raise InputError(f"{url}: unknown option {unknown[0]!r}; known are {', '.join(S3_OPTIONS)}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        options["endpoint_override"] = endpoint
    if "endpoint_override" not in options and "region" not in options:
        options["region"] = retried(url, lambda: fs.resolve_s3_region(place.netloc))
    system = fs.S3FileSystem(
        **options,
        anonymous=bool(os.environ.get("AWS_NO_SIGN_REQUEST")),
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
    )
    return system, f"{place.netloc}{unquote(place.path).rstrip('/')}"


def list_files(system: Any, folder: str, shown: str, *, recursive: bool) -> list[str]:
    """Names of the files below a folder, relative to it.

    Raises:
        InputError: there is no such folder or bucket.
        MachineError: the store refuses us, or cannot be reached.
    """
    from pyarrow import fs

    def look() -> list[str]:
        found = system.get_file_info(fs.FileSelector(folder, recursive=recursive))
        return [info.path[len(folder) :].lstrip("/") for info in found if info.is_file]

    try:
        return retried(shown, look)
    except RejectError as error:
        raise InputError(f"{shown}: no such folder or prefix ({error.reason})") from None


def check_there(system: Any, path: str, shown: str) -> None:
    """Pass if there is a file, or anything below a prefix; one small request.

    Raises:
        InputError: no such bucket, prefix or file.
        MachineError: the store refuses us, or cannot be reached.
    """
    from pyarrow import fs

    if retried(shown, lambda: system.get_file_info(path)).type == fs.FileType.NotFound:
        raise InputError(f"{shown}: no such bucket, folder or file")


def read_whole(system: Any, path: str, max_bytes: int, first_bytes: int | None) -> bytes:
    """A whole object, or its first bytes; one request for its size and one for the bytes."""
    with system.open_input_file(path) as file:
        size = file.size()
        if size > max_bytes and first_bytes is None:
            raise RejectError("too_large", f"{size} bytes, at most {max_bytes} are read")
        wanted = size if first_bytes is None else min(first_bytes, size)
        data: bytes = file.read_at(wanted, 0) if wanted else b""
    if not data:
        raise RejectError("empty_file", "0 bytes")
    if len(data) < wanted:
        raise OSError(f"{len(data)} bytes of {wanted} came")
    return data


def retried(what: str, action: Callable[[], _T]) -> _T:
    """The result of an action, tried again with growing pauses after a fault that may pass.

    Raises:
        RejectError: `missing`: there is no such object.
        InputError: there is no such bucket.
        MachineError: the store refuses us, or (`PassingFaultError`) `TRIES` tries were in vain.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return action()
        except OSError as error:
            fault = _lasting_fault(what, error)
            if fault is not None:
                raise fault from None
            if attempt == TRIES:
                raise PassingFaultError(f"{what}: {_one_line(error)} (tried {TRIES} times)") from None
            wait_s = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            _log.warning("%s: %s; trying again in %.1f s", what, _one_line(error), wait_s)
            time.sleep(wait_s)
    raise AssertionError("the loop returns or raises")


def _lasting_fault(what: str, error: OSError) -> PseudolabelError | RejectError | None:
    """What a user is told of a fault that no second try cures, None of any other."""
    text = str(error)
    if _NO_BUCKET.search(text):
        return InputError(f"{what}: no such bucket")
    if isinstance(error, PermissionError) or _DENIED.search(text):
        return MachineError(
            f"{what}: the store denies access; check the credentials that this machine finds (for S3: AWS_PROFILE, "
            f"AWS_ACCESS_KEY_ID, ~/.aws, its role), and that they may list and read there ({_code(text)})"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return RejectError("missing", "no such file")
    return None


def _code(text: str) -> str:
    match = _DENIED.search(text)
    return match[0] if match else "permission denied"


def _one_line(error: BaseException) -> str:
    return hide_credentials(" ".join(str(error).split()))[:300]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
