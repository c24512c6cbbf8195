"""What attempts cost, by order."""

from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.khugepaged.attempt import Attempt
from secondsight.mm.khugepaged.result import ScanResult, no_numbers
from secondsight.replay import Subject, replay
from secondsight.replay.attempts import AttemptColumns, AttemptCounts
from support.events import CW, trace


def test_attempts_are_counted_by_row_and_order():
    counts, found = AttemptColumns(3), no_numbers(1)
    counts.add(0, [Attempt(9, 0, ScanResult.LACK_REFERENCED_PAGE, None, found)])
    counts.add(0, [Attempt(4, at, ScanResult.SUCCEED, None, found) for at in range(0, 64, 16)])
    counts.add(
        2,
        [
            Attempt(9, 0, ScanResult.ALLOC_HUGE_PAGE_FAIL, None, None),
            Attempt(4, 0, ScanResult.EXCEED_SWAP_PTE, 0, None),
        ],
    )
    whole, part = AttemptCounts(1, 1, 1, 1), AttemptCounts(4, 0, 4, 4)
    assert counts.of(slice(0, 2)) == {"4": part, "9": whole}
    assert counts.of(slice(2, 3)) == {"4": AttemptCounts(1, 1, 1, 0), "9": AttemptCounts(1, 1, 0, 0)}
    assert counts.of(slice(1, 2)) == {}


def test_a_replay_tells_the_attempts_of_each_order():
    # Pages 0 to 31 are written. With 64 KiB alone two faults map them by two folios of that size, which khugepaged finds large already.
    rows = [(1, 0, 0, page, CW) for page in range(32)] + [(12, 0, 0, 0, CW)]
    config = HostConfig(
        thp_enabled="always", sizes=Sizes(kb64="always", kb2048="never"), knobs=Knobs(max_ptes_none=0)
    )
    subjects = [Subject.of("7.2"), Subject.of("7.2", name="parts", config=config)]
    result = replay(trace(rows, ("process",)), subjects)
    whole, parts = (subject.total for subject in result.subjects)
    assert whole.attempts == {"9": AttemptCounts(1, 0, 1, 1)} and whole.collapses == whole.huge_at_end == 1
    wakes = result.subjects[1].wakes
    assert parts.attempts == {"4": AttemptCounts(*[2 * wakes] * 4)} and parts.refused_collapses == 2 * wakes
    assert parts.collapses == parts.huge_at_end == 0 and parts.faults == 2
