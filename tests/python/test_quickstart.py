"""docs/quickstart.md and the README's first way: every command is typed as it stands, on drawn scenes.

Some things are added or left out, and why: trainings get a tiny network and two steps, so that they end in seconds.
`infer-prompted` needs transformers and a model of SAM's kind; `card` is typed by test_card_template.py; `review` waits
for a browser; what is fetched first by a line of curl needs a network.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from pseudolabel.cli.main import main
from pseudolabel.pipelines.demo.scenes import write_dataset

from .color_network import COLORS, write_color_network

_ROOT = Path(__file__).parents[2]
_TINY = ["--backbone", "tiny", "--backbone-weights", "none", "--steps", "2", "--device", "cpu"]
_ADDED = {
    "train-teacher": [*_TINY, "--crop-px", "32"],
    "train-siseg": _TINY,
    "train-student": [*_TINY, "--width", "40", "--convs", "1", "--image-px", "96"],
}
_LEFT_OUT = {"infer-prompted", "card", "review"}
_STAGES = ("shard", "infer-semantic", "infer-colors", "infer-teacher", "infer-siseg", "fuse")


def _commands(page: Path) -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    blocks = [block for block in blocks if not block.startswith("curl ")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    typed = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("pseudolabel ")]
    return [words for words in typed if words[0] not in _LEFT_OUT]


def _type(words: list[str]) -> None:
    main.main([*words, *_ADDED.get(words[0], [])], standalone_mode=False, prog_name="pseudolabel")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page names, as the folder that the process works in."""
    write_dataset(tmp_path, 3, 0, size_hw=(128, 128))
    write_color_network(tmp_path / "deeplabv3.onnx", COLORS)
    shutil.copy(tmp_path / "instances.json", tmp_path / "sam_results.json")
    monkeypatch.chdir(tmp_path)
    for stage in _STAGES:
        monkeypatch.setenv(f"PSEUDOLABEL_{stage.replace('-', '_').upper()}_ENGINE", "inline")
    return tmp_path


def test_the_readme_s_first_way_ends_with_masks_a_report_and_an_export(folder: Path) -> None:
    for words in _commands(_ROOT / "README.md"):
        _type(words)
    made = json.loads((folder / "runs/mine/pseudo/instances.json").read_text(encoding="utf-8"))
    given = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    assert {one["id"] for one in made["annotations"]} == {one["id"] for one in given["annotations"]}
    assert (folder / "runs/mine/report.html").is_file()
    assert (folder / "yolo/data.yaml").is_file()


@pytest.mark.slow
def test_the_quickstart_reaches_masks_on_all_of_its_ways(folder: Path) -> None:
    for words in _commands(_ROOT / "docs" / "quickstart.md"):
        _type(words)
    for run, tables in {"mine": {"colors", "semantic", "teacher", "sam"}, "bare": {"siseg"}}.items():
        assert {path.name for path in (folder / "runs" / run / "candidates").iterdir()} == tables
        made = json.loads((folder / "runs" / run / "pseudo" / "instances.json").read_text(encoding="utf-8"))
        assert len(made["images"]) == 3
    assert (folder / "found" / "results.json").is_file()
    assert (folder / "yolo" / "data.yaml").is_file()
