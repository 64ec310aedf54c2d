import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.errors import ConfigError, InputError, RejectError
from pseudolabel.segmenters.base import Photo, SegmenterOptions, SemanticResult, open_segmenter
from pseudolabel.segmenters.label_maps import decode_indices, encode_indices, histogram_text


def _read(folder: Path, values: object, options: SegmenterOptions, mode: str | None = None) -> object:
    image = Image.fromarray(np.array(values, dtype=np.uint8))
    if mode == "P":
        image.putpalette([255, 0, 0] * 256)
    image.save(folder / "a.png")
    segmenter = open_segmenter(f"labels:{folder}", options)
    segmenter.probe()
    height, width = np.array(values).shape
    (result,) = segmenter.predict([Photo("a.jpg", (height, width))])
    return result


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        pytest.param("voc", [[0, 15, 255]], [[0, 15, 255]], id="voc"),
        pytest.param("ade20k", [[0, 1, 150]], [[255, 0, 149]], id="ade20k, whose zero is no class"),
        pytest.param("cityscapes-labelids", [[0, 7, 26, 33]], [[255, 0, 13, 18]], id="cityscapes label ids"),
        pytest.param("cityscapes-trainids", [[0, 18, 255]], [[0, 18, 255]], id="cityscapes train ids"),
    ],
)
def test_values_become_class_indices(tmp_path: Path, name: str, values: object, expected: object) -> None:
    result = _read(tmp_path, values, SegmenterOptions(label_format=name))
    assert isinstance(result, SemanticResult)
    assert result.label_map.tolist() == expected
    assert result.confidence.tolist() == [[0 if v == 255 else 255 for v in row] for row in expected]  # type: ignore[attr-defined]


def test_palette_images_are_read_as_indices(tmp_path: Path) -> None:
    result = _read(tmp_path, [[0, 3]], SegmenterOptions(label_format="voc"), mode="P")
    assert isinstance(result, SemanticResult)
    assert result.label_map.tolist() == [[0, 3]]


def test_raw_values_follow_the_options(tmp_path: Path) -> None:
    options = SegmenterOptions(label_format="raw", classes=("a", "b"), ignore_index=9, label_offset=-4)
    result = _read(tmp_path, [[4, 5, 9]], options)
    assert isinstance(result, SemanticResult)
    assert result.label_map.tolist() == [[0, 1, 255]]


def test_unknown_ids_are_rejected_with_their_histogram(tmp_path: Path) -> None:
    result = _read(tmp_path, [[0, 77, 77, 30]], SegmenterOptions(label_format="voc"))
    assert isinstance(result, RejectError)
    assert result.reason == "unknown_label_ids"
    assert "77 (2 px), 30 (1 px)" in result.detail


def test_the_histogram_counts_what_it_leaves_out() -> None:
    assert histogram_text(np.arange(11)).endswith("7 (1 px) and 3 others")


def test_a_label_map_of_another_size_is_rejected(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    segmenter = open_segmenter(f"labels:{tmp_path}", SegmenterOptions(label_format="voc"))
    (result,) = segmenter.predict([Photo("a.jpg", (3, 2))])
    assert isinstance(result, RejectError)
    assert result.reason == "label_size_mismatch"


def test_a_missing_and_a_coloured_label_map_are_told_apart(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(tmp_path / "coloured.png")
    segmenter = open_segmenter(f"labels:{tmp_path}", SegmenterOptions(label_format="voc"))
    missing, coloured = segmenter.predict([Photo("missing.jpg", (2, 2)), Photo("coloured.jpg", (2, 2))])
    assert isinstance(missing, RejectError)
    assert isinstance(coloured, RejectError)
    assert (missing.reason, coloured.reason) == ("no_label_file", "unsupported_format")


def test_a_damaged_label_map_is_undecodable() -> None:
    with pytest.raises(RejectError, match="undecodable"):
        decode_indices(encode_indices(np.zeros((9, 9), dtype=np.uint8))[:40])


def test_encoded_indices_come_back() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    np.testing.assert_array_equal(decode_indices(encode_indices(values)), values)
    assert Image.open(io.BytesIO(encode_indices(values))).mode == "L"


def test_label_maps_need_a_format_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --label-format"):
        open_segmenter(f"labels:{tmp_path}", SegmenterOptions())
    with pytest.raises(ConfigError, match="did you mean 'ade20k'"):
        open_segmenter(f"labels:{tmp_path}", SegmenterOptions(label_format="ade20"))
    with pytest.raises(ConfigError, match="needs --classes and --ignore-index"):
        open_segmenter(f"labels:{tmp_path}", SegmenterOptions(label_format="raw"))


def test_a_missing_folder_is_told_at_setup(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_segmenter(f"labels:{tmp_path / 'no'}", SegmenterOptions(label_format="voc")).probe()


@pytest.mark.parametrize(
    ("image", "file", "options"),
    [
        pytest.param("aachen/a_000_leftImg8bit.png", "aachen/a_000_gtFine_labelIds.png", {}, id="Cityscapes"),
        pytest.param("aachen/a_000_leftImg8bit.png", "a_000_gtFine_labelIds.png", {}, id="Cityscapes in one folder"),
        pytest.param("a_000.jpg", "a_000_gtFine_labelIds.png", {}, id="images renamed"),
        pytest.param("a.jpg", "a_mask.png", {"label_suffix": "_mask"}, id="an ending of one's own"),
        pytest.param("b/a.jpg", "a.png", {}, id="in one folder"),
    ],
)
def test_a_label_map_is_found_by_what_ends_its_name(
    tmp_path: Path, image: str, file: str, options: dict[str, str]
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((1, 2), 7, dtype=np.uint8)).save(tmp_path / file)
    other = file.replace("labelIds", "labelTrainIds")
    Image.fromarray(np.full((1, 2), 3, dtype=np.uint8)).save(tmp_path / (other if other != file else "z.png"))
    segmenter = open_segmenter(f"labels:{tmp_path}", SegmenterOptions(label_format="cityscapes-labelids", **options))
    (result,) = segmenter.predict([Photo(image, (1, 2))])
    assert isinstance(result, SemanticResult)
    assert result.label_map.tolist() == [[0, 0]]  # 7 is the road


def test_a_label_map_that_is_not_there_names_one_that_is(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1, 2), dtype=np.uint8)).save(tmp_path / "a_seg.png")
    segmenter = open_segmenter(f"labels:{tmp_path}", SegmenterOptions(label_format="voc"))
    (result,) = segmenter.predict([Photo("a.jpg", (1, 2))])
    assert isinstance(result, RejectError)
    assert "there is a_seg.png: --label-suffix" in result.detail
