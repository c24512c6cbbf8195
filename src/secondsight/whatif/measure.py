"""The derived figures of one row, from what the replay counted: pure functions over arrays, each with an example in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secondsight.geometry import HPAGE_PMD_NR

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def share(part: float, whole: float) -> float | None:
    """*part* of *whole*, None of nothing."""
    return part / whole if whole else None


def precision_recall(hot: Bools, promoted: Bools) -> tuple[float | None, float | None, float | None]:
    """(precision by blocks, precision by pages, recall by pages).

    *hot* bool[blocks * 512], the hot pages; *promoted* bool[blocks], ever huge. Precision is None with nothing promoted, recall with
    nothing hot.
    """
    of_block = hot.reshape(-1, HPAGE_PMD_NR).sum(axis=1)
    good, made = int(of_block[promoted].sum()), int(promoted.sum())
    return (
        share(int((of_block[promoted] > 0).sum()), made),
        share(good, HPAGE_PMD_NR * made),
        share(good, int(of_block.sum())),
    )


def by_misses(misses: Ints, promoted: Bools, hot_share: float = 0.9) -> tuple[float | None, float | None]:
    """(precision, recall) by TLB misses.

    *misses* int64[blocks] with every page small. Precision: of the promoted blocks, the share among the fewest that together take
    *hot_share* of the misses; recall: the share of all misses that falls on promoted blocks.
    """
    total = int(misses.sum())
    ordered = np.sort(misses)[::-1]
    if not total:
        return None, None
    needed = int(np.searchsorted(np.cumsum(ordered), np.ceil(hot_share * total), side="left"))
    hot = (misses >= ordered[min(needed, len(ordered) - 1)]) & (misses > 0)
    return share(int((hot & promoted).sum()), int(promoted.sum())), share(int(misses[promoted].sum()), total)


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index of *values*; 1 for none, or for nothing but zeros."""
    squares = sum(v * v for v in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def utility_curve(accesses: Ints, order: Ints) -> list[tuple[float, float]]:
    """(share of the footprint, share of accesses) after each of the blocks *order*, in that order, had they been huge from the start."""
    total = int(accesses.sum())
    if not len(order) or not total:
        return []
    covered = np.cumsum(accesses[order]) / total
    size = np.arange(1, len(order) + 1) / len(accesses)
    return list(zip(size.tolist(), covered.tolist(), strict=True))


def thinned(curve: list[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    """At most *most* + 1 points of *curve*, dense where it begins: utility curves bend early."""
    if len(curve) <= most:
        return curve
    at = np.unique(np.r_[np.geomspace(1, len(curve), most).astype(int) - 1, len(curve) - 1])
    return [curve[i] for i in at.tolist()]


def evenly(points: list[tuple[float, float]], most: int = 100) -> list[tuple[float, float]]:
    """At most *most* of *points*, the first and the last among them, evenly spread."""
    if len(points) <= most:
        return points
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int).tolist()]


@dataclass(frozen=True, slots=True)
class Runs:
    """Visits with the same answer in a row: for each, the index of its first and of its last visit, and how many (int64)."""

    first: Ints
    last: Ints
    count: Ints


def runs(block: Ints, code: Ints) -> tuple[Ints, Runs]:
    """The order by block, then time, of visits told in order of time; and the runs of equal *code* of one block in that order."""
    order = np.argsort(block, kind="stable")
    b, c = block[order], code[order]
    if not len(b):
        return order, Runs(order, order, order)
    new = np.r_[True, (b[1:] != b[:-1]) | (c[1:] != c[:-1])]
    first = np.flatnonzero(new)
    last = np.r_[first[1:], len(b)] - 1
    return order, Runs(first, last, last - first + 1)
