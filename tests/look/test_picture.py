"""`picture`: what is drawn, of which objects, and in how much memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.errors import ConfigError, InputError
from pseudolabel.pipelines.look.picture import draw_pictures
from pseudolabel.pipelines.look.sample import RankedSample
from pseudolabel.pipelines.options.tools import PictureConfig
from tests.look.made_runs import FIRST_ID, Made, MadeRun, make_run, many

_PEAK = """
import re, sys
from pathlib import Path
from pseudolabel.pipelines.look.picture import draw_pictures
from pseudolabel.pipelines.options.tools import PictureConfig
from pseudolabel.pipelines.run.paths import RunPaths
for path in draw_pictures(RunPaths(Path(sys.argv[1])), PictureConfig()):
    print(path)
# what getrusage tells would be the peak of the process that started this one, where that was higher
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    images = {f"{place}.png": many(8, seed=place) for place in range(6)}
    return make_run(tmp_path_factory.mktemp("picture"), images)


def test_pictures_are_of_images_at_even_steps_and_the_sheet_is_last(made: MadeRun) -> None:
    paths = draw_pictures(made.paths, PictureConfig(pictures=3, objects=12))
    assert [path.name for path in paths] == ["000.png", "001.png", "002.png", "objects.png"]
    assert Image.open(paths[0]).size == (160, 120)
    assert Image.open(paths[-1]).size == (6 * 192, 2 * 192)


def test_one_object_is_drawn_as_given_as_every_source_has_it_and_as_it_was_fused(made: MadeRun) -> None:
    (path,) = draw_pictures(made.paths, PictureConfig(object=[FIRST_ID + 3]))
    assert path.name == f"object-{FIRST_ID + 3}.png"
    picture = np.asarray(Image.open(path))
    assert picture.shape == (400, 1600, 3)
    panels = [picture[20:, start : start + 400] for start in range(0, 1600, 400)]
    assert len({panel.tobytes() for panel in panels}) == 4


def test_an_object_that_is_not_there_is_named(made: MadeRun) -> None:
    with pytest.raises(InputError, match="no labelled object has the annotation id 7;"):
        draw_pictures(made.paths, PictureConfig(object=[7]))


def test_a_number_of_pictures_beside_an_object_would_do_nothing() -> None:
    with pytest.raises((ConfigError, ValueError), match="pictures does nothing"):
        PictureConfig(object=[7], pictures=3)


def test_a_sample_holds_all_of_a_short_stream_in_order() -> None:
    sample = RankedSample(10)
    for value in (5, 3, 9, 1):
        sample.add(value, f"item {value}")
    assert sample.ranked() == ["item 1", "item 3", "item 5", "item 9"]


def test_a_sample_of_a_long_stream_is_even_and_has_both_ends() -> None:
    sample = RankedSample(1000)
    for value in np.random.default_rng(0).permutation(50_000).tolist():
        sample.add(value, value)
    held = sample.ranked()
    assert 1000 <= len(held) <= 1002
    assert (held[0], held[-1]) == (0, 49_999)
    # the standard error of a decile's share is sqrt(0.1 * 0.9 / 1000) = 0.0095
    shares = np.histogram(held, 10, (0, 50_000))[0] / len(held)
    assert np.abs(shares - 0.1).max() < 4 * 0.0095


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_an_image_of_48_megapixels_is_drawn_in_less_than_a_gigabyte_and_1600_pixels(tmp_path: Path) -> None:
    size_hw = (6000, 8000)
    objects = [Made((100, 100, 20, 20)), Made((0, 0, 7990, 5990), score=0.5), Made((3000, 1000, 4000, 4000), score=0.7)]
    made = make_run(tmp_path, {"large.jpg": objects}, size_hw=size_hw, shards=1)
    ran = subprocess.run(
        [sys.executable, "-c", _PEAK, str(made.paths.root)], capture_output=True, text=True, check=True, timeout=120
    )
    *paths, peak = ran.stdout.split()
    assert int(peak) < 1e9
    assert Image.open(paths[0]).size == (1600, 1200)
    assert Image.open(paths[-1]).size == (1152, 192)
