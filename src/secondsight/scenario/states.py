"""How a space's pages are written down in a ``PageState``: from raw entries and flags to run-length text.

The model hands in its own arrays, the lab what it read from kernel memory; comparing the two is comparing text.

    primary entry     -  none           S  swap entry, or another that is not present (G: a guard)
                      P  present (N: PROT_NONE), then W writable, A accessed, D dirty, H huge
    secondary entry   P  present (T: access-tracked), then W writable, Y young, H large; all of a page's entries sorted and
                      joined by a comma; empty: KVM maps nothing there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags, pte, spte, swap
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.scenario.results import PageState

__all__ = ["page_state", "per_page", "pte_texts", "runs", "spte_texts", "vm_name"]

U64 = npt.NDArray[np.uint64]
T = TypeVar("T", int, str)


def vm_name(number: int) -> str:
    """What the entries of a process's VM *number* (0 or 1) are called in a ``PageState``."""
    return "kvm" if number == 0 else f"kvm{number + 1}"


def runs(values: Sequence[T]) -> list[tuple[int, T]]:
    """``[count, value]`` of each run of equal values."""
    return [(len(list(run)), value) for value, run in groupby(values)]


def per_page(pmd: U64, table: U64) -> U64:
    """The entry that maps each page: *pmd* uint64[B] where it is a leaf, else its row of *table* uint64[B, 512]; uint64[B * 512].

    A leaf's frame number is moved on to the page's own.
    """
    huge = pte.pmd_trans_huge(pmd)
    leaf = pmd[:, None] + (np.arange(HPAGE_PMD_NR, dtype=np.uint64) << pte.PFN_SHIFT)
    return np.where(huge[:, None], leaf, table).reshape(-1)


def pte_texts(entries: U64, huge: npt.NDArray[np.bool_]) -> list[str]:
    """The text of each primary entry (uint64[n]; *huge* bool[n]: it is a PMD leaf)."""
    guard = swap.kinds(entries) == swap.EntryKind.GUARD
    kind = np.select(
        [entries == 0, guard, ~pte.pte_present(entries), (entries & pte.PRESENT) == 0],
        [0, 4, 1, 2],
        default=3,
    )
    code = kind * 16 + np.where(
        (kind < 2) | guard,
        0,
        pte.pte_write(entries) * 8 + pte.pte_young(entries) * 4 + pte.pte_dirty(entries) * 2 + huge * 1,
    )
    names = [
        ("-", "S", "N", "P", "G")[c >> 4]
        + "".join(name for bit, name in ((8, "W"), (4, "A"), (2, "D"), (1, "H")) if c & bit)
        for c in range(80)
    ]
    return [names[c] for c in code.tolist()]


def spte_texts(
    pages: int, page: npt.NDArray[np.int64], entries: U64, young: npt.NDArray[np.bool_], large: npt.NDArray[np.bool_],
    layout: spte.SpteLayout,
) -> list[str]:  # fmt: skip
    """The text of each of *pages* pages, from K present leaf SPTEs: *page* int64[K] whose it is, *entries* uint64[K], *young* and
    *large* bool[K]."""
    words: list[list[str]] = [[] for _ in range(pages)]
    tracked = spte.is_access_track(entries, layout)
    writable = spte.is_writable(entries, layout)
    for p, t, w, y, h in zip(
        page.tolist(), tracked.tolist(), writable.tolist(), young.tolist(), large.tolist(), strict=True
    ):
        words[p].append(("T" if t else "P") + "W" * w + "Y" * y + "H" * h)
    return [",".join(sorted(w)) for w in words]


class When(NamedTuple):
    """When pages are looked at: in which *step* of the scenario, and at which side of its pass number *pass_* (0: at none)."""

    step: int
    at: Literal["observe", "before", "after"]
    pass_: int


def page_state(
    when: When, space: str, *,
    pmd: U64, table: U64, flags: npt.NDArray[np.uint32], mapcount: npt.NDArray[np.int32], sptes: Mapping[str, list[str]],
) -> PageState:  # fmt: skip
    """Write one space down. *pmd* uint64[B], *table* uint64[B, 512]; *flags* and *mapcount* [B * 512], asked for
    present pages only; *sptes* for each VM, by name, the text of each page."""
    entries = per_page(pmd, table)
    huge = np.repeat(pte.pmd_trans_huge(pmd), HPAGE_PMD_NR)
    # The zero pages belong to everyone: what their flags and counts are is no matter of this space's.
    present = pte.pte_present(entries) & ((flags & pageflags.ZERO_PAGE) == 0)
    shown = np.where(present, flags & pageflags.COMPARED, np.uint32(0))
    counts = np.where(present, mapcount, np.int32(0))
    return PageState(
        step=when.step,
        space=space,
        pte=runs(pte_texts(entries, huge)),
        flags=runs([int(x) for x in shown.tolist()]),
        mapcount=runs([int(x) for x in counts.tolist()]),
        spte={name: runs(texts) for name, texts in sptes.items()},
        at=when.at,
        pass_=when.pass_,
    )
