"""Results as a table: for a terminal, as CSV, as Parquet; one row a combination."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from secondsight.errors import UsageError
from secondsight.report.metrics import METRICS, SHOWN, text
from secondsight.report.schema import SCHEMA, Results

_BREAK = re.compile(r"(?<=-)|(?=[+,=])")

#: Where a Parquet table keeps the schema version and the provenance.
KEY = b"secondsight.results"


def terminal(results: Results, *, everything: bool = False) -> Table:
    """A Rich table of the figures one reads first, or of *everything*; figures unknown in all rows are left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy under rules", no_wrap=True)
    keys = [key for key in METRICS if everything or key in SHOWN]
    keys = [key for key in keys if any(row.metrics.get(key) is not None for row in results.rows)]
    for key in keys:
        table.add_column(METRICS[key].title, justify="right")
    for row in results.rows:
        table.add_row(row.label, *(text(row.metrics.get(key), METRICS[key].form) for key in keys))
    return table


def side_by_side(columns: Sequence[str], rows: Sequence[tuple[str, str, Sequence[float | None]]]) -> Table:
    """A Rich table with a column for each of *columns* and a line for each of *rows*: (title, form as of a metric, values)."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name in columns:
        # Six columns fit into 80 characters: a long name goes on several lines.
        table.add_column(name if len(name) < 8 else _BREAK.sub("\n", name), justify="right", no_wrap=True)
    for title, form, values in rows:
        style = "dim" if title.startswith(" ") else None
        table.add_row(title, *(text(value, form) for value in values), style=style)
    return table


def records(results: Results) -> list[dict[str, Any]]:
    """One flat record a row: label, policy, options (JSON), rules, then every figure by its key."""
    return [
        {
            "label": row.label,
            "policy": row.policy,
            "options": msgspec.json.encode(row.options, order="deterministic").decode(),
            "rules": row.rules,
            **{key: row.metrics.get(key) for key in METRICS},
        }
        for row in results.rows
    ]


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
    types = dict.fromkeys(("label", "policy", "options", "rules"), pa.string()) | dict.fromkeys(
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
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(raw)
        temporary.replace(target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
