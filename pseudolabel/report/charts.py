"""Charts as inline SVG: sizes are attributes and colours classes, so that a page needs no inline style."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from pseudolabel.metrics.calibration import ReliabilityBin

_WIDTH, _HEIGHT = 640, 220
_LEFT, _BOTTOM, _TOP = 44, 34, 10


def histogram(series: Mapping[str, Sequence[int]], *, title: str, line: Sequence[int] | None = None) -> Markup:
    """Stacked bars over [0, 1]; the class of each part is its name.

    Args:
        line: other counts over the same bins, drawn as a line above the bars.
    """
    bins = len(next(iter(series.values())))
    totals = [sum(counts[place] for counts in series.values()) for place in range(bins)]
    most = max([*totals, *(line or []), 1])
    width = (_WIDTH - _LEFT) / bins
    parts = [_axes(most)]
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
        _axes(1.0),
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
    """Horizontal bars, each with its name, number and a note; `rows` have name, n, note and unit, the scale."""
    most, height = {row["unit"]: 1 for row in rows}, 28
    for row in rows:
        most[row["unit"]] = max(most[row["unit"]], int(str(row["n"])))
    parts = []
    for place, row in enumerate(rows):
        count, y = int(str(row["n"])), place * height
        wide = 300 * count / most[row["unit"]]
        parts.append(Markup('<text x="128" y="{}" text-anchor="end">{}</text>').format(y + 18, row["name"]))
        parts.append(_rect(136, y + 4, max(wide, 1), height - 9, "fill-bar", f"{row['name']}: {count}"))
        label = Markup(
            '<text x="{:.1f}" y="{}"><tspan class="number">{:,}</tspan> <tspan class="quiet">{}</tspan></text>'
        )
        parts.append(label.format(142 + wide, y + 18, count, row["note"]))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height * len(rows), title, Markup().join(parts)
    )


def _svg(parts: Sequence[Markup], title: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH + 12, _HEIGHT, escape(title), Markup().join(parts)
    )


def _axes(most: float) -> Markup:
    """Grid lines and numbers: 0 to 1 across, 0 to `most` upwards."""
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = _xy(share, share)
        number = f"{share:g}" if most == 1 else f"{most * share:,.0f}"
        parts.append(Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, _WIDTH, y))
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LEFT - 6, y + 4, number))
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
