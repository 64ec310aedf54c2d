import pytest

from pseudolabel.segmenters.class_map import SHIPPED_MAPS, load_classes, load_map, match_classes, normalised


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        pytest.param("voc", 21, {0: "background", 15: "person", 20: "tvmonitor"}, id="voc"),
        pytest.param("coco", 80, {0: "person", 79: "toothbrush"}, id="coco"),
        pytest.param("ade20k", 150, {0: "wall", 12: "person", 149: "flag"}, id="ade20k"),
        pytest.param("cityscapes", 19, {0: "road", 18: "bicycle"}, id="cityscapes"),
    ],
)
def test_shipped_lists_hold_their_classes_once_and_in_order(name: str, count: int, some: dict[int, str]) -> None:
    names = load_classes(name).names
    assert len(names) == len({normalised(n) for n in names}) == count
    assert {index: names[index] for index in some} == some


def test_coco_category_ids_run_from_1_to_90_with_the_ten_known_gaps() -> None:
    ids = load_classes("coco").label_ids
    assert sorted(set(range(1, 91)) - set(ids)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert len(ids) == 80


def test_every_cityscapes_label_id_is_a_class_or_ignored() -> None:
    city = load_classes("cityscapes")
    assert sorted([*city.label_ids, *city.ignored_label_ids]) == list(range(34))
    assert city.label_ids[city.names.index("car")] == 26


@pytest.mark.parametrize("name", SHIPPED_MAPS)
def test_a_shipped_map_joins_classes_that_both_lists_have(name: str) -> None:
    first, second = name.split("-")
    assert set(load_map(name)) <= {normalised(n) for n in load_classes(first).names}
    assert set(load_map(name).values()) <= {normalised(n) for n in load_classes(second).names}


def _coco() -> dict[int, str]:
    listed = load_classes("coco")
    return dict(zip(listed.label_ids, listed.names, strict=True))


def test_voc_classes_meet_coco_categories_by_the_shipped_map() -> None:
    match = match_classes(load_classes("voc").names, _coco())
    assert match.used == "voc-coco"
    assert len(match.index_of) == 20
    assert match.index_of[63] == 18  # couch is sofa
    assert "zebra" in match.unmapped
    assert len(match.unmapped) == 60


def test_coco_classes_meet_voc_categories_by_the_same_map_backwards() -> None:
    match = match_classes(load_classes("coco").names, {7: "tvmonitor", 8: "Potted_Plant", 9: "unicorn"})
    assert match.used == "voc-coco"
    assert match.index_of == {7: 62, 8: 58}
    assert match.unmapped == ("unicorn",)


def test_identical_names_need_no_map() -> None:
    match = match_classes(["background", "Traffic Light"], {4: "traffic_light"})
    assert match.used == "identical names"
    assert match.index_of == {4: 1}
