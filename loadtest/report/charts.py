"""Charts as inline SVG, without scripts: lines over linear or logarithmic axes, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 44
LARGEST_TICKS = 7

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A series; `style` is a CSS class of the page. Missing values interrupt the line."""

    name: str
    points: Sequence[tuple[float, float | None]]
    style: str
    marks: bool = False


@dataclass(frozen=True)
class Bar:
    """A vertical interval at `x`."""

    x: float
    low: float
    high: float
    style: str


@dataclass(frozen=True)
class Axis:
    """`ticks` holds explicit (value, label) pairs; without them ticks are at round numbers."""

    label: str
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Band:
    """A shaded, labelled range of the x axis."""

    low: float
    high: float
    label: str


def chart(
    title: str, x: Axis, y: Axis, lines: Sequence[Line], bands: Sequence[Band] = (), bars: Sequence[Bar] = ()
) -> str:
    """An HTML figure with an SVG; a sentence if there is nothing to draw."""
    points = [
        (px, py) for line in lines for px, py in line.points if py is not None and _drawable(px, x) and _drawable(py, y)
    ]
    if not points:
        return f"<p class=quiet>{escape(title)}: nothing to draw.</p>"
    heights = [py for _, py in points] + [bar.high for bar in bars if math.isfinite(bar.high)]
    across = _Scale(
        x, [px for px, _ in points] + [end for band in bands for end in (band.low, band.high)], LEFT, WIDTH - RIGHT
    )
    up = _Scale(y, heights, HEIGHT - BOTTOM, TOP)
    parts = [_band(band, across) for band in bands]
    parts += [_grid(value, text, across, up) for value, text in up.ticks]
    parts += [
        f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>'
        for value, text in across.ticks
    ]
    centre = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{centre}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="label" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    parts += [_bar(bar, across, up) for bar in bars]
    parts += [_line(line, across, up) for line in lines]
    parts += [_band_label(band, across) for band in bands]
    legend = "".join(f'<span class="key {line.style}">{escape(line.name)}</span>' for line in lines)
    return (
        f'<figure><figcaption>{escape(title)}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def _drawable(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


class _Scale:
    """Maps values of an axis to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        self._log = axis.log
        if not axis.log and axis.low is None:
            low = min(low, 0.0)
        if axis.log:
            low, high = _step_below(low), _step_above(high)
        if high <= low:
            high = low + 1
        if not axis.log and axis.high is None:
            high += (high - low) * 0.04
        self._low, self._high, self._start, self._end = self._of(low), self._of(high), start, end
        self.ticks = axis.ticks or tuple((value, _short(value)) for value in _ticks(low, high, axis.log))

    def _of(self, value: float) -> float:
        return math.log(value) if self._log else value

    def __call__(self, value: float) -> float:
        share = (self._of(value) - self._low) / (self._high - self._low)
        return self._start + min(1.0, max(0.0, share)) * (self._end - self._start)


def _steps(value: float) -> list[float]:
    """1, 2 and 5 times the powers of ten around a value."""
    power = math.floor(math.log10(value))
    return [step * 10.0**exponent for exponent in (power - 1, power, power + 1) for step in (1, 2, 5)]


def _step_below(value: float) -> float:
    return max(step for step in _steps(value) if step < value)


def _step_above(value: float) -> float:
    return min(step for step in _steps(value) if step > value)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = (1, 2, 5) if last - first <= 3 else (1,)
        return [
            step * 10.0**power
            for power in range(first, last + 1)
            for step in steps
            if low <= step * 10.0**power <= high
        ]
    rough = (high - low) / LARGEST_TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _grid(value: float, text: str, across: _Scale, up: _Scale) -> str:
    y = up(value)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def _band(band: Band, across: _Scale) -> str:
    left, right = across(band.low), across(band.high)
    width, height = max(0.0, right - left), HEIGHT - TOP - BOTTOM
    return f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{height}"/>'


def _band_label(band: Band, across: _Scale) -> str:
    middle = (across(band.low) + across(band.high)) / 2
    return f'<text class="word" x="{middle:.1f}" y="{TOP + 14}" text-anchor="middle">{escape(band.label)}</text>'


def _bar(bar: Bar, across: _Scale, up: _Scale) -> str:
    x = across(bar.x)
    return f'<line class="bar {bar.style}" x1="{x:.1f}" x2="{x:.1f}" y1="{up(bar.low):.1f}" y2="{up(bar.high):.1f}"/>'


def _line(line: Line, across: _Scale, up: _Scale) -> str:
    path, pen = [], "M"
    marks = []
    for px, py in line.points:
        if py is None or not math.isfinite(py):
            pen = "M"
            continue
        x, y = across(px), up(py)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
        if line.marks:
            title = f"<title>{escape(line.name)}: {px:g}, {py:.4g}</title>"
            marks.append(f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{title}</circle>')
    return f'<path class="{line.style}" d="{"".join(path)}"/>' + "".join(marks)
