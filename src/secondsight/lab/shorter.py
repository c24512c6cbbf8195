"""The shortest scenario found that still shows a kind of difference between two kernels.

Where the model shows the kind under the two profiles, it shortens there, in seconds, and the kernels are asked about the result alone.
Else the kernels are asked about every shorter version: those of all kinds in one boot of each, round after round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from secondsight.errors import SecondSightError
from secondsight.lab.compare import shorter_versions, weight
from secondsight.lab.diff import DifferenceKind, of_scenario
from secondsight.lab.run import Failure
from secondsight.mm.rules import Rules
from secondsight.scenario import verbs
from secondsight.scenario.results import Run
from secondsight.scenario.run import run as run_model

__all__ = ["shorten"]

Ask = Callable[[Sequence[verbs.Scenario]], list[tuple[Run | Failure, Run | Failure]]]
_ROUNDS = 12
_VERSIONS = 24  # of one kind in one round


def shorten(
    kinds: Sequence[DifferenceKind],
    scenarios: Sequence[verbs.Scenario],
    ask: Ask,
    before: Rules,
    after: Rules,
    *,
    rounds: int = _ROUNDS,
) -> None:
    """Give each of *kinds* its ``shortest``; *ask* answers scenarios by both kernels, whose profiles are *before* and *after*."""
    best = {kind.name: scenarios[min(kind.scenarios, key=lambda i: weight(scenarios[i]))] for kind in kinds}
    by_model = {
        kind.name: short for kind in kinds if (short := _by_model(best[kind.name], kind.name, before, after))
    }
    confirmed = set(_still(list(by_model.items()), ask))
    for name in confirmed:
        best[name] = by_model[name]
    left = [kind.name for kind in kinds if kind.name not in confirmed]
    for _ in range(rounds):
        tried = [(name, version) for name in left for version in shorter_versions(best[name])[:_VERSIONS]]
        if not tried:
            break
        shown = [tried[i] for i in _which(tried, ask)]
        left = list(dict.fromkeys(name for name, _ in shown))
        for name in left:
            best[name] = min((version for each, version in shown if each == name), key=weight)
    for kind in kinds:
        kind.shortest = msgspec.toml.encode(
            msgspec.structs.replace(best[kind.name], title=kind.name, expect={})
        ).decode()


def _still(asked: Sequence[tuple[str, verbs.Scenario]], ask: Ask) -> list[str]:
    return [asked[i][0] for i in _which(asked, ask)]


def _which(asked: Sequence[tuple[str, verbs.Scenario]], ask: Ask) -> list[int]:
    """Those of *asked* (a kind's name and a scenario) in which the kernels show the kind."""
    if not asked:
        return []
    out = []
    for i, ((name, scenario), (a, b)) in enumerate(zip(asked, ask([s for _, s in asked]), strict=True)):
        if isinstance(a, Run) and isinstance(b, Run) and _shows(name, scenario, a, b):
            out.append(i)
    return out


def _shows(name: str, scenario: verbs.Scenario, a: Run, b: Run) -> bool:
    return name in {kind.name for kind in of_scenario(scenario, a, b)}


def _by_model(scenario: verbs.Scenario, name: str, before: Rules, after: Rules) -> verbs.Scenario | None:
    """The shortest version of *scenario* in which the model under both profiles shows the kind; None where it does not show it at all."""

    def shows(version: verbs.Scenario) -> bool:
        try:
            return _shows(
                name, version, *(run_model(version, rules, keep_states=True) for rules in (before, after))
            )
        except SecondSightError:
            return False

    if before == after or not shows(scenario):
        return None
    while True:
        for version in sorted(shorter_versions(scenario), key=weight):
            if shows(version):
                scenario = version
                break
        else:
            return scenario
