"""`diff`: what changed between two runs, and the limits on it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import stats

from pseudolabel.cli.main import main
from pseudolabel.errors import InputError, QualityGateError
from pseudolabel.metrics.drift import ks_distance, population_stability
from pseudolabel.pipelines.look.diff import check_gates, diff_runs
from pseudolabel.pipelines.options.look import DiffConfig
from pseudolabel.pipelines.run.paths import RunPaths
from tests.look.made_runs import Made, MadeRun, make_run, many

BEFORE = {
    "a.png": [Made((0, 0, 20, 20)), Made((30, 10, 40, 40), "star", 0.6, "review", "doubtful_score")],
    "b.png": [Made((5, 5, 20, 20))],
}
NOW = {
    "a.png": [Made((0, 0, 20, 20), shrink=5), Made((30, 10, 40, 40), "star", 0.9, "keep")],
    "b.png": [Made((5, 5, 20, 20))],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeRun, MadeRun]:
    folder = tmp_path_factory.mktemp("diff")
    return make_run(folder / "now", NOW), make_run(folder / "before", BEFORE)


def test_masks_decisions_and_scores_are_compared_by_annotation(runs: tuple[MadeRun, MadeRun]) -> None:
    now, before = runs
    figures = diff_runs(now.paths, DiffConfig(base=before.paths.root))
    assert figures["n"] == 3
    assert figures["mean_iou"] == pytest.approx((15 / 20 + 1 + 1) / 3)
    assert figures["same_masks"] == 2
    assert figures["iou_histogram"] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 2]
    assert figures["decisions"] == {"keep > keep": 2, "review > keep": 1}
    assert figures["changed_decisions"] == 1
    assert (figures["mean_score_before"], figures["mean_score"]) == pytest.approx((0.8, 0.9))
    assert list(figures["per_class"]) == ["disc", "star"]
    assert figures["per_class"]["star"]["mean_iou"] == 1
    assert (figures["only_in_run"], figures["only_in_base"]) == (0, 0)
    assert Image.open(figures["picture"]).size == (6 * 192, 192)  # the two that changed


def test_a_run_is_no_different_from_itself(runs: tuple[MadeRun, MadeRun]) -> None:
    now = runs[0].paths
    figures = diff_runs(now, DiffConfig(base=now.root))
    assert (figures["mean_iou"], figures["psi"], figures["ks"], figures["picture"]) == (1, 0, 0, None)


def test_other_shards_are_no_difference(runs: tuple[MadeRun, MadeRun], tmp_path: Path) -> None:
    other = make_run(tmp_path, BEFORE, shards=1)
    figures = diff_runs(other.paths, DiffConfig(base=runs[1].paths.root))
    assert (figures["n"], figures["mean_iou"], figures["changed_decisions"]) == (3, 1, 0)


def test_objects_of_one_run_alone_are_counted(runs: tuple[MadeRun, MadeRun], tmp_path: Path) -> None:
    more = make_run(tmp_path, {**NOW, "c.png": [Made((1, 1, 9, 9))] * 2})
    figures = diff_runs(more.paths, DiffConfig(base=runs[1].paths.root))
    assert (figures["n"], figures["only_in_run"], figures["only_in_base"]) == (3, 2, 0)
    back = diff_runs(runs[1].paths, DiffConfig(base=more.paths.root))
    assert (back["only_in_run"], back["only_in_base"]) == (0, 2)


def test_a_folder_without_a_run_is_refused(runs: tuple[MadeRun, MadeRun], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no plan"):
        diff_runs(runs[0].paths, DiffConfig(base=tmp_path))
    assert RunPaths(tmp_path).root.is_dir()


def test_limits_that_do_not_hold_are_all_named(runs: tuple[MadeRun, MadeRun]) -> None:
    config = DiffConfig(base=runs[1].paths.root, min_mean_iou=0.95, min_mean_score=0.99, max_drift=0.01, objects=0)
    figures = diff_runs(runs[0].paths, config)
    with pytest.raises(
        QualityGateError, match=r"mean IoU 0\.917 .*; mean score 0\.900 .*; drift .* above --max-drift 0\.01"
    ):
        check_gates(figures, config)
    check_gates(figures, DiffConfig(base=runs[1].paths.root, min_mean_iou=0.9, min_mean_score=0.89))


def test_the_command_takes_two_runs_and_ends_with_5_beyond_a_limit(runs: tuple[MadeRun, MadeRun]) -> None:
    folders = [str(one.paths.root) for one in runs]
    result = CliRunner().invoke(main, ["diff", *folders, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["n"] == 3
    with pytest.raises(QualityGateError) as caught:
        CliRunner().invoke(main, ["diff", *folders, "--min-mean-iou", "0.99"], catch_exceptions=False)
    assert caught.value.exit_code == 5
    assert CliRunner().invoke(main, ["diff", folders[0]]).exit_code == 2


def test_limits_stand_in_a_run_file(runs: tuple[MadeRun, MadeRun], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"run: {runs[0].paths.root}\ndiff: {{base: {runs[1].paths.root}, min_mean_score: 0.95}}\n")
    with pytest.raises(QualityGateError, match=r"mean score 0\.900 is below --min-mean-score 0\.95"):
        CliRunner().invoke(main, ["run", str(file)], catch_exceptions=False)


def test_drift_is_that_of_its_formula() -> None:
    before, after = np.arange(10) / 10, np.array([0.05] * 5 + [0.95] * 5)
    first = np.full(10, 1.5) / 15
    second = np.array([5.5, *[0.5] * 8, 5.5]) / 15
    expected = float(((second - first) * np.log(second / first)).sum())
    assert population_stability(before, after) == pytest.approx(expected)
    assert population_stability(before, before) == 0
    assert ks_distance(before, after) == pytest.approx(stats.ks_2samp(before, after).statistic)


def test_a_shift_of_the_scores_is_a_large_drift_and_another_sample_a_small_one() -> None:
    random = np.random.default_rng(0)
    before, same, lower = random.beta(8, 2, 2000), random.beta(8, 2, 2000), random.beta(5, 3, 2000)
    assert population_stability(before, same) < 0.05
    assert population_stability(before, lower) > 0.25


def test_the_worst_come_first_on_the_sheet(tmp_path: Path) -> None:
    objects = many(12, seed=5)
    before = make_run(tmp_path / "before", {"a.png": [replace(one, shrink=0) for one in objects]}, shards=1)
    shrunk = [replace(one, shrink=1) for one in objects[:-1]] + [replace(objects[-1], shrink=8)]
    now = make_run(tmp_path / "now", {"a.png": shrunk}, shards=1)
    figures = diff_runs(now.paths, DiffConfig(base=before.paths.root, objects=1))
    width = objects[-1].box_xywh[2]
    lowest = min([(one.box_xywh[2] - 1) / one.box_xywh[2] for one in objects[:-1]] + [(width - 8) / width])
    assert lowest == (width - 8) / width  # or this test tells nothing
    assert figures["iou_quantiles"]["1%"] >= lowest
    assert Image.open(figures["picture"]).size == (6 * 192, 192)
