"""Two kernels' answers: kinds of differences, each with the rules that explain it."""

from __future__ import annotations

import msgspec
import pytest

from secondsight.errors import InputError
from secondsight.lab.diff import DifferenceKind, kinds, of_scenario, read, steady, unexpected
from secondsight.lab.run import Failure
from secondsight.mm.profiles import profile
from secondsight.scenario import verbs as v
from secondsight.scenario.results import AttemptEvent, BlockPass, IsolateEvent, Run, StepAnswer
from support.as_kernel import answers
from support.observable import SHOWN

RULES = profile("6.12")
SCENARIOS = [
    s.scenario()
    for s in SHOWN
    if s.rule in ("split_pmd_keeps_dirty", "pmd_modify_drops_dirty", "fork_copies_pinned")
]
LONG = msgspec.structs.replace(
    SCENARIOS[2],
    steps=(v.CpuRead("p", "0:0-9"), v.ClearRefs("p"), v.CpuRead("p", "0:3"), *SCENARIOS[2].steps),
)
TWICE = v.Scenario(
    spaces=(v.SpaceSpec("p", 2),), steps=(v.CpuWrite("p", "0-1"), v.Scan(), v.ClearRefs("p"), v.Scan(2))
)


def run_of(*blocks: BlockPass, took: tuple[StepAnswer, ...] = ()) -> Run:
    return Run("kernel", list(blocks), list(took))


def visit(pass_: int, block: int, status: str, isolated: int | None = None, **more: object) -> BlockPass:
    isolate = None if isolated is None else IsolateEvent(status, isolated, 0)
    tried = status if isolate else None
    made = BlockPass(pass_, "p", block, status, 1, 0, 0, isolate=isolate, collapse=tried)
    return msgspec.structs.replace(made, **more)


def test_the_same_kernel_differs_in_nothing():
    difference = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, RULES), RULES, RULES)
    assert difference.kinds == [] and difference.compared == 3 and difference.differing == []


def test_a_kind_names_the_rule_that_explains_it():
    after = RULES.derive(pmd_modify_drops_dirty=True)
    difference = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, after), RULES, after)
    assert [(k.name, k.scenarios, k.rules, k.unexplained) for k in difference.kinds] == [
        ("state.pte: PADH → PAH", [2], {"pmd_modify_drops_dirty": 1}, [])
    ]


def test_a_rule_that_makes_another_difference_explains_nothing():
    # Both profiles differ in a rule that this scenario shows, but what the second kernel did is another thing.
    odd, after = RULES.derive(split_pmd_keeps_dirty=False), RULES.derive(pmd_modify_drops_dirty=True)
    difference = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, odd), RULES, after)
    assert (
        len(difference.differing) == 1
        and difference.kinds[0].rules == {}
        and difference.kinds[0].unexplained == difference.differing
    )


def test_only_what_differs_first_makes_a_kind_and_the_rest_follows():
    first = run_of(
        visit(1, 0, "lack_referenced_page", 0),
        visit(2, 0, "lack_referenced_page"),
        visit(2, 1, "succeeded", 3),
    )
    second = run_of(visit(1, 0, "succeeded", 5), visit(2, 1, "page_locked"))
    (kind,) = of_scenario(TWICE, first, second)
    assert kind.name == "isolate.referenced: less → more; status: lack_referenced_page → succeeded"
    assert kind.follows == ["isolate.status", "collapse", "status", "visited", "attempts"]


def test_a_later_candidate_comes_after_an_earlier_one_and_the_result_last():
    def tried(*counts: int) -> BlockPass:
        last = [AttemptEvent("failed", 8, None, IsolateEvent("failed", n, 0)) for n in counts[1:]]
        return visit(1, 0, "failed", counts[0], further=tuple(last))

    (kind,) = of_scenario(TWICE, run_of(tried(1, 7)), run_of(tried(1, 2, 3)))
    assert (kind.name, kind.follows) == ("isolate.referenced: more → less", ["attempts"])
    (kind,) = of_scenario(TWICE, run_of(tried(1)), run_of(tried(1, 2)))
    assert kind.name == "attempts: fewer → more"


def test_two_blocks_that_differ_in_the_same_pass_are_two_kinds():
    first, second = (run_of(visit(1, 0, a), visit(1, 1, b)) for a, b in (("x", "y"), ("y", "z")))
    assert {k.name for k in of_scenario(TWICE, first, second)} == {"status: x → y", "status: y → z"}


@pytest.mark.parametrize(("step", "aside"), [(2, 0), (0, 1)])
def test_what_reclaim_chose_otherwise_counts_only_before_anything_differed(step: int, aside: int):
    first = run_of(visit(1, 0, "x"), took=(StepAnswer(step, took="0:1"),))
    second = run_of(visit(1, 0, "y"), took=(StepAnswer(step, took="0:2"),))
    difference = kinds([TWICE], [first], [second], RULES, RULES)
    assert (difference.chance, len(difference.kinds)) == (aside, 1 - aside)


def test_a_scenario_that_one_kernel_did_not_answer_is_left_aside():
    second = [Failure("", "died"), *answers(SCENARIOS, RULES)[1:]]
    difference = kinds(SCENARIOS, answers(SCENARIOS, RULES), second, RULES, RULES)
    assert difference.lost == 1 and difference.compared == 2


def test_what_only_a_guest_used_is_counted():
    only, both = visit(1, 0, "x", young=(0, 0, 3)), visit(1, 0, "x", young=(1, 0, 3))
    difference = kinds([TWICE] * 2, [run_of(only), run_of(both)], [run_of(only), run_of(both)], RULES, RULES)
    assert difference.guest_only == 1


def test_what_is_otherwise_when_asked_again_is_no_difference():
    after = RULES.derive(pmd_modify_drops_dirty=True)
    difference = kinds(SCENARIOS, answers(SCENARIOS, RULES), answers(SCENARIOS, after), RULES, after)
    steady(difference, {2: {"state.pte: PADH → PAH"}})
    assert difference.differing == [2] and difference.unsteady == []
    steady(difference, {2: {"state.pte: another"}})
    assert difference.kinds == [] and difference.differing == [] and difference.unsteady == [2]


def test_a_file_of_expected_kinds(tmp_path):
    met = [DifferenceKind("state.pte", "PADH", "PAH"), DifferenceKind("status", "x", "y")]
    path = tmp_path / "kinds"
    path.write_text("# the dirty bit\n\nstate.pte: PADH → PAH\n? status: x → y\n? status: y → z\n")
    assert unexpected(met, read(path)) == ([], [])
    path.write_text("visited: a → b\n? state.pte: PADH → PAH\n")
    assert unexpected(met, read(path)) == (["status: x → y"], ["visited: a → b"])
    path.write_text("status\n")
    with pytest.raises(InputError, match="line 1: no kind"):
        read(path)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none")
