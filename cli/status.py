"""`pseudolabel status`."""

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pseudolabel.cli import shared
from pseudolabel.cli.commands import own_command
from pseudolabel.cli.help import GroupedOption
from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.run.paths import RunPaths

if TYPE_CHECKING:
    from pseudolabel.pipelines.status import TableStatus

_LISTED = 10
_REJECTED = ("table", "file", "annotation_id", "reason", "detail")


@own_command(
    "status",
    shared.run_argument(),
    GroupedOption(
        ["--missing", "missing_of"], value="TABLE", help="print only the shards of a table that are not done"
    ),
    GroupedOption(
        ["--format", "form"], type=click.Choice(["slurm-array", "lines"]), default="slurm-array",
        value="slurm-array|lines", limits=["default: slurm-array"],
        help="with --missing: as 3,17-19 for sbatch --array, or one per line",
    ),
    GroupedOption(["--rejected"], is_flag=True, help="print what was rejected: file, id, reason and detail of each"),
    GroupedOption(["--csv", "as_csv"], is_flag=True, help="with --rejected: as CSV with a header"),
    shared.json_option("main"),
)  # fmt: skip
def status(run: Path, as_json: bool, missing_of: str | None, form: str, rejected: bool, as_csv: bool) -> None:
    from pseudolabel.pipelines.planning.plan import read_plan
    from pseudolabel.pipelines.review.reviewed import waiting_answers
    from pseudolabel.pipelines.runner import compress
    from pseudolabel.pipelines.status import run_status, table_status

    paths = RunPaths(run)
    if as_csv and not rejected:
        raise ConfigError("--csv does nothing without --rejected")
    if rejected:
        print_rejected(paths, as_csv=as_csv, as_json=as_json)
        return
    if missing_of:
        table = table_status(paths, read_plan(paths), missing_of)
        left = sorted(table.missing + table.damaged)
        text = compress(left) if form == "slurm-array" else "\n".join(map(str, left))
        click.echo(text, nl=bool(text))
        return
    tables = run_status(paths)
    if as_json:
        waiting = waiting_answers(paths).total()
        click.echo(json.dumps({"tables": [table.as_dict() for table in tables], "waiting_answers": waiting}))
        return
    click.echo(
        f"{'table':<22}{'done':>12}{'images':>10}{'rejected':>10}{'boxes':>10}{'refused':>10}{'images/s':>10}{'left':>10}"
    )
    for table in tables:
        for line in table_lines(table):
            click.echo(line)
    waiting = waiting_answers(paths).total()
    if waiting:
        click.echo(f"{waiting} answers of reviews wait:  pseudolabel fuse {RunPaths(run).typed}  takes them in")
    shared.tell_next("status", run)


def print_rejected(run: RunPaths, *, as_csv: bool, as_json: bool) -> None:
    """Every rejected image and annotation of a run on stdout."""
    from pseudolabel.pipelines.status import rejected

    rows = rejected(run)
    if as_json:
        click.echo(json.dumps({"rejected": [asdict(row) for row in rows]}))
        return
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(_REJECTED)
        writer.writerows([getattr(row, name) for name in _REJECTED] for row in rows)
        return
    for row in rows:
        click.echo(f"{row.table}: {row.reason}: {row.text}")


def table_lines(table: "TableStatus") -> list[str]:
    """A table's line for people, and below it what needs a look."""
    from pseudolabel.pipelines.run.conservation import Counts
    from pseudolabel.pipelines.summary import NOTES, whole_notes

    counts = Counts.from_dict(table.counts)
    images, objects = counts.images, counts.objects
    shards = f"{table.done}/{table.shards}"
    speed = "-" if table.images_per_s is None else f"{table.images_per_s:.1f}"
    left = "-" if table.eta_s is None else duration(table.eta_s)
    lines = [
        f"{table.table:<22}{shards:>12}{images.n_in:>10}{images.n_rejected:>10}{objects.n_in:>10}{objects.n_rejected:>10}"
        f"{speed:>10}{left:>10}"
    ]
    lines += _notes(table)
    lines += [f"  rejected {count}: {reason}" for reason, count in table.rejects.items()]
    lines += [f"  {count} {NOTES.get(name, name)}" for name, count in whole_notes(counts.notes).items()]
    failed = [f"  shard {shard:05d} failed: {error}" for shard, error in table.failures.items()]
    return lines + failed[:_LISTED] + ([f"  and {len(failed) - _LISTED} more"] if len(failed) > _LISTED else [])


def _notes(table: "TableStatus") -> list[str]:
    from pseudolabel.pipelines.runner import compress

    notes = []
    if table.running:
        notes.append(f"  running {compress(list(table.running))}: {'; '.join(sorted(set(table.running.values()))[:5])}")
    if table.missing or table.damaged:
        notes.append(f"  missing {compress(table.missing) or '-'}, damaged {compress(table.damaged) or '-'}")
    if table.mixed_fingerprints:
        notes.append("  parts of more than one config: run the stage with --overwrite")
    return notes


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
