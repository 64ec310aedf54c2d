"""Laws that every registered reader of data sets keeps; a new one is picked up by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import specimens
from PIL import Image

from pseudolabel import records
from pseudolabel.datasets import READERS, Dataset, open_dataset


def _opened(name: str, folder: Path) -> Dataset:
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(folder / "images" / "a.png")
    return open_dataset(name, images=folder / "images", annotations=specimens.READERS[name](folder))


def _boxes(rows: list[dict[str, Any]]) -> list[list[float]]:
    return [one["bbox_xywh"] for row in rows for one in row["objects"] or ()]


@pytest.mark.parametrize("name", list(READERS))
def test_the_rows_of_a_reader_fit_the_manifest(name: str, tmp_path: Path) -> None:
    rows = list(_opened(name, tmp_path).rows())
    assert records.table_from_rows(rows, records.MANIFEST).num_rows == len(rows) == 1
    assert (rows[0]["image_key"], rows[0]["file_name"], rows[0]["status"]) == ("a.png", "a.png", "ok")


@pytest.mark.parametrize("name", list(READERS))
def test_a_reader_gives_the_box_that_is_there_and_names_its_class(name: str, tmp_path: Path) -> None:
    dataset = _opened(name, tmp_path)
    (row,) = dataset.rows()
    boxes, expected = _boxes([row]), [] if name == "folder" else [[4, 6, 20, 10]]  # `folder` reads images alone
    assert len(boxes) == len(expected)
    assert np.allclose(boxes, expected, atol=1e-3) if expected else True
    names = {category["id"]: category["name"] for category in dataset.categories}
    assert [names[one["category_id"]] for one in row["objects"] or ()] == ["disc"] * len(expected)


@pytest.mark.parametrize("name", list(READERS))
def test_a_reader_is_what_it_says(name: str, tmp_path: Path) -> None:
    assert isinstance(_opened(name, tmp_path), Dataset)


def test_every_reader_has_a_specimen() -> None:
    assert set(specimens.READERS) == set(READERS), "add yours to tests/contracts/specimens.py"
