"""Scan and isolate: the kernel's order of checks, its limits, its counters, and what an unknown answer may change.

Blocks are made by hand, so each check is tried where the model alone could not lead: a locked page, a page off the LRU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as x86
from secondsight.bits import swap
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.checks import ISOLATE_ORDER, SCAN_ORDER, check_order
from secondsight.mm.khugepaged.isolate import isolate
from secondsight.mm.khugepaged.result import ScanNumbers
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.mm.profiles import PROFILES
from secondsight.mm.view import BlockView, Channel, empty
from support.model import ALL, KERNELS

ENTRY = x86.PRESENT | x86.RW | x86.USER | x86.DIRTY
FLAGS = kpf.ANON | kpf.LRU | kpf.SWAPBACKED | kpf.UPTODATE


def block(**channels: list[int]) -> BlockView:
    """One block of 512 ordinary small pages, none of them young; *channels*: pages that a secondary MMU calls young."""
    columns = empty(1)
    columns["pmd"][:] = x86.TABLE
    columns["eligible"][:] = True
    columns["pte"][0] = x86.mk_pte(np.arange(2048, 2560), ENTRY)
    columns["flags"][:] = FLAGS
    for name in ("mapcount", "folio_mapcount", "refcount"):
        columns[name][:] = 1
    columns["folio"][0] = np.arange(2048, 2560)
    secondary = []
    for name, young in channels.items():
        mask = np.zeros((1, 512), np.bool_)
        mask[0, young] = True
        secondary.append(Channel(name, mask, np.ones((1, 512), np.bool_)))
    return BlockView(**columns, secondary=tuple(secondary))


def young(view: BlockView, *pages: int) -> BlockView:
    view.pte[0, list(pages)] |= x86.ACCESSED
    return view


# -- the order of checks -----------------------------------------------------------------------------------------


def _lazyfree(v: BlockView, i: int) -> None:
    v.flags[0, i] &= ~kpf.SWAPBACKED
    v.pte[0, i] &= ~x86.DIRTY


def _shared(v: BlockView, i: int) -> None:
    v.mapcount[0, i] = v.folio_mapcount[0, i] = 2
    v.refcount[0, i] += 1
    v.shared[0, i] = True


def _set(column: str, value: int | np.generic) -> Callable[[BlockView, int], None]:
    def change(v: BlockView, i: int) -> None:
        getattr(v, column)[0, i] |= value

    return change


def _clear(column: str, value: np.generic) -> Callable[[BlockView, int], None]:
    def change(v: BlockView, i: int) -> None:
        getattr(v, column)[0, i] &= ~value

    return change


def _pinned(v: BlockView, i: int) -> None:
    v.refcount[0, i] += 7


DEFECTS: dict[str, Callable[[BlockView, int], None]] = {
    "PAGE_RO": _clear("pte", x86.RW),
    "PTE_UFFD_WP": _set("pte", x86.UFFD_WP),
    "PAGE_LAZYFREE": _lazyfree,
    "PAGE_ANON": _clear("flags", kpf.ANON),
    "EXCEED_SHARED_PTE": _shared,
    "PAGE_LRU": _clear("flags", kpf.LRU),
    "PAGE_LOCK": _set("flags", kpf.LOCKED),
    "PAGE_COUNT": _pinned,
}
ASKED = ("6.1", "6.12", "6.18", "7.2")


def order_of(name: str, second: bool) -> tuple[str, ...]:
    """The checks of a mapped page that the profile *name* makes, first to last."""
    rules = PROFILES[name]
    table = (ISOLATE_ORDER if second else SCAN_ORDER)[check_order(rules)]
    # No folio of the PMD order is collapsed already.
    left_out = {"PTE_MAPPED_HUGEPAGE"} | ({"PAGE_LAZYFREE"} if not rules.lazyfree_refused else set())
    return tuple(code for code in table if code not in left_out)


STRICT = Knobs(max_ptes_shared=0)


def look(view: BlockView, name: str, second: bool, limits: Knobs = STRICT, **how: bool) -> ScanNumbers:
    return (isolate if second else scan)(view, limits, PROFILES[name], **how)


def _cases() -> list[tuple[str, bool, tuple[str, ...]]]:
    out = []
    for second, name in product((False, True), ("2.6.38", *ASKED)):
        order = order_of(name, second)
        out += [(name, second, (code,)) for code in order]
        out += [(name, second, pair) for pair in combinations(order, 2)]
    return out


@pytest.mark.parametrize(("name", "second", "codes"), _cases(), ids=str)
def test_a_page_with_two_faults_answers_with_the_one_tested_first(name, second, codes) -> None:
    view = young(block(), 0)
    for code in codes:
        DEFECTS["PAGE_LRU" if code == "DEL_PAGE_LRU" else code](view, 9)
    if "PAGE_LAZYFREE" in codes and "PAGE_ANON" in codes:
        # folio_test_lazyfree asks for an anonymous page.
        codes = ("PAGE_ANON",)
    answer = look(view, name, second)
    assert Scan(answer.code[0]).name == codes[0]
    assert answer.stopped[0] == 9 and answer.referenced[0] == 1 and not answer.passed[0]


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("saved", [x86.DIRTY, x86.SAVED_DIRTY])
def test_a_written_page_is_not_lazyfree_write_protected_or_not(saved, second) -> None:
    """pte_dirty tests _PAGE_DIRTY_BITS: mprotect moves D to _PAGE_SAVED_DIRTY."""
    view = young(block(), 0)
    _lazyfree(view, 9)
    view.pte[0, 9] = (view.pte[0, 9] & ~x86.RW) | saved
    assert look(view, "7.2", second).passed[0]


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", ASKED)
def test_the_lower_page_ends_the_look(name, second) -> None:
    view = young(block(), 0)
    DEFECTS["PAGE_COUNT"](view, 9)
    DEFECTS["PTE_UFFD_WP"](view, 10)
    assert Scan(look(view, name, second).code[0]) == Scan.PAGE_COUNT


@pytest.mark.parametrize("second", [False, True])
def test_the_posted_patch_wants_every_page_writable_and_held_once(second) -> None:
    for change, code in (
        (_clear("pte", x86.RW), Scan.PAGE_RO),
        (_shared, Scan.PAGE_COUNT),
        (_pinned, Scan.PAGE_COUNT),
        (DEFECTS["PAGE_LOCK"], Scan.PAGE_LOCK),
    ):
        view = young(block(), 0)
        change(view, 3)
        answer = look(view, "2.6.38", second)
        assert Scan(answer.code[0]) == code and answer.stopped[0] == 3


# -- limits --------------------------------------------------------------------------------------------------------


def _none(v: BlockView, pages: range) -> None:
    for name in ("pte", "flags", "mapcount", "folio_mapcount", "refcount"):
        getattr(v, name)[0, pages] = 0


@pytest.mark.parametrize("zero_page", [False, True])
@pytest.mark.parametrize("name", ["6.1", "7.2"])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 511])
def test_max_ptes_none_is_the_number_tolerated(limit, second, name, zero_page) -> None:
    for count, code in ((limit, Scan.SUCCEED), (limit + 1, Scan.EXCEED_NONE_PTE)):
        view = young(block(), 511)
        _none(view, range(count))
        if zero_page:
            view.pte[0, :count] = x86.PRESENT | x86.SPECIAL | x86.ACCESSED
        answer = look(view, name, second, Knobs(max_ptes_none=limit))
        if count == 512:
            # Nothing left to be referenced either, but the limit is hit first.
            assert Scan(answer.code[0]) == Scan.EXCEED_NONE_PTE
        else:
            assert Scan(answer.code[0]) == code
        assert answer.none_or_zero[0] == count
        # MADV_COLLAPSE knows no limit.
        assert look(view, name, second, Knobs(max_ptes_none=0), khugepaged=False).code[0] in (
            Scan.SUCCEED,
            Scan.PAGE_RO,
        )


def test_the_zero_page_was_a_read_only_page_in_2010() -> None:
    view = young(block(), 0)
    _none(view, range(5, 6))
    view.pte[0, 5] = x86.PRESENT | x86.SPECIAL | x86.ACCESSED
    assert Scan(look(view, "2.6.38", False).code[0]) == Scan.PAGE_RO
    assert Scan(look(view, "6.1", False).code[0]) == Scan.SUCCEED


@pytest.mark.parametrize("name", ["6.1", "6.12", "7.2"])
def test_swap_entries_are_counted_tolerated_and_need_half_of_the_block_in_use(name) -> None:
    limits = Knobs(max_ptes_swap=3)
    for swapped, referenced, code in (
        (3, 256, Scan.SUCCEED),
        (3, 255, Scan.LACK_REFERENCED_PAGE),
        (4, 400, Scan.EXCEED_SWAP_PTE),
        (0, 1, Scan.SUCCEED),
    ):
        view = young(block(), *range(10, 10 + referenced))
        _none(view, range(swapped))
        view.pte[0, :swapped] = x86.swap_pte(np.arange(swapped, dtype=np.uint64))
        answer = look(view, name, False, limits)
        assert Scan(answer.code[0]) == code
        assert answer.unmapped[0] == swapped
        if swapped:
            assert Scan(look(view, name, True, limits).code[0]) == Scan.PTE_NON_PRESENT


def test_a_swap_entry_ended_the_scan_in_2010() -> None:
    view = young(block(), 0)
    view.pte[0, 8] = x86.swap_pte(np.uint64(1))
    assert Scan(look(view, "2.6.38", False).code[0]) == Scan.PTE_NON_PRESENT


@pytest.mark.parametrize("name", ["6.12", "7.2", "7.3"])
@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (x86.swap_pte(np.uint64(1)), Scan.SUCCEED),
        (x86.swap_pte(np.uint64(1)) | swap.SWP_UFFD_WP, Scan.PTE_UFFD_WP),
        (swap.swp_entry(np.uint64(31), np.uint64(swap.MARKER_UFFD_WP)), Scan.PTE_UFFD_WP),
        (swap.swp_entry(np.uint64(31), np.uint64(swap.MARKER_POISON)), Scan.SUCCEED),
        (swap.swp_entry(np.uint64(31), np.uint64(swap.MARKER_GUARD)), Scan.SUCCEED),
        (swap.swp_entry(np.uint64(25), np.uint64(7)), Scan.SUCCEED),
    ],
)
def test_of_the_entries_that_are_not_present_only_userfaultfds_end_the_scan(name, entry, code) -> None:
    view = young(block(), *range(512))
    view.pte[0, 8] = entry
    scanned = look(view, name, False, Knobs())
    assert Scan(scanned.code[0]) == code and scanned.unmapped[0] == 1


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", ["6.1", "6.12", "7.2"])
def test_max_ptes_shared_is_the_number_tolerated(name, second) -> None:
    for count, code in ((2, Scan.SUCCEED), (3, Scan.EXCEED_SHARED_PTE)):
        view = young(block(), 511)
        for page in range(count):
            _shared(view, page)
        assert Scan(look(view, name, second, Knobs(max_ptes_shared=2)).code[0]) == code
        assert Scan(look(view, name, second, STRICT, khugepaged=False).code[0]) == Scan.SUCCEED


def test_a_userfault_area_tolerates_no_hole_from_anyone() -> None:
    view = young(block(), 0)
    _none(view, range(5, 6))
    view.uffd[:] = True
    for daemon in (True, False):
        assert Scan(look(view, "7.2", False, Knobs(), khugepaged=daemon).code[0]) == Scan.EXCEED_NONE_PTE


@pytest.mark.parametrize(
    ("name", "all_read_only", "one_writable"),
    [
        ("2.6.38", "PAGE_RO", "PAGE_RO"),
        ("6.1", "PAGE_RO", "SUCCEED"),
        ("6.12", "PAGE_RO", "SUCCEED"),
        ("6.18", "SUCCEED", "SUCCEED"),
        ("7.2", "SUCCEED", "SUCCEED"),
    ],
)
@pytest.mark.parametrize("second", [False, True])
def test_how_many_pages_must_be_writable(name, all_read_only, one_writable, second) -> None:
    view = young(block(), 0)
    view.pte[0] &= ~x86.RW
    assert Scan(look(view, name, second).code[0]).name == all_read_only
    view.pte[0, 77] |= x86.RW
    answer = look(view, name, second)
    assert Scan(answer.code[0]).name == one_writable
    if one_writable == "SUCCEED":
        assert answer.writable[0]


@pytest.mark.parametrize(
    ("pmd", "old", "new"),
    [(0, "PMD_NONE", "NO_PTE_TABLE"), (int(x86.PRESENT | x86.PSE), "PMD_MAPPED", "PMD_MAPPED")],
)
def test_without_a_page_table_there_is_nothing_to_scan(pmd, old, new) -> None:
    view = block()
    view.pmd[0] = pmd
    for name in ("6.1", "6.12", "6.18"):
        assert Scan(look(view, name, False).code[0]).name == old
    assert Scan(look(view, "7.2", False).code[0]).name == new


# -- youth ------------------------------------------------------------------------------------------------------------


#: The channels that count as use in scan and in isolate, read in each kernel's mm/khugepaged.c (2.6.38: mm/huge_memory.c):
#: the accessed bit; PG_referenced and the notifiers since mmu_notifier_test_young; PG_young since idle page tracking (4.3).
EVERY = ("accessed bit", "PG_referenced", "PG_young", "secondary")
COUNT_AS_USE = {
    "thp-base": (("accessed bit",), ("accessed bit",)),
    # The scan asks the notifiers about page 0 in place of page 5, which alone was used; isolate asks about page 5.
    "2.6.38": (("accessed bit", "PG_referenced"), ("accessed bit", "PG_referenced", "secondary")),
    "2.6.38-fixed": (("accessed bit", "PG_referenced", "secondary"),) * 2,
    "6.12.43": (("accessed bit", "PG_referenced", "PG_young"), EVERY),
    **dict.fromkeys(
        ("5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"), (EVERY, EVERY)
    ),
    # 2.6.38-fixed, which counts use and refuses nothing for want of it.
    "no-heuristic": (("accessed bit", "PG_referenced", "secondary"),) * 2,
}


def test_the_table_of_channels_has_every_profile() -> None:
    assert set(COUNT_AS_USE) == set(ALL)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_each_channel_alone_saves_a_block_where_the_kernel_counts_it_as_use(name, second) -> None:
    cases = {
        "accessed bit": young(block(), 5),
        "PG_referenced": block(),
        "PG_young": block(),
        "secondary": block(kvm=[5]),
        "nothing": block(),
    }
    cases["PG_referenced"].flags[0, 5] |= kpf.REFERENCED
    cases["PG_young"].flags[0, 5] |= kpf.YOUNG
    for channel, view in cases.items():
        answer = look(view, name, second)
        saves = channel in COUNT_AS_USE[name][int(second)]
        want = Scan.SUCCEED if saves or name == "no-heuristic" else Scan.LACK_REFERENCED_PAGE
        assert Scan(answer.code[0]) == want, channel
        assert answer.referenced[0] == int(saves), channel


def test_the_posted_bug_counts_the_first_page_512_times() -> None:
    view = block(kvm=[0])
    assert look(view, "2.6.38", False).referenced[0] == 512
    assert look(view, "2.6.38", True).referenced[0] == 1
    assert look(view, "2.6.38-fixed", False).referenced[0] == 1


def test_only_pages_that_nothing_else_calls_young_are_asked_about() -> None:
    view = young(block(kvm=[3]), *range(100))
    view.flags[0, 100:150] |= kpf.REFERENCED
    _none(view, range(500, 512))
    answer = look(view, "6.1", False)
    assert answer.asked[0] == 512 - 100 - 50 - 12
    assert look(view, "thp-base", False).asked[0] == 0
    assert look(view, "6.1", False, khugepaged=False).asked[0] == 0


def test_two_notifiers_answer_for_different_pages() -> None:
    assert look(block(kvm=[3], gru=[4, 5]), "6.1", False).referenced[0] == 3


# -- unknown is a value ---------------------------------------------------------------------------------------------


def test_a_page_swapped_in_beside_a_hole_is_a_page_of_its_own_in_the_zap() -> None:
    """Neither has a folio: the zap's marks on others must not make one of the other."""
    view = young(block(kvm=list(range(20, 400))), *range(10, 300))
    view.pte[0, 3] = x86.NONE
    view.pte[0, 9] = x86.swap_pte(np.uint64(5))
    for column in ("flags", "mapcount", "folio_mapcount", "refcount"):
        getattr(view, column)[0, [3, 9]] = 0
    view.folio[0, [3, 9]] = -1
    view.zap_marks[0, 20:400] = 1
    judged = verdict(view, Knobs(), PROFILES["6.1"])
    assert Scan(judged.code[0]) == Scan.SUCCEED and judged.known[0]


