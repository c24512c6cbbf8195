"""Whether khugepaged had time for one pass over a trace's memory: a row of its that had none shows what faults do, and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.replay.engine import Engine
from secondsight.whatif.combine import Combination


def without_a_pass(engine: Engine, chosen: Sequence[Combination]) -> list[str]:
    """A note where khugepaged completed no pass within the trace under some of *chosen*, which *engine* ran; else nothing.

    The last wake-up lies behind the trace's last event, and is not counted.
    """
    clock = (engine.end - engine.start) * engine.clock.scale
    none: list[str] = []
    asked, needs, woke = 0, 0.0, False
    for combination, run in zip(chosen, engine.runs, strict=False):
        if not combination.make().khugepaged:
            continue
        asked += 1
        within = int(np.searchsorted(run.series.time, clock, side="right"))
        if within and run.series.full_scans[within - 1]:
            continue
        none.append(combination.label)
        # The first wake-up is at the trace's first event, when nothing is there yet.
        woke = woke or any(run.series.accesses[:within])
        knobs = run.host.config.knobs
        wakes = math.ceil(engine.layout.rows * HPAGE_PMD_NR / knobs.pages_to_scan) + 1
        needs = max(needs, wakes * knobs.scan_sleep_millisecs * 1e6)
    if not none:
        return []
    under = "" if len(none) == asked else f" under {', '.join(none)}"
    shown = "a part of what it would make huge" if woke else "what faults do alone"
    note = f"no pass of khugepaged ends within the trace{under}, {clock / 1e9:.3g} s of its clock: its rows show {shown}"
    if not clock:
        return [f"{note}; every event stands at one moment, which no --time-scale spreads"]
    scale = needs / clock * engine.clock.scale
    step = 10.0 ** (math.floor(math.log10(scale)) - 1)
    return [f"{note}; --time-scale {math.ceil(scale / step) * step:.10g} gives it time for about one"]
