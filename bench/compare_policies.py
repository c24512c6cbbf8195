"""Twelve policies x rules on one trace, in one reading: ``python bench/compare_policies.py [--rows 20000000] [--tlb]``.

A VM of 4 GiB, accesses zipf-distributed over its pages, a hundred seconds of its time. Each combination alone, then all twelve at once;
what counts is how much more all of them take than the slowest alone. CPU time of all threads: other load on the machine counts less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import cpu_seconds

from secondsight.replay.tlb import TlbConfig
from secondsight.trace import Kind, Provenance, Space, TraceWriter
from secondsight.whatif import compare

OUT = Path(__file__).parent / "out"
COMBINATIONS = [
    (policy, rules)
    for policy in ("khugepaged", "always", "madv_collapse", "thp_shrinker")
    for rules in ("2.6.38", "6.1", "7.2")
]


def make(path: Path, rows: int, pages: int = 1 << 20, seconds: float = 600.0) -> Path:
    """A VM's trace of *rows* accesses to *pages* pages, in the fast profile."""
    rng = np.random.default_rng(1)
    weight = np.cumsum(1 / np.arange(1, pages + 1) ** 0.99)
    weight /= weight[-1]
    order = rng.permutation(pages).astype(np.uint64) << np.uint64(12)
    kinds = np.array([Kind.GUEST_READ, Kind.GUEST_WRITE], np.uint8)
    with TraceWriter(path, Provenance(source="synthetic", spaces=[Space(id=0, name="vm", type="vm")])) as out:
        for start in range(0, rows, 1 << 22):
            n = min(1 << 22, rows - start)
            rank = np.minimum(np.searchsorted(weight, rng.random(n)), pages - 1)
            time = ((start + np.arange(n)) * (seconds * 1e9 / rows)).astype(np.uint64)
            out.append(time, 0, order[rank], rng.choice(kinds, n))
    return path


def measure(rows: int, seconds: float, tlb: bool, times: int) -> list[dict[str, Any]]:
    """Each combination alone, all at once, and the ratio of all to the slowest."""
    with tempfile.TemporaryDirectory() as folder:
        trace = make(Path(folder) / "vm.parquet", rows, seconds=seconds)
        small = make(Path(folder) / "small.parquet", 10_000, 1 << 12)

        def run(path: Path, chosen: list[tuple[str, str]]) -> None:
            policies, rules = (list(dict.fromkeys(column)) for column in zip(*chosen, strict=True))
            compare(path, policies, rules, channels=False, tlb=TlbConfig() if tlb else None)

        run(small, COMBINATIONS)  # compiles
        alone = {c: cpu_seconds(lambda c=c: run(trace, [c]), times) for c in COMBINATIONS}
        together = cpu_seconds(lambda: run(trace, COMBINATIONS), times)
    what = f"compare{', TLB' if tlb else ''}, {rows / 1e6:g} M accesses of a VM, {seconds:g} s"
    slowest = max(alone.values())
    out = [
        {"name": f"{what}: {policy} under {rules} alone", "value": rows / taken / 1e6, "unit": "M/s"}
        for (policy, rules), taken in alone.items()
    ]
    out.append({
        "name": f"{what}: {len(COMBINATIONS)} policies x rules, one reading", "value": together, "unit": "s", "reference": slowest,
        "against": "the slowest alone", "ratio": together / slowest, "bar": None if tlb else 2.0, "better": "lower",
    })  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument(
        "--seconds", type=float, default=100.0, help="what the trace spans: khugepaged wakes each ten"
    )
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--tlb", action="store_true")
    given = parser.parse_args()
    rows = measure(given.rows, given.seconds, given.tlb, given.times)
    OUT.mkdir(exist_ok=True)
    (OUT / "compare_policies.json").write_text(json.dumps(rows))
    for row in rows:
        ratio = f"  {row['ratio']:.2f} x {row['against']}" if "ratio" in row else ""
        print(f"{row['name']:74} {row['value']:8.2f} {row['unit']}{ratio}")


if __name__ == "__main__":
    main()
