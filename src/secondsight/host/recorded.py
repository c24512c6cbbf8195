"""A recording of the host, read for its page: who grew, who was refused, and what was different after each marked moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from secondsight.host.history import TOTAL, read
from secondsight.host.marks import Mark
from secondsight.live.judge import reasons
from secondsight.report.host_history import (
    HostHistory,
    MarkedMoment,
    Moved,
    Paced,
    RecordedRow,
    Refusal,
    Sampled,
    Timeline,
)

F64 = npt.NDArray[np.float64]

#: marked moments that have a part of the page, the newest; rows in each
_MARKS, _MOVED = 20, 12
#: what of the host is bytes, and what is neither bytes nor counted events
_BYTES = ("free_huge", "could_compact")
_STATES = ("nr_anon_transparent_hugepages", "nr_shmem_pmdmapped", "nr_file_pmdmapped")


def history(path: Path, most: int, command: str = "") -> HostHistory:
    """What the recording *path* comes to, with at most *most* rows.

    :raises InputError: it is no recording of the host, or torn.
    """
    table, metadata = read(path)
    times: list[float] = np.unique(table.column("time").to_numpy()).tolist()
    begun = times[0]
    records = table.to_pylist()
    rows = [_Over(begun, each) for each in _grouped(record for record in records if record["by"] != TOTAL)]
    totals = [record for record in records if record["by"] == TOTAL]
    ever = [row for row in rows if row.resident.any() or row.huge.any()]
    shown = sorted(ever, key=lambda row: (-abs(row.grown), -row.resident[-1], row.label))[:most]
    marks: list[Mark] = metadata["marks"]
    host = _HostCounters(begun, totals)
    edges = [begun, *(mark.time for mark in marks), float("inf")]
    first = max(len(marks) - _MARKS, 0)
    return HostHistory(
        title=path.name,
        by=next((record["by"] for record in records if record["by"] != TOTAL), "process"),
        begun=clock(begun),
        span=times[-1] - begun,
        passes=len(times),
        rows=[row.recorded(times[0], times[-1]) for row in shown],
        total=_Over(begun, totals).recorded(times[0], times[-1]) if totals else None,
        others=len(ever) - len(shown),
        empty=len(rows) - len(ever),
        changes=[
            _change(at + 1, mark, (edges[at], mark.time, edges[at + 2]), begun, times, rows, host)
            for at, mark in enumerate(marks)
            if at >= first
        ],
        marks_left_out=first,
        amounts=host.amounts(),
        rates=host.rates(),
        switches={name: str(value) for name, value in metadata["now"].items()},
        about=_about(path, metadata, table, command),
    )


def clock(seconds: float) -> str:
    """The moment *seconds* since the epoch, as people write it, with its zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def _about(path: Path, metadata: dict[str, Any], table: pa.Table, command: str) -> dict[str, str]:
    about = {
        "recording": str(path),
        "recorded with": f"secondsight {metadata.get('version', '?')}",
        "kernel": metadata.get("kernel", "?"),
    }
    about |= {"rows": f"{len(table):,}", "command": command}
    changed = {name: value for name, value in metadata["then"].items() if value != metadata["now"].get(name)}
    about["could be huge, if"] = ", ".join(f"{name}={value}" for name, value in changed.items())
    return {name: value for name, value in about.items() if value}


