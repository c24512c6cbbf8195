"""Random scenarios: the seed's, possible, and with every verb among them; the model can take each step."""

from __future__ import annotations

import pytest

from secondsight.scenario import random as chance
from secondsight.scenario import verbs as v
from secondsight.scenario.files import check
from secondsight.scenario.random_files import file_scenarios
from secondsight.scenario.run import run


def _many(count: int, seed: int = 1) -> list[v.Scenario]:
    return chance.scenarios(count, seed, "npt", guards=True)[0]


def test_a_seed_gives_the_same_scenarios_again():
    assert _many(40, 5) == _many(40, 5) != _many(40, 6)


def test_every_scenario_is_possible_and_every_verb_occurs():
    scenarios = _many(600)
    for each in scenarios:
        check(each)
    steps = [step for each in scenarios for step in each.steps]
    missing = {kind for kind in v.Verb.__args__ if not any(isinstance(step, kind) for step in steps)}
    of_files = {v.FileRead, v.FileWrite, v.FileSync, v.FileDrop}
    assert missing == of_files | {v.DeviceRead, v.DeviceWrite, v.Observe, v.SetKnobs, v.NumaScan}, (
        "no machine has a GRU; NUMA balancing comes by where it is asked for; the rest is the lab's"
    )
    on_files = [step for each in file_scenarios(60, 1, "npt")[0] for step in each.steps]
    assert of_files == {kind for kind in of_files if any(isinstance(step, kind) for step in on_files)}
    assert {step.onfault for step in steps if isinstance(step, v.Mlock)} == {False, True}
    assert {step.mode for step in steps if isinstance(step, v.Uffd)} == {"missing", "wp"}
    assert {step.vm for step in steps if isinstance(step, v.GuestRead)} == {0, 1}
    assert any(
        not any(isinstance(s, v.Madvise) and s.advice == "hugepage" for s in each.steps) for each in scenarios
    )


@pytest.mark.parametrize("rules", ["6.1", "7.3"])
def test_the_model_takes_every_step(rules: str):
    for scenario in chance.scenarios(32, 11, "npt", guards=rules == "7.3")[0]:
        answer = run(scenario, rules, keep_states=True)
        assert len({state.pass_ for state in answer.states}) == sum(
            isinstance(s, v.Scan) for s in scenario.steps
        )


def test_a_guest_alone_uses_every_third_space_where_that_is_asked_for() -> None:
    def alone(drawn: list[v.Scenario]) -> int:
        """In how many the first pass comes just after what the process has used was forgotten, and the guest used some."""
        count = 0
        for each in drawn:
            check(each)
            last = next(i for i, step in enumerate(each.steps) if isinstance(step, v.Scan))
            before = each.steps[last - 3 : last]
            count += [type(step) for step in before[:2]] == [v.Drain, v.ClearRefs] and isinstance(
                before[2], v.GuestRead | v.GuestWrite
            )
        return count

    assert 50 < alone(chance.scenarios(200, 3, "npt", guest_only=True)[0]) < 100
    assert alone(_many(200, 3)) == 0


def test_a_guest_alone_never_waits_for_a_userfaultfd() -> None:
    scenarios = chance.scenarios(300, 93100, "npt", guest_only=True, sizes=True, guards=True, parts=True)[0]
    armed = [each for each in scenarios if any(isinstance(step, v.Uffd) for step in each.steps)]
    assert len(armed) > 5
    for each in armed:
        run(each, "7.3")


def test_ksm_and_mlock_meet_only_where_the_kernel_counts_who_has_locked_a_page() -> None:
    def both(**drawn: bool) -> int:
        scenarios = chance.scenarios(600, 4, "npt", **drawn)[0]
        kinds = [{type(step) for step in each.steps} for each in scenarios]
        return sum({v.KsmMerge, v.Mlock} <= each for each in kinds)

    assert both(mlocks=False) == 0 < both(mlocks=True)


@pytest.mark.parametrize(
    ("rules", "verb", "result"),
    [
        ("7.3", v.Uffd, "pte_uffd_wp"),
        ("7.3", v.KsmMerge, "page_locked"),
        ("7.3", v.Madvise, "failed"),
        ("6.1", v.Drain, "lack_referenced_page"),
        ("6.12", v.Drain, "lack_referenced_page"),
        ("6.1", v.Drain, "not_suitable_page_count"),
        ("6.12", v.Drain, "not_suitable_page_count"),
    ],
)
def test_a_check_that_comes_after_most_others_is_reached(rules: str, verb: type[v.Verb], result: str) -> None:
    aimed = [each for each in _many(900) if any(isinstance(step, verb) for step in each.steps[1:5])]
    results = [
        {
            status
            for visit in run(each, rules).blocks
            for status in (visit.status, *(a.status for a in visit.attempts))
        }
        for each in aimed[:120]
    ]
    assert sum(result in each for each in results) >= 3
