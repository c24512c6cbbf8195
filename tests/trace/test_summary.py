"""What a trace holds, against a count of its rows by a dictionary."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secondsight.trace import Trace
from secondsight.trace.kinds import Kind, Verb
from secondsight.trace.summary import summarise
from support.random_traces import write

rows = st.lists(
    st.tuples(
        st.integers(0, 1), st.integers(0, 5), st.integers(0, 511), st.integers(0, 4095),
        st.sampled_from([Kind.CPU_READ, Kind.GUEST_WRITE, Verb.EXIT, Verb.MMAP]), st.integers(0, 9),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


@given(rows)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_accesses_pages_and_blocks_are_counted_by_space_and_verbs_apart(tmp_path, laid_out):
    columns = {
        "time": np.arange(len(laid_out), dtype=np.uint64) + 7,
        "space": np.array([space for space, *_ in laid_out], np.uint16),
        "address": np.array(
            [block << 21 | page << 12 | byte for _, block, page, byte, *_ in laid_out], np.uint64
        ),
        "kind": np.array([int(kind) for *_, kind, _ in laid_out], np.uint8),
        "count": np.array([count for *_, count in laid_out], np.uint32),
    }
    summary = summarise(Trace.open(write(tmp_path / "t.parquet", columns)))
    assert (summary.rows, summary.first_time, summary.last_time) == (len(laid_out), 7, 6 + len(laid_out))
    kinds, verbs = {}, {}
    for *_, kind, count in laid_out:
        if kind < 0x80:
            kinds[kind.name.lower()] = kinds.get(kind.name.lower(), 0) + count
        else:
            verbs[kind.name.lower()] = verbs.get(kind.name.lower(), 0) + 1
    assert summary.kinds == {name: n for name, n in kinds.items() if n} and summary.verbs == verbs
    assert summary.accesses == sum(kinds.values()) and summary.damaged == []
    for space in summary.spaces:
        own = [each for each in laid_out if each[0] == space.id]
        touched = {(block, page) for _, block, page, _, kind, _ in own if kind < 0x80}
        assert (space.rows, space.pages) == (len(own), len(touched))
        assert space.accesses == sum(count for *_, kind, count in own if kind < 0x80)
        assert space.blocks == len({block for block, _ in touched})
        if touched:
            numbers = sorted(block << 9 | page for block, page in touched)
            assert (space.lowest, space.highest) == (numbers[0] << 12, (numbers[-1] + 1 << 12) - 1)
