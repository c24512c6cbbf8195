"""Two answers field by field: each difference with its place, and nothing where they are alike."""

import msgspec
import pytest

from secondsight.lab.difference import FIELDS, Difference, between
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

VISIT = BlockPass(
    1, "p", 0, "succeeded", 7, 3, 2, swapin=SwapinEvent(2, 7, 1), isolate=IsolateEvent("succeeded", 7, 3), collapse="succeeded"
)  # fmt: skip
FILE = FilePass(1, "f", 0, "memfd:ram", "succeeded", 9, 1, True, CollapseFileEvent("succeeded", 512, 512, 1))
STATE = PageState(3, "p", [(510, "P"), (2, "PW")], [(512, 0x10)], [(512, 1)], {"kvm": [(512, "")]})


def run_of(*blocks, **more):
    return Run("", list(blocks), **more)


def found(ours, theirs):
    """{field: (model, kernel)}; everything is at one place."""
    differences = between(5, ours, theirs)
    assert all(each.scenario == 5 for each in differences)
    return {each.field: (each.model, each.kernel) for each in differences}


def test_an_answer_differs_in_nothing_from_itself():
    whole = run_of(VISIT, answers=[StepAnswer(2, "EFAULT")], states=[STATE], files=[FILE])
    assert between(0, whole, msgspec.json.decode(msgspec.json.encode(whole), type=Run)) == []


@pytest.mark.parametrize(
    ("change", "field", "sides"),
    [
        ({"status": "scan_failed"}, "status", ("succeeded", "scan_failed")),
        ({"referenced": 8}, "referenced", ("7", "8")),
        ({"none_or_zero": 0}, "none_or_zero", ("3", "0")),
        ({"unmapped": 0}, "unmapped", ("2", "0")),
        ({"writable": 1}, "writable", ("None", "1")),
        ({"collapse": "failed"}, "collapse", ("succeeded", "failed")),
        ({"order": 4}, "attempts", ("[9]", "[4]")),
        ({"isolate": IsolateEvent("succeeded", 6, 3)}, "isolate.referenced", ("7", "6")),
        ({"isolate": IsolateEvent("succeeded", 7, 4)}, "isolate.none_or_zero", ("3", "4")),
        ({"isolate": IsolateEvent("succeeded", 7, 3, 1)}, "isolate.writable", ("None", "1")),
    ],
)
def test_a_visit_differs_in_the_field_that_does(change, field, sides):
    assert found(run_of(VISIT), run_of(msgspec.structs.replace(VISIT, **change))) == {field: sides}


def test_what_only_one_visited_is_the_one_difference():
    assert found(run_of(VISIT), run_of()) == {"visited": ("succeeded", "not visited")}
    (only,) = between(0, run_of(), run_of(VISIT))
    assert (only.where, only.model) == ("pass 1 p:0", "not visited")
    assert found(run_of(files=[FILE]), run_of()) == {"visited": ("succeeded", "not visited")}


def test_an_attempt_that_one_did_not_make_is_counted_and_the_others_are_compared():
    more = msgspec.structs.replace(VISIT, further=(AttemptEvent("failed", 4),))
    assert found(run_of(VISIT), run_of(more)) == {"attempts": ("[9]", "[9, 4]")}
    other = msgspec.structs.replace(more, further=(AttemptEvent("succeeded", 4),))
    (second,) = between(0, run_of(more), run_of(other))
    assert (second.where, second.field) == ("pass 1 p:0 attempt 2", "collapse")
    without = msgspec.structs.replace(VISIT, isolate=None)
    assert list(found(run_of(VISIT), run_of(without))) == ["isolate"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result", "scan_failed"),
        ("present", 8),
        ("swap", 0),
        ("file", "dev/zero"),
        ("names_page", False),
        ("collapse", None),
    ],
)
def test_a_visit_to_a_file_differs_in_the_field_that_does(name, value):
    changed = run_of(files=[msgspec.structs.replace(FILE, **{name: value})])
    assert list(found(run_of(files=[FILE]), changed)) == [f"file.{name}"]


def test_errnos_are_compared_by_step_and_what_a_kernel_chose_is_not():
    first = run_of(answers=[StepAnswer(1, "EBUSY"), StepAnswer(4, took="0:1")])
    second = run_of(answers=[StepAnswer(2, "EBUSY"), StepAnswer(4, took="0:2")])
    assert [(d.where, d.model, d.kernel) for d in between(0, first, second)] == [
        ("step 1", "EBUSY", "None"), ("step 2", "None", "EBUSY"),
    ]  # fmt: skip


def test_pages_tell_the_first_that_differs_and_how_many():
    other = msgspec.structs.replace(
        STATE, pte=[(500, "P"), (12, "PA")], flags=[(512, 0x11)], spte={"kvm": [(512, "P")]}
    )
    differences = found(run_of(states=[STATE]), run_of(states=[other]))
    assert differences == {
        "state.pte": ("P (page 0:500, 12 pages)", "PA"),
        "state.flags": ("0x10 (page 0:0, 512 pages)", "0x11"),
        "state.spte": (" (page 0:0, 512 pages)", "P"),
    }


def test_states_are_compared_where_the_kernel_has_them():
    # A model that keeps more is no difference; one that lacks what the kernel says is.
    assert found(run_of(states=[STATE]), run_of()) == {}
    assert found(run_of(), run_of(states=[STATE])) == {"state": ("absent", "present")}
    two = msgspec.structs.replace(STATE, spte={"kvm": [(512, "")], "kvm2": [(512, "P")]})
    assert found(run_of(states=[STATE]), run_of(states=[two])) == {}


def test_a_difference_is_one_line_and_its_field_is_of_the_list():
    text = str(Difference(3, "pass 1 p:0", "status", "a", "b"))
    assert text == "#3 pass 1 p:0 status: model a, kernel b"
    assert {"status", "state.pte", "file.result", "isolate.referenced"} <= set(FIELDS)
