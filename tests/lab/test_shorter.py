"""The shortest scenario of a kind: by the model where it shows the kind, else by the kernels, round after round."""

from __future__ import annotations

import msgspec

from secondsight.lab.diff import kinds, of_scenario
from secondsight.lab.shorter import shorten
from secondsight.mm.profiles import profile
from secondsight.scenario import verbs as v
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


def test_a_kind_gets_the_shortest_scenario_that_both_kernels_confirm():
    after = RULES.derive(pmd_modify_drops_dirty=True)
    difference = kinds([LONG], answers([LONG], RULES), answers([LONG], after), RULES, after)
    asked: list[int] = []

    def ask(some):
        asked.append(len(some))
        return list(zip(answers(some, RULES), answers(some, after), strict=True))

    shorten(difference.kinds, [LONG], ask, RULES, after)
    short = msgspec.toml.decode(difference.kinds[0].shortest, type=v.Scenario)
    assert len(short.steps) == len(SCENARIOS[2].steps) and short.title == difference.kinds[0].name
    assert asked == [1]  # the model had shortened it: the kernels only say that it still differs
    (kind,) = of_scenario(short, *(answers([short], rules)[0] for rules in (RULES, after)))
    assert kind.name == difference.kinds[0].name


def test_where_the_model_shows_nothing_the_kernels_are_asked_about_every_version():
    after = RULES.derive(pmd_modify_drops_dirty=True)
    difference = kinds([LONG], answers([LONG], RULES), answers([LONG], after), RULES, RULES)
    rounds: list[int] = []

    def ask(some):
        rounds.append(len(some))
        return list(zip(answers(some, RULES), answers(some, after), strict=True))

    shorten(difference.kinds, [LONG], ask, RULES, RULES)
    short = msgspec.toml.decode(difference.kinds[0].shortest, type=v.Scenario)
    assert len(short.steps) == len(SCENARIOS[2].steps) and len(rounds) > 1


def test_rounds_end_and_what_the_kernels_do_not_confirm_stays_whole():
    after = RULES.derive(pmd_modify_drops_dirty=True)
    difference = kinds([LONG], answers([LONG], RULES), answers([LONG], after), RULES, after)
    asked = []

    def alike(some):
        asked.append(len(some))
        return list(zip(answers(some, RULES), answers(some, RULES), strict=True))

    shorten(difference.kinds, [LONG], alike, RULES, after, rounds=3)
    short = msgspec.toml.decode(difference.kinds[0].shortest, type=v.Scenario)
    # The model's own, and one round of versions of which none showed it.
    assert short.steps == LONG.steps and len(asked) == 2
