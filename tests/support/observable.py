"""The shortest scenarios that show a rule: one for each rule of page tables, KVM and the LRU that a booted kernel settled.

``tests/mm/rules/`` holds the model to what is written here, for either value of the rule; ``tests/lab`` asks booted kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from secondsight.bits.pageflags import REFERENCED, THP, UNEVICTABLE
from secondsight.mm.config import HostConfig
from secondsight.scenario import verbs as v
from secondsight.scenario.results import PageState, Run


@dataclass(frozen=True)
class Shown:
    """*look* at the run of *steps* answers *yes* where the *rule* is true (or as the fourth value says), else *no*.

    *yes* and *no* pair a value of the rule with the look's answer.
    """

    rule: str
    steps: tuple[v.Verb, ...]
    look: Callable[[Run], object]
    yes: tuple[object, object]
    no: tuple[object, object]
    rules: str = "6.12"
    vm: bool = False
    mmu: str = "npt"
    mglru: bool = False

    def scenario(self) -> v.Scenario:
        """The steps in one space of one block, and a look at the end."""
        space = v.SpaceSpec("p", 1, v.Vm() if self.vm else None)
        host = HostConfig(mmu=self.mmu, mglru=self.mglru)
        return v.Scenario(spaces=(space,), steps=(*self.steps, v.Observe()), title=self.rule, host=host)


def _last(run: Run, space: str = "p") -> PageState:
    return [s for s in run.states if s.at == "observe" and s.space == space][-1]


def _at(runs: list[tuple[int, object]], page: int) -> object:
    for length, value in runs:
        if page < length:
            return value
        page -= length
    raise AssertionError("no such page")


def pte(page: int) -> Callable[[Run], object]:
    """The page's primary entry as text."""
    return lambda run: _at(_last(run).pte, page)


def spte(page: int) -> Callable[[Run], object]:
    """The page's secondary entries as text."""
    return lambda run: _at(_last(run).spte["kvm"], page)


def flag(page: int, bit: object) -> Callable[[Run], object]:
    """Does the page's folio have the flag?"""
    return lambda run: bool(_at(_last(run).flags, page) & int(bit))  # type: ignore[operator]


def status(run: Run) -> object:
    """What khugepaged said last."""
    return run.blocks[-1].status


_fill = v.CpuWrite("p", "0")
_huge = (v.Madvise("p", "0", "hugepage"), v.CpuWrite("p", "0"))
_was_shared = (_fill, v.Drain(), v.Fork("p", "child"), v.Exit("child"))
_scan = (v.Madvise("p", "0", "hugepage"), v.Scan())

