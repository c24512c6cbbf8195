"""The charts of a recorded host: rows that grew, the host's supply and its counters, with a line at each marked moment."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from secondsight.report.charts import Figure
from secondsight.report.host_history import HostHistory, Timeline
from secondsight.report.svg import Line, swatch

#: rows that are drawn, and counters
DRAWN = 8
#: the first of the looks of lines that are no rows: colours from the beginning again, and no row of the table lights them
_NO_ROW = 24_000
#: what is in the name of a counter whose rise is a refusal or a step back (include/linux/vm_event_item.h)
_REFUSING = ("failed", "fallback", "split", "compact_fail", "compact_stall")


def plain(label: str) -> str:
    """A name on one line, whatever is in it."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in label)


def as_html(words: str) -> str:
    """*words* on one line, as HTML."""
    return html.escape(plain(words))


def unit_of(span: float) -> tuple[float, str]:
    """(seconds, name) of the unit that *span* is told in."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if span >= 2 * unit:
            return unit, name
    return 1.0, "seconds"


def charts(history: HostHistory) -> str:
    """All charts of *history*, with their legends, for the page."""
    unit, name = unit_of(history.span)
    rows = sorted(history.rows, key=lambda row: -row.grown)[:DRAWN]
    marks = [(change.seconds / unit, str(change.number)) for change in history.changes]

    def lines(of: Iterable[tuple[str, Sequence[float], Sequence[float]]], first: int = 0) -> list[Line]:
        return [
            Line(label, list(zip((at / unit for at in seconds), values, strict=True)), first + index)
            for index, (label, seconds, values) in enumerate(of)
        ]

    def series(of: Iterable[Timeline]) -> list[Line]:
        return lines(((each.name, each.seconds, each.values) for each in of), _NO_ROW)

    x_title = f"{name} since {history.begun}"

    def figure(key: str, title: str, note: str, y: str, drawn: list[Line]) -> Figure:
        return Figure(key, title, note, x_title, y, "number", "rate" if y == "a second" else "bytes", drawn,
                      marks=marks, own_legend=any(line.index >= _NO_ROW for line in drawn))  # fmt: skip

    shown = []
    if history.total is not None:
        both = [("resident", history.total.resident), ("huge", history.total.huge)]
        shown.append(figure("total", "All processes", "Each page once.", "memory",
                            lines(((label, history.total.seconds, values) for label, values in both), _NO_ROW)))  # fmt: skip
    shown += [
        figure("resident", "Resident", "Those that grew most.", "resident",
               lines((plain(row.label), row.seconds, row.resident) for row in rows)),
        figure("huge", "Huge", "The same rows.", "huge", lines((plain(row.label), row.seconds, row.huge) for row in rows)),
    ]  # fmt: skip
    if history.amounts:
        shown.append(figure("supply", "The host's supply of huge pages", "free_huge: in free blocks of 2 MiB and more. could_compact: in "
                            "smaller pieces that compaction can gather at best.", "free", series(history.amounts)))  # fmt: skip
    groups = (
        ("Huge pages made and lost", "Counters of vmstat, a second.", lambda key: key.startswith("thp_") and not refuses(key)),
        ("Refused and split", "Counters of vmstat that tell of a refusal, a fallback to small pages or a split, a second.", refuses),
    )  # fmt: skip
    for title, note, wanted in groups:
        chosen = sorted(
            (each for each in history.rates if wanted(each.name)), key=lambda each: -sum(each.values)
        )[:DRAWN]
        if chosen:
            shown.append(figure(title.split()[-1], title, note, "a second", series(chosen)))
    legend = "".join(f'<li data-row="{i}">{swatch(i)}{as_html(row.label)}</li>' for i, row in enumerate(rows))
    mark_list = "; ".join(
        f"<b>{each.number}</b> {as_html(each.text) or 'marked'}" for each in history.changes
    )
    marked = f'<p class="note">Marked: {mark_list}.</p>' if mark_list else ""
    return f'{marked}<ul class="legend">{legend}</ul><div class="charts">{"".join(each.html() for each in shown)}</div>'


def refuses(name: str) -> bool:
    """Whether the counter *name* tells of a refusal, a fallback to small pages, or a split."""
    return any(word in name for word in _REFUSING)
