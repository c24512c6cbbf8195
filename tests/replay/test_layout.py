"""The blocks of a trace: rows in order of address, every access counted, and families of forks with one layout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import InputError, UsageError
from secondsight.replay.layout import columns, discover, lean_columns
from secondsight.trace.kinds import Verb
from support.events import CR, CW, GW, trace


def rows_of(layout):
    """{(space, block): accesses} of every row, in order."""
    return {
        (space, int(layout.numbers[row])): int(layout.total[row])
        for space in range(len(layout.spaces))
        for row in range(layout.part(space).start, layout.part(space).stop)
    }


accesses = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 511, 512, 513, 9000]), st.integers(0, 511), st.integers(1, 5)),
    min_size=1, max_size=25,
)  # fmt: skip


@given(accesses)
@settings(max_examples=25, deadline=None)
def test_rows_are_the_blocks_that_are_touched_with_all_their_accesses(touched):
    """Against a dictionary; blocks lie in several GiB."""
    layout = discover(
        trace([(0, space, block, page, CW, n) for space, block, page, n in touched], ("process",) * 3)
    )
    expected = {}
    for space, block, _, n in touched:
        expected[space, block] = expected.get((space, block), 0) + n
    assert rows_of(layout) == dict(sorted(expected.items()))
    assert list(rows_of(layout)) == sorted(expected)
    assert layout.rows == len(expected) and layout.events == len(touched)
    for space in range(3):
        rows = layout.part(space)
        touched_pages = {
            (int(layout.numbers[page >> 9]), page & 511)
            for page in layout.touched_pages(rows.start, rows.stop).tolist()
        }
        assert touched_pages == {(block, page) for s, block, page, _ in touched if s == space}


def test_which_pages_of_a_space_a_range_of_addresses_names():
    layout = discover(trace([(0, 0, 3, 0, CR), (0, 0, 9, 0, CR)]))
    mib = 1 << 21
    assert layout.pages(0, 3 * mib, 512) == (0, 512)
    assert layout.pages(0, 3 * mib + 5 * 4096, 10) == (5, 15)
    assert layout.pages(0, 4 * mib, 512 * 5) == (512, 512), "nothing of it was touched"
    assert layout.pages(0, 0, 512 * 100) == (0, 1024)


def test_who_accessed_is_noted_for_each_space():
    layout = discover(trace([(0, 0, 0, 0, CR), (0, 1, 0, 0, GW), (0, 1, 0, 1, CW)], ("process", "vm")))
    assert layout.origins == [1 << (CR >> 2), 1 << (GW >> 2) | 1 << (CW >> 2)]
    assert not layout.has_verbs


def test_a_fork_gives_both_the_blocks_of_either():
    rows = [(0, 0, 3, 0, CW), (1, 0, 0, 0, int(Verb.FORK), 1), (2, 1, 7, 4, CW), (2, 2, 5, 0, CW)]
    layout = discover(trace(rows, ("process",) * 3))
    assert rows_of(layout) == {(0, 3): 1, (0, 7): 0, (1, 3): 0, (1, 7): 1, (2, 5): 1}
    assert layout.born == {1} and layout.has_verbs
    assert layout.family[0] == layout.family[1] != layout.family[2]


@pytest.mark.parametrize(
    ("parent", "child", "said"), [(0, 5, "space 0 forks space 5, and the trace has spaces 0 to 1"), (1, 1, "space 1 forks itself")]
)  # fmt: skip
def test_a_fork_that_cannot_be_names_its_row(parent, child, said):
    rows = [(0, 0, 0, 0, CW), (1, parent, 0, 0, int(Verb.FORK), child)]
    with pytest.raises(InputError, match=f"row 1: {said}"):
        discover(trace(rows, ("process",) * 2))


def test_a_trace_of_nothing_has_nothing_to_replay():
    for rows in ([], [(0, 0, 0, 0, int(Verb.EXIT))]):
        with pytest.raises(UsageError, match="holds no accesses"):
            discover(trace(rows))


def test_columns_are_decoded_as_far_as_they_say_something():
    (batch,) = trace([(0, 0, 0, 0, CR), (1, 0, 0, 1, CW)]).batches()
    lean, plain = lean_columns(batch, False)
    assert plain and len(lean.space) == len(lean.counts) == 0 and lean.kind.tolist() == [CR, CW]
    assert columns(batch, True).space.tolist() == [0, 0]
    (batch,) = trace([(0, 0, 0, 0, CR, 3)]).batches()
    lean, plain = lean_columns(batch, False)
    assert not plain and lean.counts.tolist() == [3] and np.array_equal(lean.address, batch["address"])
