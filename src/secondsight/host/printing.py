"""A pass over the host as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.cells import cell_len, set_cell_size

from secondsight.host.columns import COLUMNS, size, text
from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow
from secondsight.host.survey import HostView
from secondsight.host.tasks import KERNEL_THREAD, ZOMBIE
from secondsight.plural import pluralize
from secondsight.predict.at_most import Bounds
from secondsight.terminal import printable

#: the widest that a column of words gets where the width is limited, but for the last
WORDS = 24


def head(view: HostView, matched: int, width: int | None = None, names: Sequence[str] = ()) -> list[str]:
    """What stands over the rows, in lines of at most *width* cells: what was read and how, the supply of huge pages, what was left out, and
    why a column of *names* is unknown."""
    lines = _head(view, matched)
    if "saves" in names and view.unpriced:
        lines.append(f"saves is unknown: {view.unpriced}")
    return (
        lines
        if width is None
        else [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]
    )


def _head(view: HostView, matched: int) -> list[str]:
    processes = view.total.processes if view.total else 0
    how = ""
    if view.source and view.total is not None and view.total.share_read is not None:
        share = view.total.share_read
        how = f" from {view.source}; of the blocks in question {'all' if share == 1 else f'{100 * share:.0f} %'} read"
        how += "" if share == 1 else ", the rest by sample"
    rows = "" if matched == len(view.rows) else f", {matched} of {len(view.rows)} rows shown"
    lines = [
        f"kernel {view.kernel}: {pluralize(processes, 'process', 'processes')}{rows}, {view.cpu_seconds:.2f} s of CPU{how}"
    ]
    supply = view.supply
    free = size(supply.free_huge_bytes) if supply.memory is not None else "?"
    gather = "" if supply.could_compact is None else f" (compaction: up to {size(supply.could_compact)} more)"
    now, then = view.now, view.then
    switches = (
        f"enabled={now['enabled']} shmem_enabled={now['shmem_enabled']} max_ptes_none={now['max_ptes_none']}"
    )
    changed = " ".join(f"{name}={value}" for name, value in then.items() if value != now[name])
    lines.append(
        f"free in huge blocks {free}{gather}; {switches}"
        + (f"; if: {changed}" if view.source and changed else "")
    )
    if view.trouble:
        lines.append("left out: " + left_out(view.trouble))
    return lines


def sorted_first(names: tuple[str, ...], sort: str | None) -> tuple[str, ...]:
    """*names* with the column that rows are sorted by among the first, so that little room leaves it in sight."""
    name = (sort or "").removeprefix("-")
    if name not in names:
        return names
    naming = [each for each in names if each in ("pid", "name", name)]
    return (*naming, *(each for each in names if each not in naming))


def lines(rows: Sequence[HostRow], names: Sequence[str], width: int | None) -> list[str]:
    """*rows* as a table, its title first. No wider than *width* cells: the last columns are left out, then words are cut."""
    titles = [COLUMNS[name].title for name in names]
    cells = [
        [printable(text(COLUMNS[name].value(row), COLUMNS[name].form)) for name in names] for row in rows
    ]
    widths = [max(map(cell_len, column)) for column in zip(titles, *cells, strict=True)]
    worded = [COLUMNS[name].words for name in names]
    if width is not None:
        widths = [min(each, WORDS) if words else each for each, words in zip(widths, worded, strict=True)]
        kept, taken = 0, -1
        for each in widths:
            if kept and taken + 1 + each > width:
                break
            taken, kept = taken + 1 + each, kept + 1
        if worded[kept - 1]:
            widest = max(cell_len(row[kept - 1]) for row in [titles, *cells])
            widths[kept - 1] = min(widest, widths[kept - 1] + width - taken)
        elif kept < len(names) and worded[kept] and width - taken > 12:
            widths[kept], kept = width - taken - 1, kept + 1
        widths[0] = min(widths[0], width)
        widths = widths[:kept]
    return [
        " ".join(
            _cell(cell, each, words) for cell, each, words in zip(row, widths, worded, strict=False)
        ).rstrip()
        for row in [titles, *cells]
    ]


def shorten(content: str, width: int) -> str:
    """*content* in at most *width* cells, ``~`` for the rest: of a path its front, since the end tells it from others."""
    if not width:
        return ""
    if cell_len(content) <= width:
        return content
    if not content.startswith("/"):
        return set_cell_size(content, width - 1) + "~"
    start = len(content)
    while start and cell_len(content[start - 1 :]) < width:
        start -= 1
    return f"~{content[start:]}"


def _cell(content: str, width: int, words: bool) -> str:
    content = shorten(content, width)
    space = " " * (width - cell_len(content))
    return content + space if words else space + content


def to_json(view: HostView, rows: Sequence[HostRow]) -> str:
    """All of *view* as JSON, with *rows* in place of its own; schema in ``docs/host.md``."""

    def whole(row: HostRow | None) -> Any:
        return None if row is None else msgspec.to_builtins(row) | {"share": row.share}

    fields = msgspec.structs.asdict(view) | {"rows": [whole(row) for row in rows], "total": whole(view.total)}
    return msgspec.json.encode(_clean(msgspec.to_builtins(fields, str_keys=True))).decode()


def _clean(value: Any) -> Any:
    """*value* with lone surrogates, which bytes of no encoding became, as question marks: JSON and CSV have no form for them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    return value


def to_csv(rows: Sequence[HostRow], names: Sequence[str], *, escaped: bool = False) -> str:
    """*rows* as CSV (RFC 4180) with a line of names; a column that can be sampled is three: value, ``_low`` and ``_high``,
    one of bounds the latter two. *escaped*: for people, words without control characters and newlines."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([title for name in names for title in _titles(name)])
    for row in rows:
        line: list[Any] = []
        for name in names:
            value = COLUMNS[name].value(row)
            if isinstance(value, Interval):
                line += [round(value.value), round(value.low), round(value.high)]
            elif isinstance(value, Bounds):
                line += [round(value.low, 4), round(value.high, 4)]
            else:
                line += ["" if value is None else printable(value) if escaped else _clean(value)] + [""] * (
                    len(_titles(name)) - 1
                )
        writer.writerow(line)
    return out.getvalue()


def _titles(name: str) -> list[str]:
    if COLUMNS[name].bounded:
        return [f"{name}_low", f"{name}_high"]
    return [name, f"{name}_low", f"{name}_high"] if COLUMNS[name].sampled else [name]


def left_out(trouble: Mapping[str, int]) -> str:
    """Processes that were not read, counted by what stood in the way: ``1 zombie, 59 kernel threads``."""
    return ", ".join(
        f"{count:,} {what.removesuffix('s') if count == 1 and what in (KERNEL_THREAD, ZOMBIE) else what}"
        for what, count in trouble.items()
    )


def definitions(names: Sequence[str]) -> list[str]:
    """What each of the columns *names* means."""
    return [f"{name:<11} {COLUMNS[name].title!r}: {COLUMNS[name].meaning}" for name in names]


__all__ = ["definitions", "head", "left_out", "lines", "to_csv", "to_json"]
