"""One cell of a sweep: what a worker gets, does and gives back; bytes in and out, so that any process on any machine can.

Cell ──▶ read the trace once under its rows ──▶ a Parquet table (a line a row) and the whole results, or one line why not
"""

from __future__ import annotations

import io
import os
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from secondsight import __version__
from secondsight.errors import SecondSightError
from secondsight.mm.config import Knobs
from secondsight.report.metrics import METRICS
from secondsight.report.schema import SCHEMA, Results, encode
from secondsight.report.table import KEY
from secondsight.whatif.spec import Cell


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell: *table* and *details* as files hold them, or *error*. *seconds* of wall time and *cpu* time of
    all threads, by *worker*.
    """

    cell: str
    table: bytes = b""
    details: bytes = b""
    error: str = ""
    seconds: float = 0.0
    cpu: float = 0.0
    worker: str = ""


_TEXT = ("id", "cell", "trace", "trace_hash", "label", "policy", "options", "rules", "knobs", "mmu", "budget")
_WHOLE = ("accesses", "blocks")
_REAL = ("time_scale", "trace_seconds")

COLUMNS = pa.schema(
    [(name, pa.string()) for name in _TEXT]
    + [("mglru", pa.bool_())]
    + [(name, pa.int64()) for name in (*_WHOLE, *Knobs.__struct_fields__)]
    + [(name, pa.float64()) for name in (*_REAL, *METRICS)]
)


def work(raw: bytes) -> bytes:
    """Run the encoded :class:`Cell` *raw*; the encoded :class:`Outcome`. Never raises for what the cell's content brings about."""
    cell = msgspec.msgpack.decode(raw, type=Cell)
    start, cpu, here = time.monotonic(), time.process_time(), f"{socket.gethostname()}:{os.getpid()}"
    if cell.version != __version__:
        error = f"the worker {here} runs secondsight {__version__}, the sweep {cell.version}: install one version everywhere"
        return msgspec.msgpack.encode(Outcome(cell=cell.id, error=error))
    try:
        results = replay(cell)
    except SecondSightError as error:
        return msgspec.msgpack.encode(Outcome(cell=cell.id, error=str(error)))
    return msgspec.msgpack.encode(Outcome(
        cell=cell.id, table=table(cell, results), details=zstandard.compress(encode(results), 3),
        seconds=time.monotonic() - start, cpu=time.process_time() - cpu, worker=here,
    ))  # fmt: skip


def replay(cell: Cell) -> Results:
    """The results of *cell*.

    :raises InputError: the trace is damaged.
    :raises SecondSightError: a policy failed, or whatever else a comparison raises.
    """
    from secondsight.replay.tlb import TlbConfig
    from secondsight.trace import Trace
    from secondsight.whatif.comparison import run

    results, _ = run(
        Trace.open(Path(cell.path)), [e.combination() for e in cell.entries], name=cell.trace, config=cell.config,
        time_scale=cell.time_scale, backing=cell.backing, fill=False if cell.empty else None,
        tlb=TlbConfig() if cell.tlb else None, channels=cell.maps,
    )  # fmt: skip
    return results


def table(cell: Cell, results: Results) -> bytes:
    """The cell's Parquet file; the same results make the same bytes."""
    provenance = results.provenance
    lines: list[dict[str, Any]] = []
    for entry, row in zip(cell.entries, results.rows, strict=True):
        policy = entry.combination().make()
        knobs = msgspec.to_builtins(entry.config.knobs) | dict(policy.knobs)
        lines.append({
            "id": entry.id, "cell": cell.id, "trace": cell.trace, "trace_hash": provenance.trace_hash, "label": row.label,
            "policy": row.policy, "options": msgspec.json.encode(row.options, order="deterministic").decode(), "rules": row.rules,
            "knobs": msgspec.json.encode(entry.knobs, order="deterministic").decode(), "mmu": entry.config.mmu,
            "mglru": entry.config.mglru, "budget": "" if entry.budget is None else str(entry.budget), "accesses": provenance.accesses,
            "blocks": results.blocks.space.shape[0], "time_scale": provenance.time_scale, "trace_seconds": provenance.seconds,
            **knobs, **row.metrics,
        })  # fmt: skip
    about = msgspec.json.encode({"schema": SCHEMA, "provenance": provenance}, order="deterministic")
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(lines, COLUMNS.with_metadata({KEY: about})), sink)
    return sink.getvalue()
