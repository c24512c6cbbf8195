"""``secondsight calibrate``: the suite measured on this machine.

for each footprint     two regions: one small throughout, one whose blocks are collapsed step by step
    for each pattern   pairs of measurements, one in each region, in turn: what the machine does meanwhile hits both alike
        ratio of each pair --until its median stands still--> a cell

Rule: the 95 % bootstrap interval of a cell's median ratio is narrower than 4 %, or the cell was measured as often as the time allows. The
machine is too noisy if, then, three cells of ten are less sure than 15 %, or the model's errors are no better than those of "no change".
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secondsight import __version__
from secondsight.errors import MissingDependency, SecondSightError
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.predict import prices
from secondsight.predict.calibration import Calibration
from secondsight.predict.loops import LINES, count_walks, read
from secondsight.predict.machine import Hardware, pmu, this_machine
from secondsight.predict.model import Measurement, fit
from secondsight.predict.patterns import (
    FOOTPRINTS,
    LAYOUTS,
    PIECE,
    READS,
    SUITE,
    WINDOWS,
    Lines,
    Pattern,
    layout,
    lines,
)
from secondsight.predict.region import MADV_DONTNEED, Region
from secondsight.predict.stable import LEAST, WITHIN, Stable, median
from secondsight.replay.tlb import TlbConfig, empty

#: Seconds that the suite may take; pairs of one cell at most. Cells less sure than NOISY, more than MANY of them: too noisy.
BUDGET, MOST = 230.0, 60
NOISY, MANY = 0.15, 0.3
#: Memory that is left to others.
LEFT = 256 << 20

Progress = Callable[[int, int], None]
_ZERO = np.uint64(0)


def calibrate(
    *, nested: bool = False, budget: float = BUDGET, footprints: Sequence[int] | None = None, suite: Sequence[Pattern] = SUITE,
    progress: Progress | None = None,
) -> Calibration:  # fmt: skip
    """Measure this machine.

    :param nested: what is measured must be a guest's: every walk nested.
    :param budget: CPU-bound seconds that the suite may take.
    :param footprints: MiB each; by default those of FOOTPRINTS for which there is memory, two at least.
    :raises MissingDependency: nested, and no hypervisor beneath; too little memory; no MADV_COLLAPSE.
    :raises SecondSightError: too noisy.
    """
    machine = this_machine()
    if nested and not machine.virtualised:
        raise MissingDependency(
            "--nested: no hypervisor is beneath, so no walk here is nested; run `secondsight calibrate --nested` in a guest of this host, "
            "and give `compare` its file by --calibration"
        )
    footprints = _fitting() if footprints is None else footprints
    _room(footprints)
    start = time.monotonic()
    before = prices.cold_fault()
    cells: list[Measurement] = []
    total = len(footprints) * len(suite) * (len(LAYOUTS) + len(PIECE))
    for number, footprint in enumerate(footprints):
        for step, part in enumerate(_footprint(footprint, suite, start, budget, (len(cells), total))):
            cells.extend(part)
            if progress is not None:
                progress(min(total, number * total // len(footprints) + (step + 1) * len(suite)), total)
    if (unsure := sum(c.width > NOISY for c in cells)) > MANY * len(cells):
        raise SecondSightError(
            f"too noisy to calibrate: {unsure} of {len(cells)} measurements are no surer than {NOISY:.0%} after "
            f"{budget:.0f} s; nothing is kept"
        )
    model = fit(cells, nested=machine.virtualised)
    if model.error >= model.still:
        raise SecondSightError(
            f"too noisy to calibrate: the model is off by {model.error:.1%} (median), predicting no change by "
            f"{model.still:.1%}; nothing is kept"
        )
    return Calibration(
        tool=f"secondsight {__version__}", made=time.strftime("%Y-%m-%d", time.gmtime()), machine=machine, pmu=pmu(),
        tlb=dataclasses.asdict(TlbConfig()), seconds=round(time.monotonic() - start, 1), model=model,
        prices=prices.measure(before), cells=cells,
        notes=_notes(machine),
    )  # fmt: skip


def _notes(machine: Hardware) -> list[str]:
    """What a reader must know of the calibration."""
    out = [] if pmu() else ["no PMU is offered here: walks are the reference TLB's, not counted by hardware"]
    if machine.virtualised:
        out.append(
            "a hypervisor is beneath: every walk measured here is a nested one, over whatever pages the host has"
        )
    return out


def available() -> int:
    """Bytes of memory that can be had without swapping (MemAvailable)."""
    with Path("/proc/meminfo").open(encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def _needed(mib: int) -> int:
    """Bytes that a footprint takes: it is there twice."""
    return 2 * (mib << 20) + LEFT


def _fitting() -> Sequence[int]:
    """The footprints for which there is memory; the two smallest anyway, without which nothing says how a walk's price grows."""
    memory = available()
    return [mib for i, mib in enumerate(sorted(FOOTPRINTS)) if i < 2 or _needed(mib) <= memory]


