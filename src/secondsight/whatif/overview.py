"""A sweep's dataset as results for a report: one trace whole, or all traces summed up.

one trace     its cells' rows side by side, as one comparison would have given them
many          a row for each combination: counts, bytes and seconds summed over the traces, shares and indices their mean
both          the varied knobs as curves
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secondsight import __version__
from secondsight.errors import UsageError
from secondsight.report.answer import answer
from secondsight.report.charts import SPREAD
from secondsight.report.metrics import METRICS
from secondsight.report.schema import (
    BlockColumns,
    Results,
    ResultsOrigin,
    Row,
    Sensitivity,
    VerdictRule,
    pack,
)
from secondsight.whatif import measure
from secondsight.whatif.dataset import Dataset, Plan

Floats = npt.NDArray[np.float64]


def results(where: str | Path, trace: str | None = None, command: str = "") -> Results:
    """The results in the sweep's directory *where*: of *trace* (its name or the end of it), of the only one, or over all.

    :raises UsageError: no such trace, or nothing is finished yet.
    :raises InputError: no sweep, or damaged files.
    """
    dataset = Dataset(Path(where))
    plan = dataset.plan()
    table = dataset.table(plan)
    if not len(table):
        raise UsageError(f"{where}: none of the {len(plan.rows)} planned rows is finished yet; run the sweep")
    chosen = _named(plan, trace, str(where)) if trace is not None else None
    if chosen is None and len(plan.traces) == 1:
        chosen = plan.traces[0]
    planned = [name for _, _, name in plan.rows if chosen in (None, name)]
    there = [name for name in table.column("trace").to_pylist() if chosen in (None, name)]
    notes = [f"{len(there)} of {len(planned)} planned rows are finished"] if len(there) < len(planned) else []
    if trace is None:
        notes += [f"left out, for it could not be read: {why}" for why in plan.damaged.values()]
    if chosen is not None:
        return _single(dataset, table, chosen, notes, command)
    return _over_all(plan, table, str(where), notes, command)


def _named(plan: Plan, name: str, where: str) -> str:
    exact = [t for t in plan.traces if t == name]
    matching = exact or [t for t in plan.traces if t.endswith(name) or Path(t).stem == name]
    if len(matching) != 1:
        reason = "several traces end so" if matching else "no such trace"
        raise UsageError(
            f"{where}: --trace {name}: {reason}; there are {', '.join(plan.traces[:12])}{' …' * (len(plan.traces) > 12)}"
        )
    return matching[0]


# -- one trace ------------------------------------------------------------------------------------------------------


def _single(dataset: Dataset, table: pa.Table, trace: str, notes: list[str], command: str) -> Results:
    mine = [line for line in table.select(["cell", "trace", "label"]).to_pylist() if line["trace"] == trace]
    if not mine:
        raise UsageError(f"{dataset.where}: no row of {trace} is finished yet; run the sweep")
    parts = {cell: dataset.whole(cell) for cell in dict.fromkeys(line["cell"] for line in mine)}
    verdicts: dict[str, VerdictRule] = {}
    for part in parts.values():
        verdicts |= {v.code: v for v in part.verdicts if v.code not in verdicts}
    number = {code: i for i, code in enumerate(verdicts)}
    rows = []
    for line in mine:
        part = parts[line["cell"]]
        row = next(r for r in part.rows if r.label == line["label"])
        rows.append(_renumbered(row, np.array([number[v.code] for v in part.verdicts], np.uint8)))
    first = next(iter(parts.values()))
    notes = [*notes, *sorted({note for part in parts.values() for note in part.provenance.notes})]
    return msgspec.structs.replace(
        first, title=f"SecondSight: {trace}", answer=answer(rows, first.oracle), rows=rows, verdicts=list(verdicts.values()),
        provenance=msgspec.structs.replace(first.provenance, command=command, notes=notes),
        sensitivity=sensitivities(rows),
    )  # fmt: skip


def _renumbered(row: Row, number: npt.NDArray[np.uint8]) -> Row:
    if row.events is None or not row.events.verdict.shape[0]:
        return row
    verdict = pack(number[row.events.verdict.array()], "u1")
    return msgspec.structs.replace(row, events=msgspec.structs.replace(row.events, verdict=verdict))


def sensitivities(rows: Sequence[Row]) -> dict[str, Sensitivity]:
    """The curves over every numeric knob that takes several values among *rows*, the other knobs held."""
    names = dict.fromkeys(k for r in rows for k, v in r.knobs.items() if isinstance(v, float))
    out: dict[str, Sensitivity] = {}
    for name in names:
        curves: dict[str, list[tuple[float, Any]]] = {}
        for row in rows:
            value = row.knobs.get(name)
            if isinstance(value, float):
                curves.setdefault(row.label.replace(f" {name}={value:g}", ""), []).append(
                    (value, row.metrics)
                )
        in_order = {
            label: sorted(points, key=lambda p: p[0]) for label, points in curves.items() if len(points) > 1
        }
        if in_order:
            out[name] = in_order
    return out


# -- over all traces ------------------------------------------------------------------------------------------------


def _over_all(plan: Plan, table: pa.Table, where: str, notes: list[str], command: str) -> Results:
    labels = [str(label) for label in table.column("label").to_pylist()]
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    group = np.array([index[label] for label in labels])
    known = {key: np.array(table.column(key).to_numpy(zero_copy_only=False), np.float64) for key in METRICS}
    lines = table.select(["policy", "options", "rules", "knobs"]).to_pylist()
    traces = len(set(table.column("trace").to_pylist()))
    rows: list[Row] = []
    spread: dict[str, dict[str, list[tuple[float, float]]]] = {key: {} for key in SPREAD}
    for label, i in index.items():
        at = np.flatnonzero(group == i)
        line = lines[int(at[0])]
        knobs = {
            k: float(v) if isinstance(v, int | float) else v
            for k, v in msgspec.json.decode(line["knobs"]).items()
        }
        rows.append(Row(
            label=label, policy=line["policy"], rules=line["rules"], options=msgspec.json.decode(line["options"]), knobs=knobs,
            metrics={key: _over(known[key][at], METRICS[key].form) for key in METRICS},
            seconds=pack([], "f8"), huge=pack([], "i4"), bloat=pack([], "f8"),
        ))  # fmt: skip
        if len(at) < traces:
            notes.append(f"{label}: {len(at)} of {traces} traces")
        for key, curve in spread.items():
            values = np.sort(known[key][at][~np.isnan(known[key][at])])
            # The i-th least holds from i / n to (i + 1) / n.
            points = [(i / len(values), v) for i, v in enumerate(values.tolist())]
            curve[label] = measure.evenly([*points, (1.0, points[-1][1])]) if points else []
    per_trace: dict[str, tuple[int, float]] = {}
    for record in table.select(["trace", "accesses", "trace_seconds"]).to_pylist():
        per_trace[record["trace"]] = (record["accesses"], record["trace_seconds"])
    scales = sorted({float(scale) for scale in table.column("time_scale").to_pylist() if scale is not None})
    empty = BlockColumns(pack([], "i4"), pack([], "f8"), pack([], "f8"), pack([], "i4"))
    notes.append(
        "figures are over all traces: counts, bytes and seconds summed; of shares and indices the mean, every trace weighing the same"
    )
    return Results(
        title=f"SecondSight: {traces} traces",
        answer=f"Over {traces} traces: {answer(rows, [])}",
        provenance=ResultsOrigin(
            tool=f"secondsight {__version__}", command=command, trace=f"{Path(where).name}: {', '.join(plan.spec.traces)}",
            accesses=sum(t[0] for t in per_trace.values()), rows=len(table), seconds=sum(t[1] for t in per_trace.values()),
            time_scale=scales[0] if len(scales) == 1 else 1.0,
            config={k: v for k, v in msgspec.to_builtins(plan.spec).items() if v not in ({}, None) and k != "traces"}, notes=notes,
        ),
        metrics=list(METRICS.values()), spaces=[], rows=rows, blocks=empty, sensitivity=sensitivities(rows),
        spread={key: shares for key, shares in spread.items() if any(map(bool, shares.values()))},
    )  # fmt: skip


def _over(values: Floats, form: str) -> float | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return float(values.mean() if form in ("share", "index") else values.sum())


__all__ = ["results", "sensitivities"]
