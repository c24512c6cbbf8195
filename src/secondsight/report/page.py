"""The report: one self-contained page that opens from a file, prints, and needs no network.

page.html with    answer, facts, table, charts, definitions, provenance: written here, readable without scripts
                  page.css, page.js, the data: inlined
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec

from secondsight.errors import UsageError
from secondsight.report import charts
from secondsight.report.metrics import METRICS, SHOWN, text
from secondsight.report.schema import CHANNELS, Results, Row
from secondsight.report.svg import swatch
from secondsight.report.table import by_size, by_size_matters, whole

#: Bytes a page may have: a browser still opens it at once, and it can be sent to someone.
LIMIT: Final = 10 * 1000 * 1000
_NAMES: Final = {"primary": "PRIMARY", "referenced": "REFERENCED", "secondary": "SECONDARY"}


def render(results: Results) -> str:
    """The page for *results*, as HTML."""
    parts = {
        "TOOL": html.escape(results.provenance.tool),
        "TITLE": html.escape(results.title),
        "ANSWER": html.escape(results.answer),
        "FACTS": _facts(results),
        "TABLE": _table(results.rows),
        "SIZES": _sizes(results.rows),
        "CHARTS": charts.page(results),
        "DEFINITIONS": _definitions(results),
        "PROVENANCE": _provenance(results),
        "DATA": _data(results),
        "CSS": asset("page.css"),
        "JS": asset("page.js"),
    }
    page = asset("page.html")
    if not results.blocks.space.shape[0]:
        # Over many traces there is no map to draw.
        page = page[: page.index('<h2 id="map">')] + page[page.index('<h2 id="definitions">') :]
        page = page.replace(" A row chooses what the map below shows.", "")
    return fill(page, parts)


def fill(page: str, parts: Mapping[str, str]) -> str:
    """*page* with each ``@@NAME@@`` replaced by its part."""
    # Split at the markers first: a value may hold text that looks like one.
    pieces = page.split("@@")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def write(results: Results, path: str | os.PathLike[str]) -> int:
    """Write the page to *path*, whole or not at all; returns its size in bytes.

    :raises UsageError: the page would be larger than it may be.
    """
    raw = within_limit(render(results), "compare fewer rows, or use -o")
    whole(path, raw)
    return len(raw)


def within_limit(page: str, mend: str) -> bytes:
    """*page* as bytes; *mend*: how it would be smaller.

    :raises UsageError: it is larger than a page may be.
    """
    raw = page.encode()
    if len(raw) > LIMIT:
        raise UsageError(f"the report would have {len(raw) / 1e6:.1f} MB, over 10: {mend}")
    return raw


def asset(name: str) -> str:
    """The text of a file of this package."""
    return (files("secondsight.report") / name).read_text(encoding="utf-8")


def _facts(results: Results) -> str:
    p = results.provenance
    blocks = results.blocks.space.shape[0]
    if not blocks:
        return html.escape(
            f"{text(p.accesses, 'count')} accesses over {text(p.seconds, 'seconds')}; {p.trace}."
        )
    facts = [
        f"{text(p.accesses, 'count')} accesses to {text(blocks, 'count')} blocks of 2 MiB over {text(p.seconds, 'seconds')}"
        + (f", each of which stands for {p.time_scale:g} of khugepaged's" if p.time_scale != 1 else ""),
        f"{len(results.spaces)} address space{'s' if len(results.spaces) != 1 else ''}",
    ]
    if p.unseen:
        facts.append(f"not seen by the recording: {', '.join(p.unseen)}")
    return html.escape("; ".join(facts) + ".")


def _table(rows: Sequence[Row]) -> str:
    best = {
        key: _best([row.metrics.get(key) for row in rows if row.policy not in ("oracle", "never")], m.better)
        for key, m in METRICS.items()
    }
    known = [key for key in METRICS if any(row.metrics.get(key) is not None for row in rows)]
    out = ['<table><thead><tr><th scope="col"><button type="button">policy under profile</button></th>']
    for key in known:
        metric = METRICS[key]
        hidden = "" if key in SHOWN else ' class="extra"'
        out.append(
            f'<th scope="col"{hidden} title="{html.escape(metric.definition)}">'
            f'<button type="button">{html.escape(metric.title)}</button></th>'
        )
    out.append("</tr></thead><tbody>")
    for index, row in enumerate(rows):
        why = f'<br><span class="note">not run: {html.escape(row.not_run)}</span>' if row.not_run else ""
        out.append(f'<tr data-row="{index}"><td>{swatch(index)}{html.escape(row.label)}{why}</td>')
        for key in known:
            value, metric = row.metrics.get(key), METRICS[key]
            classes = ["extra"] if key not in SHOWN else []
            if (
                value is not None
                and value == best[key]
                and len(rows) > 2
                and row.policy not in ("oracle", "never")
            ):
                classes.append("best")
            style = ""
            if metric.form == "share" and key in SHOWN and value is not None:
                style = f' style="background:linear-gradient(90deg,var(--bar) {100 * min(value, 1):.1f}%,transparent 0)"'
            shown = f' class="{" ".join(classes)}"' if classes else ""
            out.append(
                f'<td data-v="{"" if value is None else repr(float(value))}"{shown}{style}>{html.escape(text(value, metric.form))}</td>'
            )
        out.append("</tr>")
    out.append("</tbody></table>")
    return "".join(out)


def _sizes(rows: Sequence[Row]) -> str:
    """What was tried by size, where smaller ones than a block were."""
    if not by_size_matters(rows):
        return ""
    heads = ("policy under profile", "size", "begun", "refused", "allocations", "invalidations")
    out = ["<h3>Collapses tried, by size</h3><div class='scroll'><table class='sizes'><thead><tr>"]
    out += [f'<th scope="col">{head}</th>' for head in heads]
    out.append("</tr></thead><tbody>")
    for index, row in enumerate(rows):
        for at, (size, each) in enumerate(by_size(row)):
            label = f"{swatch(index)}{html.escape(row.label)}" if not at else ""
            counts = (each.begun, each.refused, each.allocations, each.invalidations)
            cells = "".join(f"<td>{html.escape(text(count, 'count'))}</td>" for count in counts)
            out.append(f"<tr><td>{label}</td><td>{html.escape(size)}</td>{cells}</tr>")
    out.append(
        '</tbody></table></div><p class="note">Each attempt allocates a folio of its size, and unmaps its range from the secondary MMUs '
        "before it can be refused.</p>"
    )
    return "".join(out)


def _best(values: Iterable[float | None], better: str) -> float | None:
    known = [v for v in values if v is not None]
    if not known or better == "neither" or max(known) == min(known):
        return None
    return max(known) if better == "more" else min(known)


def _definitions(results: Results) -> str:
    return "".join(
        f'<dt id="m-{m.key}">{html.escape(m.title)}<span class="code">{m.key}</span></dt><dd>{html.escape(m.definition)}</dd>'
        for m in results.metrics
    )


def _provenance(results: Results) -> str:
    p = results.provenance
    facts: list[tuple[str, str]] = [("made by", p.tool)]
    if p.command:
        facts.append(("command", p.command))
    facts += [("trace", p.trace), ("recorded with", p.source), ("content hash", p.trace_hash)]
    facts += [("rows of the trace", text(p.rows, "count")), ("time scale", f"{p.time_scale:g}")]
    facts += [(f"host: {k}", str(v)) for k, v in sorted(p.config.items())]
    if p.seed is not None:
        facts.append(("seed", str(p.seed)))
    facts += [("note", note) for note in p.notes]
    facts.append(("schema", f"results version {results.schema}"))
    return "".join(f'<dt>{html.escape(k)}</dt><dd class="code">{html.escape(v)}</dd>' for k, v in facts if v)


def _data(results: Results) -> str:
    rows: list[dict[str, Any]] = []
    for row in results.rows:
        seconds = row.seconds.array()
        rows.append({
            "label": row.label,
            "end": float(seconds[-1]) if len(seconds) else 1.0,
            "channels": row.channels,
            "fate": row.fate,
            "split": row.split,
            "events": row.events,
            "refusals": row.refusals,
        })  # fmt: skip
    # The first row that is neither bound: what a reader wants to see first.
    first = next(
        (
            i
            for i, row in enumerate(results.rows)
            if row.policy not in ("never", "oracle") and not row.not_run
        ),
        0,
    )
    data = {
        "rows": rows,
        "blocks": results.blocks,
        "spaces": results.spaces,
        "verdicts": results.verdicts,
        "channels": {key: _NAMES[key] for key in CHANNELS},
        "first": first,
    }
    # "</script>" cannot stand inside a script element.
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


__all__ = ["LIMIT", "asset", "fill", "render", "within_limit", "write"]
