"""docs/adding.md, word for word: its files are written into a copy of the project, its commands are typed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.pipelines.demo.scenes import write_dataset
from pseudolabel.pipelines.graph import find_command
from pseudolabel.segmenters.base import SEGMENTERS, SegmenterOptions, open_segmenter

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
PARTS = {
    "A reader": "csv",
    "A segmenter": "dark",
    "A stage": "infer-boxes",
    "A teacher": "inside",
    "An engine": "backwards",
    "A student": "regions",
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# the commands need no worker processes to be followed
_STAGES = ("SHARD", "INFER_SEMANTIC", "INFER_BOXES", "INFER_TEACHER")
_INLINE = {f"PSEUDOLABEL_{name}_ENGINE": "inline" for name in _STAGES}


def _blocks(kind: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _section(title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def _apply(block: str, root: Path) -> None:
    """Do what the first line of a block says."""
    first, _, body = block.partition("\n")
    said = re.fullmatch(r'# (\S+?)(?:, in (\w+)(?: before "([\w-]+)")?)?', first)
    assert said, first
    path, table, before = root / said[1], said[2], said[3]
    if table is None:
        assert not path.exists(), path
        path.write_text(body, encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    opening = re.compile(rf"^{table}\b[^\n]*(?:\n(?![A-Z@]|def |class )[^\n]*)*?\{{\n", re.MULTILINE).search(text)
    assert opening, f"{path} has no table {table}"
    place = text.index(f'    "{before}":', opening.end()) if before else opening.end()
    path.write_text(text[:place] + body + text[place:], encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with everything that the page adds."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("pseudolabel", "cli", "pipelines", "data", "tests"):
        shutil.copytree(ROOT / folder, root / folder, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", root)
    for block in _blocks("python"):
        _apply(block, root)
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn images, and their boxes as the page has them."""
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder, 2, 0, size_hw=(96, 96))
    content = json.loads((folder / "boxes.json").read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    files = {row["id"]: row["file_name"] for row in content["images"]}
    lines = [
        ",".join(map(str, (files[one["image_id"]], names[one["category_id"]], *one["bbox"])))
        for one in content["annotations"]
    ]
    (folder / "boxes.csv").write_text("\n".join(["file_name,class,x,y,width,height", *lines]) + "\n")
    return folder


def _typed(line: str, copy: Path, place: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line.removeprefix("$ "))
    assert words.pop(0) == "pseudolabel"
    environment = os.environ | _INLINE | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pseudolabel", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(copy: Path, place: Path) -> dict[str, list[subprocess.CompletedProcess[str]]]:
    """What the commands of each section did, typed in the order of the page."""
    typed = {title: "".join(_blocks("console", _section(title))).splitlines() for title in PARTS}
    return {title: [_typed(line, copy, place) for line in lines] for title, lines in typed.items()}


@pytest.mark.parametrize("title", PARTS)
def test_what_a_section_says_to_type_works(title: str, done: dict[str, list[subprocess.CompletedProcess[str]]]) -> None:
    assert done[title]
    for one in done[title]:
        assert one.returncode == 0, f"{one.args}\n{one.stderr}"


def test_the_added_parts_do_what_they_are_for(
    done: dict[str, list[subprocess.CompletedProcess[str]]], place: Path
) -> None:
    boxes = json.loads((place / "boxes.json").read_text())["annotations"]
    labels = json.loads((place / "runs/mine/pseudo/instances.json").read_text())["annotations"]
    sources = {source for one in labels for source in one["attributes"]["source"].split("+")}
    assert len(labels) == len(boxes)
    assert "boxes" in sources
    assert {path.name for path in (place / "runs/mine/candidates").iterdir()} == {"semantic", "boxes", "inside"}
    assert json.loads((place / "found/images.json").read_text())["images"]


def _collected(copy: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/contracts", "-k", " or ".join(PARTS.values())]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    asked = [*command, "--ignore", "tests/contracts/test_adding.py", "-rA"]
    found = subprocess.run(asked, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-3000:]
    yield from re.findall(r"^PASSED (\S+)", found.stdout, re.MULTILINE)


def test_the_contracts_hold_for_every_added_part_by_its_name(copy: Path) -> None:
    passed = list(_collected(copy))
    for name in PARTS.values():
        assert [one for one in passed if f"[{name}]" in one or f"-{name}]" in one], name


def test_every_kind_of_part_in_the_page_is_followed() -> None:
    titles = re.findall(r"^## (An? .+)$", PAGE, re.MULTILINE)
    assert titles == list(PARTS)


def test_an_installed_package_adds_a_segmenter_and_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "night_parts.py").write_text(
        "from pseudolabel.pipelines.graph import Tool\n"
        "def open_night(where, options):\n    return (where, options.device)\n"
        "NIGHT = Tool(section='Look', help='Night.', config='pseudolabel.pipelines.options.tools:EvaluateConfig',\n"
        "             function='night_parts:open_night')\n"
    )
    information = tmp_path / "night-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: night\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[pseudolabel.segmenter]\nnight = night_parts:open_night\n[pseudolabel.command]\nnight = night_parts:NIGHT\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "night" in SEGMENTERS
    assert open_segmenter("night:moon", SegmenterOptions(device="cpu")) == ("moon", "cpu")
    found = find_command("night")
    assert found is not None
    assert found.help == "Night."
