"""`pseudolabel demo` and `pseudolabel picture`."""

import json
import time
from pathlib import Path
from typing import Any

import click

from pseudolabel.cli.options import config_options
from pseudolabel.cli.stages import json_option, run_argument, summary_line
from pseudolabel.config import parse_config
from pseudolabel.pipelines.look.picture import PictureConfig
from pseudolabel.pipelines.run.paths import RunPaths


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo-run"))
@json_option
def demo(folder: Path, as_json: bool) -> None:
    """Draw scenes, train a small segmenter on part of them, run the whole chain on the rest, all in FOLDER.

    Ends with mask IoU beside the boxes' own, a student trained on the pseudo labels beside the same one trained on true
    masks, and pictures to look at. Nothing is downloaded.
    """
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


@click.command("picture")
@run_argument
@config_options(PictureConfig)
@json_option
def picture(run: Path, as_json: bool, **given: Any) -> None:
    """Draw the pseudo labels of RUN: whole images, and a sheet of objects from the worst to the best score."""
    from pseudolabel.pipelines.look.picture import draw_pictures

    said = {key: value for key, value in given.items() if value is not None}
    paths = draw_pictures(RunPaths(run), parse_config(PictureConfig, said, where="picture"))
    click.echo(json.dumps([str(path) for path in paths]) if as_json else "\n".join(map(str, paths)))
