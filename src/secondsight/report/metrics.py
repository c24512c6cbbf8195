"""Every figure of a comparison: its name, its unit, which way is good, and its definition, word for word as ``--explain`` prints it.

docs/metrics.md says the same at more length, with an example counted by hand for each.
"""

from __future__ import annotations

import difflib
from typing import Final

from secondsight.errors import UsageError
from secondsight.report.schema import Metric

_ALL: Final = (
    Metric(
        "huge_blocks", "huge blocks", "count", "neither",
        "Blocks (2 MiB) mapped by a huge page at the end: of the trace, or, of a process that exits within it, just before it "
        "does, for its exit unmaps everything. The series gives them after each wake-up.",
    ),
    Metric(
        "huge_share", "footprint huge", "share", "neither",
        "Huge blocks at the end (of the trace, or just before the process exits), of all blocks the trace touches; of a process that forks "
        "or is forked, those that any of its family touches.",
    ),
    Metric(
        "run_time", "predicted run time", "seconds", "less",
        "CPU time that the program would take: today's, changed by page walks and faults that this row has more or "
        "fewer of, at the prices of "
        "the machine's calibration. Needs the CPU time of today and walks counted in order; docs/run-time.md.",
    ),
    Metric(
        "run_time_low", "at the least", "seconds", "neither",
        "The predicted run time lies between this and the next figure nine times of ten, as far as the calibration's "
        "suite and real programs show.",
    ),
    Metric(
        "run_time_high", "at the most", "seconds", "neither",
        "The upper end of the predicted run time's interval.",
    ),
    Metric(
        "run_time_change", "change", "share", "less",
        "The predicted run time over today's, less one: −20 % takes four fifths of the time.",
    ),
    Metric(
        "longest_stall", "longest stall", "seconds", "less",
        "What one request could wait for at the longest: a fault that clears a page of 4 KiB or 2 MiB, a collapse that "
        "holds the page, the first "
        "store to a page or a huge page after a fork; the longest that calibrating met of those which this row has.",
    ),
    Metric(
        "mean_stall", "mean stall", "seconds", "less",
        "What one fault or copy of this row takes on the mean: each kind at the median (of small pages the mean) that calibrating met.",
    ),
    Metric(
        "coverage", "coverage", "share", "more",
        "Accesses that land in a huge mapping, of all accesses: what the policy won, its lateness included. An access that maps or splits "
        "one counts by what it leaves.",
    ),
    Metric(
        "precision",
        "precision",
        "share",
        "more",
        "Of the blocks that were ever made huge (by a fork: inherited so), the share that holds a hot page. Hot: the fewest 4 KiB pages "
        "that together take 90 % of the accesses (ties: all of them).",
    ),
    Metric(
        "precision_pages",
        "precision by pages",
        "share",
        "more",
        "Of the pages in blocks that were ever made huge, the share that is hot. Low by nature where hot pages lie scattered.",
    ),
    Metric(
        "recall", "recall", "share", "more",
        "Of the hot pages, the share that lies in blocks that were ever made huge.",
    ),
    Metric(
        "recall_misses", "recall by misses", "share", "more",
        "Of the TLB misses with every page small, the share that falls on blocks that were ever made huge. Needs a TLB model.",
    ),
    Metric(
        "precision_misses", "precision by misses", "share", "more",
        "Of the blocks ever made huge, the share that is among the fewest blocks that together take 90 % of the TLB misses with every page "
        "small. Needs a TLB model.",
    ),
    Metric(
        "bloat", "bloat", "bytes", "less",
        "Memory that huge pages occupy and the program had not asked for: sum of (512 − pages populated when the block got its huge page) "
        "× 4 KiB over the blocks that are huge at the end (of the trace, or just before the process exits). Of a huge page that a fault "
        "mapped, the pages written by the next wake-up or verb of the trace count as populated; the huge zero page occupies nothing, and a "
        "page that was only read, the zero page, is not populated. "
        "A huge page that several processes have since a fork counts once.",
    ),
    Metric(
        "bloat_share", "bloat share", "share", "less",
        "Bloat, of the memory that is populated at the end (of the trace, or just before the process exits; touched or not; what processes "
        "share since a fork once).",
    ),
    Metric(
        "zero_filled", "zero-filled", "bytes", "less",
        "Pages of huge blocks that hold only zeros, whether or not the program read them, at the end (of the trace, or just before the "
        "process exits): what a split gives back.",
    ),
    Metric(
        "walk_refs_native", "walk references, native", "count", "less",
        "Memory references of page walks on TLB misses: 4 for a 4 KiB page, 3 for a 2 MiB one. A VM's misses are those of its own TLB, "
        "whose entries are as small as the guest's pages, 4 KiB. Needs a TLB model.",
    ),
    Metric(
        "walk_refs_nested", "walk references, nested", "count", "less",
        "The same for a guest with nested paging, (g + 1)(h + 1) − 1 references a miss: 24 with 4 KiB in guest and host, 19 with one "
        "of them huge, 15 with both. The guest is taken to map 4 KiB. Needs a TLB model.",
    ),
    Metric(
        "overhead_native", "MMU overhead, native", "share", "less",
        "Modelled share of time spent in page walks: cycles of walk references over those plus cycles of accesses. The cost model "
        "gives the cycles of each. Needs a TLB model.",
    ),
    Metric(
        "overhead_nested", "MMU overhead, nested", "share", "less",
        "The same with the references of nested paging. Needs a TLB model.",
    ),
    Metric(
        "collapses", "collapses", "count", "neither",
        "Blocks that were made huge from small pages, by khugepaged or the policy. Huge pages mapped at a first touch are not collapses.",
    ),
    Metric(
        "wasted_passes", "wasted passes", "count", "less",
        "Visits to a block that begin a collapse and end without any: a huge page was allocated, the block unmapped from every secondary "
        "MMU, and isolate said no.",
    ),
    Metric(
        "refused_collapses", "refused collapses", "count", "less",
        "Attempts to collapse a block, or a part of it to a smaller size, that were begun and made nothing. With 2 MiB alone a wasted pass "
        "is one; where smaller sizes are enabled one visit can be refused up to 255 times.",
    ),
    Metric(
        "refused_allocations", "allocations refused", "count", "less",
        "Folios that were allocated for refused collapses, and given back.",
    ),
    Metric(
        "refused_invalidations", "invalidations refused", "count", "less",
        "Ranges that the secondary MMUs were told to drop for refused collapses; what was mapped there faults in again.",
    ),
    Metric(
        "splits", "splits", "count", "neither",
        "Huge blocks that were made small again by the policy.",
    ),
    Metric(
        "copied_pages", "pages copied", "count", "less",
        "Pages of 4 KiB that a store copied since somebody else had them too: the other side of a fork, or a pin.",
    ),
    Metric(
        "copied_huge", "huge pages copied", "count", "less",
        "Huge pages that a store to one page copied whole, 2 MiB, since the other side of a fork had them too. Kernels before 5.8; "
        "later ones split.",
    ),
    Metric(
        "copy_splits", "splits by copies", "count", "less",
        "Huge mappings that a store split, to copy one page of 4 KiB, since the other side of a fork had the huge page too. Linux 5.8 "
        "and later.",
    ),
    Metric(
        "guest_faults",
        "guest faults",
        "count",
        "less",
        "Faults that a secondary MMU took during the trace: first touches, and touches of what collapses, wasted passes and ageing took "
        "from it. Compare with the row of never.",
    ),
    Metric(
        "pages_scanned", "pages scanned", "count", "less",
        "Page-table entries looked at by khugepaged and the policy's own scans.",
    ),
    Metric(
        "notifier_calls", "notifier calls", "count", "less",
        "Calls of MMU-notifier methods, of every kind: test_young, clear_young, clear_flush_young, invalidations.",
    ),
    Metric(
        "daemon_time", "khugepaged time", "seconds", "less",
        "Modelled time of the daemon or policy: pages scanned, test_young calls and collapses, each at the price of the cost model. A "
        "collapse costs 235 µs with nothing populated to 806 µs with all 512 pages, as measured; the other prices are assumptions "
        "it states.",
    ),
    Metric(
        "fairness", "fairness", "index", "more",
        "Jain's index over the coverage of the spaces that access anything, (sum x)² / (n × sum x²): 1 when every VM or process has the "
        "same share of its accesses in huge mappings, 1/n when one has all. 1 if none has any.",
    ),
)  # fmt: skip

