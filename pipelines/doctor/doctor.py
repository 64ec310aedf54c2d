"""`doctor`: whether this machine and this run will do, and what to do where they will not."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel.config import narrowed
from pseudolabel.errors import MachineError
from pseudolabel.pipelines.doctor.checks import Check, fail
from pseudolabel.pipelines.doctor.system import disk
from pseudolabel.pipelines.options.look import DoctorConfig
from pseudolabel.pipelines.options.stages.infer_semantic import InferSemanticConfig
from pseudolabel.pipelines.run.paths import RunPaths

_LEAST_FREE_GB = 5


def examine(config: DoctorConfig) -> list[dict[str, Any]]:
    """Every check in order; `name, state, found, todo` of each, the state being ok, warn or fail."""
    return [check.as_dict() for check in _checks(config)]


def _checks(config: DoctorConfig) -> Iterator[Check]:
    from pseudolabel.pipelines.doctor.machine import machine_checks

    run = RunPaths(config.run) if config.run is not None and config.run.is_dir() and config.images is None else None
    yield from machine_checks(run)
    segmenter = None if config.model is None else narrowed(config, InferSemanticConfig)
    if config.images is not None:
        from pseudolabel.pipelines.doctor.patient import data_checks

        yield disk(Path.cwd(), "disk", _LEAST_FREE_GB)
        yield from data_checks(config.images, config.annotations, segmenter)
    elif run is not None:
        from pseudolabel.pipelines.doctor.patient import run_checks

        yield disk(run.root, "disk", _LEAST_FREE_GB)
        yield from run_checks(run, segmenter)
    elif config.run is None:
        yield disk(Path.cwd(), "disk", _LEAST_FREE_GB)
        if segmenter is not None:
            from pseudolabel.pipelines.doctor.classes import asked_segmenter

            yield from asked_segmenter(segmenter)
    elif config.run.is_file():
        again = f"if it holds annotations:  pseudolabel doctor {shlex.quote(str(config.run))} --images DIR"
        yield fail("run", f"{config.run} is a file", again)
    else:
        make = f"pseudolabel shard {shlex.quote(str(config.run))} --images DIR --annotations FILE"
        yield fail("run", f"{config.run} is no folder", make)


def format_checks(checks: Sequence[Mapping[str, Any]]) -> str:
    """A line for each, and how many are not well."""
    states = [check["state"] for check in checks]
    lines = [Check(**check).line for check in checks]
    return "\n".join(
        [*lines, f"{states.count('ok')} ok, {states.count('warn')} to look at, {states.count('fail')} failed"]
    )


def check_health(checks: Sequence[Mapping[str, Any]], config: DoctorConfig) -> None:
    """Pass where nothing failed.

    Raises:
        MachineError: something did.
    """
    failed = [check["name"] for check in checks if check["state"] == "fail"]
    if failed:
        raise MachineError(f"failed: {', '.join(failed)}")
