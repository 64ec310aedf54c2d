"""The rows of `qam_modules` on proposals made by hand."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import qam_modules

    return qam_modules


def proposals(script: ModuleType, *, scores: list[float], ious: list[float], said: list[list[float]]):
    """One object over four cells, with these proposals, the others meeting no box."""
    k = script.MOST
    probability, score, overlap = torch.zeros(1, k, 1, 4), torch.zeros(1, k), torch.zeros(1, k)
    probability[0, : len(said), 0] = torch.tensor(said)
    score[0, : len(scores)], overlap[0, : len(ious)] = torch.tensor(scores), torch.tensor(ious)
    inside = torch.ones(1, 1, 4, dtype=torch.bool)
    area, none = torch.tensor([32.0**2]), torch.zeros(1, 1)
    return script.Proposals(probability, score, torch.ones(1, k), overlap, area, inside, probability[:, :1], none)


def test_rows_differ_by_how_proposals_are_chosen_weighed_and_read(script: ModuleType) -> None:
    said = [[0.9, 0.6, 0.1, 0.0], [0.9, 0.2, 0.8, 0.0], [0.9, 0.3, 0.9, 0.0]]
    found = proposals(script, scores=[0.2, 0.8, 0.8], ious=[0.9, 0.8, 0.45], said=said)  # the third meets no box
    soft = {name: row(found).soft[0, 0] for name, (row, _) in script.ROWS.items()}
    assert torch.equal(soft["BQR, best of 1"], torch.tensor(said[0]))
    assert torch.equal(soft["BQR, best of 10"], torch.tensor(said[1]))  # sqrt(0.8 x 0.8) over sqrt(0.2 x 0.9)
    assert soft["plain mean of 10"].tolist() == pytest.approx([0.9, 0.4, 0.45, 0.0])
    first, second = np.sqrt(0.2 * 0.9), np.sqrt(0.8 * 0.8)
    weighed = (first * np.array(said[0]) + second * np.array(said[1])) / (first + second)
    assert soft["QMF of 10"].tolist() == pytest.approx(weighed.tolist(), abs=1e-6)
    assert soft["vote of 20"].tolist() == pytest.approx([1.0, 0.5, 0.5, 0.0])
    assert not script.ROWS["BPMA"][0](found).there.any()  # which no detection was assigned to


def test_a_proposal_whose_score_is_too_low_speaks_where_its_boxes_iou_is_the_score(script: ModuleType) -> None:
    found = proposals(script, scores=[0.05], ious=[0.9], said=[[0.9, 0.9, 0.1, 0.0]])
    assert not script.ROWS["QMF of 10"][0](found).there.any()
    answer = script.ROWS["QMF of 10, scored by box IoU"][0](found)
    assert answer.there.all()
    assert answer.scores["mqs"].item() == pytest.approx(np.sqrt(0.9 * 0.9))  # box IoU and mean probability


def test_figures_are_of_the_objects_that_all_rows_have(script: ModuleType) -> None:
    ious = {"BPMA": [0.5, 0.6, 0.0], "BQR, best of 1": [0.7, 0.6, 0.9]}
    names = [*script.ROWS, script.ORACLE]
    found = {}
    for name in names:
        iou = np.array(ious.get(name, [0.7, 0.7, 0.7]))
        scores = {score: np.array([0.1, 0.2, 0.3]) for score in script.SCORES}
        found[name] = script.Measured(iou, iou > 0, {} if name == script.ORACLE else scores)
    boxes = np.array([0.4, 0.4, 0.3])
    rows = {row["masks"]: row for row in script.rows_of(found, boxes, np.array([1, 2, 2]))}
    assert rows["the box"]["mean_iou"] == pytest.approx(0.4)  # of the two that BPMA has a mask for
    assert rows["BPMA"]["covered"] == pytest.approx(2 / 3)
    assert rows["BPMA"]["with_boxes"] == pytest.approx((0.5 + 0.6 + 0.3) / 3)
    assert rows["BQR, best of 1"]["mean_iou"] == pytest.approx(0.65)
    assert rows["BQR, best of 1"]["gain"] == pytest.approx(0.1)
    assert (rows["BQR, best of 1"]["gain_low"], rows["BQR, best of 1"]["gain_high"]) == pytest.approx((0.0, 0.2))
    assert rows["BPMA"]["rank_mqs"] == pytest.approx(1.0)
