"""Charts: numbers that people count by, and bars that can be compared."""

import re

import pytest

from pseudolabel.report.charts import bars, histogram


@pytest.mark.parametrize(
    ("most", "numbers"),
    [
        (1, ["0", "1"]),
        (6, ["0", "2", "4", "6"]),
        (236, ["0", "50", "100", "150", "200", "250"]),
        (5188, ["0", "2,000", "4,000", "6,000"]),
    ],
)
def test_a_histogram_has_round_numbers_and_no_bar_above_them(most: int, numbers: list[str]) -> None:
    chart = histogram({"keep": [0, most], "review": [0, 0]}, title="t")
    assert re.findall(r'text-anchor="end">([^<]+)<', chart) == numbers
    assert all(float(y) >= 10 for y in re.findall(r'<rect [^>]*y="([-\d.]+)"', chart))


def test_bars_of_one_unit_share_a_scale_and_stand_apart_from_the_others() -> None:
    rows = [
        {"unit": unit, "name": name, "n": n, "note": ""}
        for unit, name, n in [("images", "images", 10), ("objects", "boxes", 100), ("objects", "kept", 50)]
    ]
    chart = bars(rows, title="t")
    first, second, third = (float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', chart))
    assert first == second == 2 * third
    tops = [float(y) for y in re.findall(r'<rect [^>]*y="([\d.]+)"', chart)]
    assert tops[1] - tops[0] > tops[2] - tops[1]
    assert float(re.findall(r'viewBox="0 0 \d+ (\d+)"', chart)[0]) >= tops[-1] + 19
