"""What the files of a run say of it as a whole: funnel, sources, refused inputs, speed, and how to repeat it."""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pseudolabel.pipelines.graph import COMMANDS, Trainer
from pseudolabel.pipelines.look.rows import FusedRun
from pseudolabel.pipelines.planning.plan import Plan
from pseudolabel.pipelines.review.reviewed import answers_of, waiting_answers
from pseudolabel.pipelines.run.commit import read_footer
from pseudolabel.pipelines.run.conservation import Counts
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.status import TableStatus, rejected, run_status
from pseudolabel.pipelines.typed import typed_command
from pseudolabel.reviews import seconds_of, settled
from pseudolabel.yaml_file import read_yaml

Row = dict[str, Any]
_REFUSED_LISTED = 500
_LEAST_S = 1.0  # a copy of a run has parts that were written at once


def funnel(tables: list[TableStatus], decisions: Counter[str]) -> list[Row]:
    """From images to kept masks; each step with its unit, and with what was lost on it, in words."""
    manifest = Counts.from_dict(next(table for table in tables if table.table == "manifest").counts)
    images, boxes = manifest.images, manifest.objects
    crowds = manifest.notes.get("crowd", 0)
    steps = [
        _step("images", "images", images.n_in, f"{images.n_rejected} refused" if images.n_rejected else ""),
        _step("images", "usable images", images.n_ok),
    ]
    if boxes.n_in:
        refused = f"{boxes.n_rejected} refused" if boxes.n_rejected else ""
        notes = [refused, f"{crowds} crowd regions" if crowds else ""]
        steps += [
            _step("objects", "boxes", boxes.n_in, ", ".join(filter(None, notes))),
            _step("objects", "usable boxes", boxes.n_ok - crowds, "of one object each"),
        ]
    fused = _step("objects", "fused masks", decisions.total(), "one per object")
    return [*steps, fused, _step("objects", "kept masks", decisions["keep"], "decision keep")]


def _step(unit: str, name: str, n: int, note: str = "") -> Row:
    return {"unit": unit, "name": name, "n": n, "note": note}


def candidate_sources(fused: FusedRun) -> list[Row]:
    """Per source its candidates, the objects that it reached, and how sure it is on average."""
    found: dict[str, Row] = {}
    for table in fused.paths.candidate_tables():
        for part in sorted(fused.paths.table(table).glob("part-*.parquet")):
            rows = pq.read_table(part, columns=["status", "source", "annotation_id", "box_score"])
            rows = rows.filter(pc.equal(rows["status"], "ok"))
            for source in rows["source"].unique().to_pylist():
                own = rows.filter(pc.equal(rows["source"], source))
                line = found.setdefault(f"{table}/{source}", {"table": table, "source": source} | _NOTHING)
                line["candidates"] += own.num_rows
                line["objects"] += pc.count_distinct(own["annotation_id"]).as_py()
                line["score_sum"] += pc.sum(own["box_score"]).as_py() or 0.0
    return [line | {"score": line["score_sum"] / max(line["candidates"], 1)} for line in found.values()]


_NOTHING = {"candidates": 0, "objects": 0, "score_sum": 0.0}


def refused(run: RunPaths, tables: list[TableStatus]) -> Row:
    """How many inputs were refused for which reason, and the first of them by name."""
    reasons: Counter[str] = Counter()
    for table in tables:
        reasons.update({f"{table.table}: {reason}": count for reason, count in table.rejects.items()})
    listed = [
        {"table": one.table, "reason": one.reason, "text": one.text} for one in islice(rejected(run), _REFUSED_LISTED)
    ]
    return {"reasons": reasons.most_common(), "listed": listed, "all": reasons.total()}


def reviews(run: RunPaths) -> Row | None:
    """What people answered, and how long they looked; None where nobody did."""
    answers = answers_of(run)
    last = [one for one in settled(answers).values() if one.verdict != "skip"]
    if not last:
        return None
    return {
        "n": len(last),
        "minutes": seconds_of(answers) / 60,
        "reviewers": sorted({one.reviewer for one in last}),
        "verdicts": Counter(one.verdict for one in last).most_common(),
        "origins": Counter(one.origin for one in last if one.verdict == "accept").most_common(),
        "waiting": waiting_answers(run).total(),
    }


def throughput(run: RunPaths, plan: Plan, tables: list[TableStatus]) -> list[Row]:
    """Per stage its shards, device and speed: images of all parts but the first by the time since that was written."""
    devices = {saved.table: saved.device for saved in saved_configs(run)[0]}
    return [
        {
            "stage": table.stage or "-",
            "table": table.table,
            "done": table.done,
            "shards": table.shards,
            "device": devices.get(table.table, "-"),
            **_speed(run, plan, table),
        }
        for table in tables
    ]


def _speed(run: RunPaths, plan: Plan, table: TableStatus) -> Row:
    parts = [run.part(table.table, shard, plan.num_shards) for shard in range(plan.num_shards)]
    ended = sorted((part.stat().st_mtime, part) for part in parts if part.exists())
    seconds = ended[-1][0] - ended[0][0] if ended else 0.0
    if len(ended) < 2 or seconds < _LEAST_S:
        return {"seconds": None, "images_per_s": None}
    images = sum(read_footer(part).counted.images.n_in for _, part in ended[1:])
    if not images:  # of masks that were brought
        return {"seconds": seconds, "images_per_s": None}
    return {"seconds": seconds, "images_per_s": images / seconds}


def versions(fused: FusedRun) -> dict[str, str]:
    """The libraries that the pseudo labels were made with."""
    return read_footer(fused.paths.part("pseudo", fused.shards[0], fused.plan.num_shards)).versions


def repeat_commands(run: RunPaths, plan: Plan) -> list[str]:
    """What to type to make the run again, in the order of the steps; options at their defaults are left out.

    A table of which the run does not know how it was made is named in a comment.
    """
    saved = saved_configs(run)[0]
    said = [*((one.stage, one.config) for one in saved), *_trainings(run).items()]
    order = {name: place for place, name in enumerate(COMMANDS) if not COMMANDS[name].hidden}
    shown = sorted((one for one in said if one[0] in order), key=lambda one: order[one[0]])
    typed = [typed_command(name, run, plan, config) for name, config in shown]
    written = {one.table for one in saved}
    unknown = [table for table in run_status(run) if table.table not in written and table.stage != "plan"]
    return typed + [
        f"# {table.table}, by {table.stage or 'another program'}: with which options is not known here"
        for table in unknown
    ]


def _trainings(run: RunPaths) -> dict[str, Mapping[str, Any]]:
    """The configs of the models of a run, by their commands."""
    trainers = {entry.model: name for name, entry in COMMANDS.items() if isinstance(entry, Trainer)}
    found = {}
    for path in sorted((run.root / "models").glob("*.provenance.json")):
        name = trainers.get(path.name.removesuffix(".provenance.json"))
        wanted = read_yaml(path).get("wanted")  # JSON is YAML
        if name and isinstance(wanted, Mapping):
            found[name] = wanted.get("config", {})
    return found


def stages(run: RunPaths) -> list[TableStatus]:
    """The tables of the run, in the order of the data's way."""
    return run_status(run)
