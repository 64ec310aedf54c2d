"""One stage of one run, and one attempt at one of its shards."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pseudolabel.config import parse_config, result_relevant
from pseudolabel.errors import InputError, PassingFaultError, PseudolabelError
from pseudolabel.optional import absence_named
from pseudolabel.pipelines.graph import STAGES, load_stage
from pseudolabel.pipelines.planning.plan import Plan, read_plan
from pseudolabel.pipelines.run.commit import DamagedPartError, Footer, commit_table, read_footer, read_part, verify_part
from pseudolabel.pipelines.run.conservation import Counts, count_shard, without_object_masks
from pseudolabel.pipelines.run.fingerprint import file_sha256, fingerprint
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.stage import Shard, Stage, StageConfig
from pseudolabel.pipelines.work.attempts import describe, running_note, write_failure

# of a file that is not what it should be; whatever else a set-up raises may be of the machine
_CONTENT_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError)
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
    STAGES.trust(stage)
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
                    self._setup(shard)
                    self._work(shard, path, inputs, expected)
        except SetupError:
            raise
        except Exception as error:
            write_failure(self.job.run, self.job.stage, shard, error)
            return False
        self.job.run.failure(self.job.stage, shard).unlink(missing_ok=True)
        return True

    def _setup(self, shard: int) -> None:
        if self._ready:
            return
        try:
            _check_weights(self.job, self.stage)
            with absence_named():
                self.stage.setup(self.job.device)
        except PassingFaultError:
            raise
        except PseudolabelError as error:
            raise SetupError(error) from error
        except _CONTENT_ERRORS as error:  # of a file that the set-up loads: trying again would end likewise
            write_failure(self.job.run, self.job.stage, shard, error)
            told = self.job.run.failure(self.job.stage, shard)
            refusal = InputError(f"{self.job.stage} cannot be set up: {describe(error)}; the traceback is in {told}")
            raise SetupError(refusal) from error
        self._ready = True

    def _work(self, shard: int, path: Path, inputs: dict[str, Path], expected: Footer) -> None:
        tables = {table: read_part(part) for table, part in inputs.items()}
        if "manifest" in tables:
            tables["manifest"] = without_object_masks(tables["manifest"])
        plan = self.job.plan
        place = Shard(shard, plan.num_shards, plan.images_root, *astuple(plan.pixel_rule))
        table = self.stage.run(place, tables)
        counts = count_shard(table, tables, self.stage.unit)
        _check_conservation(counts, self.job.stage, shard)
        heard = dict(self.stage.learned_from())
        commit_table(table, path, replace(_with_counts(expected, counts, self.stage), learned_from=heard))


class SetupError(Exception):
    """The stage cannot work in this process at all: weights, device, model. `cause` is what the user is told."""

    def __init__(self, cause: PseudolabelError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def expected_footer(job: Job, stage: Stage, shard: int, inputs: Mapping[str, Footer]) -> Footer:
    """What the footer of a shard must say, counts aside."""
    prints = {table: footer.identity for table, footer in sorted(inputs.items())}
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


def _check_weights(job: Job, stage: Stage) -> None:
    """A folder of files was hashed by the driver, once for all workers."""
    for name, path in stage.weights().items():
        if job.weights and not path.is_dir() and file_sha256(path) != job.weights.get(name):
            raise InputError(f"{name} {path} changed since the run was started; start it again")


def _with_counts(footer: Footer, counts: Counts, stage: Stage) -> Footer:
    units = counts.of(stage.unit)
    return replace(footer, n_in=units.n_in, n_ok=units.n_ok, n_rejected=units.n_rejected, counts=counts.as_dict())


def _check_conservation(counts: Counts, stage: str, shard: int) -> None:
    for unit, count in (("images", counts.images), ("objects", counts.objects)):
        if not count.adds_up:
            raise AssertionError(
                f"{stage}, shard {shard:05d}: of {count.n_in} {unit} {count.n_ok} came out "
                f"and {count.n_rejected} were rejected"
            )
