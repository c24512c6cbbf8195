"""Results as a table: for a terminal, as CSV, as Parquet; one row a combination."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from secondsight import atomicfile
from secondsight.geometry import PMD_ORDER, kb_of_order
from secondsight.report.metrics import METRICS, SENSITIVE, SHOWN, text
from secondsight.report.schema import SCHEMA, Attempts, Results, Row
from secondsight.terminal import markup

_BREAK = re.compile(r"(?<=-)| |(?=[+,=])")

#: Where a Parquet table keeps the schema version and the provenance.
KEY = b"secondsight.results"


def terminal(results: Results, *, everything: bool = False) -> Table:
    """A Rich table of the figures one reads first, or of *everything*; figures unknown in all rows are left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy under profile", no_wrap=True)
    keys = [key for key in METRICS if everything or key in SHOWN]
    keys = [key for key in keys if any(row.metrics.get(key) is not None for row in results.rows)]
    for key in keys:
        table.add_column(METRICS[key].title, justify="right")
    for row in results.rows:
        table.add_row(markup(row.label), *(text(row.metrics.get(key), METRICS[key].form) for key in keys))
    return table


def those_not_run(rows: Sequence[Row]) -> list[str]:
    """A line for each of *rows* that could not be run: which, and why."""
    return [f"{row.label}: not run, {row.not_run}" for row in rows if row.not_run]


def side_by_side(columns: Sequence[str], rows: Sequence[tuple[str, str, Sequence[float | None]]]) -> Table:
    """A Rich table with a column for each of *columns* and a line for each of *rows*: (title, form as of a metric, values)."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name in columns:
        # Six columns fit into 80 characters: a long name goes on several lines.
        table.add_column(
            markup(name) if len(name) < 8 else _BREAK.sub("\n", markup(name)), justify="right", no_wrap=True
        )
    for title, form, values in rows:
        style = "dim" if title.startswith(" ") else None
        table.add_row(markup(title), *(text(value, form) for value in values), style=style)
    return table


def attempts(results: Results) -> Table | None:
    """What khugepaged tried, by order: a row for each order of each combination; None where it tried whole blocks alone."""
    if not by_size_matters(results.rows):
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("collapses tried, by size", no_wrap=True)
    for title in ("size", "begun", "refused", "allocations", "invalidations"):
        table.add_column(title, justify="right")
    for row in results.rows:
        for at, (size, each) in enumerate(by_size(row)):
            counts = (each.begun, each.refused, each.allocations, each.invalidations)
            table.add_row(
                markup(row.label) if not at else "", size, *(text(count, "count") for count in counts)
            )
    return table


def by_size_matters(rows: Sequence[Row]) -> bool:
    """Whether a size below a block's was tried under any of *rows*."""
    return any(order != str(PMD_ORDER) for row in rows for order in row.attempts)


def by_size(row: Row) -> list[tuple[str, Attempts]]:
    """What was tried under *row*: (``64 KiB``, counts), the largest size first."""
    return [
        (text(kb_of_order(order) << 10, "bytes").replace(".0", ""), row.attempts[str(order)])
        for order in sorted(map(int, row.attempts), reverse=True)
    ]


#: Passes that are shown, where there are that many; and the last.
PASSES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


def _at_passes(row: Row, passes: Sequence[int]) -> list[int]:
    """The wake-up at which each of *passes* was complete, len of the series where it never was; and the last."""
    assert row.passes is not None
    done = row.passes.array()
    return [*np.searchsorted(done, passes).tolist(), len(done) - 1]


def by_pass(results: Results) -> list[Table]:
    """Tables of what stood after each pass of khugepaged over everything: rows that it worked on, some of the passes as columns."""
    rows = [r for r in results.rows if r.passes is not None and r.passes.array().max(initial=0) > 0]
    if not rows:
        return []
    most = max(int(r.passes.array()[-1]) for r in rows if r.passes is not None)
    passes = [p for p in PASSES if p <= most]
    floor = next((r for r in results.rows if r.policy == "never"), None)
    beyond = " beyond never's" if floor else ""
    out = []
    for name, title, form in (
        ("hot", "hot blocks made huge", "count"), ("bloat", "bloat", "bytes"), ("wasted", "wasted passes over a block", "count"),
        ("refused", "refused collapses", "count"), ("guest_faults", f"guest faults{beyond}", "count"),
    ):  # fmt: skip
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(f"{title}, after pass", no_wrap=True)
        for number in (*passes, "end"):
            table.add_column(str(number), justify="right")
        for row in rows:
            if getattr(row, name) is None:
                continue
            values = getattr(row, name).array().astype(float)
            if name == "guest_faults" and floor is not None and floor.guest_faults is not None:
                # The same moments of the floor's run, which has wake-ups of its own.
                other = np.searchsorted(floor.seconds.array(), row.seconds.array(), side="right") - 1
                values = values - floor.guest_faults.array()[np.maximum(other, 0)]
            at = _at_passes(row, passes)
            table.add_row(
                markup(row.label), *(text(float(values[i]), form) if i < len(values) else "" for i in at)
            )
        # Where smaller sizes are not tried, refused collapses are wasted passes.
        if name != "refused" or any(row.refused is not None and row.refused != row.wasted for row in rows):
            out.append(table)
    return out


