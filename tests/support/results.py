"""A made-up comparison of any size, the same every time: what the report's tests and pictures draw."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from secondsight.report.answer import answer
from secondsight.report.metrics import METRICS
from secondsight.report.schema import (
    Attempts,
    BlockColumns,
    DecisionColumns,
    Results,
    ResultsOrigin,
    Row,
    pack,
)
from secondsight.report.verdicts import rule

CODES = ["lack_referenced_page", "lack_referenced_page@isolate", "succeeded", "exceed_none_pte"]


def results(blocks: int = 300, columns: int = 48, rows: int = 6, seed: int = 1) -> Results:
    """*rows* combinations over *blocks* blocks in two spaces, *columns* wake-ups."""
    rng = np.random.default_rng(seed)
    space = (np.arange(blocks) >= blocks * 2 // 3).astype(int)
    number = (
        0x7F0000000000 // (1 << 21) + np.arange(blocks) + 64 * space + 16 * (np.arange(blocks) > blocks // 3)
    )
    heat = np.sort(rng.zipf(1.6, blocks).clip(1, 5000))[::-1].astype(float)
    heat = np.roll(heat, blocks // 4) * rng.uniform(0.5, 1.5, blocks)
    populated = rng.integers(20, 513, blocks)
    seconds = 10.0 * np.arange(1, columns + 1)
    order = np.argsort(-heat)
    total = heat.sum()
    labels = [
        ("khugepaged", "6.1"),
        ("khugepaged", "7.2"),
        ("always", "7.2"),
        ("never", "7.2"),
        ("hawkeye", "7.2"),
        ("oracle", "7.2"),
    ]
    made = []
    for i in range(rows):
        policy, rules = labels[i % len(labels)]
        budget = {"never": 0, "always": blocks}.get(policy, blocks * (i + 2) // (rows + 4))
        chosen = order if policy in ("oracle", "hawkeye") else np.arange(blocks)
        chosen = chosen[:budget]
        fate = np.full(blocks, np.nan)
        fate[chosen] = np.linspace(0, seconds[-1] * 0.7, len(chosen)) if policy != "always" else 0
        active = (
            rng.random((blocks, columns)) < np.minimum(1, heat / np.quantile(heat, 0.7))[:, None]
        ).astype(int)
        guest = (active * populated[:, None]).astype(int)
        cpu = (rng.random((blocks, columns)) < 0.03) * rng.integers(1, 60, (blocks, columns))
        marked = np.where(rng.random((blocks, columns)) < 0.1, guest // 3, 0)
        huge = (fate[:, None] <= seconds[None, :]).sum(0)
        covered = float(heat[chosen].sum() / total)
        bloat = np.asarray([(512 - populated[fate <= t]).sum() * 4096 for t in seconds], float)
        metrics: dict[str, float | None] = dict.fromkeys(METRICS)
        metrics |= {
            "huge_blocks": float(huge[-1]),
            "huge_share": float(huge[-1]) / blocks,
            "coverage": float(covered),
            "precision": float(rng.uniform(0.4, 1)),
            "recall": float(covered**0.5),
            "bloat": float(bloat[-1]),
            "bloat_share": float(bloat[-1]) / (blocks * 2 << 20),
            "overhead_native": 0.12 * (1 - covered) + 0.01,
            "overhead_nested": 0.31 * (1 - covered) + 0.02,
            "collapses": float(huge[-1]),
            "wasted_passes": float(i * 7),
            "refused_collapses": float(i * 7 * 33),
            "refused_allocations": float(i * 7 * 33),
            "refused_invalidations": float(i * 7 * 33),
            "pages_scanned": 512.0 * blocks * columns,
            "daemon_time": 0.0004 * float(huge[-1]),
            "guest_faults": float(i * 911),
            "fairness": 0.8,
        }
        steps = np.cumsum(heat[chosen]) / total
        curve = [(float(k / blocks), float(steps[k - 1])) for k in range(1, len(chosen) + 1)]
        made.append(
            Row(
                label=f"{policy} under {rules}",
                policy=policy,
                rules=rules,
                metrics=metrics,
                seconds=pack(seconds, "f8"),
                huge=pack(huge, "i4"),
                bloat=pack(bloat, "f8"),
                curve=curve,
                fate=pack(fate, "f4"),
                channels={
                    "primary": pack(cpu, "i2"),
                    "referenced": pack(marked, "i2"),
                    "secondary": pack(guest if i != 4 else np.full_like(guest, -1), "i2"),
                },
                events=_events(fate, guest, cpu, marked, seconds) if policy == "khugepaged" else None,
                # Of the khugepaged rows the second tries 64 KiB too: 33 attempts a visit, now and then.
                refusals=pack(np.where(rng.random((blocks, columns)) < 0.02, 33, 0), "i4")
                if i == 1
                else None,
                attempts=_attempts(i) if policy == "khugepaged" else {},
            )
        )
    best = np.cumsum(heat[order]) / total
    bound = [(float((k + 1) / blocks), float(best[k])) for k in range(0, blocks, max(1, blocks // 100))]
    return Results(
        title="SecondSight: database-vm.parquet",
        answer=answer(made, bound),
        provenance=ResultsOrigin(
            tool="secondsight test",
            command="secondsight compare database-vm.parquet --policy khugepaged </script><b>",
            trace="database-vm.parquet",
            source="record-vm",
            unseen=["DMA", "page walks"],
            accesses=int(total),
            rows=1000,
            seconds=float(seconds[-1]),
            config={"mmu": "npt", "mglru": False},
        ),
        metrics=list(METRICS.values()),
        spaces=["database-vm", "web-vm"],
        rows=made,
        blocks=BlockColumns(pack(space, "i4"), pack(number, "f8"), pack(heat, "f8"), pack(populated, "i4")),
        verdicts=[rule(code) for code in CODES],
        oracle=bound,
        sensitivity={
            "max_ptes_none": {
                r.label: [
                    (
                        float(x),
                        {"coverage": min(1.0, 0.2 + x / 700 + 0.03 * k), "bloat": x * 90000.0 * (k + 1)},
                    )
                    for x in range(0, 512, 64)
                ]
                for k, r in enumerate(made[:2])
            }
        },
    )


def _attempts(row: int) -> dict[str, Attempts]:
    whole = Attempts(begun=70, refused=21, allocations=70, invalidations=70)
    if row != 1:
        return {"9": whole}
    return {"9": whole, "4": Attempts(begun=1344, refused=672, allocations=1344, invalidations=1300)}


def _events(fate, guest, cpu, marked, seconds) -> DecisionColumns:
    columns: dict[str, list] = {k: [] for k in ("block", "first", "last", "count", "verdict", "p", "r", "s")}
    for b in range(len(fate)):
        end = fate[b]
        for t, (first, last, code) in enumerate(((10.0, 40.0, 0), (50.0, 50.0, 1), (end, end, 2))):
            if code == 2 and np.isnan(end):
                continue
            at = min(t, len(seconds) - 1)
            row = (
                b,
                first,
                last,
                4 if code == 0 else 1,
                code,
                cpu[b, at],
                marked[b, at],
                guest[b, at],
            )
            for key, value in zip(columns, row, strict=True):
                columns[key].append(value)
    types = ("i4", "f4", "f4", "i4", "u1", "i2", "i2", "i2")
    known = DecisionColumns(*(pack(v, t) for v, t in zip(columns.values(), types, strict=True)))
    code = np.array(columns["verdict"])
    return replace(
        known, order=pack(np.choose(code, (-1, 4, 9)), "i2"), refused=pack(np.choose(code, (0, 33, 0)), "i4")
    )
