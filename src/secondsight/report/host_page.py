"""The page of a recorded host: who grew, who was refused, what changed at a marked moment. It looks and works as compare's page does.

host.html with    answer, facts, table, charts, refusals, changes, definitions: written here, readable without scripts
                  page.css, page.js: compare's own, inlined
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from secondsight import __version__
from secondsight.report.host_charts import DRAWN, as_html, charts, refuses, unit_of
from secondsight.report.host_history import HostHistory, MarkedMoment, Moved, RecordedRow, Sampled, Timeline
from secondsight.report.metrics import text
from secondsight.report.page import asset, fill, within_limit
from secondsight.report.svg import swatch
from secondsight.report.table import whole

#: who moved less than this at a mark is left out
_LEAST = 1 << 20


class _Column(NamedTuple):
    """*title*, *form* and *definition* of a column of the table; *value* of a row; *extra*: only among all figures."""

    title: str
    form: str
    definition: str
    value: Callable[[RecordedRow], float | Sampled | None]
    extra: bool = False


_COLUMNS = (
    _Column("grew", "bytes", "Resident in its last pass, less that in its first.", lambda row: row.grown),
    _Column("resident", "bytes", "Memory mapped, in its last pass. Of a process Rss; of a cgroup or container what is charged to it and "
            "mapped; of a VM, user or name Pss.", lambda row: row.resident[-1]),
    _Column("huge grew", "bytes", "Huge memory in its last pass, less that in its first.", lambda row: row.grown_huge),
    _Column("huge", "bytes", "Memory that a PMD maps as a whole, in its last pass.", lambda row: row.huge[-1]),
    _Column("huge %", "share", "huge / resident, in its last pass.",
            lambda row: row.huge[-1] / row.resident[-1] if row.resident[-1] else None),
    _Column("could be huge", "bytes", "Under the switches as they were, in its last pass: blocks against which nothing speaks.",
            lambda row: row.now),
    _Column("gain", "bytes", "Of what could be huge under either set of switches: memory that is known to be used.", lambda row: row.gain),
    _Column("would add", "bytes", "Memory that making all of it huge would add: holes and zero pages filled, shared pages copied.",
            lambda row: row.added, True),
    _Column("wasted", "count", "Blocks whose next visit ends in a wasted pass: the scan passes, a huge page is allocated, isolate refuses.",
            lambda row: row.wasted, True),
    _Column("most", "bytes", "The most that was resident in any pass.", lambda row: max(row.resident), True),
    _Column("least", "bytes", "The least that was resident in any pass.", lambda row: min(row.resident), True),
)  # fmt: skip
_WORDS = {
    "before, after": "Medians over the passes of a window: from the mark before (or the beginning) to this one, and from it to the next "
    "(or the end).",
    "came, gone": "The row was not in the recording's first pass, or not in its last; at a mark: in the passes of one window alone.",
    "by itself": "How far huge memory went up and down in the window before, unmarked: a change no larger than that shows little.",
    "±": "Half of the interval that a sampled figure lies in, in at least 95 of 100 samples. Where those before and after touch, the "
    "sample shows no change.",
}


def render(history: HostHistory) -> str:
    """The page for *history*, as HTML."""
    return fill(asset("host.html"), {
        "TOOL": f"SecondSight {__version__}",
        "TITLE": as_html(history.title),
        "ANSWER": as_html(answer(history)),
        "FACTS": as_html(_facts(history)),
        "TABLE": _table(history),
        "OTHERS": _left_out(history),
        "CHARTS": charts(history),
        "REFUSED": _refused(history),
        "CHANGES": _changes(history),
        "DEFINITIONS": _definitions(),
        "PROVENANCE": "".join(f'<dt>{html.escape(k)}</dt><dd class="code">{as_html(v)}</dd>' for k, v in history.about.items()),
        "CSS": asset("page.css"),
        "JS": asset("page.js"),
    })  # fmt: skip


def write(history: HostHistory, path: str | os.PathLike[str]) -> int:
    """Write the page to *path*, whole or not at all; returns its size in bytes.

    :raises UsageError: the page would be larger than it may be, or cannot be written.
    """
    raw = within_limit(render(history), "show fewer rows (--top)")
    whole(path, raw)
    return len(raw)


def answer(history: HostHistory) -> str:
    """Two to four plain sentences."""
    total = history.total
    out = []
    if total is not None:
        out.append(
            f"Of {text(total.resident[-1], 'bytes')} resident {text(total.huge[-1], 'bytes')} are huge at the end; "
            f"at the beginning {text(total.huge[0], 'bytes')} of {text(total.resident[0], 'bytes')} were."
        )
    most = max(history.rows, key=lambda row: row.grown, default=None)
    if most is not None and most.grown > 0:
        out.append(
            f"Most grew {most.label}, by {text(most.grown, 'bytes')} to {text(most.resident[-1], 'bytes')}."
        )
    elif history.rows:
        out.append("Nobody grew.")
    if total is not None and total.refused and total.refused[0].last:
        top = total.refused[0]
        out.append(f"Most memory, {text(top.last, 'bytes')}, stayed small for: {top.words or top.status}.")
    moved = [
        change
        for change in history.changes
        if change.rows and not change.rows[0].note and _by(change.rows[0])
    ]
    if moved:
        last = max(moved, key=lambda change: abs(_by(change.rows[0])))
        row = last.rows[0]
        out.append(
            f"After {_called(last)} huge memory of {row.label} went from {text(row.huge[0], 'bytes')} to {text(row.huge[1], 'bytes')}."
        )
    return " ".join(out)


def _by(row: Moved) -> float:
    return row.huge[1] - row.huge[0]


def _called(change: MarkedMoment) -> str:
    return f"“{change.text}”" if change.text else f"mark {change.number}"


def _facts(history: HostHistory) -> str:
    passes = f"{history.passes:,} pass{'es' if history.passes != 1 else ''}"
    unit, name = unit_of(history.span)
    many = len(history.changes) + history.marks_left_out
    facts = [f"{passes} over {history.span / unit:.1f} {name}, from {history.begun}", f"a row a {history.by}"]
    facts.append(f"{many} marked moment{'s' if many != 1 else ''}")
    facts.append(" ".join(f"{name}={word}" for name, word in history.switches.items()) + " at the end")
    return "; ".join(facts) + "."


def _table(history: HostHistory) -> str:
    out = [f'<table><thead><tr><th scope="col"><button type="button">{html.escape(history.by)}</button></th>']
    out += [
        f'<th scope="col"{_hidden(column)} title="{html.escape(column.definition)}"><button type="button">{column.title}</button></th>'
        for column in _COLUMNS
    ]
    out.append("</tr></thead><tbody>")
    rows = sorted(history.rows, key=lambda row: -row.grown)
    for index, row in enumerate(rows):
        out.append(
            f'<tr data-row="{index}"><td>{swatch(index) if index < DRAWN else ""}{as_html(row.label)}{_note(row.note)}</td>'
        )
        for column in _COLUMNS:
            value = column.value(row)
            number = value.value if isinstance(value, Sampled) else value
            style = ""
            if column.form == "share" and number is not None:
                style = f' style="background:linear-gradient(90deg,var(--bar) {100 * min(number, 1):.1f}%,transparent 0)"'
            sort_key = "" if number is None else repr(float(number))
            out.append(f'<td data-v="{sort_key}"{_hidden(column)}{style}>{_cell_text(value, column)}</td>')
        out.append("</tr>")
    return "".join([*out, "</tbody></table>"])


def _note(note: str) -> str:
    return f' <span class="cite">{note}</span>' if note else ""


def _left_out(history: HostHistory) -> str:
    """What the table does not show."""
    sentences = [f"{history.others:,} more that moved less are not shown."] if history.others else []
    if history.empty:
        sentences.append(f"{history.empty:,} without any memory in any pass are left out.")
    return f'<p class="note">{" ".join(sentences)}</p>' if sentences else ""


def _hidden(column: _Column) -> str:
    return ' class="extra"' if column.extra else ""


def _cell_text(value: float | Sampled | None, column: _Column) -> str:
    sign = "+" if "grew" in column.title and isinstance(value, float) and value > 0 else ""
    return sign + _amount(value, column.form)


def _amount(value: float | Sampled | None, form: str = "bytes") -> str:
    """A figure for people; a sampled one with half its interval."""
    if isinstance(value, Sampled):
        half = (value.high - value.low) / 2
        return text(value.value, form) + (f" ±{text(half, form)}" if half else "")
    return text(value, form)


# -- refusals and changes --------------------------------------------------------------------------------------------


def _plain_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A small table of escaped cells."""
    top = "".join(f'<th scope="col"{_left(title)}>{title}</th>' for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td{_left(title)}>{cell}</td>' for title, cell in zip(titles, row, strict=True))}</tr>"
        for row in rows
    )
    return (
        f'<div class="tablebox plain"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _left(title: str) -> str:
    return ' class="words"' if title == "reason" else ""


def _refused(history: HostHistory) -> str:
    rows = [(row.label, each) for row in history.rows for each in row.refused[:1] if each.last]
    out = []
    if rows:
        rows.sort(key=lambda pair: -pair[1].last)
        out.append('<p class="note">Each row\'s most frequent reason in its last pass, with the memory that it keeps small, and how much '
                   "that was in its first.</p>")  # fmt: skip
        out.append(_plain_table(
            (html.escape(history.by), "keeps small", "in its first pass", "reason"),
            ((as_html(label), text(each.last, "bytes"), text(each.first, "bytes"), _reason(each.status, each.words))
             for label, each in rows),
        ))  # fmt: skip
    else:
        out.append(
            '<p class="note">No pass looked at blocks (columns such as now, if or why make it), or nothing stayed small.</p>'
        )
    counted = sorted(
        ((each.name, _times(each)) for each in history.rates if refuses(each.name)),
        key=lambda pair: -pair[1],
    )
    if counted:
        out.append("<h3>What the kernel counted meanwhile</h3>")
        out.append(
            _plain_table(
                ("counter", "times"), ((html.escape(name), text(times, "count")) for name, times in counted)
            )
        )
    return "".join(out)


def _times(series: Timeline) -> float:
    """How often it happened: its rate times the time of each step."""
    if len(series.seconds) < 2:
        return 0.0
    steps = [
        series.seconds[1] - series.seconds[0],
        *(b - a for a, b in zip(series.seconds, series.seconds[1:], strict=False)),
    ]
    return sum(rate * step for rate, step in zip(series.values, steps, strict=True))


def _reason(status: str, words: str) -> str:
    escaped = html.escape(status)
    return (
        escaped
        if not words or words == status
        else f'{escaped}<span class="cite">: {html.escape(words)}</span>'
    )


def _changes(history: HostHistory) -> str:
    if not history.changes:
        return (
            '<p class="note">No moment is marked. <span class="code">secondsight top --record FILE --mark TEXT</span> marks one, during '
            "the recording; a switch that is changed marks itself.</p>"
        )
    out = []
    if history.marks_left_out:
        out.append(f'<p class="note">The {history.marks_left_out:,} earlier marks are left out.</p>')
    return "".join([*out, *(_change(each) for each in history.changes)])


def _change(change: MarkedMoment) -> str:
    title = f"{change.number}. {as_html(change.text) or 'Marked'}"
    out = [
        f'<h3 id="mark-{change.number}">{title} <span class="cite">{html.escape(change.clock)}</span></h3>'
    ]
    before, after = change.passes
    if not before or not after:
        side = "before" if not before else "after"
        return "".join([*out, f'<p class="note">There is no pass {side} it to compare with.</p>'])
    out.append(f'<p class="note">{before:,} pass{"es" if before != 1 else ""} before, {after:,} after.</p>')
    rows = [
        each
        for each in change.rows
        if max(abs(_by(each)), abs(each.resident[1] - each.resident[0])) >= _LEAST
    ]
    if rows:
        titles = (
            "row",
            "huge before",
            "after",
            "change",
            "by itself",
            "resident before",
            "after",
            "could be huge before",
            "after",
        )
        out.append(_plain_table(titles, map(_moved, rows)))
    else:
        out.append('<p class="note">No row moved by 1 MiB.</p>')
    if change.counters:
        out.append(_plain_table(
            ("counter, a second", "before", "after"),
            ((html.escape(each.name), _pace(each.before), _pace(each.after)) for each in change.counters[:10]),
        ))  # fmt: skip
    return "".join(out)


def _moved(row: Moved) -> list[str]:
    """The cells of *row* in the table of a mark."""
    sizes = (*row.huge, row.by_itself, *row.resident)
    before, after, itself, *resident = (text(each, "bytes") for each in sizes)
    now = [_amount(None if row.now is None else row.now[at]) for at in (0, 1)]
    return [
        as_html(row.label) + _note(row.note),
        before,
        after,
        _difference(_by(row)),
        itself,
        *resident,
        *now,
    ]


def _difference(value: float) -> str:
    return f"{'+' if value > 0 else ''}{text(value, 'bytes')}"


def _pace(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _definitions() -> str:
    named = {column.title: column.definition for column in _COLUMNS} | _WORDS
    return "".join(
        f"<dt>{html.escape(title)}</dt><dd>{html.escape(words)}</dd>" for title, words in named.items()
    )


__all__ = ["answer", "render", "write"]