@pytest.mark.parametrize("name", KERNELS)
def test_a_verdict_says_when_an_unknown_channel_decides(name) -> None:
    view = block(kvm=[])
    blind = replace(view.secondary[0], known=np.zeros((1, 512), np.bool_))
    judged = verdict(replace(view, secondary=(blind,)), Knobs(), PROFILES[name])
    assert Scan(judged.code[0]) == Scan.LACK_REFERENCED_PAGE
    # Where the zap carries youth over, a yes would have collapsed the block; since 6.13 isolate refuses it either way.
    assert judged.known[0] != PROFILES[name].zap_transfers_accessed
    assert Scan(judged.other[0]) == (Scan.LACK_REFERENCED_PAGE if judged.known[0] else Scan.SUCCEED)
    # One page the CPU used decides, whatever the blind channel would say.
    seen = verdict(replace(young(block(), 7), secondary=(blind,)), Knobs(), PROFILES[name])
    assert seen.known[0] and Scan(seen.code[0]) == Scan.SUCCEED


def test_unknown_page_columns_count_as_assumed() -> None:
    view = block()
    view.page_known[:] = False
    assert Scan(look(view, "7.2", False).code[0]) == Scan.LACK_REFERENCED_PAGE
    assert Scan(look(view, "7.2", False, assume=True).code[0]) == Scan.SUCCEED


