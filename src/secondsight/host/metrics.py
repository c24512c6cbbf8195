"""A pass over the host as metrics, in the OpenMetrics text that node_exporter's textfile collector reads.

Gauges alone: so the text is valid OpenMetrics and valid in the older Prometheus format, which that collector parses. Names and units are
Prometheus's: ``secondsight_``, base units, one unit a metric. The number of series is bounded: the rows that gain most have their own, all
others are one row, ``(others)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from secondsight.errors import MissingDependency
from secondsight.host import columns
from secondsight.host.intervals import NOTHING, Interval
from secondsight.host.rows import HostRow
from secondsight.host.survey import HostView
from secondsight.predict.at_most import Bounds
from secondsight.terminal import printable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

#: the row that stands for all that have none of their own
OTHERS = "(others)"
#: longer labels are cut: a label is a key, not a text
_LONGEST = 120
_BOUNDS = ("estimate", "low", "high")


class RowMetric(NamedTuple):
    """A metric of rows. *value* of a row; an interval has a series for each of its bounds and its estimate, bounds one for each."""

    unit: str
    value: Callable[[HostRow], int | float | Interval | Bounds | None]
    sampled: bool
    meaning: str


ROW_METRICS = {
    "processes": RowMetric("", lambda row: row.processes, False, "Processes in the row."),
    "resident": RowMetric(
        "bytes", lambda row: row.resident, False, "Memory mapped, shared memory counted once."
    ),
    "huge": RowMetric("bytes", lambda row: row.huge, False, "Memory mapped by PMDs."),
    "collapsible_now": RowMetric(
        "bytes", lambda row: row.now, True, "Memory that could become huge under the switches as they are."
    ),
    "collapsible_if": RowMetric(
        "bytes", lambda row: row.then, True, "Memory that could become huge under the switches asked about."
    ),
    "gain": RowMetric(
        "bytes", lambda row: row.gain, True, "Memory that could become huge and is known to be used."
    ),
    "added": RowMetric("bytes", lambda row: row.added, True, "Memory that making all of it huge would add."),
    "busy": RowMetric(
        "processors", lambda row: row.busy, False, "Processors kept busy while the pass was made."
    ),
    "savable": RowMetric(
        "processors",
        lambda row: row.saves,
        True,
        "Of the busy processors, what huge pages could save: bounds.",
    ),
    "headroom": RowMetric(
        "bytes", lambda row: row.headroom, False, "What the tightest memory cgroup limit leaves."
    ),
    "guest_resident": RowMetric("bytes", lambda row: row.guest, False, "Resident guest RAM of VMs."),
    "guest_huge": RowMetric(
        "bytes", lambda row: row.guest_huge, False, "Guest RAM mapped by PMDs on the host."
    ),
}


def openmetrics(view: HostView, most: int) -> bytes:
    """*view* as text; at most *most* rows have series of their own.

    :raises MissingDependency: prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.openmetrics.exposition import generate_latest
    except ImportError:
        raise MissingDependency(
            "export: prometheus_client is not installed: pip install 'secondsight[export]'"
        ) from None
    registry = CollectorRegistry()
    _rows(registry, view, most)
    _host(registry, view)
    _own(registry, view)
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def _gauge(
    registry: CollectorRegistry, name: str, meaning: str, labels: tuple[str, ...] = (), unit: str = ""
) -> Gauge:
    from prometheus_client import Gauge

    return Gauge(f"secondsight_{name}", meaning, labels, registry=registry, unit=unit)


def bounded(view: HostView, most: int) -> list[HostRow]:
    """The rows that gain most, and :data:`OTHERS` for the rest; never more than *most* + 1."""
    rows = columns.order(view.rows, None)
    rest = rows[most:]
    if not rest:
        return rows
    return [*rows[:most], _together(rest)]


T = TypeVar("T")


def _all(values: list[T | None], together: Callable[[list[T]], T]) -> T | None:
    """*values* put *together*; None where one is unknown."""
    known = [each for each in values if each is not None]
    return together(known) if len(known) == len(values) else None