def sensitivity(results: Results) -> list[Table]:
    """A table for each varied knob and each figure that it moves: rows as lines, the knob's values as columns."""
    out: list[Table] = []
    for knob, curves in results.sensitivity.items():
        values, before = sorted({x for points in curves.values() for x, _ in points}), len(out)
        for key in SENSITIVE:
            lines = {label: {x: f.get(key) for x, f in points} for label, points in curves.items()}
            if not any(len({v for v in line.values() if v is not None}) > 1 for line in lines.values()):
                continue
            table = Table(box=None, pad_edge=False, header_style="bold")
            table.add_column(f"{METRICS[key].title} at {knob} =", no_wrap=True)
            for value in values:
                table.add_column(f"{value:g}", justify="right")
            for label, line in lines.items():
                table.add_row(markup(label), *(text(line.get(value), METRICS[key].form) for value in values))
            out.append(table)
        if len(out) == before:
            table = Table(
                f"{knob} moves no figure between {values[0]:g} and {values[-1]:g}", box=None, pad_edge=False
            )
            out.append(table)
    return out


def records(results: Results) -> list[dict[str, Any]]:
    """One flat record a row: label, policy, options and knobs (JSON), rules, then every figure by its key; behind the rows, one
    for each point of a sensitivity curve.
    """
    out = [_record(r.label, r.policy, r.options, r.rules, r.knobs, r.metrics) for r in results.rows]
    by_label = {row.label: row for row in results.rows}
    for knob, curves in results.sensitivity.items():
        for label, points in curves.items():
            row = by_label.get(label)
            policy, _, rules = label.rpartition(" under ")
            options = row.options if row else {}
            for value, figures in points:
                name, under = (row.policy, row.rules) if row else (policy, rules)
                out.append(_record(f"{label} {knob}={value:g}", name, options, under, {knob: value}, figures))
    return out


def _record(
    label: str,
    policy: str,
    options: Mapping[str, Any],
    rules: str,
    knobs: Mapping[str, Any],
    figures: Mapping[str, float | None],
) -> dict[str, Any]:
    return {
        "label": label,
        "policy": policy,
        "options": msgspec.json.encode(options, order="deterministic").decode(),
        "rules": rules,
        "knobs": msgspec.json.encode(knobs, order="deterministic").decode(),
        **{key: figures.get(key) for key in METRICS},
    }


def write_csv(results: Results, path: str | os.PathLike[str]) -> None:
    """CSV, headed by a ``#`` line with schema version and provenance; unknown figures are empty.

    :raises UsageError: *path* cannot be written.
    """
    out = io.StringIO()
    out.write(f"# {_about(results).decode()}\n")
    rows = records(results)
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["label"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    whole(path, out.getvalue().encode())


def write_parquet(results: Results, path: str | os.PathLike[str]) -> None:
    """Parquet; schema version and provenance are in the metadata under ``secondsight.results``.

    :raises UsageError: *path* cannot be written.
    """
    types = dict.fromkeys(("label", "policy", "options", "rules", "knobs"), pa.string()) | dict.fromkeys(
        METRICS, pa.float64()
    )
    schema = pa.schema(list(types.items()), {KEY: _about(results)})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records(results), schema), sink)
    whole(path, sink.getvalue())


def _about(results: Results) -> bytes:
    return msgspec.json.encode({"schema": SCHEMA, "provenance": results.provenance}, order="deterministic")


def whole(path: str | os.PathLike[str], raw: bytes) -> None:
    """Write *raw* to *path*, whole or not at all.

    :raises UsageError: it cannot be written.
    """
    with atomicfile.open_atomic(path) as part:
        part.write_bytes(raw)
