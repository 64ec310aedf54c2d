"""Time of a run by its number of images, out of the measured costs in `pipelines/forecast.py`.

`python tests/benchmarks/rates.py` prints the table of README.md: hours of one core for 150, 10,000 and a million images
with as many boxes each as the COCO photographs have. Where the costs come from stands beside them.
"""

from collections.abc import Mapping
from typing import Any

from harness import report, script_parser

from pseudolabel.pipelines.forecast import Size
from pseudolabel.pipelines.steps import parse_step

BOXES = 1302 / 142  # an image, as in coco-dev
SIZES = (150, 10_000, 1_000_000)
WAYS: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "colours": {"shard": {"images": "images"}, "infer-colors": {}, "fuse": {}},
    "segmenter": {"shard": {"images": "images"}, "infer-semantic": {"model": "FILE.onnx"}, "fuse": {}},
    "teacher, `--preset small`": {
        "shard": {"images": "images"}, "train-teacher": {"preset": "small"}, "infer-teacher": {}, "fuse": {},
    },
    "then a student, `--preset small`": {"train-student": {"preset": "small"}},
}  # fmt: skip


def row(way: str, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A way's time for each number of images."""
    steps = [parse_step(name, values) for name, values in sections.items()]
    return {"way": way} | {f"{images:,} images": _hours(steps, images) for images in SIZES}


def _hours(steps: list[Any], images: int) -> str:
    found = [step.forecast(Size(images, round(images * BOXES), 1)) for step in steps]
    assert all(one is not None for one in found), "every step of these ways was measured"
    minutes = sum(one.seconds for one in found) / 60
    if minutes < 120:
        return f"{float(f'{minutes:.2g}'):g} min"
    return f"{float(f'{minutes / 60:.2g}'):,.0f} h"


def main() -> None:
    """Print the table, or keep it."""
    script_parser(__doc__).parse_args()
    on = f"forecasts for one core of the machine that pipelines/forecast.py names, {BOXES:.1f} boxes an image"
    report("rates", [row(way, sections) for way, sections in WAYS.items()], on=on)


if __name__ == "__main__":
    main()
