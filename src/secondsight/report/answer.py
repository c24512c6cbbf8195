"""The answer in a sentence: which combination wins most, what it costs, and how far it is from what could be won."""

from __future__ import annotations

from collections.abc import Sequence

from secondsight.geometry import PMD_ORDER
from secondsight.report.metrics import text
from secondsight.report.schema import Row
from secondsight.report.table import by_size

#: Refused collapses that an answer speaks of, where they are more than those that succeed.
MANY_REFUSED = 100


def best_within(curve: Sequence[tuple[float, float]], share: float) -> float | None:
    """The most that *share* of the footprint could have covered, between the points of the oracle's *curve*; None without one."""
    if not curve:
        return None
    before = (0.0, 0.0)
    for point in sorted(curve):
        if point[0] >= share:
            width = point[0] - before[0]
            part = (share - before[0]) / width if width else 1.0
            return before[1] + part * (point[1] - before[1])
        before = point
    return before[1]


def best_row(rows: Sequence[Row]) -> Row:
    """Of *rows*, one at least, the one to take where no run times are predicted: among those within one point of the best coverage the one
    with the least bloat, of equal ones that with the most coverage."""
    top = max(_value(row, "coverage") for row in rows)
    return min(
        (row for row in rows if _value(row, "coverage") >= top - 0.01),
        key=lambda row: (_value(row, "bloat"), -_value(row, "coverage")),
    )


def _value(row: Row, key: str) -> float:
    return row.metrics.get(key) or 0.0


def _refusals(rows: Sequence[Row]) -> str:
    """A sentence where khugepaged's attempts are refused more often than not, and often: how many, by size."""
    worst = max(rows, key=lambda row: _value(row, "refused_collapses"))
    refused = _value(worst, "refused_collapses")
    if refused < MANY_REFUSED or refused <= _value(worst, "collapses"):
        return ""
    sizes = [f"{name} {text(each.refused, 'count')}" for name, each in by_size(worst) if each.refused]
    by = f" ({', '.join(sizes)})" if len(sizes) > 1 or worst.attempts.keys() - {str(PMD_ORDER)} else ""
    return (
        f" {worst.label}: {text(refused, 'count')} collapses are begun and refused{by}, each of which allocates and unmaps first; "
        f"{text(_value(worst, 'collapses'), 'count')} succeed."
    )


def answer(rows: Sequence[Row], oracle: Sequence[tuple[float, float]]) -> str:
    """One to three plain sentences. The oracle's and the floor's rows are bounds, not answers.

    Named is :func:`best_row`, whose settings ``compare --apply`` tells too.
    """
    real = [row for row in rows if row.policy not in ("oracle", "never") and not row.not_run]
    if not real:
        return "Only bounds were run: add a policy to compare them with."
    top = max(_value(row, "coverage") for row in real)
    if top <= 0:
        sentence = f"None of {len(real)} combinations put a single access into a huge page: look at why below, block by block."
        return sentence + _refusals(real)
    best = best_row(real)
    share = _value(best, "huge_share")
    out = (
        f"{best.label} serves {text(_value(best, 'coverage'), 'share')} of all accesses from huge pages, with "
        f"{text(share, 'share')} of the footprint huge and {text(_value(best, 'bloat'), 'bytes')} of bloat."
    )
    bound = best_within(oracle, share)
    if bound is not None:
        out += f" With as many blocks, chosen knowing the future, {text(bound, 'share')} were possible."
    out += _refusals(real)
    others = [row for row in real if row is not best]
    if others:
        cheap = min(others, key=lambda row: (_value(row, "bloat"), -_value(row, "coverage")))
        if _value(cheap, "bloat") < 0.5 * _value(best, "bloat") and _value(cheap, "coverage") > 0:
            out += (
                f" The least bloat has {cheap.label}: {text(_value(cheap, 'bloat'), 'bytes')}, "
                f"for {text(_value(cheap, 'coverage'), 'share')}."
            )
        worst = min(others, key=lambda row: _value(row, "coverage"))
        if _value(worst, "coverage") < 0.5 * top and worst is not cheap:
            out += f" {worst.label} reaches {text(_value(worst, 'coverage'), 'share')}."
    return out
