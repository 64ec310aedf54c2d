"""Instances from perfect fields, the two read-outs, and candidates for boxes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pseudolabel.candidates import GivenBox
from pseudolabel.masks import Grid, SoftMask, pixel_window, resample
from pseudolabel.siseg.candidates import boxed_candidates, mask_box, standing_candidates
from pseudolabel.siseg.cells import area_matrix, semantic_cells
from pseudolabel.siseg.instances import FieldMaps, ReadOut, ScoreMaps, find_instances, name_stray_regions, read_out
from pseudolabel.siseg.pictures import named_alike, separate_pieces
from pseudolabel.siseg.pieces import Instance

SIZE = 128  # pixels; 32 cells
CENTRES = ((16, 10), (16, 22))  # cells; the discs touch along column 16
CATEGORY, CLASS = 7, 3


def touching_discs() -> tuple[np.ndarray, FieldMaps, list[np.ndarray]]:
    """Two touching discs of one class: label map, perfect fields, true masks in pixels."""
    pixels = np.mgrid[:SIZE, :SIZE] + 0.5
    cells = np.mgrid[: SIZE // 4, : SIZE // 4].astype(np.float32)
    masks = [np.hypot(pixels[0] - 4 * y - 2, pixels[1] - 4 * x - 2) < 24.5 for y, x in CENTRES]
    left = (cells[1] <= 16).astype(bool)
    masks[0] &= ~masks[1] | (pixels[1] < 66)
    masks[1] &= ~masks[0]
    field = np.zeros((2, 32, 32), np.float32)
    inside = np.zeros((32, 32), bool)
    for (y, x), half in zip(CENTRES, (left, ~left), strict=True):
        disc = (np.hypot(cells[0] - y, cells[1] - x) < 6.6) & half
        field[:, disc] = np.array([[y], [x]]) - cells[:, disc]
        inside |= disc
    outside = ~inside
    field[:, outside] = 9.0  # points away, so that the background is no centroid's region
    contour = (ndimage.binary_dilation(inside, iterations=2) & outside) | (cells[1] == 16)
    boundary = np.where(contour, 0.9, 0.02).astype(np.float32)
    labels = np.where(masks[0] | masks[1], CLASS, 0).astype(np.uint8)
    return labels, FieldMaps(field, boundary), masks


def iou(mask: SoftMask, truth: np.ndarray) -> float:
    window = pixel_window((0, 0, SIZE, SIZE), (SIZE, SIZE))
    found = resample(mask.probability.astype(np.float32) / 255, mask.grid, window) >= 0.5
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("background", ["semantic", "constant"])
def test_touching_discs_are_told_apart_by_a_perfect_field(background: str) -> None:
    labels, fields, masks = touching_discs()
    semantic = semantic_cells(labels, None, (32, 32), objects={CLASS})
    found = find_instances(fields, semantic, ReadOut(background=background))  # type: ignore[arg-type]
    assert [one.class_index for one in found.instances] == [CLASS, CLASS]
    for truth in masks:
        assert max(iou(one.mask, truth) for one in found.instances) > 0.85


def test_connected_components_see_one_object_in_two_touching_discs() -> None:
    labels, fields, _ = touching_discs()
    semantic = semantic_cells(labels, None, (32, 32), objects={CLASS})
    found = find_instances(fields, semantic, ReadOut(displaced=False, walk_steps=0))
    assert len(found.instances) == 1
    assert iou(found.instances[0].mask, labels == CLASS) > 0.95


def test_no_pixel_belongs_to_two_instances() -> None:
    labels, fields, _ = touching_discs()
    found = find_instances(fields, semantic_cells(labels, None, (32, 32), objects={CLASS}), ReadOut())
    window = pixel_window((0, 0, SIZE, SIZE), (SIZE, SIZE))
    read = [resample(one.mask.probability.astype(np.float32) / 255, one.mask.grid, window) for one in found.instances]
    assert (np.sum([plane > 0.5 for plane in read], axis=0) <= 1).all()


def test_image_without_objects_has_no_instance() -> None:
    _, fields, _ = touching_discs()
    semantic = semantic_cells(np.zeros((SIZE, SIZE), np.uint8), None, (32, 32), objects={CLASS})
    assert find_instances(fields, semantic, ReadOut()).instances == []


def test_confidence_of_the_segmenter_scales_the_score() -> None:
    labels, fields, _ = touching_discs()
    sure = semantic_cells(labels, None, (32, 32), objects={CLASS})
    half = semantic_cells(labels, np.full_like(labels, 51), (32, 32), objects={CLASS})  # 51 / 255 = 1 / 5
    first, second = (find_instances(fields, cells, ReadOut()).instances[0].score for cells in (sure, half))
    assert second == pytest.approx(first / 5, rel=1e-5)


def test_cover_is_the_share_of_a_cell_that_a_class_takes() -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[:, :3] = CLASS
    cells = semantic_cells(labels, None, (2, 4), objects={CLASS})  # cells of 3 x 1.5 pixels
    np.testing.assert_allclose(cells.cover[0], [[1, 1, 0, 0], [1, 1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(area_matrix(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)


def test_classes_that_are_no_objects_and_ignored_pixels_are_background() -> None:
    labels = np.array([[1, 2], [255, 0]], np.uint8)
    assert semantic_cells(labels, None, (2, 2), objects={2}).classes == (2,)


def test_region_without_any_cluster_becomes_one_and_others_keep_theirs() -> None:
    clusters = np.array([[1, 0, 0, 0, 0]], np.int32)
    inside = np.array([[True, True, False, True, True]])
    assert name_stray_regions(clusters, inside).tolist() == [[1, 0, 0, 2, 2]]


def test_constant_background_wins_below_a_quarter_of_the_highest_score() -> None:
    semantic = semantic_cells(np.full((1, 4), CLASS, np.uint8), None, (1, 4), objects={CLASS})
    winner, probability = read_out(
        ScoreMaps((0,), np.array([[[0.8, 0.3, 0.19, 0.0]]], np.float32)), semantic, ReadOut(background="constant")
    )
    assert winner.tolist() == [[0, 0, -1, -1]]  # 0.19 / 0.8 is less than 0.25
    assert ((probability[0] > 0.5) == (winner == 0)).all()


def square(x0: float, y0: float, side: int, probability: int = 255) -> Instance:
    grid = Grid(x0, y0, 4.0, 4.0, side, side)
    return Instance(CLASS, 0.5, SoftMask(grid, np.full((side, side), probability, np.uint8)))


def _given(number: int, class_index: int | None, box_xyxy: tuple[float, ...]) -> GivenBox:
    return replace(GivenBox.from_xyxy(number, CATEGORY, box_xyxy), class_index=class_index)


def test_instance_is_cut_to_the_box_it_serves() -> None:
    box = _given(41, CLASS, (10.6, 12.0, 30.0, 31.0))
    (one,) = boxed_candidates([square(8, 8, 6)], [box], (64, 64))
    assert (one.annotation_id, one.category_id) == (41, CATEGORY)
    assert one.mask.grid.extent_xyxy == pytest.approx((10.6, 12.0, 30.0, 31.0))
    assert one.box_xyxy == (11.0, 12.0, 30.0, 31.0)  # of whole pixels
    assert one.box_iou == pytest.approx(19 * 19 / (19.4 * 19))


def test_two_halves_of_a_box_give_their_union_too() -> None:
    grid = Grid(8.0, 8.0, 4.0, 4.0, 6, 3)
    halves = [
        Instance(CLASS, 0.5, SoftMask(place, np.full((6, 3), 255, np.uint8)))
        for place in (grid, Grid(20.0, 8.0, 4.0, 4.0, 6, 3))
    ]
    box = _given(1, CLASS, (8.0, 8.0, 32.0, 32.0))
    found = boxed_candidates(halves, [box], (64, 64))
    assert sorted(round(one.box_iou or 0, 3) for one in found) == [0.5, 0.5, 1.0]


def test_box_whose_class_the_segmenter_lacks_or_that_is_elsewhere_gets_nothing() -> None:
    boxes = [_given(1, None, (8, 8, 32, 32)), _given(2, CLASS, (50, 50, 60, 60))]
    assert boxed_candidates([square(8, 8, 6)], boxes, (64, 64)) == []


def test_without_boxes_instances_stand_alone_with_their_own_extent() -> None:
    (one,) = standing_candidates([square(8, 12, 6), square(0, 0, 3, 100)], {CLASS: CATEGORY}, (64, 64))
    assert (one.annotation_id, one.box_iou, one.category_id) == (None, None, CATEGORY)
    assert one.box_xyxy == (8, 12, 32, 36)
    assert mask_box(square(0, 0, 3, 100).mask, (64, 64)) is None


def test_pieces_of_one_cluster_that_do_not_touch_are_drawn_as_different_instances() -> None:
    names = np.array([[0, -1, 0], [0, -1, 1], [-1, 1, 1]], np.int32)
    pieces = separate_pieces(names)
    assert (pieces[names < 0] == -1).all()
    assert len({int(pieces[0, 0]), int(pieces[0, 2]), int(pieces[2, 1])}) == 3
    assert pieces[0, 0] == pieces[1, 0]
    assert pieces[1, 2] == pieces[2, 1] == pieces[2, 2]


def test_instance_keeps_its_colour_through_the_walk_and_a_new_one_gets_a_new() -> None:
    before = np.array([[0, 0, 0, 1, 1, -1]], np.int32)
    after = np.array([[2, 2, 1, 1, 1, 0]], np.int32)  # the second took a cell of the first; a third appeared
    assert named_alike(before, after).tolist() == [[0, 0, 1, 1, 1, 2]]


def test_centres_may_lie_in_the_hole_of_a_ring_but_not_outside() -> None:
    labels = np.zeros((7, 7), np.uint8)
    labels[1:6, 1:6] = CLASS
    labels[3, 3] = 0
    ground = semantic_cells(labels, None, (7, 7), objects={CLASS}).ground
    assert ground[1:6, 1:6].all()
    assert ground.sum() == 25


def test_two_discs_taken_as_one_score_less_than_one_disc() -> None:
    labels, fields, masks = touching_discs()
    single = np.where(masks[0], CLASS, 0).astype(np.uint8)
    lone, joined = (
        find_instances(fields, semantic_cells(one, None, (32, 32), objects={CLASS}), ReadOut(weak_cells=99.0))
        for one in (single, labels)
    )
    assert (len(lone.instances), len(joined.instances)) == (1, 1)
    assert joined.instances[0].score < 0.8 * lone.instances[0].score
