"""How many pages of a candidate may be missing, shared or in swap: ``collapse_max_ptes_none`` and its like, by the order tried.

    who, what                none                      shared              swap
    -----------------------  ------------------------  ------------------  ----------------
    userfaultfd is armed     0, for everyone           as below            as below
    MADV_COLLAPSE            all                       all                 all
    khugepaged, PMD order    max_ptes_none             max_ptes_shared     max_ptes_swap
    khugepaged, below        511: all but one; else 0  0                   0

mm/khugepaged.c collapse_max_ptes_none, collapse_max_ptes_shared, collapse_max_ptes_swap (7.2; the code before says the same of
the PMD order, the only one it has).

In compiled functions *cc* is who collapses, within which limits (:class:`CollapseControl`).
"""

from __future__ import annotations

from typing import NamedTuple

from secondsight.geometry import HPAGE_PMD_NR, KHUGEPAGED_MAX_PTES_LIMIT, PMD_ORDER
from secondsight.mm.config import Knobs
from secondsight.native import merged


class CollapseControl(NamedTuple):
    """``struct collapse_control`` and the knobs behind it: who collapses (1: khugepaged, 0: MADV_COLLAPSE), and what sysfs allows."""

    is_khugepaged: int
    max_ptes_none: int
    max_ptes_swap: int
    max_ptes_shared: int


def collapse_control(limits: Knobs, *, khugepaged: bool) -> CollapseControl:
    """The control of a collapse by khugepaged, or by MADV_COLLAPSE."""
    return CollapseControl(
        is_khugepaged=int(khugepaged), max_ptes_none=limits.max_ptes_none, max_ptes_swap=limits.max_ptes_swap,
        max_ptes_shared=limits.max_ptes_shared,
    )  # fmt: skip


@merged
def collapse_max_ptes_none(cc, armed, order):  # type: ignore[no-untyped-def]
    """The empty or zero pages a candidate of *order* may have; *armed*: userfaultfd_armed of its area."""
    if armed:
        return 0
    if not cc.is_khugepaged:
        return HPAGE_PMD_NR
    if order == PMD_ORDER:
        return cc.max_ptes_none
    if cc.max_ptes_none == KHUGEPAGED_MAX_PTES_LIMIT:
        return (1 << order) - 1
    return 0


@merged
def collapse_max_ptes_shared(cc, order):  # type: ignore[no-untyped-def]
    """The shared pages a candidate of *order* may have."""
    if not cc.is_khugepaged:
        return HPAGE_PMD_NR
    if order != PMD_ORDER:
        return 0
    return cc.max_ptes_shared


@merged
def collapse_max_ptes_swap(cc, order):  # type: ignore[no-untyped-def]
    """The pages out in swap that a candidate of *order* may have."""
    if not cc.is_khugepaged:
        return HPAGE_PMD_NR
    if order != PMD_ORDER:
        return 0
    return cc.max_ptes_swap
