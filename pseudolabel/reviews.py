"""What people answered about masks: one line of JSON per answer in an append-only file, one file per reviewer.

An answer is on the disk before anybody is told that it counts. A process that is killed while it writes leaves at most
one line without its end: that line is no answer, and whoever reads or goes on says so. Nothing is ever changed or
deleted: `undo` is a line, too, and takes back the reviewer's last answer about that object.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, get_args

from pseudolabel.errors import InputError, MachineError
from pseudolabel.files import fsync

if TYPE_CHECKING:  # numba, which a stage's import does without
    from pseudolabel.rle import Rle

Verdict = Literal["accept", "box_only", "wrong_class", "reject", "skip", "undo"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """What `fuse` had said of an object when somebody looked at it."""

    mask: "Rle"
    score: float  # expected IoU
    decision: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One look at one object.

    `accept`: the mask is the object's. `box_only`: no mask here is, the box is right. `wrong_class`: the object is of
    no class of the run's. `reject`: there is no such object. `skip`: no answer. `undo`: the last one does not count.
    """

    annotation_id: int
    image_key: str
    verdict: Verdict
    at: str  # when, UTC, ISO 8601
    reviewer: str
    mask: "Rle | None" = None  # of an accepted mask, at the size of its image
    category_id: int | None = None  # where the reviewer named another class than the given one
    origin: str = ""  # of the mask: `fused`, the name of a source, `drawn`
    seen: str = ""  # `mask_digest` of the fused mask that was shown
    seconds: float = 0.0
    key: str = ""  # by which a page tells its answers apart, so that one that is sent twice counts once
    shown: Shown | None = None  # so that one can tell what the answer changed
    version: int = FORMAT_VERSION

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """The inverse of `to_line`; the mask's counts are not looked at.

        Raises:
            ValueError: the line is none.
        """
        values = json.loads(line)
        if not isinstance(values, dict) or values.get("version") != FORMAT_VERSION:
            raise ValueError(f"expected an object of version {FORMAT_VERSION}")
        try:
            shown = values.get("shown")
            answer = cls(**values | {"shown": None if shown is None else Shown(**shown)})
        except TypeError as error:
            raise ValueError(str(error)) from None
        _check(answer)
        return answer


@dataclass(frozen=True, slots=True)
class ReadAnswers:
    """The answers of a file in their order, and how many bytes at its end are no whole line."""

    answers: list[Answer]
    torn_bytes: int


def mask_digest(mask: "Rle") -> str:
    """A short name of a mask: of its size and its pixels."""
    text = f"{mask['size'][0]}x{mask['size'][1]} {mask['counts']}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_answers(path: Path) -> ReadAnswers:
    """The answers of one file; none where there is no file.

    Raises:
        InputError: a line before the last is no answer; the message has its number.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ReadAnswers([], 0)
    *lines, torn = data.split(b"\n")
    answers = []
    for number, line in enumerate(lines, 1):
        try:
            answers.append(Answer.from_line(line))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: no answer of a review ({error}); delete that line") from None
    return ReadAnswers(answers, len(torn))


def settled(answers: Iterable[Answer]) -> dict[int, Answer]:
    """The answer that counts for each object, `skip` among them.

    An undo takes back the last answer of the same reviewer; of several reviewers the latest answer counts.
    """
    stacks: dict[tuple[int, str], list[Answer]] = {}
    for answer in answers:
        stack = stacks.setdefault((answer.annotation_id, answer.reviewer), [])
        if answer.verdict != "undo":
            stack.append(answer)
        elif stack:
            stack.pop()
    last = [stack[-1] for stack in stacks.values() if stack]
    ordered = sorted(last, key=lambda one: (one.verdict != "skip", one.at, one.reviewer))
    return {one.annotation_id: one for one in ordered}


class AnswerFile:
    """The file of one reviewer, opened to write; nobody else writes to it meanwhile.

    Raises:
        MachineError: another process has it open to write, or it cannot be written.
        InputError: its content is no review.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise MachineError(
                f"{path}: another review writes to it; end that one, or give another --reviewer"
            ) from None
        found = read_answers(path)
        self.answers: list[Answer] = found.answers
        self.torn_bytes = found.torn_bytes
        if found.torn_bytes:
            self._file.truncate(path.stat().st_size - found.torn_bytes)
        fsync(path.parent)

    def append(self, answer: Answer) -> None:
        """Write an answer to the disk; it counts when this returns."""
        _check(answer)
        self._file.write(answer.to_line())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.answers.append(answer)

    def close(self) -> None:
        self._file.close()


def told_torn(path: Path, torn_bytes: int) -> str:
    """What a person is told about a file whose last line has no end."""
    return f"{path}: its last line was cut off ({torn_bytes} bytes, by a kill or a full disk); it does not count"


def seconds_of(answers: Sequence[Answer]) -> float:
    """How long somebody looked, those answers that were taken back included."""
    return sum(one.seconds for one in answers)


def _check(answer: Answer) -> None:
    wanted: dict[str, tuple[Any, ...]] = {
        "annotation_id": (int,), "image_key": (str,), "at": (str,), "reviewer": (str,), "mask": (dict, type(None)),
        "category_id": (int, type(None)), "origin": (str,), "seen": (str,), "seconds": (int, float), "key": (str,),
    }  # fmt: skip
    for name, kinds in wanted.items():
        if type(getattr(answer, name)) not in kinds:
            raise ValueError(f"{name} is {getattr(answer, name)!r:.60}")
    if answer.verdict not in VERDICTS:
        raise ValueError(f"verdict is {answer.verdict!r:.60}, one of {', '.join(VERDICTS)}")
    if (answer.verdict == "accept") != (answer.mask is not None):
        raise ValueError("a mask belongs to  accept  and to nothing else")
