"""Short scenarios, each of which tells the values of some rules apart: what ``observable`` does not show, khugepaged's and shared memory's.

    python -m support.rule_scenarios FOLDER 6.12    writes those that a 6.12 can be asked, and ``observable``'s, as files for `lab compare`

``tests/mm/rules/`` holds that the model answers each otherwise where one of its rules is turned; what booted kernels
answered is kept in ``examples/answers/*-rules.json.zst``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from secondsight.errors import UsageError
from secondsight.lab.difference import between
from secondsight.lab.identify import others
from secondsight.mm.profiles import profile
from secondsight.mm.rules import Rules, info
from secondsight.scenario import verbs as v
from secondsight.scenario.files import write
from secondsight.scenario.results import Run
from secondsight.scenario.run import run
from support.distinguishing import Distinguishing
from support.distinguishing_khugepaged import KHUGEPAGED, LRU, SECONDARY
from support.distinguishing_limits import LIMITS
from support.distinguishing_memory import MEMORY
from support.distinguishing_shared import SHARED_MEMORY
from support.observable import SHOWN, Shown

DISTINGUISHING = (*KHUGEPAGED, *SECONDARY, *LRU, *MEMORY, *SHARED_MEMORY, *LIMITS)


def scenarios(release: tuple[int, int], mmu: str = "npt") -> Iterator[v.Scenario]:
    """Every scenario that a kernel of this *release* can be asked on *mmu*."""
    for shown in SHOWN:
        yield shown.scenario()
    for each in DISTINGUISHING:
        if each.since <= release < each.until:
            yield each.scenario()


def answer(case: Distinguishing, rules: Rules) -> Run | None:
    """The model's answer; None: it refuses, for kernels of these rules cannot do that."""
    try:
        return run(case.scenario(), rules, keep_states=True)
    except UsageError:
        return None


def tells_apart(case: Distinguishing, name: str) -> bool:
    """Whether the model answers *case* otherwise under some other value of the rule *name*."""
    rules = profile(case.profile)
    now = answer(case, rules)
    assert now is not None
    turned = [answer(case, rules.derive(**{name: value})) for value in others(rules, name)]
    return any(each is None or bool(between(0, each, now)) for each in turned)


def names_of(rules: type) -> list[str]:
    """The rules of one class of them."""
    return [each.name for each in dataclasses.fields(rules)]


def cases_of(rules: type) -> list[tuple[Distinguishing, str]]:
    """(case, rule) for every rule of the class that a case is about."""
    names = set(names_of(rules))
    return [(case, name) for case in DISTINGUISHING for name in case.rules if name in names]


def shown_of(rules: type) -> list[Shown]:
    """The shortest scenarios of the class's rules, each with what is written down of it."""
    names = set(names_of(rules))
    return [each for each in SHOWN if each.rule in names]


def as_written(shown: Shown) -> bool:
    """Whether the model answers *shown* as it is written down, for either value of the rule."""
    return all(
        shown.look(
            run(shown.scenario(), profile(shown.rules).derive(**{shown.rule: value}), keep_states=True)
        )
        == expected
        for value, expected in (shown.yes, shown.no)
    )


def untold(rules: type) -> set[str]:
    """Rules of the class that are called booted and have no scenario, and the other way round."""
    told = {each.rule for each in shown_of(rules)} | {name for _, name in cases_of(rules)}
    return told ^ {name for name in names_of(rules) if info(name)["evidence"] == "booted"}


def main() -> None:
    """Write them to a folder, numbered."""
    folder, major, minor = Path(sys.argv[1]), *map(int, sys.argv[2].split("."))
    folder.mkdir(parents=True, exist_ok=True)
    for number, scenario in enumerate(scenarios((major, minor))):
        write(scenario, folder / f"{number:03}.toml")


if __name__ == "__main__":
    main()
