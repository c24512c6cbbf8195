"""The charts of a comparison: the same in the page, and each as an SVG file of its own.

curves: utility      over time: huge, hot huge, bloat, wasted passes, guest faults      knobs: sensitivity      many traces: spread
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from secondsight.errors import UsageError
from secondsight.report.metrics import METRICS, SENSITIVE, text
from secondsight.report.schema import Packed, Results, Row
from secondsight.report.svg import Axis, Line, chart, swatch
from secondsight.report.table import whole

Form = Literal["count", "share", "bytes", "seconds", "index", "number", "rate"]

#: Figures whose spread over many traces is drawn.
SPREAD = ("coverage", "bloat", "wasted_passes", "overhead_nested")

CLOCK = "time, by khugepaged's clock"

MIB, GIB = float(1 << 20), float(1 << 30)

#: Rows that are drawn; more than that nobody can tell apart.
MOST = 24


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart: *name* is its file's, *x* and *y* say how values are printed."""

    name: str
    title: str
    note: str
    x_title: str
    y_title: str
    x: Form
    y: Form
    lines: Sequence[Line] = field(default_factory=list)
    y_max: float | None = None
    #: (x, name) of moments that are marked
    marks: Sequence[tuple[float, str]] = ()
    #: its lines are not the rows of the table: it has a legend of its own
    own_legend: bool = False

    def svg(self, *, standalone: bool = False) -> str:
        """The chart; *standalone*: with title, legend and colours of its own."""
        return chart(
            self.lines, Axis(self.x_title, tick_printer(self.x)), Axis(self.y_title, tick_printer(self.y), self.y_max, self._unit()),
            standalone=self.title if standalone else "", marks=self.marks,
        )  # fmt: skip

    def _unit(self) -> float:
        """What a round number of the vertical axis is counted in."""
        if self.y != "bytes":
            return 1.0
        most = self.y_max or max((y for line in self.lines for _, y in line.points), default=0.0)
        return GIB if most >= 2 * GIB else MIB

    def html(self) -> str:
        """The figure for the page; its attributes tell the page's script how to print the cross-hair's values."""
        step = int(any(line.step for line in self.lines))
        legend = ""
        if self.own_legend:
            entries = "".join(
                f'<li data-row="{line.index}">{swatch(line.index)}{html.escape(line.label)}</li>'
                for line in self.lines
            )
            legend = f'<ul class="legend">{entries}</ul>'
        return (
            f'<figure data-x="{self.x}" data-y="{self.y}" data-step="{step}"><figcaption>{html.escape(self.title)}</figcaption>'
            f'{self.svg()}{legend}<p class="note">{html.escape(self.note)}</p></figure>'
        )


def tick_printer(form: Form) -> Callable[[float], str]:
    """What writes a value of *form* beside a tick of an axis."""
    if form == "share":
        return lambda v: f"{100 * v:.0f} %"
    if form == "bytes":
        return lambda v: _round(text(v, form))
    if form == "seconds":
        return lambda v: f"{v:g} s" if v >= 1 or not v else _round(text(v, form))
    if form == "count":
        return lambda v: text(v, "count") if v == round(v) else f"{v:g}"
    return lambda v: f"{v:g}"


def _round(words: str) -> str:
    """A tick's text without the decimal that says nothing: beside the axis there is no room for it."""
    return words.replace(".0 ", " ")


def figures(results: Results) -> list[Figure]:
    """Every chart that *results* have something for, in the order of the page."""
    out = _curves(results)
    out += _over_time(results.rows[:MOST])
    for knob in results.sensitivity:
        out += _sensitivity(results, knob)
    return out + _spread(results)


def _curves(results: Results) -> list[Figure]:
    curves = [Line(r.label, [(0.0, 0.0), *r.curve], i) for i, r in enumerate(results.rows[:MOST]) if r.curve]
    if results.oracle:
        curves.append(
            Line("knowing the future", [(0.0, 0.0), *results.oracle], len(results.rows), reference=True)
        )
    if not curves:
        return []
    return [
        Figure(
            "utility",
            "Was the memory well chosen?",
            "Share of all accesses that fall on the first blocks a policy made huge, in its own order, had they been huge from the start. "
            "Dotted: the best choice possible.",
            "share of the footprint made huge", "share of accesses", "share", "share", curves, 1.0,
        )
    ]  # fmt: skip


