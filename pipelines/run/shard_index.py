"""Which part of the work is this process's: from the options, or from what the scheduler says without ambiguity."""

from collections.abc import Mapping
from dataclasses import dataclass

from pseudolabel.errors import ConfigError

_COUNTED = (
    ("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    ("Cloud Run", "CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
)
INDEX_VARIABLES = (
    "PSEUDOLABEL_SHARD_INDEX",
    "SLURM_ARRAY_TASK_ID",
    "JOB_COMPLETION_INDEX",
    *(index_name for _, index_name, _ in _COUNTED),
)


@dataclass(frozen=True, slots=True)
class WorkerPart:
    """Worker `index` of `count`: it does the shards i with i % count == index."""

    index: int
    count: int
    origin: str

    def shards(self, num_shards: int) -> tuple[int, ...]:
        return tuple(range(self.index, num_shards, self.count))


def worker_part(index: int | None, count: int | None, environment: Mapping[str, str]) -> WorkerPart:
    """The part of this process, options before `PSEUDOLABEL_*` before the scheduler's own variables.

    Raises:
        ConfigError: it cannot be told for certain, or the index is outside 0 .. count - 1.
    """
    own_index = index if index is not None else _number(environment, "PSEUDOLABEL_SHARD_INDEX")
    own_count = count if count is not None else _number(environment, "PSEUDOLABEL_NUM_SHARDS")
    if own_index is not None and own_count is not None:
        return _checked(WorkerPart(own_index, own_count, "--shard-index and --num-shards"))
    if own_index is not None:
        raise ConfigError("the shard index is known but not the number of parts: give --num-shards")
    return _checked(_from_scheduler(own_count, environment))


def _from_scheduler(count: int | None, environment: Mapping[str, str]) -> WorkerPart:
    if (task := _number(environment, "SLURM_ARRAY_TASK_ID")) is not None:
        return WorkerPart(task, count or _whole_slurm_array(environment), "SLURM_ARRAY_TASK_ID")
    if (task := _number(environment, "JOB_COMPLETION_INDEX")) is not None:
        if count is None:
            raise ConfigError(
                "JOB_COMPLETION_INDEX is set, but Kubernetes does not tell the number of completions: "
                "set PSEUDOLABEL_NUM_SHARDS to spec.completions"
            )
        return WorkerPart(task, count, "JOB_COMPLETION_INDEX")
    for system, index_name, count_name in _COUNTED:
        if (task := _number(environment, index_name)) is not None:
            total = count or _number(environment, count_name)
            if total is None:
                raise ConfigError(f"{system} sets {index_name} but not {count_name}: give --num-shards")
            return WorkerPart(task, total, index_name)
    raise ConfigError("which part of the work is this? give --shard-index and --num-shards")


def _whole_slurm_array(environment: Mapping[str, str]) -> int:
    """The size of a Slurm array that runs from 0 without gaps; any other array says nothing about the whole."""
    first = _number(environment, "SLURM_ARRAY_TASK_MIN")
    last = _number(environment, "SLURM_ARRAY_TASK_MAX")
    step = _number(environment, "SLURM_ARRAY_TASK_STEP")
    size = _number(environment, "SLURM_ARRAY_TASK_COUNT")
    if first == 0 and step == 1 and last is not None and size == last + 1:
        return size
    raise ConfigError(
        f"the Slurm array {first}-{last}:{step} of {size} tasks is not a whole array from 0: give --num-shards"
    )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise ConfigError(f"{name}={text!r} is not a number")
    return int(text)


def _checked(part: WorkerPart) -> WorkerPart:
    if part.count < 1 or not 0 <= part.index < part.count:
        raise ConfigError(
            f"shard index {part.index} of {part.count} ({part.origin}): it must lie in 0..{part.count - 1}"
        )
    return part