def _room(footprints: Sequence[int]) -> None:
    """:raises MissingDependency: the largest footprint does not fit twice."""
    need, memory = _needed(max(footprints)), available()
    if memory < need:
        raise MissingDependency(
            f"calibrating takes {need >> 20} MiB of memory, and {memory >> 20} MiB are available"
        )


def _footprint(mib: int, suite: Sequence[Pattern], start: float, budget: float, done: tuple[int, int]):  # type: ignore[no-untyped-def]
    """The cells of one footprint, a layout after the other (lists of :class:`Measurement`)."""
    blocks = mib // 2
    streams = {p.shape: lines(p.shape, blocks * HPAGE_PMD_NR, READS * WINDOWS, 1) for p in suite}
    with Region(blocks) as small, Region(blocks) as mixed:
        small.populate()
        base: dict[Pattern, float] = {}
        for layouts in (PIECE, LAYOUTS):
            mixed.advise(MADV_DONTNEED)
            mixed.populate()
            was = np.zeros(0, np.int64)
            for share, scattered in layouts:
                chosen = layout(blocks, share, scattered, 7)
                mixed.collapse(np.setdiff1d(chosen, was))
                was = chosen
                if mixed.huge_blocks() != len(chosen) or small.huge_blocks():
                    raise SecondSightError(
                        f"the layout did not hold: {mixed.huge_blocks()} of {len(chosen)} blocks are huge; is something else collapsing?"
                    )
                cells: list[Measurement] = []
                for pattern in suite:
                    left = budget - (time.monotonic() - start)
                    share_of_time = left / max(1, done[1] - done[0] - len(cells))
                    seconds, ratio = measured_pairs(
                        small.words, mixed.words, streams[pattern.shape], pattern, share_of_time
                    )
                    # One base for all layouts of a pattern, so that they compare with one another.
                    first = base.setdefault(pattern, seconds)
                    cells.append(
                        _cell(
                            pattern,
                            mib,
                            (share, scattered),
                            chosen,
                            streams,
                            first * ratio.value,
                            ratio.width,
                        )
                    )
                yield cells
        none = np.zeros(0, np.int64)
        yield [_cell(p, mib, (0.0, True), none, streams, base[p], 0.0) for p in suite]


def measured_pairs(
    small: npt.NDArray[np.uint64],
    mixed: npt.NDArray[np.uint64],
    stream: Lines,
    pattern: Pattern,
    seconds: float,
) -> tuple[float, Stable]:
    """Seconds of a read of *pattern* with every page small, and the ratio of those in *mixed* to it, in about *seconds* at most."""
    end = time.monotonic() + seconds
    base, ratios = [], []
    for turn in range(MOST):
        window = stream[turn % WINDOWS * READS : (turn % WINDOWS + 1) * READS]
        took = []
        for region in (small, mixed) if turn % 2 else (mixed, small):
            start = time.thread_time_ns()
            read(region, window, pattern.chains, pattern.work, _ZERO)
            took.append((time.thread_time_ns() - start) / 1e9 / READS)
        small_seconds, mixed_seconds = took if turn % 2 else took[::-1]
        base.append(small_seconds)
        ratios.append(mixed_seconds / small_seconds)
        if turn == 0:
            # The first pair fills caches and compiles.
            base.clear()
            ratios.clear()
            continue
        if len(ratios) >= LEAST and (median(ratios).width <= WITHIN or time.monotonic() > end):
            break
    return float(np.median(base)), median(ratios)


def _cell(
    pattern: Pattern, mib: int, how: tuple[float, bool], chosen: npt.NDArray[np.int64], streams: dict[str, Lines], seconds: float,
    width: float,
) -> Measurement:  # fmt: skip
    """One cell, with the reference TLB's walks under that layout: of four windows, the one before them bringing it up to date."""
    huge = np.zeros(mib // 2, np.uint8)
    huge[chosen] = 1
    pages = (streams[pattern.shape] // LINES).astype(np.int64)
    tlb, walks = empty(TlbConfig()), np.zeros(2, np.int64)
    count_walks(tlb, pages[:READS], huge, walks)
    walks[:] = 0
    counted = pages[READS : 5 * READS]
    count_walks(tlb, counted, huge, walks)
    return Measurement(
        pattern=pattern.name, footprint=mib, share=how[0], scattered=how[1], seconds=seconds, width=width,
        small=float(walks[0]) / len(counted), huge=float(walks[1]) / len(counted),
    )  # fmt: skip