def _over_time(rows: Sequence[Row]) -> list[Figure]:
    steps = [(i, r) for i, r in enumerate(rows) if r.seconds.shape[0] > 1]

    def lines(pick: Callable[[Row], Packed | None]) -> list[Line]:
        out = []
        for i, r in steps:
            if (packed := pick(r)) is not None:
                points = list(zip(r.seconds.array().tolist(), packed.array().tolist(), strict=True))
                out.append(Line(r.label, points, i, step=True))
        return out

    if not steps:
        return []
    out = [
        Figure("huge", "Huge blocks over time", "After each wake-up.", CLOCK, "huge blocks", "seconds", "count",
               lines(lambda r: r.huge)),
        Figure("bloat", "Bloat over time", METRICS["bloat"].definition, CLOCK, "bloat", "seconds", "bytes", lines(lambda r: r.bloat)),
    ]  # fmt: skip
    if hot := lines(lambda r: r.hot):
        out.insert(1, Figure(
            "hot", "Hot blocks made huge over time",
            "Blocks with a hot page (the fewest pages that together take 90 % of the accesses) that have been made huge so far.",
            CLOCK, "hot blocks", "seconds", "count", hot,
        ))  # fmt: skip
    wasted = lines(lambda r: r.wasted)
    if any(line.points[-1][1] for line in wasted):
        out.append(Figure("wasted", "Wasted passes over time", METRICS["wasted_passes"].definition, CLOCK, "wasted passes",
                          "seconds", "count", wasted))  # fmt: skip
    refused = lines(lambda r: r.refused)
    if any(r.refused is not None and r.refused != r.wasted for _, r in steps):
        out.append(Figure("refused", "Refused collapses over time", METRICS["refused_collapses"].definition, CLOCK, "refused collapses",
                          "seconds", "count", refused))  # fmt: skip
    faults = lines(lambda r: r.guest_faults)
    if any(line.points[-1][1] for line in faults):
        out.append(Figure("faults", "Guest faults over time", METRICS["guest_faults"].definition, CLOCK, "guest faults",
                          "seconds", "count", faults))  # fmt: skip
    return out


def _look(results: Results, label: str) -> int:
    """The number whose look a line called *label* has: its row's; for a sensitivity curve that of the first row it runs through."""
    labels = [row.label for row in results.rows]
    if label in labels:
        return labels.index(label)
    return next((i for i, row in enumerate(labels) if row.startswith(f"{label} ")), len(labels))


def _sensitivity(results: Results, knob: str) -> list[Figure]:
    out = []
    for key in SENSITIVE:
        metric = METRICS[key]
        lines = [
            Line(label, points, _look(results, label))
            for label, points_of in results.sensitivity[knob].items()
            if (points := [(x, float(v)) for x, values in points_of if (v := values.get(key)) is not None])
        ]
        # A figure that no value of the knob moves is no picture.
        if any(len({v for _, v in line.points}) > 1 for line in lines):
            out.append(Figure(
                f"{knob}-{key}", f"{_capital(metric.title)} against {knob}", "One replay for each point.", knob,
                metric.title, "number", metric.form, lines,
            ))  # fmt: skip
    return out


def _spread(results: Results) -> list[Figure]:
    out = []
    for key in SPREAD:
        metric = METRICS[key]
        lines = [
            Line(row.label, points, i, step=True)
            for i, row in enumerate(results.rows[:MOST])
            if (points := results.spread.get(key, {}).get(row.label))
        ]
        if any(line.points[-1][1] for line in lines):
            out.append(Figure(
                f"spread-{key}", f"{_capital(metric.title)} over the traces",
                "The traces from least to most: how many of them have at most this much.", "share of the traces", metric.title, "share",
                metric.form, lines,
            ))  # fmt: skip
    return out


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def page(results: Results) -> str:
    """All charts and their legend, for the page."""
    shown = "".join(figure.html() for figure in figures(results))
    legend = "".join(
        f'<li data-row="{i}">{swatch(i)}{html.escape(r.label)}</li>'
        for i, r in enumerate(results.rows[:MOST])
    )
    more = len(results.rows) - MOST
    if more > 0:
        shown += f'<p class="note">Drawn are the first {MOST} rows of the table; {more} more stand in it.</p>'
    return f'<div class="charts">{shown}</div><ul class="legend">{legend}</ul>'


def write_svg(results: Results, directory: str | os.PathLike[str]) -> list[Path]:
    """Each chart as ``NAME.svg`` under *directory* (made where it is missing); the paths.

    :raises UsageError: something cannot be written.
    """
    where = Path(directory)
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{where}: cannot be made: {error.strerror}") from None
    out = []
    for figure in figures(results):
        whole(where / f"{figure.name}.svg", figure.svg(standalone=True).encode())
        out.append(where / f"{figure.name}.svg")
    return out


__all__ = ["Figure", "figures", "page", "write_svg"]
