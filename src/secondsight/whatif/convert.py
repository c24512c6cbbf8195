"""From what a replay counted to the results a report shows.

ConfigurationResult + ConfigurationData --figures--> metrics        (measure, costs)
                            --visits---> events         (equal answers in a row become one)
                            --channels-> C columns      (the most young pages in each equal part of the run)
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_ORDER
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.replay import tally
from secondsight.replay.metrics import ChannelAnswers, ConfigurationData, ConfigurationResult
from secondsight.replay.run import ConfigurationReplay
from secondsight.report.metrics import METRICS
from secondsight.report.schema import (
    CHANNELS,
    Attempts,
    DecisionColumns,
    Packed,
    Row,
    VerdictRule,
    finite,
    pack,
)
from secondsight.report.verdicts import rule
from secondsight.whatif import measure
from secondsight.whatif.combine import Combination
from secondsight.whatif.costs import CostModel, walk_references

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Cells a channel may have over all rows, and the columns it has at least and at most.
CELLS, LEAST, MOST = 6_000_000, 24, 240


@dataclass(frozen=True, slots=True)
class SharedFigures:
    """What all rows share: hot bool[blocks * 512]; misses int64[blocks] with every page small, None without a TLB; columns
    of the channels.
    """

    hot: Bools
    misses: Ints | None
    columns: int
    costs: CostModel


def columns_for(blocks: int, rows: int) -> int:
    """Columns that each channel of *rows* rows gets."""
    return int(np.clip(CELLS // max(1, blocks * rows), LEAST, MOST))


def figures(
    result: ConfigurationResult, data: ConfigurationData, run: ConfigurationReplay, facts: SharedFigures
) -> dict[str, float | None]:
    """Every figure by its key; None where it is not known."""
    total, blocks, costs = result.total, data.blocks, facts.costs
    promoted = blocks.first_huge >= 0
    precision, by_pages, recall = measure.precision_recall(facts.hot, promoted)
    populated = int(blocks.populated.sum()) * PAGE_SIZE
    out: dict[str, float | None] = dict.fromkeys(METRICS)
    out |= {
        "huge_blocks": float(total.huge_at_end),
        "huge_share": measure.share(total.huge_at_end, total.blocks),
        "coverage": measure.share(total.accesses_huge, total.accesses),
        "precision": precision,
        "precision_pages": by_pages,
        "recall": recall,
        "bloat": float(total.bloat),
        "bloat_share": measure.share(total.bloat, populated),
        "zero_filled": float(total.zero_filled),
        "collapses": float(total.collapses),
        "wasted_passes": float(total.wasted),
        "refused_collapses": float(total.refused_collapses),
        "refused_allocations": float(sum(each.wasted_allocations for each in total.attempts.values())),
        "refused_invalidations": float(sum(each.wasted_invalidations for each in total.attempts.values())),
        "splits": float(total.splits),
        "copied_pages": float(total.copied),
        "copied_huge": float(total.copied_huge),
        "copy_splits": float(total.copy_splits),
        "guest_faults": float(total.guest_faults),
        "pages_scanned": float(total.pages_scanned),
        "notifier_calls": float(sum(result.notifier_calls.values())),
        "fairness": measure.jain([space.coverage for space in result.spaces if space.accesses]),
        "daemon_time": costs.daemon_seconds(
            copied=int(run.copied.sum()),
            collapses=total.collapses,
            wasted=total.wasted,
            pages_scanned=total.pages_scanned,
            test_young=total.test_young,
        ),
    }
    if facts.misses is not None:
        out["precision_misses"], out["recall_misses"] = measure.by_misses(facts.misses, promoted)
    if total.walks is not None and (huge := getattr(total, "walks_huge", None)) is not None:
        small = total.walks - huge
        for key, nested in (("native", False), ("nested", True)):
            references = walk_references(small, huge, nested=nested)
            out[f"walk_refs_{key}"] = float(references)
            out[f"overhead_{key}"] = costs.overhead(references, total.accesses)
    return {key: finite(value) for key, value in out.items()}


class Verdicts:
    """The rules behind the answers that occur, numbered as they are met."""

    def __init__(self) -> None:
        """None yet."""
        self.rules: list[VerdictRule] = []
        self._number: dict[str, int] = {}

    def number(self, code: str) -> int:
        """The index of *code*'s rule."""
        if code not in self._number:
            self._number[code] = len(self.rules)
            self.rules.append(rule(code))
        return self._number[code]


