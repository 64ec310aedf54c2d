"""`review`: a person looks at the objects where a look buys most; the answers are the last word of `fuse`."""

import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

from pseudolabel.pipelines.options.review import ReviewConfig
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.review.server import serve
from pseudolabel.pipelines.review.session import Session
from pseudolabel.pipelines.review.taken_in import SAME_IOU, take_in
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.typed import typed_command
from pseudolabel.reviews import told_torn

Row = dict[str, Any]


def review(run: RunPaths, config: ReviewConfig) -> Row:
    """Serve the page until the review is over; what it was about: see `Session.bought`, of an import `take_in`.

    In `next` of either is what to type then.

    Raises:
        InputError, MachineError: as `Session` and `serve` have it.
    """
    if config.import_file is not None:
        taken = take_in(run, config.import_file, config.reviewer)
        return taken | {"next": _after_import(run, config, taken)}
    session = Session(run, config)
    if session.file.torn_bytes:
        _tell(told_torn(session.file.path, session.file.torn_bytes))
    try:
        serve(session, config.port, lambda address: _ready(address, config, session.state()))
    except KeyboardInterrupt:
        _tell("")
    finally:
        session.file.close()
    bought = session.bought()
    return bought | {"next": _fuse(run) if bought["answers"] else f"{_again(run, config)}  goes on where this ended"}


def _ready(address: str, config: ReviewConfig, state: Mapping[str, Any]) -> None:
    _tell(f"review: {state['done']} of {state['budget']} objects are answered; open  {address}  (Ctrl-C ends it)")
    if config.open:
        webbrowser.open(address)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def format_review(bought: Mapping[str, Any]) -> str:
    """What the minutes bought."""
    if "taken_in" in bought:
        return _taken_in_line(bought)
    verdicts, origins = bought["verdicts"], bought["origins"]
    kinds = [f"{count} {_ORIGINS.get(name, f'by {name}')}" for name, count in sorted(origins.items())]
    kinds += [f"{count} {_VERDICTS[name]}" for name, count in sorted(verdicts.items()) if name in _VERDICTS]
    minutes = f"{bought['seconds'] / 60:.1f} min"
    lines = [f"review: {bought['answers']} answers in {minutes}: {', '.join(kinds) or 'none'} -> {bought['file']}"]
    if bought["mean_iou_before"] is not None:
        lines.append(
            f"{bought['masks']} masks of this time: those of fuse had a mean IoU of "
            f"{bought['mean_iou_before']:.3f} with those that you left"
        )
    return "\n".join(lines)


def _taken_in_line(taken: Mapping[str, Any]) -> str:
    told = [f"{taken[name]} {words}" for name, words in _BECAME.items() if taken[name] or name == "taken_in"]
    return f"review: of {taken['masks']} masks, matched by {taken['matched_by']}, {', '.join(told)} -> {taken['file']}"


def _after_import(run: RunPaths, config: ReviewConfig, taken: Mapping[str, Any]) -> str:
    if taken["taken_in"]:
        return _fuse(run)
    if taken["known"]:
        return f"they are answers already;  {_fuse(run)}"
    return (
        f"correct masks of {config.import_file} (those count whose IoU with the fused one is below {SAME_IOU}), "
        f"then  {_again(run, config)}"
    )


def _fuse(run: RunPaths) -> str:
    return f"pseudolabel fuse {run.typed}  takes them in, then  pseudolabel calibrate {run.typed}  learns of them"


def _again(run: RunPaths, config: ReviewConfig) -> str:
    return typed_command("review", run, read_plan(run), config.model_dump())


_BECAME = {
    "taken_in": "are corrections and taken in",
    "known": "were taken in before",
    "unchanged": "are as they were",
    "empty": "are empty, which is no correction",
    "not_fused": "are of objects that fuse gave no mask",
    "of_no_object": "are of no object",
}
_ORIGINS = {"fused": "accepted as they were", "drawn": "drawn"}
_VERDICTS = {"box_only": "box only", "wrong_class": "of another class", "reject": "no object"}
