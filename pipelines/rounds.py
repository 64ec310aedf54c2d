"""Self-training: in every further round the student of the round before is one source of candidates more.

A round has a run folder of its own below `rounds/`, into which the plan, the manifest and the candidates of the first
round are linked. Nothing of a round before is overwritten, and every stage goes on after a stop as it always does.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pseudolabel.config import Config
from pseudolabel.errors import ConfigError
from pseudolabel.files import temporary_name
from pseudolabel.pipelines.run.paths import RunPaths

SOURCE = "student"  # the table below candidates/ that a round adds
NEEDED = ("fuse", "train-student")
REPEATED = ("infer-teacher", "fuse", "train-student", "evaluate")
SHOWN = ("mean_iou", "ap", "validation_ap")  # of the labels the first two, of the student the last


def parse_rounds(value: Any, sections: Mapping[str, Any], *, where: str) -> int:
    """The number of rounds of a run file.

    Raises:
        ConfigError: it is no number from 1 on, or there is no student that could teach.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}: rounds: expected a number from 1 on, got {value!r}")
    missing = [name for name in NEEDED if name not in sections]
    if value > 1 and missing:
        raise ConfigError(f"{where}: rounds: {value} needs the section {' and '.join(missing)}: who should teach?")
    if value > 1 and (sections["train-student"] or {}).get("learn_from"):
        raise ConfigError(
            f"{where}: rounds: {value} and train-student.learn_from: every round would learn the same labels"
        )
    return value


def begin_round(first: RunPaths, number: int) -> RunPaths:
    """The run folder of a round, with what the first round made before `fuse`."""
    run = first.round(number)
    run.root.mkdir(parents=True, exist_ok=True)
    _link(first.plan, run.plan)
    for table in ("plan", "manifest", *first.candidate_tables()):
        for path in sorted(first.table(table).glob("[!.]*")):
            _link(path, run.table(table) / path.name)
    return run


def round_config(name: str, config: Config, before: RunPaths) -> Config:
    """A stage's config in a further round."""
    if name == "infer-teacher":
        return config.model_copy(update={"weights": before.model("student").resolve(), "name": SOURCE})
    sources = getattr(config, "sources", None) if name == "fuse" else None
    return config.model_copy(update={"sources": [*sources, SOURCE]}) if sources else config


def round_figures(run: RunPaths, number: int, evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a round came to: the labels' figures where `evaluate` ran, the student's where it had a validation file."""
    from pseudolabel.training.checkpoint import read_config

    student = read_config(run.model("student")).get("figures") or {}
    both = {**(evaluation or {}), **student}
    return {"round": number} | {name: both[name] for name in SHOWN if both.get(name) is not None}


def with_gains(rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every round with what each of its figures gained over the round before, as `gain_NAME`."""
    result = [dict(rounds[0])]
    for before, now in pairwise(rounds):
        gains = {f"gain_{name}": now[name] - before[name] for name in SHOWN if name in now and name in before}
        result.append({**now, **gains})
    return result


def format_rounds(rounds: Sequence[Mapping[str, Any]]) -> str:
    """One line per round for people."""
    lines = []
    for one in rounds:
        parts = [f"{name} {one[name]:.3f}{_gain(one, name)}" for name in SHOWN if name in one]
        lines.append(f"round {one['round']}: {', '.join(parts) or 'nothing was measured'}")
    return "\n".join(lines)


def _gain(one: Mapping[str, Any], name: str) -> str:
    return f" ({one[f'gain_{name}']:+.3f})" if f"gain_{name}" in one else ""


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    if source.is_dir() or (target.exists() and target.samefile(source)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(temporary_name(target.name))
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    temporary.replace(target)
