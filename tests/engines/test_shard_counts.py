"""The same masks however the work is cut, on real stages: label maps, candidates, fused labels, COCO files."""

from pathlib import Path

import pytest
from own_chain import digests, draw_scenes, masks, run_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.mark.parametrize("shards", [7, 64])
def test_masks_do_not_depend_on_the_number_of_shards(scenes: Path, tmp_path: Path, shards: int) -> None:
    one = masks(run_scenes(scenes, tmp_path / "one", shards=1))
    many = masks(run_scenes(scenes, tmp_path / "many", shards=shards))
    assert len(one) > 12
    assert {key: mask for key, (mask, _) in one.items()} == {key: mask for key, (mask, _) in many.items()}
    assert {key: score for key, (_, score) in many.items()} == pytest.approx(
        {key: score for key, (_, score) in one.items()}, abs=1e-5
    )


def test_worker_processes_write_the_bytes_that_one_process_writes(scenes: Path, tmp_path: Path) -> None:
    inline = digests(run_scenes(scenes, tmp_path / "inline"))
    assert len(inline) > 5 * 4
    assert digests(run_scenes(scenes, tmp_path / "local", "local")) == inline