SHOWN = (
    Shown(
        "fork_copies_pinned",
        (_fill, v.Pin("p", "0:5", "dma", write=True), v.Fork("p", "child")),
        pte(5),
        (True, "PWAD"),
        (False, "PAD"),
    ),
    Shown("split_pmd_keeps_dirty", (*_huge, v.SplitPmd("p", "0")), pte(5), (True, "PWAD"), (False, "PWA")),
    Shown(
        "split_maps_zero_page",
        (v.Madvise("p", "0", "hugepage"), v.CpuWrite("p", "0:0-9"), v.SplitHuge("p", "0")),
        pte(100),
        (True, "PA"),
        (False, "PWAD"),
    ),
    Shown(
        "mprotect_keeps_huge_writable",
        (*_huge, v.Mprotect("p", "0", "r"), v.Mprotect("p", "0", "rw")),
        pte(0),
        (True, "PWADH"),
        (False, "PADH"),
    ),
    Shown(
        "mprotect_keeps_exclusive_writable",
        (_fill, v.Mprotect("p", "0", "r"), v.Mprotect("p", "0", "rw")),
        pte(0),
        (True, "PWAD"),
        (False, "PAD"),
    ),
    Shown(
        "mprotect_keeps_clean_writable",
        (_fill, v.Drain(), v.Madvise("p", "0", "free"), v.Mprotect("p", "0", "r"), v.Mprotect("p", "0", "rw")),
        pte(0),
        (True, "PW"),
        (False, "P"),
    ),
    Shown(
        "huge_zero_wp_allocates",
        (v.Madvise("p", "0", "hugepage"), v.CpuRead("p", "0:3"), v.CpuWrite("p", "0:3")),
        pte(0),
        (True, "PWADH"),
        (False, "PA"),
    ),
    Shown(
        "lazyfree_keeps_pmd",
        (*_huge, v.Drain(), v.Madvise("p", "0", "free"), v.CpuWrite("p", "0:3"), v.SwapOut("p", "0")),
        pte(0),
        (True, "PWADH"),
        (False, "PWAD"),
    ),
    Shown(
        "reclaim_splits_lazyfree",
        (*_huge, v.Drain(), v.Madvise("p", "0", "free"), v.CpuWrite("p", "0:3"), v.SwapOut("p", "0")),
        flag(9, THP),
        (True, False),
        (False, True),
        rules="5.10",
    ),
    Shown(
        "unmap_batches_lazyfree",
        (*_huge, v.SplitPmd("p", "0"), v.Drain(), v.Madvise("p", "0", "free"), v.CpuWrite("p", "0:3"), v.SwapOut("p", "0")),
        pte(9),
        (True, "PWAD"),
        (False, "PW"),
    ),
    Shown(
        "unmap_batch_ends_at_write",
        (
            *(*_huge, v.SplitPmd("p", "0"), v.Fork("p", "c"), v.CpuWrite("c", "0"), v.Drain()),
            *(v.Madvise("p", "0", "free"), v.CpuWrite("p", "0:3"), v.SwapOut("p", "0")),
        ),
        pte(3),
        (True, "PWAD"),
        (False, "PAD"),
        rules="7.2",
    ),
    Shown(
        "swapin_writable",
        (_fill, v.Drain(), v.ClearRefs("p"), v.SwapOut("p", "0:7", took="0:7"), v.CpuRead("p", "0:7")),
        pte(7),
        (True, "PWA"),
        (False, "PA"),
    ),
    Shown(
        "area_cut_invalidates",
        (_fill, v.GuestRead("p", "0"), v.Mlock("p", "0:100-200")),
        spte(5),
        (True, ""),
        (False, "PWY"),
        vm=True,
    ),
    Shown(
        "mprotect_batches",
        (*_huge, v.SplitPmd("p", "0"), v.ClearRefs("p"), v.CpuRead("p", "0:3"), v.Mprotect("p", "0", "r")),
        pte(9),
        (True, "PAD"),
        (False, "PD"),
        rules="7.2",
    ),
    Shown(
        "wp_reuses_large",
        (*_huge, v.SplitPmd("p", "0"), v.Fork("p", "child"), v.Exit("child"), v.Drain(), v.CpuWrite("p", "0:9")),
        flag(9, THP),
        (True, True),
        (False, False),
        rules="7.2",
    ),
    Shown(
        "mlock_counts_large",
        (*_huge, v.SplitPmd("p", "0"), v.Drain(), v.Mlock("p", "0"), v.Drain()),
        flag(0, UNEVICTABLE),
        (True, True),
        (False, False),
    ),
    Shown(
        "split_pmd_munlocks",
        (*_huge, v.Drain(), v.Mlock("p", "0"), v.Drain(), v.SplitPmd("p", "0"), v.Drain()),
        flag(0, UNEVICTABLE),
        (True, False),
        (False, True),
    ),
    Shown(
        "direct_io_pins",
        (_fill, v.Fork("p", "child"), v.Drain(), v.IoZeroCopy("p", "0:3", write=False)),
        lambda run: _at(_last(run).mapcount, 3),
        (True, 1),
        (False, 2),
    ),
    Shown(
        "zap_transfers_accessed",
        (_fill, v.GuestWrite("p", "0:9"), v.Drain(), v.ClearRefs("p"), *_scan),
        status,
        (True, "succeeded"),
        (False, "lack_referenced_page"),
        vm=True,
    ),
    Shown(
        "lru_batch",
        (
            _fill, v.Drain(), v.ClearRefs("p"), v.GuestRead("p", "0:0-30"), v.Madvise("p", "0:0-30", "cold"),
            v.IoZeroCopy("p", "0:0-30", write=False), v.Drain(), *_scan,
        ),
        status,
        (31, "lack_referenced_page"),
        (15, "not_suitable_page_count"),
        vm=True,
    ),
    Shown(
        "mglru_lazyfree_keeps_referenced",
        (_fill, v.Drain(), v.CpuWrite("p", "0"), v.IoZeroCopy("p", "0", write=False), v.Madvise("p", "0", "free"), v.Drain()),
        flag(3, REFERENCED),
        (True, True),
        (False, False),
        rules="7.2",
        mglru=True,
    ),
    Shown(
        "dontneed_frees_tables",
        (_fill, v.Madvise("p", "0", "hugepage"), v.Madvise("p", "0", "dontneed"), v.CpuRead("p", "0:0")),
        pte(511),
        (True, "PAH"),
        (False, "-"),
        rules="7.2",
    ),
    Shown(
        "swapin_bypasses_cache",
        (*_was_shared, v.ClearRefs("p"), v.SwapOut("p", "0:7", took="0:7"), v.CpuRead("p", "0:7")),
        pte(7),
        (True, "PWA"),
        (False, "PA"),
        rules="7.2",
    ),
    Shown(
        "swapin_drains",
        # Within one mlock the batch of 31 is full at the 31st new page; after the page of the swap cache it is counted from there.
        (
            v.CpuWrite("p", "0:20"), v.Drain(), v.SwapOut("p", "0:20", took="0:20"), v.Mlock("p", "0:0-59"), v.Drain(),
        ),
        lambda run: [flag(page, REFERENCED)(run) for page in (31, 51)],
        (True, [True, False]),
        (False, [False, True]),
        rules="7.2",
        mglru=True,
    ),
    Shown(
        "wp_reuses_last",
        (*_huge, v.SplitPmd("p", "0"), v.Fork("p", "child"), v.Exit("child"), v.Drain(), v.CpuWrite("p", "0")),
        flag(511, THP),
        (True, True),
        (False, False),
    ),
    Shown(
        "merge_unfaulted",
        (v.Madvise("p", "0:7", "nohugepage"), v.CpuWrite("p", "0:9"), *_scan),
        lambda run: bool(run.blocks),
        (True, True),
        (False, False),
        rules="7.2",
    ),
    Shown(
        "longterm_pins_touch",
        (v.Pin("p", "0:3", "buffer", write=True),),
        flag(3, REFERENCED),
        (True, True),
        (False, False),
    ),
    Shown(
        "touch_pmd_always",
        (*_huge, v.ClearRefs("p"), v.IoZeroCopy("p", "0:3", write=False)),
        pte(0),
        (True, "PWDH"),
        (False, "PWDH"),
    ),
    Shown(
        "pmd_modify_drops_dirty",
        (_fill, *_scan, v.Mprotect("p", "0", "r")),
        pte(0),
        (True, "PAH"),
        (False, "PADH"),
    ),
    Shown(
        "cow_copies_huge",
        (*_huge, v.Fork("p", "child"), v.CpuWrite("p", "0:7")),
        pte(8),
        (True, "PWADH"),
        (False, "PAD"),
    ),
    Shown(
        "has_huge_zero_page",
        (v.Madvise("p", "0", "hugepage"), v.CpuRead("p", "0:0")),
        pte(0),
        (True, "PAH"),
        (False, "PWADH"),
    ),
    Shown("splits_by_process", (*_huge, v.Drain(), v.SplitHuge("p", "0")), flag(9, THP), (True, False), (False, True)),
    Shown("migration_keeps_bits", (*_huge, v.Drain(), v.SplitHuge("p", "0")), pte(5), (True, "PWAD"), (False, "PW"), rules="6.1"),
    Shown(
        "anon_exclusive",
        (_fill, v.Drain(), v.Fork("p", "child"), v.Pin("p", "0:3", "held"), v.Exit("child"), v.CpuWrite("p", "0:3")),
        flag(3, REFERENCED),
        (True, False),  # a copy, which nobody has referenced
        (False, True),
        rules="6.1",
    ),
    Shown(
        "wp_counts_references",
        (
            _fill, v.Drain(), v.Pin("p", "0:3", "held"), v.Mprotect("p", "0:3", "r"), v.Mprotect("p", "0:3", "rw"),
            v.CpuWrite("p", "0:3"),
        ),
        flag(3, REFERENCED),
        (True, False),
        (False, True),
        rules="5.10",
    ),
    Shown(
        "mlock_by_populate",
        (_fill, v.Drain(), v.IoZeroCopy("p", "0:3", write=False), v.Mlock("p", "0:3"), v.Drain()),
        flag(3, REFERENCED),
        (True, False),
        (False, True),
        rules="6.1",
    ),
    Shown(
        "swapin_mlocks",
        (
            _fill, v.Drain(), v.SwapOut("p", "0:100", took="0:100"),
            # mlock populates up to the first area that cannot be read; what is behind it is locked, and not there.
            v.Mprotect("p", "0:0-9", "none"), v.Mlock("p", "0"), v.CpuRead("p", "0:100"), v.Drain(),
        ),
        flag(100, UNEVICTABLE),
        (True, True),
        (False, False),
        rules="6.1",
    ),
    Shown("tdp_mmu", (_fill, v.GuestRead("p", "0:3")), spte(0), (True, ""), (False, "PW"), vm=True),
    Shown(
        "prefetch_ends_group",
        (_fill, v.GuestRead("p", "0:3")),
        spte(7),
        (True, "PW"),
        (False, ""),
        rules="6.1",
        vm=True,
        mmu="shadow",
    ),
    Shown(
        "collapse_says_why",
        (_fill, v.GuestWrite("p", "0:9"), v.Drain(), v.ClearRefs("p"), *_scan),
        status,
        (True, "lack_referenced_page"),
        (False, "succeeded"),
        rules="7.2",
        vm=True,
    ),
    Shown("has_madv_free", (_fill, v.Drain(), v.Madvise("p", "0", "free")), pte(0), (True, "PW"), (False, "PWAD")),
    Shown("has_madv_cold", (_fill, v.Drain(), v.Madvise("p", "0", "cold")), pte(0), (True, "PWD"), (False, "PWAD")),
)  # fmt: skip
