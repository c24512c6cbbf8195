"""Line charts as small SVG text: no library, the same in the page, in print and in the docs.

y_max +---------------+
      |      __,--    |     series in a fixed order of colours and dashes, so that a row keeps its look everywhere
    0 +---------------+
      0            x_max
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 80, 18, 12, 44
COLOURS = 8
DASHES = ("", "6 3", "2 3")


@dataclass(frozen=True, slots=True)
class Line:
    """One series: *points* (x, y) in rising x; *index* chooses its look; *step*: y holds until the next x."""

    label: str
    points: Sequence[tuple[float, float]]
    index: int
    step: bool = False
    reference: bool = False


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values from *low* to *high*, some *about* of them."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most about *most* of *points*, always the first and the last: more than a chart this wide can show."""
    if len(points) <= most:
        return list(points)
    stride = -(-len(points) // most)
    return [*points[::stride], points[-1]]


def changes(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a step line where it changes, and its last."""
    kept = [p for i, p in enumerate(points) if i == 0 or p[1] != points[i - 1][1]]
    return kept if kept[-1:] == list(points[-1:]) else [*kept, points[-1]]


def _plain(value: float) -> str:
    return f"{value:g}"


class Axis(NamedTuple):
    """*title*; *text* prints a value; *most*: where it ends (None: at the last point); *unit*: what a round number is counted in (2**20:
    ticks at whole MiB)."""

    title: str
    text: Callable[[float], str] = _plain
    most: float | None = None
    unit: float = 1.0


def chart(
    lines: Sequence[Line],
    across: Axis,
    up: Axis,
    *,
    standalone: str = "",
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """The chart as SVG.

    *across*, *up*: x and y, of which y begins at 0. *standalone*: the title of a chart that stands in a file
    of its own, with its own colours and a legend; else the page's style applies. *marks*: (x, name) of moments to draw a line at.
    """
    lines = [replace(line, points=thin(changes(line.points) if line.step else line.points)) for line in lines]
    points = [p for line in lines for p in line.points]
    x_low, x_high = min((p[0] for p in points), default=0.0), max((p[0] for p in points), default=1.0)
    x_low = 0.0 if x_low >= 0 else x_low
    y_high = up.most or max((p[1] for p in points), default=1.0) or 1.0
    x_high = x_high if x_high > x_low else x_low + 1

    def x_at(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - value / y_high * (HEIGHT - TOP - BOTTOM)

    # Read back by the page for its cross-hair.
    data: dict[str, object] = {
        "x": [x_low, x_high],
        "y": [0, y_high],
        "lines": [
            {
                "i": line.index,
                "label": line.label,
                "p": [[float(f"{a:.5g}"), float(f"{b:.5g}")] for a, b in line.points],
            }
            for line in lines
        ],
    }
    attribute = "" if standalone else f' data-chart="{html.escape(json.dumps(data))}"'
    # The legend's entries: two to a line where they are short enough.
    abreast = 2 if all(len(line.label) <= 36 for line in lines) else 1
    above, below = (26, 18 * -(-len(lines) // abreast) + 8) if standalone else (0, 0)
    out = [
        f'<svg class="chart" viewBox="0 {-above} {WIDTH} {HEIGHT + above + below}" role="img" '
        f'aria-label="{html.escape(up.title)} against {html.escape(across.title)}" '
        f'xmlns="http://www.w3.org/2000/svg"{attribute}>'
    ]
    if standalone:
        out.append(
            f'{STYLE}<rect class="paper" x="0" y="{-above}" width="{WIDTH}" height="{HEIGHT + above + below}"/>'
        )
        out.append(
            f'<text class="title" x="8" y="-8" font-weight="bold" font-size="14">{html.escape(standalone)}</text>'
        )
    for value in (up.unit * tick for tick in ticks(0, y_high / up.unit)):
        y = y_at(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{html.escape(up.text(value))}</text>'
        )
    for value in ticks(x_low, x_high):
        x = x_at(value)
        out.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{html.escape(across.text(value))}</text>'
        )
    out.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>'
    )
    out.append(
        f'<text class="title" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(across.title)}</text>'
    )
    out.append(
        f'<text class="title" x="14" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2})">{html.escape(up.title)}</text>'
    )
    for value, name in marks:
        if x_low <= value <= x_high:
            x = x_at(value)
            out.append(
                f'<line class="mark" stroke="#b3261e" stroke-dasharray="4 3" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            )
            out.append(f'<text class="title" x="{x + 3:.1f}" y="{TOP + 9}">{html.escape(name)}</text>')
    for line in lines:
        path, last = [], 0.0
        for i, (a, b) in enumerate(line.points):
            if line.step and i:
                path.append(f"L{x_at(a):.1f} {y_at(last):.1f}")
            path.append(f"{'L' if i else 'M'}{x_at(a):.1f} {y_at(min(b, y_high)):.1f}")
            last = b
        look, style = _look(line)
        out.append(
            f'<path class="series {look}" data-row="{line.index}" d="{"".join(path)}"{style}>'
            f"<title>{html.escape(line.label)}</title></path>"
        )
    if standalone:
        out += [_entry(line, i, abreast) for i, line in enumerate(lines)]
    out.append("</svg>")
    return "".join(out)


def _look(line: Line) -> tuple[str, str]:
    """The class and the dashes of *line*."""
    if line.reference:
        return "reference", ' stroke-dasharray="2 4"'
    dash = DASHES[line.index // COLOURS % len(DASHES)]
    return f"c{line.index % COLOURS}", f' stroke-dasharray="{dash}"' if dash else ""


def _entry(line: Line, place: int, abreast: int) -> str:
    """The legend's entry number *place*, *abreast* of them to a line below the chart."""
    x, y = 20 + (place % abreast) * (WIDTH - 20) / 2, HEIGHT + 10 + 18 * (place // abreast)
    look, style = _look(line)
    return (
        f'<path class="series {look}" d="M{x:.0f} {y}h26"{style}/>'
        f'<text class="title" x="{x + 32:.0f}" y="{y + 4}">{html.escape(line.label)}</text>'
    )


def swatch(index: int) -> str:
    """The look of series *index* as a short line, for legends and tables."""
    dash = DASHES[index // COLOURS % len(DASHES)]
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<svg class="swatch" viewBox="0 0 24 8" aria-hidden="true"><path class="series c{index % COLOURS}" d="M1 4H23"{style}/></svg>'


STYLE = (
    "<style>.chart{font:12px sans-serif}.paper{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#555}.tick,.title{fill:#333}"
    ".series{fill:none;stroke-width:2}.c0{stroke:#1f5fb4}.c1{stroke:#c2570c}.c2{stroke:#1b7f4b}.c3{stroke:#a3297c}"
    ".c4{stroke:#6b5b00}.c5{stroke:#0e7c86}.c6{stroke:#8a3ffc}.c7{stroke:#b3261e}.reference{stroke:#555}</style>"
)
