"""What changed between two kernels: the same scenarios on both, the differences grouped into kinds, each explained by rules or by none.

scenarios --> kernel A --> answers --+
          --> kernel B --> answers --+--> differing fields --> kinds (how often, an example)
                                                |
          model under A's profile, each rule of B's that differs turned alone: which of them makes this scenario answer otherwise?
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from secondsight.errors import InputError, UsageError
from secondsight.lab.compare import Difference, between
from secondsight.lab.run import Failure
from secondsight.mm.rules import Rules, rule_names
from secondsight.scenario import verbs
from secondsight.scenario.results import Run
from secondsight.scenario.run import run as run_model

__all__ = ["Kind", "Kinds", "kinds", "read", "unexpected"]


class Kind(msgspec.Struct):
    """Differences of one kind: *field* was *first* on A and *second* on B; *rules*: those that explain it (none: unexplained)."""

    field: str
    first: str
    second: str
    scenarios: list[int] = []
    rules: list[str] = []

    @property
    def name(self) -> str:
        """The kind in a line."""
        return f"{self.field}: {self.first} → {self.second}"


@dataclass
class Kinds:
    """Every kind, most frequent first.

    *compared* scenarios were answered by both kernels, *lost* ones by one or none; in *chance* ones reclaim or ksmd chose other pages.
    """

    kinds: list[Kind] = field(default_factory=list)
    compared: int = 0
    differing: int = 0
    lost: int = 0
    chance: int = 0


def kinds(
    scenarios: Sequence[verbs.Scenario], first: Sequence[Run | Failure], second: Sequence[Run | Failure], before: Rules, after: Rules,
    *, states: bool = True,
) -> Kinds:  # fmt: skip
    """Group what kernels A and B answered otherwise; *before* and *after* are their profiles."""
    out = Kinds()
    found: dict[tuple[str, str, str], Kind] = {}
    apart = [name for name in rule_names() if getattr(before, name) != getattr(after, name)]
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if isinstance(a, Failure) or isinstance(b, Failure):
            out.lost += 1
            continue
        if [x.took for x in a.answers] != [x.took for x in b.answers]:
            out.chance += 1
            continue
        out.compared += 1
        differences = between(i, a, b)
        out.differing += bool(differences)
        why = _explained(scenarios[i], before, after, apart, states) if differences else []
        for key in dict.fromkeys(_key(d) for d in differences):
            kind = found.setdefault(key, Kind(*key))
            kind.scenarios.append(i)
            kind.rules += [name for name in why if name not in kind.rules]
    out.kinds = sorted(found.values(), key=lambda kind: -len(kind.scenarios))
    return out


def _key(difference: Difference) -> tuple[str, str, str]:
    """A difference without the place it was met at; of numbers only which is the greater."""
    first, second = re.sub(r" \(page .*\)", "", difference.model), difference.kernel
    if first.isdigit() and second.isdigit():
        first, second = ("less", "more") if int(first) < int(second) else ("more", "less")
    return difference.field, first, second


def _explained(
    scenario: verbs.Scenario, before: Rules, after: Rules, apart: Sequence[str], states: bool
) -> list[str]:
    """The rules of *apart* of which each alone makes the model answer *scenario* otherwise than under *before*."""

    def answer(rules: Rules) -> bytes:
        run = run_model(scenario, rules, keep_states=states)
        return msgspec.json.encode((run.blocks, run.states, run.answers))

    plain = answer(before)
    out = []
    for name in apart:
        try:
            if answer(before.derive(**{name: getattr(after, name)})) != plain:
                out.append(name)
        except UsageError:
            continue
    return out


def read(path: Path) -> list[str]:
    """The kinds that a file expects: a line each, as `lab diff` prints them; empty lines and those that begin with # aside.

    :raises InputError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), "", f"cannot be read: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def unexpected(found: Sequence[Kind], expected: Sequence[str]) -> tuple[list[str], list[str]]:
    """Kinds that were found and not *expected*, and those expected and not found."""
    names = [kind.name for kind in found]
    return [n for n in names if n not in expected], [e for e in expected if e not in names]
