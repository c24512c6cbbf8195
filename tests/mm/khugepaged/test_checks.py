"""What kernels differ in: the order in which a page is checked, held against scan and isolate, and which channels count as use."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as x86
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.checks import (
    ISOLATE_ORDER,
    ORDER_2_6_38,
    ORDER_6_1,
    ORDER_6_12,
    SCAN_ORDER,
    check_order,
)
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.profiles import PROFILES
from secondsight.mm.view import BlockView, Channel, empty
from support.blocks_by_hand import (
    ASKED,
    DEFECTS,
    answer_of,
    block,
    clearing,
    hole,
    lazyfree,
    pin,
    share,
    young,
)
from support.model import ALL


def order_of(name: str, isolating: bool) -> tuple[str, ...]:
    """The checks of a mapped page that the profile *name* makes, first to last."""
    rules = PROFILES[name]
    table = (ISOLATE_ORDER if isolating else SCAN_ORDER)[check_order(rules)]
    # No folio of the PMD order is collapsed already.
    left_out = {"PTE_MAPPED_HUGEPAGE"}
    if not rules.lazyfree_refused:
        left_out.add("PAGE_LAZYFREE")
    if not rules.isolate_reuses_swap_page:
        left_out.add("SWAP_CACHE_PAGE")
    return tuple(code for code in table if code not in left_out)


def _cases() -> list[tuple[str, bool, tuple[str, ...]]]:
    out = []
    for isolating, name in product((False, True), ("2.6.38", *ASKED)):
        order = order_of(name, isolating)
        out += [(name, isolating, (code,)) for code in order]
        out += [(name, isolating, pair) for pair in combinations(order, 2)]
    return out


@pytest.mark.parametrize(("name", "isolating", "codes"), _cases(), ids=str)
def test_a_page_with_two_faults_answers_with_the_one_tested_first(name, isolating, codes) -> None:
    view = young(block(), 0)
    for code in codes:
        DEFECTS["PAGE_LRU" if code == "DEL_PAGE_LRU" else code](view, 9)
    if "PAGE_LAZYFREE" in codes and "PAGE_ANON" in codes:
        # folio_test_lazyfree asks for an anonymous page.
        codes = ("PAGE_ANON",)
    answer = answer_of(view, name, isolating)
    assert Scan(answer.code[0]).name == codes[0]
    assert answer.stopped[0] == 9 and answer.referenced[0] == 1 and not answer.passed[0]


@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize("saved", [x86.DIRTY, x86.SAVED_DIRTY])
def test_a_written_page_is_not_lazyfree_write_protected_or_not(saved, isolating) -> None:
    """pte_dirty tests _PAGE_DIRTY_BITS: mprotect moves D to _PAGE_SAVED_DIRTY."""
    view = young(block(), 0)
    lazyfree(view, 9)
    view.pte[0, 9] = (view.pte[0, 9] & ~x86.RW) | saved
    assert answer_of(view, "7.2", isolating).passed[0]


@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize("name", ASKED)
def test_the_lower_page_ends_the_look(name, isolating) -> None:
    view = young(block(), 0)
    DEFECTS["PAGE_COUNT"](view, 9)
    DEFECTS["PTE_UFFD_WP"](view, 10)
    assert Scan(answer_of(view, name, isolating).code[0]) == Scan.PAGE_COUNT


@pytest.mark.parametrize("isolating", [False, True])
def test_the_posted_patch_wants_every_page_writable_and_held_once(isolating) -> None:
    for change, code in (
        (clearing("pte", x86.RW), Scan.PAGE_RO),
        (share, Scan.PAGE_COUNT),
        (pin, Scan.PAGE_COUNT),
        (DEFECTS["PAGE_LOCK"], Scan.PAGE_LOCK),
    ):
        view = young(block(), 0)
        change(view, 3)
        answer = answer_of(view, "2.6.38", isolating)
        assert Scan(answer.code[0]) == code and answer.stopped[0] == 3


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
@pytest.mark.parametrize("isolating", [False, True])
def test_how_many_pages_must_be_writable(name, all_read_only, one_writable, isolating) -> None:
    view = young(block(), 0)
    view.pte[0] &= ~x86.RW
    assert Scan(answer_of(view, name, isolating).code[0]).name == all_read_only
    view.pte[0, 77] |= x86.RW
    answer = answer_of(view, name, isolating)
    assert Scan(answer.code[0]).name == one_writable
    if one_writable == "SUCCEED":
        assert answer.writable[0]


#: The channels that count as use in scan and in isolate, read in each kernel's mm/khugepaged.c (2.6.38: mm/huge_memory.c):
#: the accessed bit; PG_referenced and the notifiers since mmu_notifier_test_young; PG_young since idle page tracking (4.3).
EVERY = ("accessed bit", "PG_referenced", "PG_young", "secondary")


COUNT_AS_USE = {
    "thp-base": (("accessed bit",), ("accessed bit",)),
    # The scan asks the notifiers about page 0 in place of page 5, which alone was used; isolate asks about page 5.
    "2.6.38": (("accessed bit", "PG_referenced"), ("accessed bit", "PG_referenced", "secondary")),
    "2.6.38-fixed": (("accessed bit", "PG_referenced", "secondary"),) * 2,
    **dict.fromkeys(
        ("5.10.218", "6.1.152", "6.12.43", "6.16.3"), (("accessed bit", "PG_referenced", "PG_young"), EVERY)
    ),
    **dict.fromkeys(("5.10", "6.1", "6.12.90", "6.12.111", "6.12.113", "6.12.115", "6.12"), (EVERY, EVERY)),
    **dict.fromkeys(("6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"), (EVERY, EVERY)),
    # 2.6.38-fixed, which counts use and refuses nothing for want of it.
    "no-heuristic": (("accessed bit", "PG_referenced", "secondary"),) * 2,
}


def test_the_table_of_channels_has_every_profile() -> None:
    assert set(COUNT_AS_USE) == set(ALL)


@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_each_channel_alone_saves_a_block_where_the_kernel_counts_it_as_use(name, isolating) -> None:
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
        answer = answer_of(view, name, isolating)
        saves = channel in COUNT_AS_USE[name][int(isolating)]
        want = Scan.SUCCEED if saves or name == "no-heuristic" else Scan.LACK_REFERENCED_PAGE
        assert Scan(answer.code[0]) == want, channel
        assert answer.referenced[0] == int(saves), channel


columns = st.fixed_dictionaries({
    "defects": st.lists(st.tuples(st.sampled_from(sorted(DEFECTS)), st.integers(0, 511)), max_size=4),
    "young": st.lists(st.integers(0, 511), max_size=4),
    "kvm": st.lists(st.integers(0, 511), max_size=4),
    "none": st.integers(0, 512),
})  # fmt: skip


@given(many=st.lists(columns, min_size=1, max_size=5), name=st.sampled_from(ALL), isolating=st.booleans())
@settings(max_examples=60, deadline=None)
def test_blocks_are_judged_each_for_itself_and_left_as_they_were(many, name, isolating) -> None:
    made = []
    for one in many:
        view = young(block(kvm=one["kvm"]), *one["young"])
        hole(view, range(one["none"]))
        for code, page in one["defects"]:
            DEFECTS[code](view, page)
        made.append(view)
    together = BlockView(
        **{n: np.concatenate([getattr(v, n) for v in made]) for n in empty(1)},
        secondary=(Channel("kvm", np.concatenate([v.secondary[0].young for v in made]),
                           np.concatenate([v.secondary[0].known for v in made])),),
    )  # fmt: skip
    before = {n: getattr(together, n).copy() for n in empty(1)}
    whole = answer_of(together, name, isolating)
    for name_, old in before.items():
        assert np.array_equal(getattr(together, name_), old)
    for i, view in enumerate(made):
        alone = answer_of(view, name, isolating)
        for field in alone._fields:
            assert getattr(alone, field)[0] == getattr(whole, field)[i], field
        sliced = answer_of(together[i], name, isolating)
        assert sliced.code[0] == alone.code[0]


def test_the_eras_of_the_order_of_checks() -> None:
    """Read in each kernel: folio_test_anon comes before the shared pages since 6.12; the posted patch has an order of its own."""
    first = {"thp-base", "2.6.38", "2.6.38-fixed", "no-heuristic"}
    middle = {"5.10.218", "5.10", "6.1.152", "6.1"}
    for name, rules in PROFILES.items():
        era = ORDER_2_6_38 if name in first else ORDER_6_1 if name in middle else ORDER_6_12
        assert check_order(rules) == era, name


@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize(("name", "clean_fails"), [("7.0", False), ("7.1", True), ("7.3", True)])
def test_lazily_freed_pages_are_left_alone_since_7_1_unless_droppable_or_asked_for(
    name, clean_fails, isolating
) -> None:
    view = young(block(), 0)
    lazyfree(view, 9)
    assert answer_of(view, name, isolating).passed[0] != clean_fails
    assert answer_of(view, name, isolating, khugepaged=False).passed[0], "MADV_COLLAPSE takes it"
    droppable = replace(view, droppable=np.ones(1, np.bool_))
    assert answer_of(droppable, name, isolating).passed[0], "there it would stay lazily freed"


@pytest.mark.parametrize("isolating", [False, True])
@pytest.mark.parametrize(("name", "by_folio"), [("6.1", False), ("6.12", True), ("7.3", True)])
def test_who_shares_a_page_is_its_own_mappings_then_those_of_its_folio(name, by_folio, isolating) -> None:
    """page_mapcount until 6.9; folio_likely_mapped_shared, folio_maybe_mapped_shared since 6.10."""
    own, folio = young(block(), 0), young(block(), 0)
    own.mapcount[0, 5] = own.folio_mapcount[0, 5] = own.refcount[0, 5] = 2
    folio.shared[0, 5] = True
    for view, counts in ((own, not by_folio), (folio, by_folio)):
        answer = answer_of(view, name, isolating, Knobs(max_ptes_shared=0))
        assert Scan(answer.code[0]) == (Scan.EXCEED_SHARED_PTE if counts else Scan.SUCCEED)