# -- purity and shape -------------------------------------------------------------------------------------------------

columns = st.fixed_dictionaries({
    "defects": st.lists(st.tuples(st.sampled_from(sorted(DEFECTS)), st.integers(0, 511)), max_size=4),
    "young": st.lists(st.integers(0, 511), max_size=4),
    "kvm": st.lists(st.integers(0, 511), max_size=4),
    "none": st.integers(0, 512),
})  # fmt: skip


@given(many=st.lists(columns, min_size=1, max_size=5), name=st.sampled_from(ALL), second=st.booleans())
@settings(max_examples=60, deadline=None)
def test_blocks_are_judged_each_for_itself_and_left_as_they_were(many, name, second) -> None:
    made = []
    for one in many:
        view = young(block(kvm=one["kvm"]), *one["young"])
        _none(view, range(one["none"]))
        for code, page in one["defects"]:
            DEFECTS[code](view, page)
        made.append(view)
    together = BlockView(
        **{n: np.concatenate([getattr(v, n) for v in made]) for n in empty(1)},
        secondary=(Channel("kvm", np.concatenate([v.secondary[0].young for v in made]),
                           np.concatenate([v.secondary[0].known for v in made])),),
    )  # fmt: skip
    before = {n: getattr(together, n).copy() for n in empty(1)}
    whole = look(together, name, second)
    for name_, old in before.items():
        assert np.array_equal(getattr(together, name_), old)
    for i, view in enumerate(made):
        alone = look(view, name, second)
        for field in alone._fields:
            assert getattr(alone, field)[0] == getattr(whole, field)[i], field
        sliced = look(together[i], name, second)
        assert sliced.code[0] == alone.code[0]


def test_strings_are_the_tracepoints_own() -> None:
    assert str(Scan.LACK_REFERENCED_PAGE) == "lack_referenced_page"
    assert str(Scan.PAGE_COUNT) == "not_suitable_page_count"
    assert str(Scan.PAGE_RO) == "no_writable_page"
    assert str(Scan.CGROUP_CHARGE_FAIL) == "ccgroup_charge_failed"
    assert str(Scan.PMD_MAPPED) == "page_pmd_mapped"