def _grouped(records: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Records of one process or group each: the same name, and of a process the same number."""
    records_of: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for record in records:
        records_of.setdefault((record["name"], record["pid"]), []).append(record)
    return list(records_of.values())


class _Over:
    """A row over time. *times* absolute; arrays of a number for each of its passes."""

    def __init__(self, begun: float, records: Sequence[dict[str, Any]]) -> None:
        last = records[-1]
        self.label = last["name"] if last["pid"] is None else f"{last['name']} ({last['pid']})"
        self.records, self.begun = records, begun
        self.times = np.array([record["time"] for record in records])
        self.resident = np.array([record["resident"] for record in records], np.float64)
        self.huge = np.array([record["huge"] for record in records], np.float64)

    @property
    def grown(self) -> float:
        return float(self.resident[-1] - self.resident[0])

    def recorded(self, first_pass: float, last_pass: float) -> RecordedRow:
        """*first_pass*, *last_pass*: when the recording's own were."""
        came, gone = self.times[0] > first_pass, self.times[-1] < last_pass
        last = self.records[-1]
        first, end = (dict(record["reasons"] or []) for record in (self.records[0], last))
        refused = [
            Refusal(status, reasons.words(status), first.get(status, 0.0), end.get(status, 0.0))
            for status in {**end, **first}
        ]
        return RecordedRow(
            self.label, (self.times - self.begun).tolist(), self.resident.tolist(), self.huge.tolist(),
            _sampled(last, "now"), _sampled(last, "gain"), _sampled(last, "added"), _sampled(last, "wasted"),
            sorted(refused, key=lambda each: -each.last),
            ", ".join(word for word, so in (("came", came), ("gone", gone)) if so),
        )  # fmt: skip

    def now(self, within: npt.NDArray[np.bool_]) -> Sampled | None:
        """What could be huge, the mean of each bound over the passes *within*."""
        bounds = [
            known
            for at in np.flatnonzero(within).tolist()
            if (known := _sampled(self.records[at], "now")) is not None
        ]
        if not bounds:
            return None
        return Sampled(
            *(float(np.mean([getattr(each, end) for each in bounds])) for end in ("value", "low", "high"))
        )

    def moved(self, edges: tuple[float, float, float]) -> Moved | None:
        """This row in the windows that *edges* bound; None where it is in neither, or did not move."""
        before, after = _windows(self.times, edges)
        if not before.any() and not after.any():
            return None
        # What was not there yet, or has gone, has nothing.
        resident, huge = (
            (_median(column, before), _median(column, after)) for column in (self.resident, self.huge)
        )
        if resident[0] == resident[1] and huge[0] == huge[1]:
            return None
        now = (self.now(before), self.now(after))
        known = (now[0], now[1]) if now[0] is not None and now[1] is not None else None
        itself = float(np.ptp(self.huge[before])) if before.any() else 0.0
        note = "came" if not before.any() else "" if after.any() else "gone"
        return Moved(self.label, resident, huge, itself, known, note)


def _sampled(record: dict[str, Any], name: str) -> Sampled | None:
    if record[name] is None:
        return None
    return Sampled(*(float(record[f"{name}{end}"]) for end in ("", "_low", "_high")))


def _windows(
    times: F64, edges: tuple[float, float, float]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which *times* are before the middle of *edges*, and which from it on."""
    low, middle, high = edges
    return (times >= low) & (times < middle), (times >= middle) & (times < high)


def _median(values: F64, within: npt.NDArray[np.bool_]) -> float:
    return float(np.median(values[within])) if within.any() else 0.0


class _HostCounters:
    """The host's own counters over time, of the rows of all processes together."""

    def __init__(self, begun: float, totals: Sequence[dict[str, Any]]) -> None:
        self._begun = begun
        counters_at = [(record["time"], dict(record["counters"])) for record in totals if record["counters"]]
        self.names = sorted({name for _, counters in counters_at for name in counters})
        self._counters = counters_at

    def column(self, name: str) -> tuple[F64, F64]:
        """(times, values) of the passes that have the counter *name*."""
        points = [(at, counters[name]) for at, counters in self._counters if name in counters]
        return np.array([at for at, _ in points]), np.array([value for _, value in points])

    def amounts(self) -> list[Timeline]:
        timelines = []
        for name in _BYTES:
            times, values = self.column(name)
            if len(times):
                timelines.append(Timeline(name, (times - self._begun).tolist(), values.tolist()))
        return timelines

    def rates(self) -> list[Timeline]:
        """The counters that moved, each as events a second since the pass before."""
        timelines = []
        for name in self.names:
            times, values = self.column(name)
            steps = np.diff(values)
            if name in (*_BYTES, *_STATES) or not steps.any():
                continue
            rate = np.maximum(steps, 0) / np.maximum(np.diff(times), 1e-9)
            timelines.append(Timeline(name, (times[1:] - self._begun).tolist(), rate.tolist()))
        return timelines

    def paces(self, edges: tuple[float, float, float]) -> list[Paced]:
        """Events a second of the counters that moved in either window: from its first pass to the next window's, or its last."""
        paces = []
        for name in self.names:
            if name in (*_BYTES, *_STATES):
                continue
            times, values = self.column(name)
            before, after = _windows(times, edges)
            # What happened between the last pass before the mark and the first after it may be either's.
            pace = [
                float(values[within][-1] - values[within][0]) / (times[within][-1] - times[within][0])
                if within.sum() > 1
                else 0.0
                for within in (before, after)
            ]
            if any(pace):
                paces.append(Paced(name, pace[0], pace[1]))
        return sorted(paces, key=lambda each: -abs(each.after - each.before))


def _change(
    number: int, mark: Mark, edges: tuple[float, float, float], begun: float, times: list[float], rows: list[_Over], host: _HostCounters
) -> MarkedMoment:  # fmt: skip
    every = np.array(times)
    before, after = _windows(every, edges)
    moved = [row_change for row in rows if (row_change := row.moved(edges)) is not None]
    # Who was there all the time tells of the mark; who came or went, mostly of itself.
    moved.sort(
        key=lambda each: (
            bool(each.note), -abs(each.huge[1] - each.huge[0]), -abs(each.resident[1] - each.resident[0])
        )
    )  # fmt: skip
    windows = (int(before.sum()), int(after.sum()))
    return MarkedMoment(
        number, mark.time - begun, clock(mark.time), mark.text, windows, moved[:_MOVED] if all(windows) else [],
        host.paces(edges),
    )  # fmt: skip
