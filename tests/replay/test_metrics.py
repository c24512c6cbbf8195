"""What a replay counted, as plain data: words of answers, shares, and JSON without the columns."""

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secondsight.mm.khugepaged.result import ScanResult
from secondsight.replay import Configuration, replay
from secondsight.replay.attempts import AttemptCounts
from secondsight.replay.metrics import SECOND, Visits, answers
from support.events import CR, CW, trace


def test_answers_are_the_tracepoints_words_most_frequent_first():
    codes = (
        [ScanResult.EXCEED_NONE_PTE] * 3
        + [ScanResult.SUCCEED + SECOND]
        + [ScanResult.PAGE_COUNT + SECOND] * 4
    )
    counted = answers(np.array([*codes, ScanResult.PAGE_COUNT], np.int64))
    assert list(counted.items())[:2] == [("not_suitable_page_count@isolate", 4), ("exceed_none_pte", 3)]
    assert counted["succeeded"] == 1, "what succeeds needs no word for where"
    assert counted["not_suitable_page_count"] == 1, "the scan's is another answer"
    assert answers(np.zeros(0, np.int64)) == {}


#: An answer, and whether isolate gave it: what succeeds has always come to isolate.
ANSWERS = [
    (code, isolated)
    for code in ScanResult
    for isolated in (False, True)
    if isolated or code != ScanResult.SUCCEED
]


@given(st.lists(st.sampled_from(ANSWERS), max_size=40))
def test_every_answer_is_counted_once(given_codes):
    codes = np.array([code + SECOND * second for code, second in given_codes], np.int64)
    counted = answers(codes)
    assert sum(counted.values()) == len(given_codes)
    assert list(counted.values()) == sorted(counted.values(), reverse=True)


def made():
    rows = [(1, 0, 3, 0, CW), (12, 0, 3, 0, CR, 7)]
    return replay(trace(rows), [Configuration.of("7.2"), Configuration.of("6.1")])


def test_coverage_is_a_share_of_accesses_and_of_none_it_is_none():
    total = made()["7.2"].total
    assert (total.accesses, total.accesses_huge, total.coverage) == (8, 7, 7 / 8)
    assert msgspec.structs.replace(total, accesses=0, accesses_huge=0).coverage == 0.0


def test_refused_collapses_are_those_of_every_order():
    total = made()["7.2"].total
    counts = {"9": AttemptCounts(5, 2, 5, 5), "4": AttemptCounts(64, 60, 64, 64)}
    assert msgspec.structs.replace(total, attempts=counts).refused_collapses == 62
    assert msgspec.structs.replace(total, attempts={}).refused_collapses == 0


def test_a_result_is_found_by_its_configurations_name_and_its_json_has_no_columns():
    result = made()
    assert result["6.1"] is result.configurations[1]
    document = msgspec.json.decode(result.json())
    assert set(document) == {"schema", "provenance", "configurations"}
    assert [each["name"] for each in document["configurations"]] == ["7.2", "6.1"]
    assert document["configurations"][0]["total"]["accesses_huge"] == 7


def test_visits_become_columns_of_their_fields():
    visits = Visits(time=[1, 2], space=[0, 0], block=[5, 6])
    columns = visits.columns()
    assert columns["block"].tolist() == [5, 6] and columns["order"].tolist() == []
    assert {column.dtype for column in columns.values()} == {np.dtype(np.int64)}