def _codes(data: ConfigurationData, daemon: bool, verdicts: Verdicts) -> Ints:
    """The verdict index of each visit: the isolate's answer where it was reached, and what a success means here."""
    seen = data.visits.columns()
    scan, isolate = seen["scan"], seen["isolate"]
    out = np.zeros(len(scan), np.int64)
    for first, second in {*zip(scan.tolist(), isolate.tolist(), strict=True)}:
        reached = second >= 0
        code = str(Scan(second if reached else first))
        if reached and second == Scan.SUCCEED:
            code = "succeeded" if daemon else "policy_huge"
        elif reached:
            code = f"{code}@isolate"
        out[(scan == first) & (isolate == second)] = verdicts.number(code)
    return out


def events(
    data: ConfigurationData, row_of: dict[tuple[int, int], int], daemon: bool, verdicts: Verdicts
) -> DecisionColumns:
    """What was decided about each block, by block, then time. *row_of*: (space, number) to block; *daemon*: khugepaged decided."""
    seen = data.visits.columns()
    visited = np.array(
        [row_of[key] for key in zip(seen["space"].tolist(), seen["block"].tolist(), strict=True)], np.int64
    )
    code = _codes(data, daemon, verdicts)
    time = seen["time"]
    channel_pages = _channel_pages_at(data.channels, time, visited)
    tried, refused = seen["order"], seen["refused"]
    # Huge since a first touch: no visit says so.
    good = {i for i, r in enumerate(verdicts.rules) if r.code in ("succeeded", "policy_huge")}
    collapsed = {
        *zip(
            visited[np.isin(code, list(good))].tolist(), time[np.isin(code, list(good))].tolist(), strict=True
        )
    }
    first_huge = data.blocks.first_huge
    faulted = [
        b for b in np.flatnonzero(first_huge >= 0).tolist() if (b, int(first_huge[b])) not in collapsed
    ]
    if faulted:
        extra = np.array(faulted, np.int64)
        visited = np.r_[visited, extra]
        time = np.r_[time, first_huge[extra]]
        tried, refused = np.r_[tried, np.full(len(extra), -1)], np.r_[refused, np.zeros(len(extra), np.int64)]
        code = np.r_[code, np.full(len(extra), verdicts.number("fault_huge"))]
        channel_pages = {
            name: np.r_[column, np.full(len(extra), -1)] for name, column in channel_pages.items()
        }
        in_time = np.argsort(time, kind="stable")
        visited, time, code = visited[in_time], time[in_time], code[in_time]
        tried, refused = tried[in_time], refused[in_time]
        channel_pages = {name: column[in_time] for name, column in channel_pages.items()}
    # Visits that end alike at another order are told apart.
    order, starts = measure.runs(visited, code * (PMD_ORDER + 2) + tried + 1)
    first, last = order[starts.first], order[starts.last]
    return DecisionColumns(
        block=pack(visited[first], "i4"),
        first=pack(time[first] / 1e9, "f4"),
        last=pack(time[last] / 1e9, "f4"),
        count=pack(starts.count, "i4"),
        verdict=pack(code[first], "u1"),
        primary=pack(channel_pages["primary"][first], "i2"),
        referenced=pack(channel_pages["referenced"][first], "i2"),
        secondary=pack(channel_pages["secondary"][first], "i2"),
        order=pack(tried[first], "i2"),
        refused=pack(np.add.reduceat(refused[order], starts.first) if len(first) else refused, "i4"),
    )


def _channel_pages_at(channels: ChannelAnswers | None, time: Ints, blocks: Ints) -> dict[str, Ints]:
    """Pages that each channel called young when *blocks* were visited at *time*; -1 where nothing was kept."""
    if channels is None or not channels.time:
        return {name: np.full(len(time), -1) for name in CHANNELS}
    # Every visit is made at a wake-up, and the channels were kept just before.
    at = np.minimum(np.searchsorted(np.asarray(channels.time), time), len(channels.time) - 1)
    return {name: np.asarray(getattr(channels, name))[at, blocks].astype(np.int64) for name in CHANNELS}


def binned(channels: ChannelAnswers, end: float, columns: int) -> dict[str, npt.NDArray[np.int16]]:
    """The channels, int16[blocks, C]: the most young pages in each of C equal parts of *end* ns.

    A part without a wake-up repeats the last.
    """
    at, count = _parts(channels, end, columns)
    out: dict[str, npt.NDArray[np.int16]] = {}
    for name in CHANNELS:
        rows = getattr(channels, name)
        blocks = len(rows[0]) if rows else 0
        cells = np.full((blocks, count), -1, np.int16)
        for column, values in zip(at.tolist(), rows, strict=True):
            np.maximum(cells[:, column], values, out=cells[:, column])
        for column in range(1, count):
            if not (at == column).any():
                cells[:, column] = cells[:, column - 1]
        out[name] = cells
    return out


