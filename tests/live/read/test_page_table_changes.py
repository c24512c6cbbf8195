"""What two looks say: a bit that turned, and nothing else; cutting a look into parts changes nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secondsight.live.read.page_table_changes import (
    COLLAPSED,
    CPU,
    GUEST,
    HUGE,
    MARKED,
    TABLE,
    UNNAMED,
    UNSETTLED,
    WRITTEN,
    Bits,
    PageTableChanges,
)

BLOCK = 1 << 21


def look(*pages, known=True, form=TABLE, blocks=1):
    """Bits of *blocks* blocks in which each (bit, page) is set."""
    of = np.zeros((4, blocks, 512), np.bool_)
    for bit, page in pages:
        of[bit].reshape(-1)[page] = True
    return Bits(of, np.full((blocks, 512), known), np.full(blocks, form, np.uint8))


def say(turned, now, at=0):
    """What *now* says: the pages read, written and used by a guest."""
    blocks = np.arange(at, at + len(now.form), dtype=np.uint64) * np.uint64(BLOCK)
    changes = turned.add(blocks, now)
    turned.turn()
    if changes is None:
        return None
    which = (changes.cpu & ~changes.written, changes.cpu & changes.written, changes.guest)
    return tuple(np.flatnonzero(pages).tolist() for pages in which)


def test_a_bit_says_something_when_it_turns():
    turned = PageTableChanges(False, False)
    assert say(turned, look((CPU, 1), (WRITTEN, 1))) is None
    assert say(turned, look((CPU, 1), (CPU, 2), (CPU, 3), (WRITTEN, 1), (WRITTEN, 3), (GUEST, 4))) == (
        [2],
        [3],
        [4],
    )
    assert say(turned, look((CPU, 1), (CPU, 2), (GUEST, 4))) == ([], [], [])
    assert say(turned, look((CPU, 2))) == ([], [], [])
    assert say(turned, look((CPU, 1), (CPU, 2), (GUEST, 4))) == ([1], [], [4])
    assert turned.left_out == {}


def test_a_block_that_was_not_there_was_clear():
    turned = PageTableChanges(False, False)
    say(turned, look((CPU, 0)))
    assert say(turned, look((CPU, 0), (CPU, 512), blocks=2)) == ([512], [], [])
    assert say(turned, look((CPU, 0)), at=1) == ([], [], [])


def test_after_clearing_every_set_bit_has_turned():
    young = look((CPU, 1), (GUEST, 2), (MARKED, 3))
    for soft_dirty, guest in ((False, []), (True, [2])):
        turned = PageTableChanges(True, soft_dirty)
        say(turned, young)
        assert say(turned, young) == ([1], [], guest)
        assert turned.left_out == {UNNAMED: 1}


def test_soft_dirty_tells_a_write_wherever_it_is_set():
    turned = PageTableChanges(True, True)
    say(turned, look((CPU, 1), (WRITTEN, 1)))
    assert say(turned, look((CPU, 1), (WRITTEN, 1))) == ([], [1], [])


def test_marks_count_where_no_table_tells():
    turned = PageTableChanges(False, False)
    say(turned, look((CPU, 1)))
    # 1: the bit moved to the page (idle tracking); 2: a table tells; 3: nobody does.
    assert say(turned, look((MARKED, 1), (MARKED, 2), (CPU, 2), (MARKED, 3))) == ([2], [], [])
    assert turned.left_out == {UNNAMED: 1}


def test_what_was_not_seen_says_nothing():
    turned = PageTableChanges(False, False)
    say(turned, look(known=False))
    assert say(turned, look((CPU, 1))) == ([], [], [])
    assert say(turned, look((CPU, 2), known=False)) == ([], [], [])
    assert say(turned, look((CPU, 1), (CPU, 2))) == ([2], [], [])
    assert turned.left_out == {UNSETTLED: 512}


def test_a_collapse_is_no_access_and_a_huge_fault_is():
    turned = PageTableChanges(False, False)
    every = look(*((CPU, page) for page in range(512)), form=HUGE)
    say(turned, look((CPU, 7)))
    assert say(turned, every) == ([], [], []) and turned.left_out == {COLLAPSED: 511}
    assert say(turned, every, at=1) == (list(range(512)), [], [])


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4 * 512 - 1)), max_size=30), min_size=2, max_size=5),
       st.integers(1, 3))  # fmt: skip
def test_cutting_a_look_changes_nothing(looks, cut):
    whole, parts = PageTableChanges(False, False), PageTableChanges(False, False)
    blocks = np.arange(4, dtype=np.uint64) * np.uint64(BLOCK)
    for pages in looks:
        now = look(*pages, blocks=4)
        expected = whole.add(blocks, now)
        some = [
            parts.add(blocks[rows], Bits(now.of[:, rows], now.known[rows], now.form[rows]))
            for rows in (slice(0, cut), slice(cut, 4))
        ]
        whole.turn()
        parts.turn()
        if expected is not None:
            for column in range(3):
                assert (np.concatenate([part[column] for part in some]) == expected[column]).all()
    assert whole.left_out == parts.left_out
