"""`pseudolabel demo`."""

import json
import time
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli import shared
from pseudolabel.cli.commands import own_command


@own_command(
    "demo",
    click.Argument(["folder"], type=click.Path(path_type=Path), required=False, default=Path("demo-run")),
    shared.json_option("main"),
)
def demo(folder: Path, as_json: bool) -> None:
    from pseudolabel.pipelines.chain import summary_line
    from pseudolabel.pipelines.demo.chain import run_demo, student_table

    started = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"[{time.monotonic() - started:5.1f} s] {line}", err=True)

    def on_summary(summary: dict[str, Any]) -> None:
        if "figures" not in summary:
            say(summary_line(summary))

    result = run_demo(folder, say, on_summary)
    if as_json:
        pictures = [str(path) for path in result.pictures]
        content = {"figures": result.figures, "students": result.students, "stages": result.summaries}
        click.echo(json.dumps({**content, "pictures": pictures}))
        return
    click.echo(summary_line(result.summaries[-1]))
    box = result.figures["baseline_box"]["mean_iou"]
    click.echo(f"\nmean IoU {result.figures['mean_iou']:.3f}, the boxes themselves {box:.3f}")
    click.echo(f"\n{student_table(result.students)}\n")
    click.echo(f"pictures: {result.pictures[0]} ... {result.pictures[-1]}")
    say("done")
    shared.tell_next("demo", folder)
