"""Charts as inline SVG: sizes are attributes and colours classes, so that a page needs no inline style."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from pseudolabel.metrics.calibration import ReliabilityBin

_WIDTH, _HEIGHT = 640, 220
_LEFT, _BOTTOM, _TOP = 58, 34, 10
_SHARES = (0, 0.25, 0.5, 0.75, 1)
_NAMES, _BARS, _ROW, _GAP = 150, 240, 28, 12  # of horizontal bars: widths of names and bars, a row's height


def histogram(series: Mapping[str, Sequence[int]], *, title: str, line: Sequence[int] | None = None) -> Markup:
    """Stacked bars over [0, 1]; the class of each part is its name.

    Args:
        line: other counts over the same bins, drawn as a line above the bars.
    """
    bins = len(next(iter(series.values())))
    totals = [sum(counts[place] for counts in series.values()) for place in range(bins)]
    numbers = _round_numbers(max([*totals, *(line or []), 1]))
    most, width = numbers[-1], (_WIDTH - _LEFT) / bins
    parts = [_axes(numbers)]
    for place in range(bins):
        below = 0
        for name, counts in series.items():
            if counts[place]:
                top, bottom = _y((below + counts[place]) / most), _y(below / most)
                tip = f"{place / bins:.2f} to {(place + 1) / bins:.2f}: {counts[place]} {name}"
                parts.append(_rect(_LEFT + place * width + 1, top, width - 2, bottom - top, f"fill-{name}", tip))
                below += counts[place]
    if line:
        points = " ".join(f"{_LEFT + (place + 0.5) * width:.1f},{_y(n / most):.1f}" for place, n in enumerate(line))
        parts.append(Markup('<polyline class="truth-line" points="{}"/>').format(points))
    return _svg(parts, title)


def reliability(bins: Sequence[ReliabilityBin], *, title: str) -> Markup:
    """What scores promised against what the masks were; on the diagonal they are right."""
    parts = [
        _axes(_SHARES),
        Markup('<line class="diagonal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*_xy(0, 0), *_xy(1, 1)),
    ]
    points = [_xy(one.mean_score, one.mean_iou) for one in bins]
    parts.append(
        Markup('<polyline class="truth-line" points="{}"/>').format(" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    )
    for one, (x, y) in zip(bins, points, strict=True):
        tip = f"score {one.mean_score:.3f}, IoU {one.mean_iou:.3f}, {one.count} masks"
        parts.append(
            Markup('<circle class="fill-truth" cx="{:.1f}" cy="{:.1f}" r="4.5"><title>{}</title></circle>').format(
                x, y, tip
            )
        )
    return _svg(parts, title)


def shares(counts: Mapping[str, int], *, title: str, width: int = 180, height: int = 14) -> Markup:
    """One bar, cut into the shares of what it counts; the class of each part is its name."""
    total, x, parts = sum(counts.values()) or 1, 0.0, []
    for name, count in counts.items():
        part = width * count / total
        parts.append(_rect(x, 0, part, height, f"fill-{name}", f"{name}: {count}") if count else Markup())
        x += part
    return Markup('<svg class="shares" width="{}" height="{}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup().join(parts)
    )


def bars(rows: Sequence[Mapping[str, object]], *, title: str) -> Markup:
    """Horizontal bars, each with its name, number and a note; `rows` have name, n, note and unit, the scale.

    A gap stands between rows of different units, whose bars cannot be compared.
    """
    most = {row["unit"]: 1 for row in rows}
    for row in rows:
        most[row["unit"]] = max(most[row["unit"]], int(str(row["n"])))
    parts, y = [], -_GAP
    for place, row in enumerate(rows):
        y += _GAP if not place or row["unit"] != rows[place - 1]["unit"] else 0
        count = int(str(row["n"]))
        wide = _BARS * count / most[row["unit"]]
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(_NAMES - 8, y + 19, row["name"]))
        parts.append(_rect(_NAMES, y + 4, max(wide, 1), _ROW - 9, "fill-bar", f"{row['name']}: {count}"))
        label = Markup(
            '<text x="{:.1f}" y="{}"><tspan class="number">{:,}</tspan> <tspan class="quiet">{}</tspan></text>'
        )
        parts.append(label.format(_NAMES + 6 + wide, y + 19, count, row["note"]))
        y += _ROW
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, y, title, Markup().join(parts)
    )


def _svg(parts: Sequence[Markup], title: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH + 12, _HEIGHT, escape(title), Markup().join(parts)
    )


def _round_numbers(most: int) -> list[int]:
    """Evenly spaced whole numbers from 0 to `most` or a little more, five steps at the most, as people count."""
    power = 10 ** int(math.log10(most))
    step = next(step for step in (power // 5, power // 2, power, 2 * power) if step and most <= 5 * step)
    return list(range(0, most + step, step))


def _axes(numbers: Sequence[float]) -> Markup:
    """Grid lines and numbers: 0 to 1 across, `numbers` upwards."""
    parts = []
    for number in numbers:
        y = _y(number / numbers[-1])
        parts.append(Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, _WIDTH, y))
        text = f"{number:,}"
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LEFT - 6, y + 4, text))
    for share in _SHARES:
        x, _ = _xy(share, 0)
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>').format(x, _HEIGHT - _BOTTOM + 18, share)
        )
    return Markup().join(parts)


def _rect(x: float, y: float, width: float, height: float, css: str, tip: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(css, x, y, max(width, 0), max(height, 0), tip)


def _xy(x: float, y: float) -> tuple[float, float]:
    return _LEFT + x * (_WIDTH - _LEFT), _y(y)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)
