"""The COCO writer: the checklist of the format, what it refuses, and that it never leaves half a file."""

import gzip
import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as codec

from pseudolabel import records
from pseudolabel.errors import InputError, MachineError
from pseudolabel.formats.coco import CocoOptions, write_coco

from .tables import HEADER, image, label, pieces, ring, tables, two_shards


def written(tmp_path: Path, shards: list[Any], **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    instances, results = tmp_path / "instances.json", tmp_path / "results.json"
    write_coco(shards, HEADER, instances, results, options=CocoOptions(**options))
    return json.loads(instances.read_bytes()), json.loads(results.read_bytes())


def test_every_processed_image_is_listed_in_order_and_rejected_ones_are_not(tmp_path: Path) -> None:
    content, _ = written(tmp_path, two_shards())
    assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
    assert content["images"] == [
        {"id": 7, "file_name": "a/1.jpg", "width": 40, "height": 30},
        {"id": 1, "file_name": "b ü.jpg", "width": 50, "height": 25},
        {"id": 12, "file_name": "empty.jpg", "width": 20, "height": 20},
    ]


def test_an_annotation_says_what_the_checklist_asks_for(tmp_path: Path) -> None:
    content, _ = written(tmp_path, two_shards())
    first = content["annotations"][0]
    assert first["segmentation"]["counts"].isascii()
    assert first == {
        "id": 500,
        "image_id": 7,
        "category_id": 17,
        "segmentation": {"size": [30, 40], "counts": first["segmentation"]["counts"]},
        "bbox": [0, 0, 12, 9],
        "area": 9 * 12 - 3 * 4,
        "iscrowd": 0,
        "score": 0.9,
        "attributes": {
            "score": 0.9,
            "box_quality": 0.8,
            "mask_quality": 0.7,
            "candidates_used": 3,
            "source": "semantic+siseg",
            "decision": "keep",
            "provenance_id": "abc",
            "source_bbox": "0.5,1.25,20,10.75",
        },
    }
    assert np.array_equal(codec.decode(first["segmentation"]), ring((30, 40)))
    assert content["annotations"][1]["bbox"] == [3, 4, 37, 26]  # to the last row and column, ends exclusive
    assert content["annotations"][2]["attributes"]["calibrated_iou"] == 0.625


def test_attributes_are_flat_and_hold_only_strings_and_numbers(tmp_path: Path) -> None:
    content, _ = written(tmp_path, two_shards())
    values = [value for row in content["annotations"] for value in row["attributes"].values()]
    assert {type(value) for value in values} <= {str, int, float}
    assert "box_quality" not in content["annotations"][1]["attributes"]
    assert "source" not in content["annotations"][1]["attributes"]


def test_header_is_copied_and_the_meaning_of_the_score_is_named(tmp_path: Path) -> None:
    content, _ = written(tmp_path, two_shards())
    assert content["categories"] == HEADER["categories"]
    assert content["licenses"] == HEADER["licenses"]
    assert content["info"]["source_description"] == "by hand"
    assert content["info"]["description"] == "Instance masks by pseudolabel"
    assert content["info"]["pseudolabel"]["score_type"] == "expected_mask_iou"


def test_results_hold_the_same_masks_and_scores(tmp_path: Path) -> None:
    content, results = written(tmp_path, two_shards())
    keys = ("image_id", "category_id", "segmentation", "score")
    assert results == [{key: row[key] for key in keys} for row in content["annotations"]]


def test_ids_are_made_from_one_where_no_row_brings_one(tmp_path: Path) -> None:
    shards = [tables([image(f"{n}.jpg", None, (30, 40))], [label(f"{n}.jpg", None, 3, ring((30, 40)))]) for n in "ab"]
    content, _ = written(tmp_path, shards)
    assert [row["id"] for row in content["images"]] == [1, 2]
    assert [(row["id"], row["image_id"]) for row in content["annotations"]] == [(1, 1), (2, 2)]


def test_nothing_at_all_gives_empty_lists(tmp_path: Path) -> None:
    content, results = written(tmp_path, [])
    assert (content["images"], content["annotations"], results) == ([], [], [])


@pytest.mark.parametrize(("numbering", "ids"), [("contiguous0", [0, 1]), ("contiguous1", [1, 2])], ids=str)
def test_category_ids_can_be_renumbered_without_gaps(tmp_path: Path, numbering: str, ids: list[int]) -> None:
    content, results = written(tmp_path, two_shards(), category_ids=numbering)
    assert [row["id"] for row in content["categories"]] == ids
    names = {row["id"]: row["name"] for row in content["categories"]}
    assert [names[row["category_id"]] for row in content["annotations"]] == ["dog", "cat", "cat"]
    assert [row["category_id"] for row in results] == [row["category_id"] for row in content["annotations"]]


def test_uncompressed_counts_are_what_pycocotools_compresses_to_the_same_mask(tmp_path: Path) -> None:
    content, _ = written(tmp_path, two_shards(), segmentation="uncompressed")
    segmentation = content["annotations"][0]["segmentation"]
    assert sum(segmentation["counts"]) == 30 * 40
    assert np.array_equal(codec.decode(codec.frPyObjects(segmentation, 30, 40)), ring((30, 40)))


def test_the_users_own_box_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    content, _ = written(tmp_path, two_shards(), bbox="source")
    assert content["annotations"][0]["bbox"] == [0.5, 1.25, 20.0, 10.75]


def test_a_gz_name_gives_the_same_content_compressed_and_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz", "c.json"):
        write_coco(two_shards(), HEADER, tmp_path / name)
    plain = (tmp_path / "c.json").read_bytes()
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == plain
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


BAD = {
    "a duplicate annotation": ({"annotation_id": 20}, "annotation id 20 occurs 2 times"),
    "an annotation without id": ({"annotation_id": None}, "1 annotations have no id and 1 have one"),
    "a score that is no number": ({"score": math.nan}, "score is nan"),
    "no score": ({"score": None}, "score is None"),
    "an infinite quality": ({"pixel_quality": math.inf}, "pixel_quality is inf"),
    "an unknown category": ({"category_id": 5}, "category 5 is not among"),
    "an unknown image": ({"image_key": "z.jpg"}, "not among the processed images"),
    "a mask of another size": ({"segmentation": {"size": [40, 30], "counts": "`U1"}}, "height and width are"),
    "a damaged mask": ({"segmentation": {"size": [30, 40], "counts": "0000"}}, "annotation 500: counts do not sum"),
    "an empty mask": ({"segmentation": {"size": [30, 40], "counts": "`U1"}}, "the mask is empty"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_row_is_refused_and_the_older_files_stay(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    written(tmp_path, two_shards())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    size_hw = (30, 40)
    rows = [label("a.jpg", 20, 3, pieces(size_hw)), {**label("a.jpg", 500, 17, ring(size_hw)), **change}]
    with pytest.raises(InputError, match=message):
        written(tmp_path, [tables([image("a.jpg", 1, size_hw)], rows)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_image_id_that_occurs_in_two_shards_is_refused(tmp_path: Path) -> None:
    shards = [tables([image(f"{n}.jpg", 4, (30, 40))], []) for n in "ab"]
    with pytest.raises(InputError, match="image id 4 occurs 2 times"):
        written(tmp_path, shards)


def test_an_interruption_leaves_no_file_behind(tmp_path: Path) -> None:
    def interrupted() -> Iterator[tuple[pa.Table, pa.Table]]:
        yield two_shards()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_coco(interrupted(), HEADER, tmp_path / "instances.json", tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MachineError, match="cannot write"):
        write_coco([], HEADER, tmp_path / "file" / "instances.json")


def test_memory_stays_flat_in_the_number_of_shards(tmp_path: Path) -> None:
    def shards(count: int) -> Iterator[tuple[pa.Table, pa.Table]]:
        for n in range(count):
            rows = [label(f"{n}.jpg", n * 50 + k, 3, ring((30, 40))) for k in range(50)]
            yield tables([image(f"{n}.jpg", n, (30, 40))], rows)

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        write_coco(shards(count), HEADER, tmp_path / "instances.json", tmp_path / "results.json")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(2)
    few, many = peak_bytes(4), peak_bytes(40)
    assert (tmp_path / "instances.json").stat().st_size > 10 * (many - few)
    assert many < 1.5 * few


def test_every_mask_that_is_written_passes_the_reader_of_untrusted_masks(tmp_path: Path) -> None:
    from pseudolabel.rle import from_segmentation

    content, results = written(tmp_path, two_shards())
    sizes = {row["id"]: (row["height"], row["width"]) for row in content["images"]}
    for row in [*content["annotations"], *results]:
        assert from_segmentation(row["segmentation"], sizes[row["image_id"]]) == row["segmentation"]


def test_a_float32_score_is_written_as_its_shortest_decimal_and_reads_back_exactly(tmp_path: Path) -> None:
    scores = np.array([0.1, 1 / 3, 1e-7, 1.0], dtype=np.float32)
    rows = [label("a.jpg", n + 1, 3, ring((30, 40)), score=float(score)) for n, score in enumerate(scores)]
    content, _ = written(tmp_path, [tables([image("a.jpg", 1, (30, 40))], rows)])
    read = [row["score"] for row in content["annotations"]]
    assert np.array_equal(np.array(read, dtype=np.float32), scores)
    assert read[0] == 0.1


def test_the_stage_schema_is_what_the_writer_reads() -> None:
    manifest, pseudo = two_shards()[0]
    assert manifest.schema == records.MANIFEST
    assert pseudo.schema == records.PSEUDO
