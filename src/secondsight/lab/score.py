"""Would it be noticed? Every rule of a kernel's profile turned, one at a time, and held against that kernel's answers.

A rule that no scenario notices is not *booted*, whatever its evidence says: these scenarios cannot tell its two values apart. Some no
scenario of a machine can (``UNSEEN``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from secondsight.errors import UsageError
from secondsight.lab.answers import Kept
from secondsight.lab.compare import Say, by_batch, held_against
from secondsight.lab.identify import others
from secondsight.lab.run import Failure
from secondsight.mm.profiles import for_kernel
from secondsight.mm.rules import Rules, info, rule_names
from secondsight.scenario import verbs
from secondsight.scenario.results import Run

__all__ = ["UNSEEN", "ChangedRule", "score", "score_kept"]

_NOT_DRAWN = "scenarios have it only where the kernel does"
_OTHER_MMU = "only where SPTEs have no accessed bit: ask ept-noad"
#: Rules that no scenario of the machine npt can show, and why.
UNSEEN: dict[str, str] = {
    "spte_era": _OTHER_MMU,
    "test_young_without_ad": _OTHER_MMU,
    "age_without_ad": _OTHER_MMU,
    "has_clear_young": "both ways age, and a TLB's flush is no state: only 2.6.38's, without an accessed bit, unmaps instead",
    "has_sizes": _NOT_DRAWN,
    "mthp_collapse": _NOT_DRAWN,
    "swapin_large": _NOT_DRAWN,
    "has_guard": _NOT_DRAWN,
    "has_droppable": "a kernel without it refuses the mapping itself, so that there is no scenario to answer",
    "asks_page_young": "only where something ages pages: 6.1 has neither page_idle nor DAMON",
    "prefetch_marks_accessed": "only shadow paging prefetches: ask shadow",
    "anon_before_shared": "only a page that is not anonymous ends a scan so: a private mapping of a file",
    "notifier_protection": "which section a callback runs in shows in none of its answers",
    "has_change_pte": "where ksmd unmaps the page from secondary MMUs first (3.7), nothing is left for change_pte",
}


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
    """
    bad = {d.scenario for d in held_against(scenarios, answers, mmu, rules, size=size)} | set(unsteady)
    out: list[ChangedRule] = []
    pairs: list[tuple[str, Any]] = (
        [(n, v) for n in rule_names() for v in others(rules, n)] if tried is None else list(tried)
    )
    for name, value in pairs:
        try:
            turned = rules.derive(**{name: value})
            first = next(
                (
                    difference
                    for _, part in by_batch(scenarios, answers, mmu, turned, size=size)
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
    return out, sorted(bad - set(unsteady))


def score_kept(
    campaigns: Sequence[Kept], rules: Rules | None = None, *, say: Say = lambda text: None
) -> tuple[list[ChangedRule], int]:
    """``score`` over several *campaigns* of one kernel: what one does not notice the next is held for; and how many scenarios disagree.

    *rules*: by default the kernel's own.

    :raises UsageError: the campaigns are of kernels with different profiles.
    """
    profiles = {for_kernel(each.release).name for each in campaigns}
    if len(profiles) != 1:
        raise UsageError(
            f"kept answers of one profile are scored together, not of {', '.join(sorted(profiles))}"
        )
    rules = rules or for_kernel(campaigns[0].release)
    changed_rules: dict[tuple[str, bool | int | str], ChangedRule] = {}
    disagree = 0
    for k, kept in enumerate(campaigns):
        left = None if k == 0 else [pair for pair, each in changed_rules.items() if each.noticed is None]
        turned, bad = score(
            kept.scenarios, list(kept.answers), kept.mmu, rules, size=kept.size, tried=left, unsteady=kept.unsteady, say=say
        )  # fmt: skip
        disagree += len(bad)
        changed_rules.update({(each.rule, each.value): replace(each, campaign=k) for each in turned})
    return list(changed_rules.values()), disagree