def _refusals(channels: ChannelAnswers | None, end: float, columns: int) -> Packed | None:
    """Refused attempts, int32[blocks, C]: how many in each of C equal parts of *end* ns; None where none was refused or kept."""
    if channels is None or not any(each.any() for each in channels.refused):
        return None
    at, count = _parts(channels, end, columns)
    cells = np.zeros((len(channels.refused[0]), count), np.int32)
    for column, values in zip(at.tolist(), channels.refused, strict=True):
        cells[:, column] += values
    return pack(cells, "i4")


def _parts(channels: ChannelAnswers, end: float, columns: int) -> tuple[Ints, int]:
    """The part of *end* ns that each wake-up lies in, and how many parts there are."""
    time = np.asarray(channels.time, np.float64)
    count = min(columns, max(1, len(time)))
    return np.minimum((time / max(end, 1.0) * count).astype(np.int64), count - 1), count


def split_times(channels: ChannelAnswers) -> npt.NDArray[np.float64]:
    """float64[blocks]: when each was last seen small after it had been huge, in seconds; NaN never, and where its memory was given back."""
    huge = np.asarray(channels.huge, np.bool_)
    out = np.full(huge.shape[1] if huge.ndim == 2 else 0, np.nan)
    for i in range(1, len(huge)):
        out[huge[i - 1] & ~huge[i] & ~channels.gave_back[i]] = channels.time[i] / 1e9
    return out


def row(
    run: ConfigurationReplay,
    facts: SharedFigures,
    verdicts: Verdicts,
    *,
    combination: Combination,
    row_of: dict[tuple[int, int], int],
) -> Row:
    """One row of the results."""
    result, data = tally.result(run)
    blocks, series = data.blocks, result.series
    name, *options = combination.policy.split(",")
    first = np.where(blocks.first_huge >= 0, blocks.first_huge, np.iinfo(np.int64).max)
    order = np.argsort(first, kind="stable")[: int((blocks.first_huge >= 0).sum())]
    seconds = np.asarray(series.time, np.float64) / 1e9
    channel_data = data.channels
    channels = (
        binned(channel_data, float(series.time[-1]), facts.columns)
        if channel_data is not None and channel_data.time
        else {}
    )
    return Row(
        label=combination.label,
        policy=name,
        rules=result.rules,
        options=dict(part.split("=", 1) for part in options),
        knobs=dict(combination.knobs),
        metrics=figures(result, data, run, facts),
        seconds=pack(seconds, "f8"),
        huge=pack(series.huge_blocks, "i4"),
        bloat=pack(series.bloat, "f8"),
        hot=pack(hot_huge(facts.hot, data, np.asarray(series.time)), "i4"),
        passes=pack(series.full_scans, "i4"),
        wasted=pack(series.wasted, "i4"),
        refused=pack(series.refused, "i4"),
        guest_faults=pack(series.guest_faults, "i4"),
        curve=measure.thinned(measure.utility_curve(blocks.accesses, order)),
        fate=pack(np.where(blocks.first_huge >= 0, blocks.first_huge / 1e9, np.nan), "f4"),
        split=pack(split_times(channel_data), "f4")
        if channel_data is not None and channel_data.time
        else None,
        channels={name: pack(cells, "i2") for name, cells in channels.items()},
        refusals=_refusals(channel_data, float(series.time[-1]), facts.columns),
        attempts={
            order: Attempts(*msgspec.structs.astuple(each)) for order, each in result.total.attempts.items()
        },
        events=events(data, row_of, run.machine.daemon, verdicts),
    )


def row_not_run(combination: Combination) -> Row:
    """The row of a combination that cannot be run: why, and no figures."""
    name, *options = combination.policy.split(",")
    return Row(
        label=combination.label, policy=name, rules=combination.rules.name, options=dict(part.split("=", 1) for part in options),
        knobs=dict(combination.knobs), metrics=dict.fromkeys(METRICS), not_run=combination.not_run,
        seconds=pack([], "f8"), huge=pack([], "i4"), bloat=pack([], "f8"),
    )  # fmt: skip


def hot_huge(hot: Bools, data: ConfigurationData, time: Ints) -> Ints:
    """int64[N]: blocks with a hot page that had been made huge by each of *time* (int64[N], ns); *hot*: bool[pages]."""
    when = data.blocks.first_huge[hot.reshape(-1, HPAGE_PMD_NR).any(axis=1)]
    return np.searchsorted(np.sort(when[when >= 0]), time, side="right")


def oracle_curve(accesses: Ints) -> list[tuple[float, float]]:
    """The utility curve of the best choice there is, the most accessed blocks first: (share of the footprint, share of accesses);
    *accesses*: int64[blocks]."""
    touched = np.argsort(-accesses, kind="stable")[: int((accesses > 0).sum())]
    return measure.thinned(measure.utility_curve(accesses, touched))
