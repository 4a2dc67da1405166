"""Plots as SVG, without a library: bars beside each other, and lines over a growing number."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

_WIDTH, _LEFT, _TOP, _ROW = 760, 330, 46, 24
_COLOURS = ("#1b6ca8", "#d1603d", "#4d8b31", "#8d6cab", "#b8860b", "#5f6a72", "#c03a6b", "#2a9d8f")
_FRAME = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">\n'
    '<rect width="100%" height="100%" fill="white"/>\n<text x="12" y="22" font-size="15">{title}</text>\n{body}\n'
    "</svg>\n"
)


def bars(title: str, unit: str, values: Sequence[tuple[str, float]]) -> str:
    """Return one horizontal bar for each label, from nought."""
    most = max((value for _, value in values), default=0) or 1
    body = []
    for number, (label, value) in enumerate(values):
        y, length = _TOP + number * _ROW, value / most * (_WIDTH - _LEFT - 90)
        body += [
            _text(_LEFT - 8, y + 13, label, anchor="end"),
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_ROW - 7}" fill="{_COLOURS[0]}"/>',
            _text(_LEFT + length + 6, y + 13, f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"),
        ]
    height = _TOP + len(values) * _ROW + 14
    return _FRAME.format(width=_WIDTH, height=height, title=escape(title), body="\n".join(body))


def lines(title: str, across: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return a line for each series of points (number, value): the number by its logarithm, the value from nought."""
    points = [point for each in series.values() for point in each]
    least, most = min(x for x, _ in points), max(x for x, _ in points)
    highest = max(y for _, y in points) or 1
    left, bottom, width, height = 60, 330, _WIDTH - 90, 270

    def place(x: float, y: float) -> tuple[float, float]:
        part = (log10(x) - log10(least)) / (log10(most) - log10(least)) if most > least else 0.5
        return left + part * width, bottom - y / highest * height

    body = [f'<path d="M{left} {bottom - height}V{bottom}H{left + width}" fill="none" stroke="#888"/>']
    for share in (0.25, 0.5, 0.75, 1):
        y = bottom - share * height
        body.append(f'<path d="M{left} {y}H{left + width}" stroke="#ddd"/>')
        body.append(_text(left - 6, y + 4, f"{highest * share:,.3g}", anchor="end"))
    marks = sorted({x for x, _ in points})
    body += [_text(place(x, 0)[0], bottom + 18, f"{x:,.0f}", anchor="middle") for x in marks]
    body.append(_text(left + width / 2, bottom + 38, across, anchor="middle"))
    body.append(_text(12, bottom - height - 12, unit))
    for number, (label, each) in enumerate(series.items()):
        colour, places = _COLOURS[number % len(_COLOURS)], [place(x, y) for x, y in each]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        body.append(f'<rect x="{left}" y="{bottom + 52 + number * 18}" width="12" height="12" fill="{colour}"/>')
        body.append(_text(left + 18, bottom + 63 + number * 18, label))
    total = bottom + 62 + len(series) * 18
    return _FRAME.format(width=_WIDTH, height=total, title=escape(title), body="\n".join(body))


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
