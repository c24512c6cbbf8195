"""The passes over events and pages: what is noted of a touch, where it lies, and what the noted ones leave in the page tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits.pte import ACCESSED, DIRTY, PSE
from secondsight.mm.page import ZERO_FILLED
from secondsight.replay import touch
from secondsight.replay.configuration import Configuration, ConfigurationHost
from secondsight.replay.layout import HPAGE, columns, discover
from secondsight.trace.kinds import Access, Kind, Origin
from support.events import CR, CW, GR, GW, trace

COLUMNS = ("address", "kind", "space", "count")


def events_of(rows, spaces=("process",)):
    """Layout and columns (address, kind, space, count) of *rows*."""
    source = trace(rows, spaces)
    (batch,) = source.batches(COLUMNS)
    return discover(source), columns(batch, len(spaces) > 1)


def machine(rows, spaces=("process",), **fields):
    layout = discover(trace(rows, spaces))
    return layout, ConfigurationHost(Configuration.of("7.2", **fields), layout).spaces[0]


def test_a_kind_of_access_is_one_of_four_touches_or_never_fast():
    for kind in Kind:
        bit = int(touch.BITS[kind])
        if kind.origin in (Origin.CPU, Origin.GUEST):
            guest, write = kind.origin is Origin.GUEST, kind.access is Access.WRITE
            assert bit == 1 << (2 * guest + write), kind
        else:
            assert bit == touch.ALWAYS
    assert touch.BITS[Kind.CPU_FETCH] == touch.BITS[CR]


accesses = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from([0, 1, 600]), st.sampled_from([0, 3, 511]),
        st.sampled_from([CR, CW, GR, GW, Kind.PIN_READ]), st.integers(1, 9),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@given(accesses, st.integers(0, 2**30))
@settings(max_examples=30, deadline=None)
def test_marking_is_what_a_plain_loop_over_dictionaries_does(rows, seed):
    layout, (address, kind, space, count) = events_of([(0, *row) for row in rows], ("process", "process"))
    rng = np.random.default_rng(seed)
    state = (rng.integers(0, 16, len(layout.touched)) << 4).astype(np.uint8)
    fast = state.copy()
    passed = np.zeros(len(state) // HPAGE, np.int64)
    out = np.zeros(len(rows), np.int64)
    n = touch.mark(
        address, kind, space, count, 0, len(rows), False, touch.BITS, layout.lookup, state, passed, out
    )
    pages = touch.locate(address, space, np.arange(len(rows)), layout.lookup)
    slow, noted, counted = [], {}, {}
    for i, (where, block, page, kind_of, times) in enumerate(rows):
        row = int(pages[i]) >> 9
        assert layout.part(where).start <= row < layout.part(where).stop
        assert layout.numbers[row] == block and pages[i] & 511 == page
        slot = int(layout.slots[row]) + page
        if fast[slot] >> 4 & touch.BITS[kind_of]:
            noted[slot] = noted.get(slot, 0) | int(touch.BITS[kind_of])
        else:
            slow.append(i)
        counted[row] = counted.get(row, 0) + times
    assert out[:n].tolist() == slow
    assert {int(slot): int(state[slot]) & 15 for slot in np.flatnonzero(state & 15)} == noted
    assert np.array_equal(state & 0xF0, fast)
    assert {row: int(passed[layout.slots[row] // HPAGE]) for row in counted} == counted


def test_one_space_of_single_accesses_needs_no_columns_of_them():
    rows = [(0, 0, 1, 5, CR), (0, 0, 1, 5, CW), (0, 0, 2, 0, CR)]
    layout, (address, kind, _, _) = events_of(rows)
    state = np.full(len(layout.touched), touch.CPU_READ << 4, np.uint8)
    passed, out = np.zeros(len(state) // HPAGE, np.int64), np.zeros(3, np.int64)
    none = np.zeros(0, np.uint16), np.zeros(0, np.uint32)
    n = touch.mark(address, kind, *none, 0, 3, True, touch.BITS, layout.lookup, state, passed, out)
    assert (n, out[0]) == (1, 1) and passed[layout.slots // HPAGE].tolist() == [2, 1]
    assert state[layout.slots[0] + 5] == touch.CPU_READ << 4 | touch.CPU_READ


@given(accesses, st.data())
@settings(max_examples=30, deadline=None)
def test_accesses_since_an_event_are_those_to_its_row_from_it_on(rows, data):
    layout, (address, _, space, count) = events_of([(0, *row) for row in rows], ("process", "process"))
    pages = touch.locate(address, space, np.arange(len(rows)), layout.lookup)
    at = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    # One event of each row.
    at = np.array(list({int(pages[i]) >> 9: i for i in at}.values()))
    place = np.full(layout.rows, -1, np.int32)
    place[pages[at] >> 9] = np.arange(len(at))
    end = data.draw(st.integers(int(at.max()), len(rows)))
    for plain in (False, True):
        counted = touch.accesses_since(address, space, count, plain, at, end, layout.lookup, place)
        assert counted.tolist() == [
            sum(1 if plain else rows[i][4] for i in range(a, end) if pages[i] >> 9 == pages[a] >> 9)
            for a in at.tolist()
        ]


def flushed(layout, space, notes):
    """*notes* ({page: touch bits}) flushed into *space*; nothing is noted afterwards."""
    state = np.zeros(len(layout.touched), np.uint8)
    for page, bits in notes.items():
        state[layout.slots[page >> 9] + page % 512] = 0xF0 | bits
    rows = np.arange(layout.rows)
    touch.flush(
        space.mm.host.frames.arrays, space.mm.arrays, space.guest, state, layout.slots, rows, space.first_row,
        (space.as_cpu, space.as_guest),
    )  # fmt: skip
    touch.forget(state, layout.slots, rows)
    assert not (state & 15).any() and np.count_nonzero(state) == len(notes)


def test_noted_touches_become_the_bits_that_the_accesses_would_have_set():
    rows = [(0, 0, b, p, CW) for b in (0, 1) for p in range(4)]
    layout, space = machine(rows, fill=True)
    space.access(np.array([0, 1, 2, 3, 512], np.int64), np.full(5, touch.H_CPU_READ, np.uint8))
    arrays, frames = space.mm.arrays, space.mm.host.frames.arrays
    # As the fill leaves them: writable, and neither accessed nor stored to.
    space.access(np.array([0, 1, 2, 512], np.int64), np.full(4, touch.H_CPU_WRITE, np.uint8))
    arrays.pte[:] &= ~np.uint64(ACCESSED | DIRTY)
    frames.flags[:] |= np.uint32(ZERO_FILLED)
    flushed(layout, space, {0: touch.CPU_READ, 1: touch.CPU_WRITE, 512: touch.CPU_READ | touch.CPU_WRITE})
    set_bits = arrays.pte & np.uint64(ACCESSED | DIRTY)
    assert {int(i): int(set_bits[i]) for i in np.flatnonzero(set_bits)} == {
        0: ACCESSED,
        1: ACCESSED | DIRTY,
        512: ACCESSED | DIRTY,
    }
    zero = {page: bool(frames.flags[space.mm.pfn(page)] & ZERO_FILLED) for page in (0, 1, 2, 512)}
    assert zero == {0: True, 1: False, 2: True, 512: False}


def test_touches_of_a_huge_page_set_its_one_entry_and_mark_the_pages_stored_to():
    layout, space = machine([(0, 0, 0, 0, CW)], faults="huge")
    space.access(np.array([0], np.int64), np.full(1, touch.H_CPU_WRITE, np.uint8))
    arrays, frames = space.mm.arrays, space.mm.host.frames.arrays
    assert arrays.pmd[0] & PSE
    arrays.pmd[0] &= ~np.uint64(ACCESSED | DIRTY)
    flushed(layout, space, {3: touch.CPU_READ})
    assert int(arrays.pmd[0]) & (ACCESSED | DIRTY) == ACCESSED
    flushed(layout, space, {4: touch.CPU_WRITE})
    assert int(arrays.pmd[0]) & (ACCESSED | DIRTY) == ACCESSED | DIRTY
    head = space.mm.pfn(0)
    zero = [bool(frames.flags[head + page] & ZERO_FILLED) for page in (0, 3, 4, 5)]
    assert zero == [False, True, False, True]


def test_a_guests_touches_set_the_secondary_entries_alone():
    rows = [(0, 0, 0, p, GW) for p in range(3)]
    layout, space = machine(rows, ("vm",))
    space.access(np.arange(3, dtype=np.int64), np.full(3, touch.H_GUEST_WRITE, np.uint8))
    space.mm.notifiers.clear_young(0, space.mm.npages)
    before = space.mm.arrays.pte.copy()
    flushed(layout, space, {1: touch.GUEST_READ})
    asked = np.ones(space.mm.npages, np.bool_)
    young = np.zeros(space.mm.npages, np.bool_)
    for _, _, yes in space.mm.notifiers.test_young(0, space.mm.npages, asked):
        young |= yes
    assert np.flatnonzero(young).tolist() == [1] and np.array_equal(space.mm.arrays.pte, before)


@pytest.mark.parametrize(
    ("forgets", "left"), [(touch.clear_fast, 0x0F), (touch.forget, 0xF0), (touch.clear, 0)]
)
def test_rows_are_forgotten_one_by_one(forgets, left):
    layout, _ = events_of([(0, 0, b, 0, CW) for b in range(3)])
    state = np.full(len(layout.touched), 0xFF, np.uint8)
    forgets(state, layout.slots, np.array([1]))
    by_row = [set(state[slot : slot + HPAGE].tolist()) for slot in layout.slots.tolist()]
    assert by_row == [{0xFF}, {left}, {0xFF}]


def test_what_is_fast_is_recorded_beside_what_is_noted():
    layout, _ = events_of([(0, 0, 0, p, CW) for p in range(2)])
    state = np.full(len(layout.touched), touch.CPU_READ, np.uint8)
    touch.set_fast(state, layout.slots, np.array([0, 1]), np.array([touch.CPU_WRITE, 15], np.uint8))
    first = int(layout.slots[0])
    assert state[first : first + 3].tolist() == [touch.CPU_WRITE << 4 | 1, 0xF1, 1]
