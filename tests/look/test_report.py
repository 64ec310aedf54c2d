"""`report`: what the page says and what it holds."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import pseudolabel as pl
from pseudolabel import rle
from pseudolabel.cli.main import main
from pseudolabel.errors import IncompleteError, InputError
from pseudolabel.pipelines.look.bought import Bought
from pseudolabel.pipelines.look.picture import draw_pictures
from pseudolabel.pipelines.look.report import format_written, write_report
from pseudolabel.pipelines.options.look import ReportConfig
from pseudolabel.pipelines.options.tools import PictureConfig
from pseudolabel.pipelines.run.commit import read_part
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.report.page import script_json
from pseudolabel.reviews import Answer, AnswerFile, Shown
from tests.look.made_runs import FIRST_ID, Made, MadeRun, make_run, many, write_labels
from tests.look.report_page import HOSTILE_CLASS, data_of
from tests.students.runs import labelled_run


class Addresses(HTMLParser):
    """Everything that a page could load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]


def test_the_page_names_nothing_to_load(page_file: Path) -> None:
    parser = Addresses()
    parser.feed(page_file.read_text())
    assert parser.found
    assert all(address.startswith(("#", "data:")) for address in parser.found)


def test_json_in_a_page_cannot_end_its_element() -> None:
    hostile = {"name": "</script><!-- & \u2028"}
    text = str(script_json(hostile))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


def test_an_object_is_shown_with_every_mask_at_the_resolution_of_its_picture(page_file: Path) -> None:
    one = next(one for one in data_of(page_file) if one["cls"] == HOSTILE_CLASS)
    assert [layer["name"] for layer in one["layers"]] == ["fused", "colors", "semantic", "truth"]
    height, width = one["size"]  # the square around a box of 30 pixels is 38 wide; its upper end is cut by the image
    assert (height, width) == (38, 38)
    masks = {layer["name"]: rle.decode({"size": one["size"], "counts": layer["rle"]}) for layer in one["layers"]}
    x0, y0, x1, y1 = (round(value) for value in one["box"])
    assert (x1 - x0, y1 - y0) == (30, 20)
    box = np.zeros((height, width), bool)
    box[y0:y1, x0:x1] = True
    lower, shrunk = box.copy(), box.copy()
    lower[y0 : y0 + 10] = False
    shrunk[:, x1 - 6 : x1] = False
    assert np.array_equal(masks["truth"], box)
    assert np.array_equal(masks["semantic"], box)
    assert np.array_equal(masks["colors"], lower)
    assert np.array_equal(masks["fused"], shrunk)
    assert one["iou"] == pytest.approx(24 / 30)


def test_the_gallery_is_bounded_and_has_the_worst_the_disputed_and_all_classes(made: MadeRun, tmp_path: Path) -> None:
    everything = data_of(Path(write_report(made.paths, ReportConfig(out=tmp_path / "all.html"))["report"]))
    assert len(everything) == 91
    few = data_of(Path(write_report(made.paths, ReportConfig(out=tmp_path / "few.html", gallery=24))["report"]))
    assert len(few) == 24
    ids = {one["id"] for one in few}
    assert {one["id"] for one in sorted(everything, key=lambda one: one["score"])[:3]} <= ids
    assert {one["id"] for one in sorted(everything, key=lambda one: one["agreement"])[:3]} <= ids
    assert {one["cls"] for one in few} == {"disc", "star", "ring", HOSTILE_CLASS}
    assert data_of(Path(write_report(made.paths, ReportConfig(out=tmp_path / "none.html", gallery=0))["report"])) == []


def test_the_page_counts_what_the_run_holds(page_file: Path, made: MadeRun) -> None:
    text = page_file.read_text()
    decisions = [one["decision"] for one in data_of(page_file)]
    for name in ("keep", "review", "box_only"):
        assert re.search(rf'{name}</td><td class="n">{decisions.count(name)}</td>', text)
    assert ">usable boxes<" in text
    assert "images: 10" in text  # the bar's own words
    of_sources = re.findall(r'<td class="name">candidates/\w+</td><td class="n">(\d+)</td>', text)
    assert sum(map(int, of_sources)) == 182
    assert f"pseudolabel shard {made.paths.root} --images" in text


