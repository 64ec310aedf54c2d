import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.errors import ConfigError
from pseudolabel.pipelines.planning.counted import CountedRows, default_shards, sample_size


@pytest.mark.parametrize(
    ("images", "shards"),
    [(0, 1), (1, 1), (16, 1), (17, 2), (150, 10), (4096, 16), (4097, 17), (10_000, 40), (1_000_000, 3907)],
)
def test_a_shard_has_16_images_until_there_are_16_shards_and_then_256(images: int, shards: int) -> None:
    assert default_shards(images) == shards


@pytest.mark.parametrize(("sample", "size"), [(0.01, 2), (0.5, 75), (0.001, 1), (1, 1), (40, 40), (1000, 150)], ids=str)
def test_a_sample_is_a_share_below_one_and_a_number_from_one_on(sample: float, size: int) -> None:
    assert sample_size(sample, 150) == size


def test_a_sample_of_half_an_image_more_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a share such as 0\.01, or a whole number of images such as 500"):
        sample_size(1.5, 150)


def _rows(order: int = 1) -> Iterator[dict[str, Any]]:
    for number in range(40)[::order]:
        yield {"image_key": f"{number}.jpg", "status": "ok"}
        yield {"image_key": f"{number}.jpg", "status": "rejected", "annotation_id": number}


def test_a_sample_has_the_same_images_for_every_order_of_the_rows(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    one, other = (CountedRows(_rows(order), folder) for order, folder in zip((1, -1), folders, strict=True))
    assert one.n_images == other.n_images == 40
    drawn = list(one.rows(7))
    assert sorted(map(json.dumps, drawn)) == sorted(map(json.dumps, other.rows(7)))
    assert len({row["image_key"] for row in drawn}) == 7


def test_what_was_refused_on_an_image_is_in_the_sample_with_it(tmp_path: Path) -> None:
    drawn = list(CountedRows(_rows(), tmp_path).rows(7))
    used = {row["image_key"] for row in drawn if row["status"] == "ok"}
    assert used == {row["image_key"] for row in drawn if row["status"] == "rejected"}
    assert list(CountedRows(_rows(), tmp_path).rows()) == list(_rows())
