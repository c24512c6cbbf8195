"""Would it be noticed? Every rule of a kernel's profile turned, one at a time, and held against that kernel's answers.

A rule that no scenario notices is not *booted*, whatever its evidence says: these scenarios cannot tell its two values apart. Some no
scenario can, since the kernel lacks what the rule is about, or the machine (``unshown``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from secondsight.errors import UsageError
from secondsight.lab.answers import Kept
from secondsight.lab.compare import AnsweredBatch, Say, batches
from secondsight.lab.identify import others
from secondsight.lab.run import Failure
from secondsight.mm.profiles import for_kernel
from secondsight.mm.rules import Rules, info, rule_names
from secondsight.scenario import verbs
from secondsight.scenario.results import Run

__all__ = ["ChangedRule", "score", "score_kept"]


@dataclass(frozen=True)
class ChangedRule:
    """A rule given another value: *noticed* is the first scenario (its index) that tells it from the kernel, in field *where*, or None.

    *campaign*: of which campaign, where several were held.
    """

    rule: str
    value: bool | int | str
    evidence: str
    noticed: int | None = None
    where: str = ""
    campaign: int = 0


def score(
    scenarios: Sequence[verbs.Scenario], answers: Sequence[Run | Failure], mmu: str, rules: Rules, *,
    size: int | None = None, tried: Sequence[tuple[str, bool | int | str]] | None = None, unsteady: Sequence[int] = (),
    say: Say = lambda text: None,
) -> tuple[list[ChangedRule], list[int]]:  # fmt: skip
    """Every rule of *rules* with every other value it can have, and the scenarios in which the rules as they are disagree already.

    *answers*: a kernel's, on the machine *mmu*, *size* blocks to a pass (default: what the machine has memory for). Scenarios that
    disagree already, and *unsteady* ones, cannot notice anything and are left out. *tried*: these rules and values alone.

    A batch that holds a scenario named after the rule ("rule, rule: what happens") is asked first, then those with the fewest steps;
    the first that notices is enough.
    """
    asked = sorted(batches(scenarios, answers, mmu, size=size), key=_steps)
    bad = {d.scenario for each in asked for d in each.differences(rules)} | set(unsteady)
    out: list[ChangedRule] = []
    pairs: list[tuple[str, Any]] = (
        [(n, v) for n in rule_names() for v in others(rules, n)] if tried is None else list(tried)
    )
    for name, value in pairs:
        try:
            turned = rules.derive(**{name: value})
        except UsageError:
            continue  # no kernel can be so: a batch of no size
        noticed, where = None, ""
        for each in sorted(asked, key=lambda b: not any(name in _named(scenarios[i]) for i in b.members)):
            noticed, where = _notice(each, turned, bad)
            if noticed is not None:
                break
        out.append(ChangedRule(name, value, info(name)["evidence"], noticed, where))
        say(f"{name}={value}: {'unnoticed' if noticed is None else f'noticed by #{noticed}'}")
    return out, sorted(bad - set(unsteady))


def _steps(each: AnsweredBatch) -> int:
    return len(each.fed.steps) if each.fed is not None else 0


def _named(scenario: verbs.Scenario) -> list[str]:
    """The rules that a scenario's title names."""
    return scenario.title.partition(":")[0].split(", ")


def _notice(each: AnsweredBatch, turned: Rules, bad: set[int]) -> tuple[int | None, str]:
    """The first scenario of the batch that tells the kernel from the rules *turned*, and in which field."""
    try:
        differences = [d for d in each.differences(turned) if d.scenario not in bad]
    except UsageError as error:
        # The kernel did what these rules say no kernel like it can do.
        steady = [i for i in each.alive if i not in bad]
        return (steady[0], f"refused: {error}") if steady else (None, "")
    return (
        (differences[0].scenario, f"{differences[0].where} {differences[0].field}")
        if differences
        else (None, "")
    )


def score_kept(
    campaigns: Sequence[Kept], rules: Rules | None = None, *, towards: Rules | None = None, say: Say = lambda text: None
) -> tuple[list[ChangedRule], int]:  # fmt: skip
    """``score`` over several *campaigns* of one kernel: what one does not notice the next is held for; and how many scenarios disagree.

    *rules*: by default the kernel's own. *towards*: only what is otherwise in this profile, as it is there.

    :raises UsageError: the campaigns are of kernels with different profiles.
    """
    profiles = {for_kernel(each.upstream).name for each in campaigns}
    if len(profiles) != 1:
        raise UsageError(
            f"kept answers of one profile are scored together, not of {', '.join(sorted(profiles))}"
        )
    rules = rules or for_kernel(campaigns[0].upstream)
    changed_rules: dict[tuple[str, bool | int | str], ChangedRule] = {}
    first = (
        None
        if towards is None
        else [(n, getattr(towards, n)) for n in rule_names() if getattr(towards, n) != getattr(rules, n)]
    )
    disagree = 0
    for k, kept in enumerate(campaigns):
        left = first if k == 0 else [pair for pair, each in changed_rules.items() if each.noticed is None]
        turned, bad = score(
            kept.scenarios, list(kept.answers), kept.mmu, rules, size=kept.size, tried=left, unsteady=kept.unsteady, say=say
        )  # fmt: skip
        disagree += len(bad)
        changed_rules.update({(each.rule, each.value): replace(each, campaign=k) for each in turned})
    return list(changed_rules.values()), disagree
