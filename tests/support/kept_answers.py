"""Single answers of booted kernels out of the kept campaigns, to hold a profile against: what a kernel said to one scenario.

A campaign's scenarios shared passes; those that are named here answer alone as they did in company.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from secondsight.errors import UsageError
from secondsight.lab.answers import Kept, read
from secondsight.lab.difference import between
from secondsight.lab.machines import on_machine
from secondsight.lab.unshown import alike, unmet
from secondsight.mm.profiles import PROFILES, for_kernel
from secondsight.mm.rules import Rules, rule_names
from secondsight.scenario.run import run

HERE = Path(__file__).parents[2] / "examples" / "answers"


@cache
def campaign(name: str) -> Kept:
    """The kept campaign *name*, as ``6.12-npt-rules``."""
    return read(HERE / f"{name}.json.zst")


def answers_as(name: str, number: int, rules: Rules) -> bool:
    """Whether the model under *rules* answers scenario *number* of campaign *name* as the kernel did, in every field."""
    kept = campaign(name)
    (scenario,) = on_machine([kept.scenarios[number]], kept.mmu)
    try:
        return not between(0, run(scenario, rules, keep_states=True), kept.answers[number])
    except UsageError:
        return False  # it cannot do that at all


def tells(profile: str, rule: str, before: str, name: str, number: int) -> bool:
    """Whether the kernel of campaign *name* answered scenario *number* as *profile* says, and not as with *rule* of profile *before*."""
    rules = PROFILES[profile]
    kept = campaign(name)
    assert for_kernel(kept.upstream) == rules, "another kernel's answers"
    turned = rules.derive(**{rule: getattr(PROFILES[before], rule)})
    return answers_as(name, number, rules) and not answers_as(name, number, turned)


#: What no single scenario tells: the scenarios beside it have a part in it (`lab score` holds them together).
IN_COMPANY = {"slots_by_gfn"}


def untold(profile: str, other: str) -> set[str]:
    """The rules in which *other* differs from *profile* and whose difference no single answer of *profile*'s kernel can tell."""
    rules, others = PROFILES[profile], PROFILES[other]
    changed = {name for name in rule_names() if getattr(rules, name) != getattr(others, name)}
    return {
        name
        for name in changed
        if unmet(rules, name) or alike(rules, name, getattr(others, name)) or name in IN_COMPANY
    }
