"""One stage of one run, and one attempt at one of its shards."""

import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pseudolabel.config import parse_config, result_relevant
from pseudolabel.errors import IncompleteError, InputError, PseudolabelError
from pseudolabel.pipelines.graph import load_stage
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, commit_table, read_footer, read_part, verify_part
from pseudolabel.pipelines.run.fingerprint import file_sha256, fingerprint
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.run.plan import Plan, read_plan
from pseudolabel.pipelines.stage import Shard, Stage, StageConfig
from pseudolabel.pipelines.work.attempts import running_note, write_failure

_BREAKER_UNITS = 20
_RECORDED_LIBRARIES = ("pseudolabel", "torch", "numpy", "pyarrow", "Pillow")


@dataclass(frozen=True)
class Job:
    """A stage with its config over a run folder: everything that a worker needs, as plain JSON values."""

    run_root: str
    stage: str
    config: Mapping[str, Any]
    device: str = "cpu"
    weights: Mapping[str, str] = field(default_factory=dict)  # sha256 by name, as the driver saw them

    @cached_property
    def run(self) -> RunPaths:
        return RunPaths(Path(self.run_root))

    @cached_property
    def plan(self) -> Plan:
        return read_plan(self.run)

    @cached_property
    def parsed_config(self) -> StageConfig:
        return parse_config(load_stage(self.stage).config_class, self.config, where=self.stage)

    @cached_property
    def result_config(self) -> dict[str, Any]:
        """The part of the config that can change a result."""
        return result_relevant(self.parsed_config)

    def make_stage(self) -> Stage:
        return load_stage(self.stage)(self.parsed_config, self.run)

    def to_json(self) -> str:
        names = ("run_root", "stage", "config", "device", "weights")
        return json.dumps({name: getattr(self, name) for name in names}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Job":
        return cls(**json.loads(text))


def make_job(run: RunPaths, stage: str, config: StageConfig, device: str) -> Job:
    """The job of a stage, with the content hashes of its weights."""
    instance = load_stage(stage)(config, run)
    weights = {name: file_sha256(path) for name, path in instance.weights().items()}
    values = config.model_dump(mode="json")
    return Job(str(run.root.resolve()), stage, values, device=device, weights=weights)


class ShardWorker:
    """What a worker process holds: a stage that is set up once and works on one shard after the other."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stage = job.make_stage()
        self._ready = False

    def attempt(self, shard: int) -> bool:
        """Whether the shard is done afterwards; a failure is written down, not raised.

        Raises:
            PseudolabelError: the set-up failed: no shard can be done in this process.
        """
        path = self.job.run.part(self.stage.writes, shard, self.job.plan.num_shards)
        try:
            inputs = {table: self.job.run.part(table, shard, self.job.plan.num_shards) for table in self.stage.reads()}
            expected = expected_footer(self.job, self.stage, shard, {t: read_footer(p) for t, p in inputs.items()})
            if not is_done(path, expected.fingerprint):
                with running_note(self.job.run, self.job.stage, shard):
                    self._setup()
                    self._work(shard, path, inputs, expected)
        except SetupError:
            raise
        except Exception as error:
            write_failure(self.job.run, self.job.stage, shard, error)
            return False
        self.job.run.failure(self.job.stage, shard).unlink(missing_ok=True)
        return True

    def _setup(self) -> None:
        if self._ready:
            return
        try:
            _check_weights(self.job, self.stage)
            self.stage.setup(self.job.device)
        except PseudolabelError as error:
            raise SetupError(error) from error
        self._ready = True

    def _work(self, shard: int, path: Path, inputs: dict[str, Path], expected: Footer) -> None:
        tables = {table: read_part(part) for table, part in inputs.items()}
        if "manifest" in tables:
            tables["manifest"] = without_object_masks(tables["manifest"])
        plan = self.job.plan
        place = Shard(shard, plan.num_shards, plan.images_root, *astuple(plan.pixel_rule))
        table = self.stage.run(place, tables)
        counts = count_units(table, self.stage.unit)
        n_in = units_in(tables, self.stage.unit)
        _check_conservation(counts, n_in, self.job.stage, shard)
        _check_reject_rate(table, counts, n_in, self.job.parsed_config.max_reject_rate)
        heard = dict(self.stage.learned_from())
        commit_table(table, path, replace(_with_counts(expected, counts, n_in), learned_from=heard))


class SetupError(Exception):
    """The stage cannot work in this process at all: weights, device, model. `cause` is what the user is told."""

    def __init__(self, cause: PseudolabelError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def expected_footer(job: Job, stage: Stage, shard: int, inputs: Mapping[str, Footer]) -> Footer:
    """What the footer of a shard must say, counts aside."""
    prints = {table: footer.fingerprint for table, footer in sorted(inputs.items())}
    return Footer(
        stage=job.stage,
        stage_version=stage.version,
        fingerprint=expected_fingerprint(job, stage, prints),
        shard=shard,
        num_shards=job.plan.num_shards,
        n_in=0,
        n_ok=0,
        n_rejected=0,
        config=job.result_config,
        weights=dict(job.weights),
        inputs=prints,
        versions=library_versions(),
    )


def expected_fingerprint(job: Job, stage: Stage, inputs: Mapping[str, str]) -> str:
    """The fingerprint of a shard whose input tables have these.

    Raises:
        InputError: the stage reads nothing.
    """
    if not inputs:
        raise InputError(f"stage {job.stage} reads no table")
    return fingerprint(job.stage, stage.version, job.result_config, job.weights, dict(sorted(inputs.items())))


def is_done(path: Path, expected_fingerprint: str) -> bool:
    """Whether the part is there, verifies, and carries this fingerprint."""
    try:
        return verify_part(path).fingerprint == expected_fingerprint
    except (FileNotFoundError, DamagedPartError):
        return False


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Versions of what can change a result; recorded in every part."""
    return {"python": platform.python_version()} | {
        library: importlib.metadata.version(library) for library in _RECORDED_LIBRARIES
    }


def count_units(table: pa.Table, unit: str) -> Counter[str]:
    """Units by status: distinct images, or rows that stand for an object."""
    if unit == "object":
        objects = table.filter(pc.is_valid(table["annotation_id"]))
        return Counter(objects["status"].to_pylist())
    rows = table
    if "annotation_id" in table.column_names and "source" not in table.column_names:
        rows = table.filter(pc.is_null(table["annotation_id"]))  # rejected annotations stand beside the images
    status_of = dict(zip(rows["image_key"].to_pylist(), rows["status"].to_pylist(), strict=True))
    return Counter(status_of.values())


def units_in(tables: Mapping[str, pa.Table], unit: str) -> int:
    """How many units the manifest (or, for `shard`, the plan) asks for."""
    table = tables.get("manifest", tables.get("plan"))
    if table is None:
        raise InputError("a stage reads the manifest or the plan")
    images = table.filter(pc.is_null(table["annotation_id"]))
    if unit == "object":
        images = images.filter(pc.equal(images["status"], "ok"))
        return int(pc.sum(pc.fill_null(pc.list_value_length(images["objects"]), 0)).as_py() or 0)
    if "manifest" in tables:
        images = images.filter(pc.equal(images["status"], "ok"))
    return int(images.num_rows)


def without_object_masks(manifest: pa.Table) -> pa.Table:
    """The manifest as labelling stages see it: true masks of ordinary objects are gone, crowd regions stay."""
    lists = manifest["objects"].combine_chunks()
    objects = lists.values
    fields = [objects.field(index) for index in range(objects.type.num_fields)]
    place = objects.type.get_field_index("segmentation")
    fields[place] = pc.if_else(objects.field("iscrowd"), fields[place], pa.scalar(None, pa.string()))
    stripped = pa.StructArray.from_arrays(fields, fields=list(objects.type))
    rebuilt = pa.ListArray.from_arrays(lists.offsets, stripped, type=lists.type, mask=lists.is_null())
    return manifest.set_column(manifest.schema.get_field_index("objects"), manifest.schema.field("objects"), rebuilt)


def _check_weights(job: Job, stage: Stage) -> None:
    for name, path in stage.weights().items():
        if job.weights and file_sha256(path) != job.weights.get(name):
            raise InputError(f"{name} {path} changed since the run was started; start it again")


def _with_counts(footer: Footer, counts: Counter[str], n_in: int) -> Footer:
    n_rejected = counts["rejected"]
    return replace(footer, n_in=n_in, n_ok=counts.total() - n_rejected, n_rejected=n_rejected)


def _check_conservation(counts: Counter[str], n_in: int, stage: str, shard: int) -> None:
    if counts.total() != n_in:
        raise AssertionError(f"{stage}, shard {shard:05d}: {n_in} units went in and {counts.total()} came out")


def _check_reject_rate(table: pa.Table, counts: Counter[str], n_in: int, limit: float) -> None:
    if n_in < _BREAKER_UNITS or counts["rejected"] <= limit * n_in:
        return
    rows = table.filter(pc.equal(table["status"], "rejected"))
    top = ", ".join(f"{n} {reason}" for reason, n in Counter(rows["reason"].to_pylist()).most_common(3))
    raise IncompleteError(
        f"{counts['rejected']} of {n_in} were rejected ({top}), more than --max-reject-rate {limit:g} allows"
    )