def _together(rows: list[HostRow]) -> HostRow:
    def total(intervals: list[Interval | None]) -> Interval:
        known = [each for each in intervals if each is not None]
        # Bounds add up to bounds, if to wide ones.
        return (
            Interval(*(sum(getattr(each, bound) for each in known) for bound in ("value", "low", "high")))
            if known
            else NOTHING
        )

    return HostRow(
        name=OTHERS, pid=None, processes=sum(row.processes for row in rows), user="", cgroup="", container="", vm="",
        resident=sum(row.resident for row in rows), huge=sum(row.huge for row in rows),
        swapped=sum(row.swapped for row in rows), hugetlb=sum(row.hugetlb for row in rows),
        now=total([row.now for row in rows]), then=total([row.then for row in rows]), gain=total([row.gain for row in rows]),
        added=total([row.added for row in rows]),
        busy=_all([row.busy for row in rows], sum), saves=_all([row.saves for row in rows], lambda some: reduce(Bounds.plus, some)),
        guest=sum(row.guest or 0 for row in rows) or None, guest_huge=sum(row.guest_huge or 0 for row in rows) or None,
    )  # fmt: skip


def _rows(registry: CollectorRegistry, view: HostView, most: int) -> None:
    rows = bounded(view, most)
    names = _labels(rows)
    for name, metric in ROW_METRICS.items():
        labels = ("by", "name", *(("bound",) if metric.sampled else ()))
        gauge = _gauge(registry, f"group_{name}", metric.meaning, labels, metric.unit)
        for label, row in zip(names, rows, strict=True):
            value = metric.value(row)
            if isinstance(value, Interval):
                for bound, number in zip(_BOUNDS, (value.value, value.low, value.high), strict=True):
                    gauge.labels(view.by, label, bound).set(number)
            elif isinstance(value, Bounds):
                for bound, number in zip(_BOUNDS[1:], (value.low, value.high), strict=True):
                    gauge.labels(view.by, label, bound).set(number)
            elif value is not None:
                gauge.labels(view.by, label).set(value)


def _labels(rows: list[HostRow]) -> list[str]:
    """A label for each row, no two the same: processes by name and number, long names cut."""
    labels: list[str] = []
    for row in rows:
        label = printable(row.name) if row.pid is None else f"{printable(row.name)}[{row.pid}]"
        if len(label) > _LONGEST:
            label = f"{label[: _LONGEST - 12]}...{len(labels)}"
        labels.append(label)
    return labels


def _host(registry: CollectorRegistry, view: HostView) -> None:
    supply = view.supply
    free = _gauge(
        registry, "free_huge", "Free memory in blocks of 2 MiB and more, by node.", ("node",), "bytes"
    )
    for node, size in supply.free_huge.items():
        free.labels(str(node)).set(size)
    if supply.could_compact is not None:
        _gauge(
            registry,
            "compactable",
            "Free memory in smaller pieces of movable pageblocks, which compaction can gather at best.",
            (),
            "bytes",
        ).set(supply.could_compact)
    counters = supply.counters
    for name, value, meaning in (
        (
            "khugepaged_full_scans",
            counters.full_scans,
            "Rounds of khugepaged through all of its mappings since boot.",
        ),
        (
            "khugepaged_collapsed_pages",
            counters.pages_collapsed,
            "Huge pages that khugepaged made since boot.",
        ),
    ):
        if value is not None:
            _gauge(registry, name, meaning).set(value)
    pace = supply.pages_a_second()
    if pace is not None and pace != float("inf"):
        _gauge(
            registry, "khugepaged_pages_per_second", "Pages that khugepaged looks at in a second, at most."
        ).set(pace)
    switches = _gauge(
        registry,
        "switch_state",
        "1 for the word in force of each switch of transparent huge pages.",
        ("switch", "word"),
    )
    for name, word in supply.switches.items():
        switches.labels(name, word).set(1)
    unread = _gauge(registry, "processes_unread", "Processes that were left out, by why.", ("reason",))
    for why, count in view.trouble.items():
        unread.labels(why.split(" (")[0]).set(count)


def _own(registry: CollectorRegistry, view: HostView) -> None:
    _gauge(registry, "pass_cpu", "CPU time of the pass that these metrics are of.", (), "seconds").set(
        view.cpu_seconds
    )
    _gauge(registry, "pass_duration", "Wall time of the pass.", (), "seconds").set(view.wall_seconds)
    _gauge(registry, "pass_timestamp", "When the pass was made, since the epoch.", (), "seconds").set(
        view.taken
    )
    if view.total is not None and view.total.share_read is not None:
        _gauge(
            registry,
            "pass_read",
            "Share of the blocks in question that were read; the rest is estimated.",
            (),
            "ratio",
        ).set(view.total.share_read)