#: By key, in the order of the table.
METRICS: Final = {metric.key: metric for metric in _ALL}

#: The columns that are shown before one asks for all of them.
SHOWN: Final = (
    "run_time",
    "run_time_low",
    "run_time_high",
    "run_time_change",
    "longest_stall",
    "mean_stall",
    "huge_blocks",
    "coverage",
    "precision",
    "recall",
    "bloat",
    "overhead_native",
    "overhead_nested",
    "wasted_passes",
    "refused_collapses",
    "guest_faults",
    "daemon_time",
)

#: Figures whose sensitivity to a knob is shown, where they are known and it moves them.
SENSITIVE: Final = (
    "coverage",
    "huge_blocks",
    "bloat",
    "wasted_passes",
    "refused_collapses",
    "daemon_time",
    "overhead_nested",
)


#: What comparisons of samples call figures, which are ranges there.
SAMPLED: Final = {
    metric.key: metric
    for metric in (
        Metric(
            "known", "known (samples)", "count", "more",
            "Blocks of which both readings, that what could not be known was not used and that it was, make the same.",
        ),
        Metric(
            "huge", "huge (samples)", "count", "neither",
            "Blocks huge at the end: at least those that are in both readings, at most those that are in one.",
        ),
        Metric(
            "wasted", "wasted (samples)", "count", "less",
            "Visits that ended in a refused collapse (wasted_passes), in each reading; unknown (-) where the use of secondary MMUs is.",
        ),
        Metric(
            "refused", "left small, by khugepaged's last answer (samples)", "count", "less",
            "Blocks that are small at the end, by khugepaged's last answer; a range where the two readings differ.",
        ),
        Metric(
            "unvisited", "never visited (samples)", "count", "less",
            "Blocks that are small at the end and that khugepaged has not come to.",
        ),
    )
}  # fmt: skip


def explain(name: str) -> Metric:
    """The definition of the figure *name* (its key or its title).

    :raises UsageError: there is no such figure.
    """
    wanted = name.strip().lower()
    for metric in (*METRICS.values(), *SAMPLED.values()):
        if wanted in (metric.key, metric.title.lower()):
            return metric
    near = difflib.get_close_matches(wanted.replace(" ", "_"), METRICS, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"no figure is called {name!r}{hint}; there are {', '.join(METRICS)}")


def text(value: float | None, form: str) -> str:
    """*value* for people: ``93.1 %``, ``12.5 MiB``, ``1.8 ms``; – where it is not known."""
    if value is None:
        return "–"
    if form == "share":
        return f"{100 * value:.1f} %"
    if form == "bytes":
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if abs(value) >= size:
                return f"{value / size:.1f} {unit}"
        return f"{value:.0f} B"
    if form == "seconds":
        for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
            if abs(value) * scale >= 1 or unit == "µs":
                return f"{value * scale:.1f} {unit}" if value else "0"
    if form == "index":
        return f"{value:.2f}"
    for unit, scale in (("G", 1e9), ("M", 1e6)):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:,.0f}".replace(",", " ")
