"""From what a replay counted to what a report shows, piece by piece."""

import numpy as np
import pytest

from secondsight.replay.metrics import ChannelAnswers
from secondsight.whatif.combine import combinations
from secondsight.whatif.convert import (
    CELLS,
    LEAST,
    MOST,
    Verdicts,
    binned,
    columns_for,
    oracle_curve,
    row_not_run,
    split_times,
)


def answers(time, primary, huge=None, gave_back=None):
    """What the primary channel said of two blocks at each of *time*; the others said nothing."""
    rows = [np.array(each, np.int16) for each in primary]
    nothing = [np.full(2, -1, np.int16) for _ in time]
    none = [np.zeros(2, bool) for _ in time]
    return ChannelAnswers(
        time, rows, nothing, nothing, [np.array(each, bool) for each in huge] if huge else none,
        [np.array(each, bool) for each in gave_back] if gave_back else none,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "rows", "columns"),
    [(1, 1, MOST), (10**6, 10, LEAST), (50_000, 2, CELLS // 100_000), (0, 4, MOST)],
)
def test_columns_fit_what_a_page_may_hold(blocks, rows, columns):
    assert columns_for(blocks, rows) == columns


def test_a_part_has_the_most_and_one_without_a_wake_up_repeats_the_last():
    # Four parts of 100 ns: wake-ups at 0, 10 and 20 lie in the first, 80 in the last.
    said = answers([0, 10, 20, 80], [(1, 9), (5, 2), (3, 2), (7, 0)])
    cells = binned(said, 100.0, 4)
    assert cells["primary"].tolist() == [[5, 5, 5, 7], [9, 9, 9, 0]]
    assert cells["secondary"].tolist() == [[-1] * 4] * 2
    assert binned(said, 100.0, 2)["primary"].tolist() == [[5, 7], [9, 0]]
    assert binned(answers([7], [(1, 2)]), 7.0, 50)["primary"].tolist() == [[1], [2]], (
        "no more parts than wake-ups"
    )


def test_a_block_was_split_when_it_was_last_seen_small_after_huge():
    second = 10**9
    huge = [(1, 1), (0, 0), (1, 0), (0, 0)]
    said = answers([second * n for n in range(4)], [(0, 0)] * 4, huge=huge)
    assert split_times(said).tolist() == [3.0, 1.0]
    back = answers(
        [second * n for n in range(4)], [(0, 0)] * 4, huge=huge, gave_back=[(0, 0), (0, 1), (0, 0), (0, 0)]
    )
    assert np.isnan(split_times(back)[1]), "its memory was given back: nobody split it"


def test_a_verdict_has_one_number():
    verdicts = Verdicts()
    assert [verdicts.number(code) for code in ("succeeded", "lack_referenced_page", "succeeded")] == [0, 1, 0]
    assert [rule.code for rule in verdicts.rules] == ["succeeded", "lack_referenced_page"]


def test_the_best_choice_takes_the_most_accessed_first_and_nothing_untouched():
    assert oracle_curve(np.array([10, 60, 30, 0])) == [(0.25, 0.6), (0.5, 0.9), (0.75, 1.0)]
    assert oracle_curve(np.zeros(3, np.int64)) == []


def test_a_row_that_was_not_run_has_its_names_and_no_figure():
    (combination,) = combinations(["hawkeye,alpha=0.6"], ["6.1"])
    row = row_not_run(combination)
    assert (row.policy, row.options, row.rules) == ("hawkeye", {"alpha": "0.6"}, "6.1")
    assert set(row.metrics.values()) == {None} and row.label == combination.label