def test_a_run_that_is_not_through_says_so(tmp_path: Path) -> None:
    made = make_run(tmp_path, {f"{place}.png": many(3, seed=place) for place in range(6)}, shards=3)
    parts = [made.paths.part("pseudo", shard, 3) for shard in range(3)]
    next(part for part in parts if part.exists()).unlink()
    told = "1 of 3 shards have no pseudo labels yet, and their objects are not here: pseudolabel fuse"
    written = write_report(made.paths, ReportConfig())
    assert told in format_written(written)
    assert told in Path(written["report"]).read_text(encoding="utf-8")


def test_a_run_without_pseudo_labels_says_what_to_type(tmp_path: Path, made: MadeRun) -> None:
    with pytest.raises(InputError, match="plan"):
        write_report(RunPaths(tmp_path), ReportConfig())
    bare = make_run(tmp_path / "bare", {"a.png": [Made((5, 5, 20, 20))]}, shards=1)
    bare.paths.part("pseudo", 0, 1).unlink()
    with pytest.raises(InputError, match="pseudolabel fuse"):
        write_report(bare.paths, ReportConfig())


def test_a_run_without_boxes_has_no_truth_to_show_and_says_so(tmp_path: Path) -> None:
    run, truth = labelled_run(tmp_path, bare=True), tmp_path / "data" / "instances.json"
    for look, config in ((write_report, ReportConfig), (draw_pictures, PictureConfig)):
        with pytest.raises(InputError, match=r"made without boxes.* pseudolabel evaluate .* --ground-truth"):
            look(run, config(ground_truth=truth))


