"""What the source says of images and objects reaches the COCO file: licences, addresses, own ids and attributes."""

import json
from pathlib import Path
from typing import Any

from pseudolabel.formats.coco import write_coco
from pseudolabel.formats.extras import own_ids

from .tables import HEADER, image, label, ring, tables


def written(tmp_path: Path, image_extra: Any, object_extra: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    cell = {"annotation_id": 500, "category_id": 17, "bbox_xywh": [0.5, 1.25, 20.0, 10.75], "iscrowd": False}
    cell |= {"extra": json.dumps(object_extra) if object_extra else None}
    row = image("a.jpg", 7, (30, 40), objects=[cell], image_extra=json.dumps(image_extra) if image_extra else None)
    shard = tables([row], [label("a.jpg", 500, 17, ring((30, 40)))])
    write_coco([shard], HEADER, tmp_path / "instances.json")
    content = json.loads((tmp_path / "instances.json").read_bytes())
    return content["images"][0], content["annotations"][0]


def test_an_image_keeps_its_licence_and_address_and_cannot_change_what_is_ours(tmp_path: Path) -> None:
    extra = {"license": 4, "coco_url": "http://x/a.jpg", "date_captured": "2013", "id": 99, "width": 1}
    found, _ = written(tmp_path, extra, None)
    assert found == {
        "license": 4, "coco_url": "http://x/a.jpg", "date_captured": "2013",
        "id": 7, "file_name": "a.jpg", "width": 40, "height": 30,
    }  # fmt: skip


def test_an_object_keeps_its_own_fields_attributes_and_id(tmp_path: Path) -> None:
    extra = {"own_id": 0, "track_id": 3, "score": 0.25, "attributes": {"occluded": True, "source": "manual"}}
    _, found = written(tmp_path, None, extra)
    assert (found["id"], found["track_id"], found["score"]) == (500, 3, 0.9)
    attributes = found["attributes"]
    assert (attributes["occluded"], attributes["own_id"], attributes["own_score"]) == (True, 0, 0.25)
    assert (attributes["source"], attributes["own_source"]) == ("semantic+siseg", "manual")


def test_without_extras_nothing_is_added(tmp_path: Path) -> None:
    found, one = written(tmp_path, None, None)
    assert set(found) == {"id", "file_name", "width", "height"}
    assert not any(name.startswith("own_") for name in one["attributes"])


def test_own_ids_are_told_only_where_all_were_whole_numbers_of_one_annotation_each() -> None:
    def manifest(*own: Any) -> Any:
        cells = [
            {"annotation_id": number, "category_id": 1, "bbox_xywh": [0.0, 0, 1, 1], "iscrowd": False, "extra": extra}
            for number, one in enumerate(own, 1)
            for extra in [None if one is None else json.dumps({"own_id": one})]
        ]
        return tables([image("a.jpg", 7, (30, 40), objects=cells)], [])[0]

    assert own_ids([manifest(0, 5)]) == {1: 0, 2: 5}
    assert own_ids([manifest(0, "7")]) == {1: 0, 2: 7}
    assert own_ids([manifest(3, 3)]) == {}
    assert own_ids([manifest("a", "b")]) == {}
    assert own_ids([manifest(None, None)]) == {}
