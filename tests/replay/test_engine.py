"""A replay's walk through a trace: when it wakes, what its clock is, who asks for what cannot be, and how far it is said to be."""

import msgspec
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.mm.config import Knobs
from secondsight.policy import make
from secondsight.replay import HOST, Configuration, replay
from secondsight.replay.tlb import TlbConfig
from secondsight.trace.kinds import Verb
from support.events import CR, CW, trace, visits


def one(rows, rules="7.2", spaces=("process",), scale=1.0, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, **fields)], time_scale=scale)
    return result, result.configurations[0].total


def test_a_wake_up_sees_what_was_before_it():
    # At 10 s exactly belongs behind the first wake-up.
    result, _ = one([(0, 0, 0, 0, CW), (10, 0, 1, 0, CW), (11, 0, 0, 0, CW)])
    assert visits(result) == [
        (10, 0, 0, "succeeded", "succeeded"),
        (10, 0, 1, "no_pte_table", None),
        (20, 0, 0, "page_pmd_mapped", None),
        (20, 0, 1, "succeeded", "succeeded"),
    ]


def test_the_time_scale():
    rows = [(0, 0, 0, 0, CW), (1, 0, 0, 0, CW, 2), (2, 0, 0, 0, CW, 4)]
    # One second stands for ten: the second and third row lie at the first and second wake-up.
    result, total = one(rows, scale=10)
    assert result.configurations[0].wakes == 3
    assert (total.accesses, total.accesses_huge) == (7, 6)


@pytest.mark.parametrize("scale", [1e-30, 5e-324, 0.3])
def test_a_scale_too_small_for_a_second_wake_up(scale):
    result, total = one([(0, 0, 0, 0, CW), (33, 0, 0, 0, CW, 2)], scale=scale)
    assert (result.configurations[0].wakes, total.accesses, total.collapses) == (1, 3, 1)


def test_the_last_wake_ups_are_one_for_each_however_their_intervals_differ():
    rare = msgspec.structs.replace(HOST, knobs=Knobs(scan_sleep_millisecs=(1 << 32) - 1))
    configurations = [
        Configuration("rare", Configuration.of("7.2").rules, config=rare),
        Configuration.of("7.2"),
    ]
    configurations.append(
        Configuration("often", configurations[0].rules, policy=lambda: make("madv_collapse,every=0.001"))
    )
    result = replay(trace([(0, 0, 0, 0, CW), (10, 0, 0, 0, CW)]), configurations)
    assert [s.wakes for s in result.configurations] == [1, 2, 10_002]
    assert [s.khugepaged_wakes for s in result.configurations] == [1, 2, 0]


@pytest.mark.parametrize(
    ("rows", "kwargs", "error"),
    [
        ([], {}, "no accesses"),
        ([(0, 0, 0, 0, Verb.CLEAR_REFS, 0)], {}, "no accesses"),
        ([(0, 0, 0, 0, CW)], {"time_scale": 0}, "time scale 0"),
        ([(0, 0, 0, 0, CW)], {"time_scale": float("inf")}, "time scale inf"),
        ([(0, 0, 0, 0, CW)], {"time_scale": 10**400}, "time scale inf"),
        ([(0, 0, 0, 0, CW)], {"time_scale": "1"}, "time scale 1"),
        ([(0, 0, 0, 0, CW)], {"configurations": []}, "needs configurations"),
        ([(0, 0, 0, 0, CW)], {"configurations": [Configuration.of("6.1")] * 2}, "a name of its own"),
    ],
)
def test_bad_requests(rows, kwargs, error):
    configurations = kwargs.pop("configurations", [Configuration.of("7.2")])
    with pytest.raises(UsageError, match=error):
        replay(trace(rows), configurations, **kwargs)


def test_bad_traces(tmp_path):
    with pytest.raises(UsageError, match="times run backwards"):
        trace([(1, 0, 0, 0, CW), (0, 0, 0, 0, CW)])
    with pytest.raises(UsageError, match="space 3 is not among the 1 spaces"):
        trace([(1, 3, 0, 0, CW)])
    (tmp_path / "t").write_bytes(b"PAR1 not at all")
    with pytest.raises(InputError, match="not a whole Parquet file"):
        replay(tmp_path / "t", [Configuration.of("7.2")])


def test_progress_goes_up_to_the_traces_rows():
    told = []
    rows = [(s, 0, 0, 0, CW) for s in range(30)]
    replay(
        trace(rows, batch=8),
        [Configuration.of("7.2")],
        progress=lambda done, total: told.append((done, total)),
    )
    done = [each for each, _ in told]
    assert done == sorted(done) and done[-1] == 30 and {total for _, total in told} == {30}
    # Each batch, and each wake-up within one, is told.
    assert set(done) == {8, 10, 16, 20, 24, 30}


def test_a_configuration_with_a_tlb_and_one_without_see_the_same_accesses():
    rows = [(s, 0, s % 3, s, kind) for s in range(25) for kind in (CW, CR)]
    both = [
        Configuration.of("6.1"),
        Configuration("tlb", Configuration.of("6.1").rules, tlb=TlbConfig(1, 1, 1, 1, 1, 1)),
    ]
    plain, behind = replay(trace(rows), both).configurations
    assert plain.total.accesses == behind.total.accesses == 50
    # Of a load and a store to one page one walks, and the store once more, for the dirty bit.
    assert plain.total.walks is None and behind.total.walks == 25
    assert plain.series == behind.series


def test_what_a_result_says_of_its_trace_and_clock():
    result = replay(trace([(3, 0, 0, 0, CW), (9, 0, 0, 0, CR)]), [Configuration.of("7.2")], time_scale=2)
    said = result.provenance
    assert (said.rows, said.span, said.time_scale) == (2, (3 * 10**9, 9 * 10**9), 2)
