"""Names to images: found by what is there, or the near miss is named; never the wrong picture."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.datasets.names import ImageNames, clean_name
from pseudolabel.errors import InputError, RejectError


def names(root: Path, *files: str, prefix: str = "") -> ImageNames:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return ImageNames(root, prefix)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param("a/b.jpg", "a/b.jpg", id="as it is"),
        pytest.param("./a//b.jpg", "a/b.jpg", id="with dots and slashes"),
        pytest.param("a\\b.jpg", "a/b.jpg", id="backslash"),
        pytest.param("/home/me/a/b.jpg", "a/b.jpg", id="absolute"),
        pytest.param("C:\\data\\a\\b.jpg", "a/b.jpg", id="drive"),
        pytest.param("../../x/data/media/upload/1/77be01aa-b.jpg", "77be01aa-b.jpg", id="Label Studio's storage"),
        pytest.param("../../upload/1/77be01aa-b.jpg", "b.jpg", id="Label Studio's hash"),
        pytest.param("/data/local-files/?d=a/b%20c.jpg", "a/b c.jpg", id="Label Studio's local files"),
        pytest.param("s3://bucket/folder/a/b.jpg", "a/b.jpg", id="a bucket"),
        pytest.param("https://host/other/b.jpg", "a/b.jpg", id="an address"),
        pytest.param("b%20c.jpg", "b c.jpg", id="decoded"),
        pytest.param("b.jpg", "deep/er/b.jpg", id="without folder"),
        pytest.param("b", "a/b.jpg", id="without folder and suffix"),
        pytest.param("b.v1", "b.v1.png", id="without suffix but with a dot"),
        pytest.param("B.JPG", "b.jpg", id="another case"),
        pytest.param(unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg"), id="NFC for NFD"),
        pytest.param(
            unicodedata.normalize("NFD", "ü/é.jpg"), unicodedata.normalize("NFC", "ü/é.jpg"), id="NFD for NFC"
        ),
    ],
)
def test_an_image_is_found(tmp_path: Path, name: str, file: str) -> None:
    found = names(tmp_path, file, "other/z.jpg")
    assert found.find([name]) == [file]
    assert bool(found.notes()) == (clean_name(name) != file)


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        pytest.param("1.jpg", ("a/1.jpg", "b/1.jpg"), "2 files end so: a/1.jpg, b/1.jpg", id="two of that name"),
        pytest.param("c/1.jpg", ("a/1.jpg",), "there is a/1.jpg", id="another folder"),
        pytest.param("/x/c/1.jpg", ("a/1.jpg",), "there is a/1.jpg", id="another folder, absolute"),
        pytest.param("1.png", ("1.jpg",), "there is 1.jpg", id="another suffix"),
        pytest.param("image-0001.jpg", ("image_0001.jpg",), "there is image_0001.jpg", id="mistyped"),
        pytest.param("1", ("1.jpg", "1.png"), "2 files end so", id="without suffix, two"),
        pytest.param("x.jpg", ("X.jpg", "x.JPG"), "2 files end so", id="cases of both"),
    ],
)
def test_what_may_be_another_picture_is_refused_and_named(tmp_path: Path, name: str, files: Any, said: str) -> None:
    (error,) = names(tmp_path, *files).find([name])
    assert isinstance(error, RejectError)
    assert said in error.detail


def test_a_name_that_is_just_missing_is_left_to_the_stage_that_opens_images(tmp_path: Path) -> None:
    assert names(tmp_path, "z.jpg").find(["quite/other.jpg"]) == ["quite/other.jpg"]


def test_two_names_that_end_alike_never_share_one_image(tmp_path: Path) -> None:
    first, second = names(tmp_path, "1.jpg").find(["a/1.jpg", "b/1.jpg"])
    assert isinstance(first, RejectError)
    assert isinstance(second, RejectError)
    assert (first.reason, second.reason) == ("duplicate_image", "duplicate_image")


def test_an_image_that_is_named_as_it_is_stays_with_that_name(tmp_path: Path) -> None:
    exact, other = names(tmp_path, "1.jpg").find(["1.jpg", "b/1.jpg"])
    assert exact == "1.jpg"
    assert isinstance(other, RejectError)


def test_the_longest_end_wins(tmp_path: Path) -> None:
    assert names(tmp_path, "a/1.jpg", "1.jpg").find(["/data/a/1.jpg"]) == ["a/1.jpg"]


def test_a_prefix_is_stripped_and_one_that_no_name_has_is_an_error(tmp_path: Path) -> None:
    found = names(tmp_path, "a/1.jpg", "b/1.jpg", prefix="gs://x/old-a/")
    assert found.find(["gs://x/old-a/a/1.jpg", "b/1.jpg"]) == ["a/1.jpg", "b/1.jpg"]
    with pytest.raises(InputError, match=r"no file name begins so; the first is 'b/1\.jpg'"):
        found.find(["b/1.jpg"])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "\0", "", None, 7])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: Any) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "passwd").touch()
    (found,) = ImageNames(tmp_path / "images").find([name])
    assert isinstance(found, RejectError)


def test_names_of_images_in_a_store_are_cleaned_and_not_looked_for() -> None:
    assert ImageNames(None).find(["a/b.jpg", "a\\c.jpg", "http://h/train/d.jpg"]) == [
        "a/b.jpg",
        "a/c.jpg",
        "train/d.jpg",
    ]
