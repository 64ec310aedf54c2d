"""The run and the page that the tests of `report` share."""

from pathlib import Path

import pytest

from pseudolabel.pipelines.look.report import write_report
from pseudolabel.pipelines.options.look import ReportConfig
from tests.look.made_runs import Made, MadeRun, make_run, many
from tests.look.report_page import HOSTILE_CLASS, HOSTILE_FILE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    images = {f"{place}.png": many(10, seed=place) for place in range(9)}
    images[HOSTILE_FILE] = [Made((10, 10, 30, 20), HOSTILE_CLASS, 0.2, "box_only", "low_score", 6, 0.1)]
    return make_run(tmp_path_factory.mktemp("report"), images)


@pytest.fixture(scope="module")
def page_file(made: MadeRun) -> Path:
    written = write_report(made.paths, ReportConfig(ground_truth=made.truth))
    assert written["objects"] == 91
    return Path(written["report"])
