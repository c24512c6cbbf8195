"""How pages are written down: every bit of an entry by its letter, runs of equal pages, and a huge leaf as 512 pages of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pageflags, pte, spte, swap
from secondsight.scenario import states

P, W, A, D = pte.PRESENT, pte.RW, pte.ACCESSED, pte.DIRTY


def entries(*values):
    return np.array([int(value) for value in values], np.uint64)


@given(st.lists(st.sampled_from(["", "P", "PW"]), max_size=30))
def test_runs_are_maximal_and_hold_every_page(values):
    made = states.runs(values)
    assert [value for count, value in made for _ in range(count)] == values
    assert all(a[1] != b[1] for a, b in zip(made, made[1:], strict=False))


@pytest.mark.parametrize(
    ("entry", "huge", "text"),
    [
        (0, False, "-"),
        (P, False, "P"),
        (P | W, False, "PW"),
        (P | A, False, "PA"),
        (P | W | A | D, False, "PWAD"),
        (P | W | A | D | pte.PSE, True, "PWADH"),
        (pte.PROTNONE | A, False, "NA"),
        (swap.swp_entry(entries(0), entries(7))[0], False, "S"),
        (swap.swp_entry(entries(31), entries(swap.MARKER_GUARD))[0], False, "G"),
        (swap.swp_entry(entries(23), entries(7))[0], False, "S"),
    ],
)
def test_a_primary_entry_by_its_letters(entry, huge, text):
    assert states.pte_texts(entries(entry), np.array([huge])) == [text]


def test_a_leaf_maps_its_512_pages_one_by_one():
    table = np.zeros((2, 512), np.uint64)
    table[1, 3] = 5 << 12 | int(P)
    pmd = entries(1024 << 12 | int(P | pte.PSE), 77 << 12 | int(P))
    per_page = states.per_page(pmd, table)
    assert pte.pte_pfn(per_page[:512]).tolist() == list(range(1024, 1536))
    assert np.flatnonzero(per_page[512:]).tolist() == [3] and pte.pte_pfn(per_page[515:516])[0] == 5


def test_a_pages_secondary_entries_are_sorted_and_joined():
    at = spte.NPT
    leaf = int(at.present | at.readable)
    values = entries(leaf, leaf | int(at.writable | at.mmu_writable | at.host_writable), leaf | int(at.large))
    texts = states.spte_texts(
        4, np.array([2, 0, 2]), values, np.array([False, True, True]), spte.is_large(values, at), at
    )
    assert texts == ["PWY", "", "P,PYH", ""]


def test_a_tracked_secondary_entry_is_told_apart():
    at = spte.EPT_NOAD
    whole = entries(int(at.present | at.readable | at.executable | at.ad_disabled))
    tracked = spte.mark_for_access_track(whole, at)
    for value, text in ((whole, "P"), (tracked, "T")):
        assert states.spte_texts(1, np.array([0]), value, np.array([False]), np.array([False]), at) == [text]


def test_the_second_vm_of_a_process_has_a_name_of_its_own():
    assert [states.vm_name(number) for number in (0, 1)] == ["kvm", "kvm2"]


def _state(flags, mapcount, *, pte_entries, pmd=0):
    table = np.zeros((1, 512), np.uint64)
    table[0, : len(pte_entries)] = pte_entries
    return states.page_state(
        states.When(3, "before", 2), "vm", pmd=entries(pmd), table=table,
        flags=np.resize(np.array(flags, np.uint32), 512), mapcount=np.resize(np.array(mapcount, np.int32), 512),
        sptes={"kvm": [""] * 512},
    )  # fmt: skip


def test_flags_and_counts_are_of_present_pages_alone_and_of_no_zero_page():
    anon, zero = int(pageflags.ANON), int(pageflags.ZERO_PAGE | pageflags.ANON)
    state = _state(
        [anon, anon, zero] + [anon] * 509,
        [5] * 512,
        pte_entries=[P | (4 << 12), swap.swp_entry(entries(0), entries(1))[0], P],
    )
    assert (state.step, state.at, state.pass_, state.space) == (3, "before", 2, "vm")
    assert state.pte == [(1, "P"), (1, "S"), (1, "P"), (509, "-")]
    assert state.flags == [(1, anon), (511, 0)] and state.mapcount == [(1, 5), (511, 0)]
    assert state.spte == {"kvm": [(512, "")]}


def test_flags_that_no_two_kernels_share_are_left_out():
    state = _state(
        [int(pageflags.ANON | pageflags.IDLE | pageflags.PRIVATE)], [1], pte_entries=[P | (4 << 12)]
    )
    assert state.flags == [(1, int(pageflags.ANON)), (511, 0)]


def test_a_huge_leaf_is_512_pages():
    state = _state([int(pageflags.THP)], [1], pte_entries=[], pmd=1024 << 12 | int(P | W | pte.PSE))
    assert state.pte == [(512, "PWH")] and state.flags == [(512, int(pageflags.THP))]
