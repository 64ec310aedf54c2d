"""Pascal VOC: corners counted from 1, one damaged file is one row, no entity is ever expanded."""

import time
from pathlib import Path
from typing import Any

import pytest

from pseudolabel import records
from pseudolabel.datasets import open_dataset
from pseudolabel.errors import InputError


def thing(name: str = "dog", box: tuple[Any, ...] = (1, 2, 10, 20)) -> str:
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>1</difficult><bndbox>{corners}</bndbox></object>"


def sheet(*things: str, name: str = "a.jpg", size: str = "<width>100</width><height>50</height>") -> str:
    return f"<annotation><filename>{name}</filename><size>{size}</size>{''.join(things)}</annotation>"


def rows_of(folder: Path, **sheets: str | bytes) -> list[dict[str, Any]]:
    for stem, text in sheets.items():
        (folder / f"{stem}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    rows = list(open_dataset("voc", images=folder, annotations=folder).rows())
    records.table_from_rows(rows, records.MANIFEST)
    return rows


def test_corners_are_pixels_counted_from_one(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, a=sheet(thing(box=(1, 1, 100, 50)), thing(box=(5, 7, 5, 7))))
    assert [cell["bbox_xywh"] for cell in rows[0]["objects"]] == [[0, 0, 100, 50], [4, 6, 1, 1]]
    assert (rows[0]["width"], rows[0]["height"], rows[0]["image_key"]) == (100, 50, "a.jpg")


def test_categories_are_the_names_in_alphabetical_order(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text(sheet(thing("cat"), thing("aeroplane"), name="b.jpg"))
    (tmp_path / "a.xml").write_text(sheet(thing("dog")))
    dataset = open_dataset("voc", images=tmp_path, annotations=tmp_path)
    assert [(c["id"], c["name"]) for c in dataset.categories] == [(1, "aeroplane"), (2, "cat"), (3, "dog")]
    first, second = dataset.rows()
    assert [(cell["annotation_id"], cell["category_id"]) for cell in first["objects"]] == [(1, 3)]
    assert [(cell["annotation_id"], cell["category_id"]) for cell in second["objects"]] == [(2, 2), (3, 1)]


def test_a_bad_object_is_a_row_and_the_others_keep_their_ids(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, a=sheet(thing(box=(1, 2, "x", 4)), thing(), thing(box=(9, 9, 2, 2)), thing(name="")))
    assert [cell["annotation_id"] for cell in rows[0]["objects"]] == [2]
    refused = [(row["annotation_id"], row["reason"]) for row in rows[1:]]
    assert refused == [(1, "bad_box"), (3, "bad_box"), (4, "no_such_category")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "empty_file", id="empty"),
        pytest.param("<annotation>", "bad_record", id="truncated"),
        pytest.param(b"\xff\xfe<\0a\0/\0>\0", "bad_record", id="another root, utf-16"),
        pytest.param("<?xml version='1.0' encoding='xx-9'?><annotation/>", "bad_record", id="unknown encoding"),
        pytest.param(sheet(name="../b.jpg"), "outside_root", id="name that leads out"),
        pytest.param(sheet(size="<width>x</width>"), "bad_record", id="size as text"),
        pytest.param(sheet(size="<width>0</width><height>5</height>"), "bad_record", id="no width"),
        pytest.param('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "bad_record", id="entity"),
        pytest.param('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "bad_record", id="outer document type"),
        pytest.param("<a>&b;</a>", "bad_record", id="unknown entity"),
        pytest.param("<a>" * 100_000, "bad_record", id="nested"),
        pytest.param("<a>" * 100_000 + "</a>" * 100_000, "bad_record", id="nested and closed"),
    ],
)
def test_a_damaged_file_is_one_row_and_the_others_survive(tmp_path: Path, text: str | bytes, reason: str) -> None:
    start = time.process_time()
    rows = rows_of(tmp_path, bad=text, good=sheet(thing()))
    assert [(row["status"], row["reason"]) for row in rows] == [("rejected", reason), ("ok", None)]
    assert len(rows[1]["objects"]) == 1
    assert time.process_time() - start < 5


def test_objects_of_a_refused_image_are_rows_too(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, a=sheet(thing(), thing(), name="/a.jpg"), b=sheet(thing(), name="b.jpg"))
    assert [(row.get("annotation_id"), row["reason"]) for row in rows[:3]] == [
        (None, "outside_root"), (1, "image_rejected"), (2, "image_rejected"),
    ]  # fmt: skip
    assert [cell["annotation_id"] for cell in rows[3]["objects"]] == [3]


def test_one_image_in_two_files_is_refused_the_second_time(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, a=sheet(thing()), b=sheet())
    assert [row["reason"] for row in rows] == [None, "duplicate_image"]
    assert len({row["image_key"] for row in rows}) == 2


def test_a_folder_without_xml_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no XML"):
        open_dataset("voc", images=tmp_path, annotations=tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("old.jpg", "a.jpg", id="a stale name"),
        pytest.param("", "a.jpg", id="no name"),
        pytest.param("a", "a.png", id="no suffix"),
        pytest.param("C:\\\\pictures\\\\a.jpg", "a.jpg", id="a path of Windows"),
        pytest.param("a.JPG", "a.jpg", id="another case"),
    ],
)
def test_the_image_is_found_by_its_name_or_by_that_of_the_sheet(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).touch()
    rows = rows_of(tmp_path, a=sheet(thing(), name=name.replace("\\\\", "\\")))
    assert [(row["status"], row["file_name"]) for row in rows] == [("ok", file)]


def test_sheets_that_all_have_one_stale_name_go_by_their_own(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.jpg").touch()
    rows = rows_of(tmp_path, a=sheet(thing(), name="a.jpg"), b=sheet(thing(), name="a.jpg"))
    assert [row["file_name"] for row in rows] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "iso-8859-1", "utf-8"])
def test_an_xml_is_read_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str) -> None:
    name = "\u732b" if encoding in ("gbk", "utf-16", "utf-8") else "caf\u00e9"
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + sheet(thing(name))
    dataset_rows = rows_of(tmp_path, a=text.encode(encoding))
    assert [row["status"] for row in dataset_rows] == ["ok"]
    assert open_dataset("voc", images=tmp_path, annotations=tmp_path).categories[0]["name"] == name
