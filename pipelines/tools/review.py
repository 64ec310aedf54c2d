"""`review`: a person looks at the objects where a look buys most; the answers are the last word of `fuse`."""

import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

from pseudolabel.pipelines.options.review import ReviewConfig
from pseudolabel.pipelines.review.server import serve
from pseudolabel.pipelines.review.session import Session
from pseudolabel.pipelines.review.taken_in import take_in
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.reviews import told_torn

Row = dict[str, Any]


def review(run: RunPaths, config: ReviewConfig) -> Row:
    """Serve the page until the review is over; what it was about: see `Session.bought`, of an import `take_in`.

    Raises:
        InputError, MachineError: as `Session` and `serve` have it.
    """
    if config.import_file is not None:
        return take_in(run, config.import_file, config.reviewer)
    session = Session(run, config)
    if session.file.torn_bytes:
        _tell(told_torn(session.file.path, session.file.torn_bytes))
    try:
        serve(session, config.port, lambda address: _ready(address, config, session.state()))
    except KeyboardInterrupt:
        _tell("")
    finally:
        session.file.close()
    return session.bought()


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
    return (
        f"review: {taken['taken_in']} of {taken['masks']} masks are corrections and taken in, {taken['unchanged']} are "
        f"as they were, {taken['of_no_object']} are of no object (matched by {taken['matched_by']}) -> {taken['file']}"
    )


_ORIGINS = {"fused": "accepted as they were", "drawn": "drawn"}
_VERDICTS = {"box_only": "box only", "wrong_class": "of another class", "reject": "no object"}
