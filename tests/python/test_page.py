"""docs/python.md: every example runs, on drawn scenes."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pseudolabel.pipelines.demo.scenes import CATEGORY_IDS, CLASSES, write_dataset
from pseudolabel.students.base import StudentConfig, make_student
from pseudolabel.students.save import save_student

from .color_network import COLORS, write_color_network

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that the page names, as the folder that the process works in."""
    folder = tmp_path_factory.mktemp("page")
    write_dataset(folder, 3, 0, size_hw=(128, 128))
    shutil.copy(sorted((folder / "images").glob("*.jpg"))[0], folder / "photo.jpg")
    write_color_network(folder / "segmenter.onnx", COLORS)
    shape = StudentConfig(model="condinst", backbone="tiny", width=40, convs=1, least_score=0.0, detections=5)
    torch.manual_seed(0)
    categories = [{"id": CATEGORY_IDS[name], "name": name} for name in CLASSES]
    save_student(
        folder / "student.safetensors", make_student(shape, len(CLASSES)), shape, categories, image_px=96, about={}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def test_every_example_of_the_page_runs_in_its_order(folder: Path) -> None:
    names: dict[str, object] = {}
    for number, example in enumerate(examples(), start=1):
        exec(compile(example, f"docs/python.md, example {number}", "exec"), names)
    assert (folder / "outlines.png").is_file()
    assert (folder / "runs" / "mine" / "candidates" / "other").is_dir()


def test_the_first_example_has_six_lines_with_its_imports() -> None:
    assert len([line for line in examples()[0].splitlines() if line]) == 6