def test_an_image_that_is_gone_is_named_and_all_others_are_shown(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": [Made((5, 5, 20, 20))], "b.png": [Made((9, 9, 20, 20))]}, shards=1)
    (tmp_path / "images" / "a.png").unlink()
    written = write_report(made.paths, ReportConfig())
    path = Path(written["report"])
    assert "1 of them with pictures; images that could not be opened now: 1, such as a.png" in format_written(written)
    assert [one["file"] for one in data_of(path)] == ["b.png"]
    assert "Could not be opened now: a.png" in path.read_text()


def test_an_image_of_which_a_box_was_refused_is_shown(tmp_path: Path) -> None:
    made = make_run(tmp_path, {"a.png": [Made((5, 5, 20, 20))], "b.png": [Made((9, 9, 20, 20))]}, shards=1)
    content = json.loads((tmp_path / "boxes.json").read_text())
    content["annotations"].append({"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 1, 0, 5], "iscrowd": 0})
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    made.paths = RunPaths(tmp_path / "other")
    with pytest.raises(IncompleteError, match="1 of 3 objects were rejected"):
        pl.Run.create(made.paths.root, images=tmp_path / "images", boxes=tmp_path / "boxes.json", shards=1)
    write_labels(made, {"a.png": [Made((5, 5, 20, 20))], "b.png": [Made((9, 9, 20, 20))]}, shards=1)
    written = write_report(made.paths, ReportConfig())
    assert (written["objects"], written["shown"], written["unreadable"]) == (2, 2, [])


def test_the_command_says_where_the_page_is(made: MadeRun, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", str(made.paths.root), "--out", str(out), "--gallery", "5"])
    assert result.exit_code == 0, result.output
    page, following = result.output.splitlines()
    assert page == f"{out}: 91 objects, 5 of them with pictures"
    assert following.startswith("next: open the page")


def test_the_page_stops_at_its_bytes_and_says_what_is_left_out(
    made: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pseudolabel.pipelines.look.gallery._MOST_BYTES", 20_000)
    path = Path(write_report(made.paths, ReportConfig(out=tmp_path / "small.html"))["report"])
    objects = data_of(path)
    spent = sum(len(one["img"]) + sum(len(layer["rle"]) for layer in one["layers"]) for one in objects)
    assert 15_000 < spent <= 20_000
    assert f"{91 - len(objects)} more were left out" in path.read_text()


def test_reviews_are_told_of_with_the_minutes_that_they_took(tmp_path: Path) -> None:
    images = {"a.png": [Made((5, 5, 20, 20)), Made((30, 10, 20, 20))]}
    made = make_run(tmp_path, images, shards=1)
    mask = rle.encode(np.ones((60, 80), bool))
    told = {"image_key": "a.png", "at": "2026-01-01T00:00:00Z", "reviewer": "eve", "seconds": 90.0}
    file = AnswerFile(made.paths.reviews / "eve.jsonl")
    file.append(Answer(FIRST_ID, verdict="accept", mask=mask, origin="colors", **told))
    file.append(Answer(FIRST_ID + 1, verdict="box_only", **told))
    file.close()
    text = " ".join(Path(write_report(made.paths, ReportConfig())["report"]).read_text().split())
    assert "2 objects were looked at by eve in 3 minutes: 1 accept, 1 box_only" in text
    assert "Accepted masks are 1 colors." in text
    assert "Not in these masks yet: 2 of them" in text
    assert "What the review bought" not in text


def test_what_a_review_bought_is_told_before_and_after(tmp_path: Path) -> None:
    """Of three kept masks of a score of 0.9 one is drawn whole, one is no object, one is not looked at."""
    half = Made((0, 0, 20, 20), shrink=10)
    images = {"a.png": [half, Made((30, 10, 20, 20)), Made((50, 30, 20, 20))]}
    made = make_run(tmp_path, images, shards=1)
    told = {"image_key": "a.png", "at": "2026-01-01T00:00:00Z", "reviewer": "eve", "seconds": 30.0}
    rows = {row["annotation_id"]: row for row in read_part(made.paths.part("pseudo", 0, 1)).to_pylist()}
    whole = np.zeros((60, 80), bool)
    whole[:20, :20] = True
    shown = {number: Shown(rows[number]["segmentation"], 0.9, "keep") for number in (FIRST_ID, FIRST_ID + 1)}
    answers = {
        FIRST_ID: Answer(
            FIRST_ID, verdict="accept", mask=rle.encode(whole), origin="drawn", shown=shown[FIRST_ID], **told
        ),
        FIRST_ID + 1: Answer(FIRST_ID + 1, verdict="reject", shown=shown[FIRST_ID + 1], **told),
    }
    bought = Bought(answers)
    reviewed = {"decision_reason": "reviewed"}
    new = {"segmentation": rle.encode(whole), "score": 1.0, "decision": "keep", **reviewed}
    bought.add(rows[FIRST_ID] | new, rle.encode(whole))
    bought.add(rows[FIRST_ID + 1] | {"score": 0.0, "decision": "ignore", **reviewed}, None)
    bought.add(rows[FIRST_ID + 2], None)
    facts = bought.facts()
    assert facts is not None
    assert [(one["before"], one["after"], one["change"]) for one in facts["figures"]] == [
        ("3", "2", "-1"),
        ("0.900", "0.950", "+0.050"),
        ("0.500", "1.000", "+0.500"),
    ]
    drawn, rejected = sorted(facts["kinds"], key=lambda one: one["name"])
    assert (drawn["name"], drawn["changed"], drawn["same"]) == ("drawn by hand", 1, 0.5)
    assert (drawn["iou_before"], drawn["iou_after"], drawn["minutes"]) == (0.5, 1.0, 0.5)
    assert (rejected["name"], rejected["kept_before"], rejected["kept_after"]) == ("no object", 1, 0)
    assert rejected["iou_before"] is None
