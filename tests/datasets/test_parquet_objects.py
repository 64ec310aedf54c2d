"""Hugging Face's Parquet files: images and boxes in one row, whose form the numbers tell or the user."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pseudolabel import records
from pseudolabel.datasets import ReadOptions, open_dataset
from pseudolabel.errors import InputError

Row = dict[str, Any]


def png(width: int = 200, height: int = 100) -> Row:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "a.png"}


def saved(folder: Path, objects: list[Any], names: list[str] | None = None, **columns: list[Any]) -> str:
    table = pa.table({"image": [png() for _ in objects], "objects": objects, **columns})
    if names:
        category = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
        features = {"objects": {"bbox": {}, "category": category}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, folder / "train-0.parquet")
    return str(folder / "train-0.parquet")


def read(images: str, **options: Any) -> tuple[Any, list[Row]]:
    dataset = open_dataset("auto", images=images, options=ReadOptions(**options))
    rows = list(dataset.rows())
    records.table_from_rows([{k: v for k, v in row.items() if k != "shard_key"} for row in rows], records.MANIFEST)
    return dataset, rows


def lists(*boxes: list[float], category: Any = None) -> Row:
    return {"bbox": list(boxes), "category": category or [0] * len(boxes)}


def test_objects_are_read_with_their_category_names(tmp_path: Path) -> None:
    images = saved(tmp_path, [lists([10, 20, 150, 40], [0, 0, 5, 6], category=[1, 0]), lists()], ["cat", "dog"])
    dataset, rows = read(images)
    assert dataset.categories == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert [(cell["annotation_id"], cell["category_id"], cell["bbox_xywh"]) for cell in rows[0]["objects"]] == [
        (1, 1, [10, 20, 150, 40]), (2, 0, [0, 0, 5, 6]),
    ]  # fmt: skip
    assert rows[1]["objects"] == []
    assert rows[0]["file_name"] == "train-0.parquet/00000000@train-0.parquet:0"


def test_a_list_of_structs_and_categories_by_name_are_read_too(tmp_path: Path) -> None:
    objects = [[{"bbox": [10.0, 20, 5, 40], "label": "dog"}, {"bbox": [1.0, 2, 3, 1], "label": "cat"}]]
    dataset, rows = read(saved(tmp_path, objects))
    assert [row["name"] for row in dataset.categories] == ["cat", "dog"]
    assert [cell["category_id"] for cell in rows[0]["objects"]] == [2, 1]


@pytest.mark.parametrize(
    ("boxes", "options", "expected", "noted"),
    [
        pytest.param([[50, 20, 40, 10]], {}, [50, 20, 40, 10], False, id="right would be left of left"),
        pytest.param([[150, 20, 190, 90]], {}, [150, 20, 40, 70], False, id="would lead out of the picture"),
        pytest.param([[10, 20, 30, 40]], {}, [10, 20, 30, 40], True, id="both fit"),
        pytest.param([[10, 20, 30, 40]], {"box_format": "xyxy"}, [10, 20, 20, 20], False, id="said"),
    ],
)
def test_the_form_of_boxes_is_told_by_their_numbers(
    tmp_path: Path, boxes: Any, options: Row, expected: list[float], noted: bool
) -> None:
    dataset, rows = read(saved(tmp_path, [lists(*boxes)], ["cat"]), **options)
    assert rows[0]["objects"][0]["bbox_xywh"] == expected
    assert any("--box-format xyxy" in note for note in dataset.notes) == noted


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        pytest.param([[50, 20, 40, 10], [150, 20, 190, 90]], "fit neither", id="both impossible"),
        pytest.param([[0.1, 0.2, 0.3, 0.4]], "fractions", id="fractions"),
    ],
)
def test_boxes_of_another_form_are_refused_as_a_whole(tmp_path: Path, boxes: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(saved(tmp_path, [lists(*boxes)], ["cat"]))


def test_ids_of_images_are_kept_where_they_can_be(tmp_path: Path) -> None:
    _, rows = read(saved(tmp_path, [lists(), lists([50, 20, 40, 10])], ["cat"], image_id=[70, 3]))
    assert [row["image_id"] for row in rows] == [70, 3]
    _, rows = read(saved(tmp_path, [lists(), lists([50, 20, 40, 10])], ["cat"], image_id=[3, 3]))
    assert [row["image_id"] for row in rows] == [1, 2]


def test_a_bad_box_or_category_is_a_row(tmp_path: Path) -> None:
    objects = [lists([50, 20, 40, 10], [1, 1, 0, 5], [2, 2, 5, 5], category=[0, 0, 9])]
    _, rows = read(saved(tmp_path, objects, ["cat"]), box_format="xywh")
    assert [cell["annotation_id"] for cell in rows[0]["objects"]] == [1]
    assert [(row["annotation_id"], row["reason"]) for row in rows[1:]] == [(2, "empty_box"), (3, "no_such_category")]
