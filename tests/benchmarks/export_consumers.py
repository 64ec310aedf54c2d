"""Every export profile read by the tool that it is for, each in an environment of its own, made from the package index.

    python tests/benchmarks/export_consumers.py RUN --folder WORK [--only supervision datasets ...]

RUN is a run with pseudo labels. WORK takes exports, environments and figures; what is there already is used again.
`uv` has to be installed. Consumers that need torch borrow that of the Python that runs this. Each consumer's masks are
compared with the labels, mask by mask: mean and worst IoU. docs/export.md has the figures.
"""

import argparse
import json
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudolabel import rle
from pseudolabel.formats.coco import run_lengths
from pseudolabel.formats.export_images import Choice, ImageMaker, Naming, numbered_categories
from pseudolabel.formats.profile import ExportImage
from pseudolabel.pipelines.options.export import ExportConfig
from pseudolabel.pipelines.planning.made_categories import coco_header
from pseudolabel.pipelines.planning.plan import read_plan
from pseudolabel.pipelines.run.paths import RunPaths
from pseudolabel.pipelines.tools.export import RunPictures, export_run, run_shards

CHECKS = Path(__file__).parent / "consumers"
_REQUESTS = ("requests", "urllib3", "idna", "certifi", "charset-normalizer")


@dataclass(frozen=True)
class Consumer:
    """What is installed, with or without what it asks for, and which profiles it reads."""

    packages: tuple[str, ...]
    profiles: tuple[str, ...]
    borrows_torch: bool = False


CONSUMERS = {
    "supervision": Consumer(("supervision",), ("yolo", "coco")),
    "datumaro": Consumer(("datumaro",), ("cvat", "coco", "voc")),
    "datasets": Consumer(("datasets", "pillow"), ("huggingface",)),
    "label_studio": Consumer(("label-studio-sdk",), ("label-studio",)),
    "ultralytics": Consumer(
        ("ultralytics", "ultralytics-thop", "opencv-python-headless", "polars", "polars-runtime-32", "psutil",
         *_REQUESTS),
        ("yolo",),
        borrows_torch=True,
    ),
    "rfdetr": Consumer(
        ("rfdetr", "pyDeprecate", "supervision", "opencv-python-headless", "transformers", "tokenizers",
         "huggingface-hub", "regex", *_REQUESTS),
        ("roboflow",),
        borrows_torch=True,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(CONSUMERS), choices=list(CONSUMERS))
    given = parser.parse_args()
    run, folder = RunPaths(given.run), given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    for name in given.only:
        for profile in CONSUMERS[name].profiles:
            _export(run, folder, profile)
        _write_truth(run, folder / "truth.jsonl", wants_val="yolo" in CONSUMERS[name].profiles or name == "rfdetr")
        figures[name] = _checked(name, folder)
        print(json.dumps({name: figures[name]}), flush=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


def _export(run: RunPaths, folder: Path, profile: str) -> None:
    config = ExportConfig.model_validate(
        {"to": profile, "out": folder / profile, "min_round_trip": 0, "overwrite": True}
    )
    export_run(run, config)


def _write_truth(run: RunPaths, path: Path, *, wants_val: bool) -> None:
    """What went out, in a form that numpy alone can read."""
    plan = read_plan(run)
    parts = [run.part("pseudo", shard, plan.num_shards) for shard in range(plan.num_shards)]
    categories = numbered_categories(coco_header(run, parts)["categories"], "contiguous")
    naming, _ = Naming.of(run_shards(run, plan), None, wants_val=wants_val)
    choice = Choice(("keep", "review", "box_only"), 0.0, boxes=True, crowds=True)
    images = ImageMaker(choice, categories, naming, RunPictures(plan)).images(run_shards(run, plan))
    with path.open("w") as file:
        for image in images:
            file.write(json.dumps(_told(image)) + "\n")


def _told(image: ExportImage) -> dict[str, Any]:
    objects = [
        {
            "class": one.category.name,
            "crowd": one.is_crowd,
            "counts": run_lengths(one.mask) if one.mask and rle.area(one.mask) else None,
        }
        for one in image.objects
    ]
    return {"name": str(image.name), "split": image.split, "size": image.size_hw, "objects": objects}


def _checked(name: str, folder: Path) -> dict[str, Any]:
    """The version of a consumer, and what its check printed."""
    python = _environment(name, CONSUMERS[name], folder / "environments" / name)
    call = [str(python), str(CHECKS / f"with_{name}.py"), str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:]}
    package = CONSUMERS[name].packages[0]
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    version = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    return {"version": version, **json.loads(done.stdout.splitlines()[-1])}


def _environment(name: str, consumer: Consumer, folder: Path) -> Path:
    """The Python of an environment with a consumer, made where it is not there."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    alone = ["--no-deps"] if consumer.borrows_torch else []
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *alone, *consumer.packages], check=True)
    if consumer.borrows_torch:
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


if __name__ == "__main__":
    main()
