"""Which profile a kernel has: the scenarios on which profiles part, asked of it, and the rules in which it differs from the nearest one.

random scenarios --model under every profile--> those that tell profiles apart --one boot--> the kernel's answers
                                                                                               |
profiles, best first; then one rule after the other turned, as long as that makes more scenarios agree
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import msgspec

from secondsight.errors import UsageError
from secondsight.lab import kernels
from secondsight.lab.compare import Difference, Say, held_against
from secondsight.lab.run import Failure, run
from secondsight.mm.profiles import PROFILES, SERIES, for_kernel
from secondsight.mm.rules import Rules, rule_names
from secondsight.scenario import batch, verbs
from secondsight.scenario.results import Run
from secondsight.scenario.run import run as run_model

__all__ = ["Identity", "distinguishing", "identify", "nearest", "others"]


@dataclass
class Identity:
    """What a kernel turned out to be.

    *agreed*: scenarios in which it agrees, by profile, best first, of equal ones that of its series; *turned*: rule -> (the profile's
    value, the kernel's, how many more agree with it); *differences*: what no rule explains.
    """

    kernel: str
    mmu: str
    scenarios: int
    agreed: dict[str, int]
    turned: dict[str, tuple[object, object, int]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    failures: int = 0

    @property
    def profile(self) -> str:
        """The profile that agrees in most scenarios; of several the one of the kernel's series, else the oldest."""
        return next(iter(self.agreed))

    @property
    def alike(self) -> list[str]:
        """The others that agree in as many: these scenarios do not tell them from it."""
        return [name for name, count in self.agreed.items() if count == self.agreed[self.profile]][1:]


def others(rules: Rules, name: str) -> list[Any]:
    """Every value that the rule *name* can have beside that of *rules*."""
    value = getattr(rules, name)
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [each for each in get_args(get_type_hints(Rules)[name]) if each != value]
    return sorted({getattr(each, name) for each in PROFILES.values()} - {value})


def distinguishing(
    pool: Sequence[verbs.Scenario], profiles: Sequence[Rules], *, states: bool = True
) -> list[int]:
    """The scenarios of *pool* (by index) on which the model tells apart all pairs of *profiles* that any of them tells apart."""
    untold: set[tuple[int, int]] = {(a, b) for b in range(len(profiles)) for a in range(b)}
    parts: list[set[tuple[int, int]]] = []
    for scenario in pool:
        answers = [
            msgspec.json.encode(_comparable(run_model(scenario, r, keep_states=states))) for r in profiles
        ]
        parts.append({(a, b) for a, b in untold if answers[a] != answers[b]})
    chosen: list[int] = []
    while untold:
        best = max(range(len(parts)), key=lambda i: len(parts[i] & untold), default=None)
        if best is None or not parts[best] & untold:
            break
        chosen.append(best)
        untold -= parts[best]
    return sorted(chosen)


def _comparable(answer: Run) -> object:
    return answer.blocks, answer.states, answer.answers


def identify(
    kernel: kernels.Kernel, mmu: str, pool: Sequence[verbs.Scenario], *, size: int = 0, states: bool = True,
    say: Say = lambda text: None,
) -> Identity:  # fmt: skip
    """The profile that answers as *kernel* does on *mmu*: asked are the scenarios of *pool* that tell profiles apart, and *size* more."""
    pool = [s for s in pool if _possible(s)]
    known = list(PROFILES.values())
    asked = distinguishing(pool, known, states=states)
    say(f"{len(asked)} of {len(pool)} scenarios tell {len(known)} profiles apart")
    asked += [i for i in range(len(pool)) if i not in asked][:size]
    scenarios = [pool[i] for i in asked]
    answers = run(scenarios, kernel, mmu, states=states, say=say)
    return nearest(scenarios, answers, kernel.upstream, mmu, states=states, say=say)


def nearest(
    scenarios: Sequence[verbs.Scenario], answers: Sequence[Run | Failure], release: str, mmu: str, *, states: bool = True,
    blocks: int | None = None, unsteady: Sequence[int] = (), say: Say = lambda text: None,
) -> Identity:  # fmt: skip
    """The profile that answers *scenarios* most as kernel *release* did (*answers*, on *mmu*, *blocks* to a pass), and what rules are left.

    *unsteady* scenarios, in which chance had a hand, do not count.
    A profile that cannot answer a scenario (sizes switched where there are none) is no candidate.
    """
    lost = sum(isinstance(answer, Failure) for answer in answers)

    def agreeing(rules: Rules) -> tuple[int, list[Difference]]:
        try:
            differences = held_against(scenarios, answers, mmu, rules, states=states, size=blocks)
        except UsageError:
            return -1, []
        differences = [d for d in differences if d.scenario not in unsteady]
        return len(scenarios) - lost - len(unsteady) - len({d.scenario for d in differences}), differences

    agreed: dict[str, int] = {}
    for rules in PROFILES.values():
        agreed[rules.name] = agreeing(rules)[0]
        say(f"{agreed[rules.name]} of {len(scenarios)} agree with {rules.name}")
    own, series = for_kernel(release).name, {each.name for each in SERIES}
    candidates = [(name, count) for name, count in agreed.items() if count >= 0]
    agreed = dict(sorted(candidates, key=lambda item: (-item[1], item[0] != own, item[0] not in series)))
    out = Identity(release, mmu, len(scenarios), agreed, failures=lost)
    rules = PROFILES[out.profile]
    best, out.differences = agreeing(rules)
    while out.differences:
        say(f"{best} of {len(scenarios)} agree; turning one rule after the other")
        tried = [
            (agreeing(rules.derive(**{name: value})), name, value)
            for name in rule_names()
            for value in others(rules, name)
        ]
        (count, left), name, value = max(tried, key=lambda each: each[0][0])
        if count <= best:
            break
        out.turned[name] = (getattr(PROFILES[out.profile], name), value, count - best)
        rules, best, out.differences = rules.derive(**{name: value}), count, left
        say(f"{name}={value}: {best} of {len(scenarios)} agree")
    return out


def _possible(scenario: verbs.Scenario) -> bool:
    """Whether every profile can answer: sizes, say, are switched on kernels that have them alone."""
    from secondsight.mm.config import Sizes

    return scenario.host.sizes == Sizes() and bool(batch.plan([scenario], 1))
