"""What the files of a run say: per stage done, running, missing, damaged, failed, rejected, and how fast it goes."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pseudolabel.pipelines.graph import STAGES
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, read_footer
from pseudolabel.pipelines.run.conservation import total
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.stage_config import saved_configs
from pseudolabel.pipelines.work.attempts import failures, running
from pseudolabel.pipelines.work.rejects import Rejected, rejected_rows

_RATE_PARTS = 50  # the newest parts tell the speed
_AT_WORK_S = 600.0  # without a running shard, a part younger than this means that somebody works


@dataclass(frozen=True, slots=True)
class TableStatus:
    """The state of one stage's table."""

    table: str
    stage: str
    shards: int
    done: int
    running: dict[int, str]  # by whom
    missing: list[int]  # running ones are among them
    damaged: list[int]
    mixed_fingerprints: bool
    n_in: int
    n_ok: int
    n_rejected: int
    failures: dict[int, str]  # of shards that are not done
    rejects: dict[str, int]  # images and objects by reason
    counts: dict[str, Any]  # the same apart, and notes, as `conservation.Counts`
    images_per_s: float | None  # None where nobody works, or not long enough to tell
    eta_s: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_status(run: RunPaths) -> list[TableStatus]:
    """Every table that a run has begun, in the order of the data's way.

    Raises:
        InputError: the folder holds no plan.
    """
    plan = read_plan(run)
    return [table_status(run, plan, table, stage) for table, stage in begun_tables(run).items()]


def begun_tables(run: RunPaths) -> dict[str, str]:
    """Tables of the stages that ran here, and tables that stand here otherwise; each with its stage's name or none."""
    saved = {one.table: one.stage for one in saved_configs(run)[0]}
    order = {name: place for place, name in enumerate((*STAGES, *sorted(set(saved.values()) - set(STAGES))))}
    tables = dict(sorted(saved.items(), key=lambda one: (order[one[1]], one[0])))
    standing = [
        "manifest",
        "semantic",
        *sorted(path.name for path in run.root.glob("semantic-*")),
        *(f"candidates/{name}" for name in _folders(run, "candidates")),
        "reviewed",
        "pseudo",
    ]
    return tables | {name: "" for name in standing if name not in tables and run.table(name).is_dir()}


def table_status(run: RunPaths, plan: Plan, table: str, stage: str = "") -> TableStatus:
    """The state of one table, from the footers of its parts and from what the attempts left behind."""
    footers, missing, damaged = _footers(run, plan, table)
    configs = {
        (footer.stage, footer.stage_version, str(footer.config), str(footer.weights)) for footer in footers.values()
    }
    counts = total(footer.counted for footer in footers.values())
    stage = stage or next((footer.stage for footer in footers.values()), "")
    left = {*missing, *damaged}
    at_work = {
        shard: _by_whom(notes) for shard, notes in (running(run, stage) if stage else {}).items() if shard in left
    }
    failed = {} if not stage else failures(run, stage)
    images_per_s = _images_per_s(run, plan, table, footers, bool(at_work)) if left else None
    images_left = plan.n_images * len(left) / plan.num_shards
    return TableStatus(
        table=table,
        stage=stage,
        shards=plan.num_shards,
        done=len(footers),
        running=at_work,
        missing=missing,
        damaged=damaged,
        mixed_fingerprints=len(configs) > 1,
        n_in=sum(footer.n_in for footer in footers.values()),
        n_ok=sum(footer.n_ok for footer in footers.values()),
        n_rejected=sum(footer.n_rejected for footer in footers.values()),
        failures={shard: failure["error"] for shard, failure in failed.items() if shard in left},
        rejects=dict(Counter(counts.images.reasons) + Counter(counts.objects.reasons)),
        counts=counts.as_dict(),
        images_per_s=images_per_s,
        eta_s=images_left / images_per_s if images_per_s else None,
    )


def rejected(run: RunPaths) -> Iterator[Rejected]:
    """Every image and annotation that was rejected anywhere in a run.

    Raises:
        InputError: the folder holds no plan.
    """
    plan = read_plan(run)
    for table in begun_tables(run):
        footers, _, _ = _footers(run, plan, table)
        yield from rejected_rows(run, table, footers.values())


def _images_per_s(run: RunPaths, plan: Plan, table: str, footers: dict[int, Footer], at_work: bool) -> float | None:
    """Speed over the newest parts: images of all but the first of them, by the time since that one."""
    paths = [run.part(table, shard, plan.num_shards) for shard in footers]
    ended = sorted(path.stat().st_mtime for path in paths)[-_RATE_PARTS:]
    if len(ended) < 2 or not (at_work or time.time() - ended[-1] < _AT_WORK_S) or ended[-1] <= ended[0]:
        return None
    return (len(ended) - 1) * plan.n_images / plan.num_shards / (ended[-1] - ended[0])


def _by_whom(notes: list[dict[str, Any]]) -> str:
    return ", ".join(f"{note['host']}:{note['pid']}" for note in notes)


def _footers(run: RunPaths, plan: Plan, table: str) -> tuple[dict[int, Footer], list[int], list[int]]:
    footers: dict[int, Footer] = {}
    missing, damaged = [], []
    for shard in range(plan.num_shards):
        try:
            footers[shard] = read_footer(run.part(table, shard, plan.num_shards))
        except FileNotFoundError:
            missing.append(shard)
        except DamagedPartError:
            damaged.append(shard)
    return footers, missing, damaged


def _folders(run: RunPaths, table: str) -> list[str]:
    folder = run.table(table)
    return sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
