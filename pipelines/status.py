"""What the files of a run say: per stage done, missing, damaged, failed, rejected."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pseudolabel.pipelines.commit import DamagedPartError, Footer, read_footer, read_part, verify_part
from pseudolabel.pipelines.paths import RunPaths
from pseudolabel.pipelines.plan import Plan, read_plan


@dataclass(frozen=True, slots=True)
class TableStatus:
    """The state of one table of a run."""

    table: str
    stage: str
    shards: int
    done: int
    missing: list[int]
    damaged: list[int]
    mixed_fingerprints: bool
    n_in: int
    n_ok: int
    n_rejected: int
    failures: dict[int, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_status(run: RunPaths) -> list[TableStatus]:
    """Every table that a run has begun, in the order of the data's way.

    Raises:
        InputError: the folder holds no plan.
    """
    plan = read_plan(run)
    return [table_status(run, plan, table) for table in begun_tables(run)]


def begun_tables(run: RunPaths) -> list[str]:
    """Tables with a folder in the run."""
    names = [
        "manifest",
        "semantic",
        *(f"candidates/{path.name}" for path in _folders(run.table("candidates"))),
        "pseudo",
    ]
    return [name for name in names if run.table(name).is_dir()]


def table_status(run: RunPaths, plan: Plan, table: str) -> TableStatus:
    """The state of one table, from the footers of its parts and the failures that were written down."""
    footers, missing, damaged = _footers(run, plan, table)
    configs = {(footer.stage, footer.stage_version, str(footer.config), str(footer.weights)) for footer in footers}
    stage = footers[0].stage if footers else ""
    return TableStatus(
        table=table,
        stage=stage,
        shards=plan.num_shards,
        done=len(footers),
        missing=missing,
        damaged=damaged,
        mixed_fingerprints=len(configs) > 1,
        n_in=sum(footer.n_in for footer in footers),
        n_ok=sum(footer.n_ok for footer in footers),
        n_rejected=sum(footer.n_rejected for footer in footers),
        failures=_failures(run, stage),
    )


def reject_reasons(run: RunPaths, table: str) -> Counter[str]:
    """How many rows of a table were rejected, by reason."""
    plan = read_plan(run)
    reasons: Counter[str] = Counter()
    for shard in range(plan.num_shards):
        path = run.part(table, shard, plan.num_shards)
        if path.exists():
            rows = read_part(path, columns=["status", "reason"])
            reasons.update(rows.filter(pc.equal(rows["status"], "rejected"))["reason"].to_pylist())
    return reasons


def verify_run(run: RunPaths) -> list[str]:
    """Everything that is wrong with the parts of a run, one line each; empty where all holds.

    Every page of every part is read. Checked: checksums, `n_in = n_ok + n_rejected`, and that each table asks for as
    many units as the manifest holds.
    """
    plan = read_plan(run)
    return [problem for table in ["plan", *begun_tables(run)] for problem in _verify_table(run, plan, table)]


def _verify_table(run: RunPaths, plan: Plan, table: str) -> Iterator[str]:
    for shard in range(plan.num_shards):
        path = run.part(table, shard, plan.num_shards)
        try:
            footer = verify_part(path)
        except FileNotFoundError:
            yield f"{path}: missing"
        except DamagedPartError as error:
            yield str(error)
        else:
            if footer.n_in != footer.n_ok + footer.n_rejected:
                yield f"{path}: n_in {footer.n_in} is not n_ok {footer.n_ok} + n_rejected {footer.n_rejected}"
            if footer.shard != shard or footer.num_shards != plan.num_shards:
                yield f"{path}: says that it is shard {footer.shard} of {footer.num_shards}"


def _footers(run: RunPaths, plan: Plan, table: str) -> tuple[list[Footer], list[int], list[int]]:
    footers, missing, damaged = [], [], []
    for shard in range(plan.num_shards):
        try:
            footers.append(read_footer(run.part(table, shard, plan.num_shards)))
        except FileNotFoundError:
            missing.append(shard)
        except DamagedPartError:
            damaged.append(shard)
    return footers, missing, damaged


def _failures(run: RunPaths, stage: str) -> dict[int, str]:
    import json

    folder = run.failure(stage, 0).parent if stage else None
    if folder is None or not folder.is_dir():
        return {}
    return {
        int(path.stem): json.loads(path.read_text(encoding="utf-8"))["error"] for path in sorted(folder.glob("*.json"))
    }


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
