"""Would it be noticed? Every rule of a kernel's profile turned, one at a time, and held against that kernel's answers.

A rule that no scenario notices is not *booted*, whatever its evidence says: these scenarios cannot tell its two values apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secondsight.errors import UsageError
from secondsight.lab.compare import Say, by_batch, held_against
from secondsight.lab.identify import others
from secondsight.lab.run import Failure
from secondsight.mm.rules import Rules, info, rule_names
from secondsight.scenario import verbs
from secondsight.scenario.results import Run

__all__ = ["ChangedRule", "score"]


@dataclass(frozen=True)
class ChangedRule:
    """A rule given another value: *noticed* is the first scenario (its index) that tells it from the kernel, in field *where*, or None."""

    rule: str
    value: bool | int | str
    evidence: str
    noticed: int | None = None
    where: str = ""


def score(
    scenarios: Sequence[verbs.Scenario], answers: Sequence[Run | Failure], mmu: str, rules: Rules, *, states: bool = True,
    size: int | None = None, say: Say = lambda text: None,
) -> tuple[list[ChangedRule], list[int]]:  # fmt: skip
    """Every rule of *rules* with every other value it can have, and the scenarios in which the rules as they are disagree already.

    *answers*: a kernel's, on the machine *mmu*, *size* blocks to a pass (default: what the machine has memory for). Scenarios that
    disagree already cannot notice anything and are left out.
    """
    bad = {d.scenario for d in held_against(scenarios, answers, mmu, rules, states=states, size=size)}
    out: list[ChangedRule] = []
    for name in rule_names():
        for value in others(rules, name):
            try:
                turned = rules.derive(**{name: value})
                first = next(
                    (
                        difference
                        for _, part in by_batch(scenarios, answers, mmu, turned, states=states, size=size)
                        for difference in part
                        if difference.scenario not in bad
                    ),
                    None,
                )
            except UsageError:
                continue  # no kernel can be so: sizes switched where there are none
            noticed = None if first is None else first.scenario
            where = "" if first is None else f"{first.where} {first.field}"
            out.append(ChangedRule(name, value, info(name)["evidence"], noticed, where))
            say(f"{name}={value}: {'unnoticed' if noticed is None else f'noticed by #{noticed}'}")
    return out, sorted(bad)
