"""What a run answers: records that are equal where kernels answered alike, and that read as they were written."""

import msgspec
import pytest

from secondsight.scenario.results import (
    AttemptEvent,
    BlockPass,
    CollapseFileEvent,
    FilePass,
    IsolateEvent,
    PageState,
    Run,
    StepAnswer,
    SwapinEvent,
)

ISOLATE = IsolateEvent("succeeded", 3, 5, 1)
SWAPIN = SwapinEvent(4, 300, 1)
TRIED = BlockPass(
    2, "vm", 1, "succeeded", 7, 5, 4, 1, SWAPIN, ISOLATE, "fail", (1, 2, 3), 9, 4, (AttemptEvent("succeeded", 2),)
)  # fmt: skip


def test_every_attempt_in_order_the_first_beside_the_scan():
    assert TRIED.attempts == (AttemptEvent("fail", 4, SWAPIN, ISOLATE), AttemptEvent("succeeded", 2))
    alone = msgspec.structs.replace(TRIED, collapse=None, further=())
    assert alone.attempts == ()


def test_an_answer_reads_as_it_was_written():
    answer = Run(
        "kernel", [TRIED], [StepAnswer(3, "EFAULT"), StepAnswer(4, slots=((0, 5), (-1, 2)))],
        [PageState(1, "vm", [(512, "-")], [(512, 0)], [(512, 0)], {"kvm": [(512, "")]}, "after", 2)], {"rules": "7.3"},
        files=[FilePass(1, "vm", 0, "memfd:ram", "succeeded", 1, 2, True, CollapseFileEvent("succeeded", 512, 512, 1))],
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Run) == answer


def test_a_pass_is_called_one_in_files_and_what_is_not_known_is_left_out():
    plain = BlockPass(2, "vm", 1, "pmd_null", 0, 0, 0)
    assert msgspec.json.decode(msgspec.json.encode(plain)) == {
        "pass": 2, "space": "vm", "block": 1, "status": "pmd_null", "referenced": 0, "none_or_zero": 0, "unmapped": 0,
    }  # fmt: skip
    state = PageState(1, "vm", [], [], [])
    assert "pass" not in msgspec.json.decode(msgspec.json.encode(state)) and state.at == "observe"


@pytest.mark.parametrize(
    "change", [{"referenced": 8}, {"isolate": None}, {"further": ()}, {"young": None}, {"order": 9}]
)
def test_a_visit_that_differs_anywhere_is_another(change):
    assert msgspec.structs.replace(TRIED, **change) != TRIED
