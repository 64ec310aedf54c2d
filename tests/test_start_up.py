"""What the commands that need no network load, and that it stays little; limits are generous, machines differ."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

FUSE = """
import sys
import numpy as np
from pseudolabel.candidates import Candidate, GivenBox
from pseudolabel.fusion.image_rows import image_rows
from pseudolabel.fusion.options import FuseOptions
from pseudolabel.fusion.settings import label_settings
from pseudolabel.masks import Grid, SoftMask
import pseudolabel.pipelines.runner, pseudolabel.pipelines.stages.fuse, pseudolabel.formats.coco

mask = SoftMask(Grid(8, 8, 2, 2, 16, 16), np.full((16, 16), 200, dtype=np.uint8))
box = GivenBox(1, 1, (8.0, 8.0, 32.0, 32.0))
candidate = Candidate("teacher", 1, 1, box.box_xyxy, 0.9, 0.9, mask)
rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
rows = image_rows([box], [candidate], (64, 64), label_settings(FuseOptions()), rgb=rgb)
assert rows[0]["area"] > 100, rows
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With bytecode, as where the package is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode"))}


def cpu_s(code: str, environment: dict[str, str]) -> float:
    """Median over fresh processes, the first of which does not count."""
    measured = f"{code}\nimport time; print(time.process_time())"
    command = [sys.executable, "-c", measured]
    found = [
        float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])
        for _ in range(4)
    ]
    return statistics.median(found[1:])


def test_fuse_from_its_options_to_its_files_loads_no_network_library() -> None:
    unwanted = {"torch", "torchvision", "sklearn", "onnxruntime", "pycocotools", "kornia", "timm", "matplotlib"}
    code = f"{FUSE}\nassert not {unwanted} & set(sys.modules), {unwanted} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_driver_loads_no_compiled_loops() -> None:
    code = "import sys, pseudolabel.pipelines.chain, pseudolabel.formats.coco, pseudolabel.pipelines.stages.fuse"
    subprocess.run(
        [sys.executable, "-c", f"{code}\nassert not {{'numba', 'torch', 'scipy'}} & set(sys.modules)"], check=True
    )


def test_reading_the_boxes_of_a_coco_file_loads_no_compiled_loops(tmp_path: Path) -> None:
    square = [[1, 1, 9, 1, 9, 9]]
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "segmentation": square, "iscrowd": 0}]
    image = {"id": 1, "file_name": "a.jpg", "width": 20, "height": 20}
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": [image], "annotations": rows, "categories": [{"id": 1, "name": "a"}]}))
    code = (
        "import sys; from pathlib import Path; from pseudolabel.datasets.coco import CocoDataset\n"
        "assert len(list(CocoDataset(None, Path(sys.argv[1])).rows())) == 1\n"
        "assert not {'numba', 'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_fuse_loads_in_little_memory() -> None:
    code = f"{FUSE}\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) / 1024 < 400  # MiB; 230 when this was written, 757 with torch


def test_the_help_of_a_command_costs_little_more_than_the_libraries_it_is_made_with(
    environment: dict[str, str],
) -> None:
    libraries = cpu_s("import click, pydantic; from pydantic import BaseModel, Field", environment)
    asked = "import sys; sys.argv = ['pseudolabel', 'fuse', '--help']\nfrom pseudolabel.cli.main import entry\nentry()"
    assert cpu_s(asked, environment) < 3 * libraries
