import pytest

from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.run.shard_index import worker_part


def _slurm(index: int, first: int, last: int, step: int, count: int) -> dict[str, str]:
    values = {"ID": index, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("index", "count", "environment", "expected"),
    [
        pytest.param(1, 3, {}, (1, 3), id="options"),
        pytest.param(None, None, {"PSEUDOLABEL_SHARD_INDEX": "2", "PSEUDOLABEL_NUM_SHARDS": "5"}, (2, 5), id="own"),
        pytest.param(None, None, _slurm(4, 0, 6, 1, 7), (4, 7), id="whole slurm array"),
        pytest.param(None, 10, _slurm(3, 3, 7, 4, 2), (3, 10), id="slurm rerun of 3,7 with the count given"),
        pytest.param(0, 2, _slurm(4, 0, 6, 1, 7), (0, 2), id="options win over slurm"),
        pytest.param(None, 4, {"JOB_COMPLETION_INDEX": "3"}, (3, 4), id="kubernetes with the count given"),
        pytest.param(
            None, None, {"JOB_COMPLETION_INDEX": "3", "PSEUDOLABEL_NUM_SHARDS": "4"}, (3, 4), id="kubernetes, own count"
        ),
        pytest.param(
            None, None, {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, (0, 2), id="aws batch"
        ),
        pytest.param(None, None, {"CLOUD_RUN_TASK_INDEX": "1", "CLOUD_RUN_TASK_COUNT": "2"}, (1, 2), id="cloud run"),
    ],
)
def test_the_part_is_told_where_it_is_certain(index, count, environment, expected) -> None:
    part = worker_part(index, count, environment)
    assert (part.index, part.count) == expected


@pytest.mark.parametrize(
    ("index", "count", "environment", "words"),
    [
        pytest.param(None, None, {}, "give --shard-index", id="nothing known"),
        pytest.param(3, None, {}, "give --num-shards", id="index alone"),
        pytest.param(None, None, _slurm(3, 3, 7, 4, 2), "not a whole array", id="rerun of 3,7"),
        pytest.param(None, None, _slurm(4, 1, 4, 1, 4), "not a whole array", id="array from 1"),
        pytest.param(None, None, _slurm(2, 0, 6, 2, 4), "not a whole array", id="array with a step"),
        pytest.param(None, None, {"JOB_COMPLETION_INDEX": "3"}, "spec.completions", id="kubernetes without count"),
        pytest.param(4, 4, {}, "0..3", id="index outside"),
        pytest.param(None, None, {"SLURM_ARRAY_TASK_ID": "x"}, "not a number", id="no number"),
    ],
)
def test_an_uncertain_part_is_refused(index, count, environment, words) -> None:
    with pytest.raises(ConfigError, match=words):
        worker_part(index, count, environment)


@pytest.mark.parametrize("count", [1, 3, 7, 12])
def test_the_parts_share_all_shards_without_overlap(count: int) -> None:
    shards = [shard for index in range(count) for shard in worker_part(index, count, {}).shards(10)]
    assert sorted(shards) == list(range(10))
