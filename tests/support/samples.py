"""Samples written by hand: looks of a few blocks, everything that is not said zero."""

from __future__ import annotations

import numpy as np

from secondsight.trace import Space, TraceWriter
from secondsight.trace.provenance import Clock
from secondsight.trace.sampled import BITS, CHANNELS, SAMPLE_COLUMNS, SampledChannel, SampleProvenance

BLOCK = 1 << 21
BASE = 0x7F0000000000


def provenance(*, interval=1.0, seen=("primary", "referenced", "secondary"), **fields):
    spaces = [Space(id=0, name="p"), Space(id=1, name="p: VM", type="vm", parent=0)]
    channels = [SampledChannel(name=name, seen=name in seen, why="by hand") for name in CHANNELS]
    defaults = {
        "spaces": spaces,
        "channels": channels,
        "clock": Clock(meaning="by hand"),
        "memory": "kernel memory",
    }
    return SampleProvenance(source="synthetic", interval=int(interval * 1e9), **defaults | fields)


def columns(rows):
    """Columns of *rows*: dicts of what is not zero, with ``time`` (s) and ``block``, its number from BASE."""
    values = {name: np.zeros(len(rows), dtype) for name, dtype in SAMPLE_COLUMNS.items()}
    for i, row in enumerate(rows):
        for name, value in row.items():
            if name == "time":
                values["time"][i] = round(value * 1e9)
            elif name == "block":
                values["address"][i] = BASE + value * BLOCK
            else:
                values[name][i] = value
    return values


def write(path, rows, origin=None, **options):
    """The file *path* of *rows*, as :func:`columns` takes them; returns it."""
    with TraceWriter(path, origin or provenance(), **options) as out:
        values = columns(rows)
        out.put(values.pop("time"), values)
    return path


def random_rows(rng, looks, blocks):
    """Rows whose counts can be."""
    rows = []
    for look in range(looks):
        for block in range(blocks):
            present = int(rng.integers(0, 513))
            row = {
                "time": look,
                "block": block,
                "space": int(rng.integers(0, 2)),
                "form": int(present == 512),
                "present": present,
            }
            row["swapped"] = int(rng.integers(0, 513 - present))
            row["shared"] = int(rng.integers(0, present + 1))
            for name, first, second in [
                *((c, "used", "unused") for c in CHANNELS),
                *((c, "set", "clear") for c in BITS),
            ]:
                cut = np.sort(rng.integers(0, present + 1, 2)).tolist()
                row[f"{name}_{first}"], row[f"{name}_{second}"] = cut[0], cut[1] - cut[0]
            row["order_0"] = int(rng.integers(0, present + 1))
            row["order_9"] = present - row["order_0"]
            rows.append(row)
    return rows
