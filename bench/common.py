"""What the benchmarks share: rows of results, timing, and the accesses that most of them use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from secondsight.replay import Events
from secondsight.trace import Kind, Space

OUT = Path(__file__).parent / "out"


def row(
    name: str,
    value: float,
    unit: str,
    *,
    reference: float | None = None,
    against: str = "",
    bar: float | None = None,
    better: str = "higher",
    note: str = "",
) -> dict[str, Any]:
    """One result. With a *reference* (same unit, of *against*) the bar is for their ratio, else for the value itself."""
    ratio = None if reference is None else value / reference
    judged = value if ratio is None else ratio
    met = None if bar is None else (judged >= bar if better == "higher" else judged <= bar)
    return {
        "name": name, "value": value, "unit": unit, "reference": reference, "against": against, "ratio": ratio,
        "bar": bar, "better": better, "met": met, "note": note,
    }  # fmt: skip


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Keep the rows of one benchmark for run.py."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(rows, indent=1))


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Wall seconds of the quickest of *times* runs."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def cpu_seconds(work: Callable[[], object], times: int = 1) -> float:
    """CPU seconds, all threads together, of the cheapest of *times* runs: other load on the machine counts less."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def zipf(rows: int, pages: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(address uint64, kind uint8) of *rows* guest accesses, zipf(0.99) over *pages* scattered pages, half of them writes."""
    rng = np.random.default_rng(seed)
    weight = np.cumsum(1 / np.arange(1, pages + 1) ** 0.99)
    rank = np.minimum(np.searchsorted(weight / weight[-1], rng.random(rows)), pages - 1)
    address = rng.permutation(pages)[rank].astype(np.uint64) << np.uint64(12)
    return address, rng.choice(np.array([Kind.GUEST_READ, Kind.GUEST_WRITE], np.uint8), rows)


def vm(address: np.ndarray, kind: np.ndarray, ns: int) -> Events:
    """The accesses as a VM's, one each *ns* of khugepaged's clock."""
    return Events(
        address,
        kind,
        time=np.arange(len(address), dtype=np.uint64) * np.uint64(ns),
        spaces=[Space(id=0, name="vm", type="vm")],
    )
