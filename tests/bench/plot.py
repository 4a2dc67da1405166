"""Plots as SVG, without a library: groups of bars beside each other, and lines over a growing number.

A side has the same colour in all plots of a report: netagent's is blue, what was done by hand is grey.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

_WIDTH, _LEFT, _TOP, _ROW = 760, 300, 48, 19
_OURS: tuple[str, ...] = ("#1b6ca8", "#5aa9dd", "#0b3c5d", "#7fb7be")
_BY_HAND: tuple[str, ...] = ("#6b7280", "#9aa3ad", "#4b5563")
_OTHERS: tuple[str, ...] = ("#d1603d", "#4d8b31", "#8d6cab", "#b8860b", "#c03a6b", "#2a9d8f", "#a0522d", "#e09f3e")
_FRAME = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'font-family="DejaVu Sans, Arial, sans-serif" font-size="12">\n'
    '<rect width="100%" height="100%" fill="white"/>\n<text x="12" y="24" font-size="15">{title}</text>\n{body}\n'
    "</svg>\n"
)


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return horizontal bars from nought: for each group its label, and one bar for each side that has a value."""
    most = max((value for group in groups.values() for value in group.values()), default=0) or 1
    margin = 24 + 8 * max(
        (len(_shown(value, unit)) for group in groups.values() for value in group.values()), default=0
    )
    colours = _colours([side for group in groups.values() for side in group])
    body, y = [], float(_TOP)
    for label, group in groups.items():
        if len(groups) > 1:
            body.append(_text(12, y + 12, label, bold=True))
            y += _ROW + 1
        for side, value in group.items():
            length = max(value / most * (_WIDTH - _LEFT - margin), 1)
            body += [
                _text(_LEFT - 8, y + 12, side, anchor="end"),
                f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_ROW - 5}" fill="{colours[side]}"/>',
                _text(_LEFT + length + 6, y + 12, _shown(value, unit)),
            ]
            y += _ROW
        y += 10
    return _FRAME.format(width=_WIDTH, height=round(y + 6), title=escape(title), body="\n".join(body))


def lines(
    title: str,
    across: str,
    unit: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log: bool = False,
) -> str:
    """Return a line for each series of points (number, value), the number by its logarithm.

    The value is drawn from nought, or by its logarithm too with ``log``; a dashed line is a series ending in "p99".
    """
    points = [point for each in series.values() for point in each]
    least, most = min(max(x, 1) for x, _ in points), max(x for x, _ in points)
    ticks = _log_ticks([y for _, y in points]) if log else _ticks(max(y for _, y in points))
    left, bottom, width, height = 66, 348, _WIDTH - 96, 280

    def across_at(x: float) -> float:
        part = (log10(max(x, 1)) - log10(least)) / (log10(most) - log10(least)) if most > least else 0.5
        return left + part * width

    def up_at(y: float) -> float:
        low, high = ticks[0], ticks[-1]
        part = (log10(max(y, low)) - log10(low)) / (log10(high) - log10(low)) if log else y / high
        return bottom - part * height

    body = [_text(12, bottom - height - 10, f"{unit}, logarithmic" if log else unit)]
    for tick in ticks:
        body.append(f'<path d="M{left} {up_at(tick):.1f}H{left + width}" stroke="#ddd"/>')
        body.append(_text(left - 6, up_at(tick) + 4, _number(tick), anchor="end"))
    body.append(f'<path d="M{left} {bottom - height}V{bottom}H{left + width}" fill="none" stroke="#666"/>')
    end = -100.0
    for x in sorted({x for x, _ in points}):
        if (place := across_at(x)) - end > 34:
            body.append(_text(place, bottom + 18, f"{x:,.0f}", anchor="middle"))
            body.append(f'<path d="M{place:.1f} {bottom}v4" stroke="#666"/>')
            end = place
    body.append(_text(left + width / 2, bottom + 38, f"{across}, logarithmic", anchor="middle"))
    colours = _colours([label.removesuffix(" p99") for label in series])
    for number, (label, each) in enumerate(series.items()):
        colour, places = colours[label.removesuffix(" p99")], [(across_at(x), up_at(y)) for x, y in sorted(each)]
        dash = ' stroke-dasharray="5 4"' if label.endswith(" p99") else ""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = left + number % 2 * 350, bottom + 58 + number // 2 * 19
        body.append(f'<path d="M{x} {y}h22" stroke="{colour}" stroke-width="3"{dash}/>')
        body.append(_text(x + 28, y + 4, label))
    total = bottom + 66 + ceil(len(series) / 2) * 19
    return _FRAME.format(width=_WIDTH, height=total, title=escape(title), body="\n".join(body))


def _colours(sides: Sequence[str]) -> dict[str, str]:
    """Return a colour for each side."""
    found: dict[str, str] = {}
    taken = dict.fromkeys((_OURS, _BY_HAND, _OTHERS), 0)
    for side in dict.fromkeys(sides):
        palette = _OTHERS
        if "by hand" in side or side.startswith("plain"):
            palette = _BY_HAND
        elif "netagent" in side:
            palette = _OURS
        found[side] = palette[taken[palette] % len(palette)]
        taken[palette] += 1
    return found


def _ticks(highest: float) -> list[float]:
    """Return four to eight round numbers from 0 to beyond ``highest``."""
    rough = (highest or 1) / 5
    power = 10 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * number for number in range(ceil((highest or 1) / step) + 1)]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers around ``values``: decades, and 2 and 5 of each where those are few."""
    shown = [value for value in values if value > 0] or [1]
    low, high = floor(log10(min(shown))), ceil(log10(max(shown)))
    factors = (1, 2, 5) if high - low < 4 else (1,)
    ticks = [factor * 10.0**power for power in range(low, max(high, low + 1) + 1) for factor in factors]
    first = max((n for n, tick in enumerate(ticks) if tick <= min(shown)), default=0)
    last = next((n for n, tick in enumerate(ticks) if tick >= max(shown)), len(ticks) - 1)
    return ticks[first : max(last, first + 1) + 1]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _shown(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".strip()


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
