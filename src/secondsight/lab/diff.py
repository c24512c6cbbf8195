"""What changed between two kernels: the same scenarios on both, the differences grouped into kinds, each explained by rules or by none.

scenarios --> kernel A --> answers --+
          --> kernel B --> answers --+--> what differs first --> kinds (how often, an example)
                                                |
          model under A's profile, each rule of B's that differs turned alone: which of them makes this difference?

Memory that two kernels treated differently once goes on being different, so of a scenario only the first difference makes a kind: the
earliest moment at which anything differs, there in each block the first field in the order in which khugepaged fills them, and what
became of the visit. Everything after it is *what follows*, and counted with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from secondsight.errors import InputError, SecondSightError
from secondsight.lab.compare import Difference, between
from secondsight.lab.run import Failure
from secondsight.mm.rules import Rules, rule_names
from secondsight.scenario import verbs
from secondsight.scenario.results import Run
from secondsight.scenario.run import run as run_model
from secondsight.wholefile import read_whole

_LIMIT = 1 << 20  # bytes

__all__ = [
    "DifferenceKind",
    "Expected",
    "Kinds",
    "guest_only",
    "kinds",
    "of_scenario",
    "read",
    "steady",
    "unexpected",
]

_ORDER = (
    "visited", "none_or_zero", "unmapped", "writable", "referenced", "swapin", "isolate", "isolate.none_or_zero", "isolate.writable",
    "isolate.referenced", "isolate.status", "collapse", "order", "attempts", "status",
)  # fmt: skip
"""A visit's fields in the order in which khugepaged comes to them; those of a later candidate after all of an earlier one's."""
_TOGETHER = "several rules together"


class DifferenceKind(msgspec.Struct):
    """Differences of one kind.

    *field* was *first* on A and *second* on B; *outcome*: what became of the visit, where that differs too; *why*: of each scenario
    (its number), the rules that explain it; *follows*: fields that differ afterwards; *shortest*: a scenario that shows it, as TOML.
    """

    field: str
    first: str
    second: str
    outcome: str = ""
    why: dict[int, list[str]] = {}
    follows: list[str] = []
    shortest: str = ""

    @property
    def name(self) -> str:
        """The kind in a line."""
        return f"{self.field}: {self.first} → {self.second}" + (
            f"; status: {self.outcome}" if self.outcome else ""
        )

    @property
    def scenarios(self) -> list[int]:
        """The numbers of those that show it."""
        return list(self.why)

    @property
    def rules(self) -> dict[str, int]:
        """The rules that explain it, each with how many of the scenarios it explains, the most first."""
        counts = Counter(rule for rules in self.why.values() for rule in rules)
        return dict(counts.most_common())

    @property
    def unexplained(self) -> list[int]:
        """The scenarios that no rule explains."""
        return [i for i, rules in self.why.items() if not rules]


@dataclass
class Kinds:
    """Every kind, most frequent first.

    *compared* scenarios were answered by both kernels, *lost* ones by one or none; in *chance* ones reclaim or ksmd chose other pages,
    and *unsteady* ones differed otherwise, or not, when both were asked again. *guest_only*: scenarios in which a visit met a block
    with no sign of use but a guest's.
    """

    kinds: list[DifferenceKind] = field(default_factory=list)
    compared: int = 0
    differing: list[int] = field(default_factory=list)
    lost: int = 0
    chance: int = 0
    unsteady: list[int] = field(default_factory=list)
    guest_only: int = 0


def kinds(
    scenarios: Sequence[verbs.Scenario], first: Sequence[Run | Failure], second: Sequence[Run | Failure], before: Rules, after: Rules,
    *, states: bool = True,
) -> Kinds:  # fmt: skip
    """Group what kernels A and B answered otherwise; *before* and *after* are their profiles."""
    out = Kinds()
    by_name: dict[str, DifferenceKind] = {}
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if isinstance(a, Failure) or isinstance(b, Failure):
            out.lost += 1
            continue
        if _chose_otherwise(scenarios[i], a, b):
            out.chance += 1
            continue
        out.compared += 1
        out.guest_only += guest_only(a)
        here = of_scenario(scenarios[i], a, b)
        if not here:
            continue
        out.differing.append(i)
        why = _explained(scenarios[i], {kind.name for kind in here}, before, after, states)
        for new in here:
            kind = by_name.setdefault(new.name, msgspec.structs.replace(new, why={}, follows=[]))
            kind.why[i] = why[new.name]
            kind.follows += [name for name in new.follows if name not in kind.follows]
    out.kinds = sorted(by_name.values(), key=lambda kind: -len(kind.scenarios))
    return out


def steady(by_kind: Kinds, again: Mapping[int, set[str]]) -> None:
    """Leave in *by_kind* what was shown twice; *again*: the kinds that each differing scenario showed when both kernels were asked once
    more."""
    for kind in by_kind.kinds:
        kind.why = {i: rules for i, rules in kind.why.items() if kind.name in again.get(i, set())}
    by_kind.kinds = [kind for kind in by_kind.kinds if kind.why]
    left = {i for kind in by_kind.kinds for i in kind.why}
    by_kind.unsteady = [i for i in by_kind.differing if i not in left]
    by_kind.differing = sorted(left)


def of_scenario(scenario: verbs.Scenario, a: Run, b: Run) -> list[DifferenceKind]:
    """The kinds of the first moment in which *a* and *b*, two answers to *scenario*, differ; none where they do not."""
    differences = between(0, a, b)
    if not differences:
        return []
    scans = _scans(scenario)
    moments = [_moment(d, scans) for d in differences]
    earliest = min(moments)
    places: dict[str, list[Difference]] = {}
    for d, moment in zip(differences, moments, strict=True):
        if moment == earliest:
            places.setdefault(re.sub(r" attempt \d+$", "", d.where), []).append(d)
    out: dict[str, DifferenceKind] = {}
    for at_place in places.values():
        cause, *others = sorted(at_place, key=_rank)
        became = next((d for d in others if d.field == "status"), None)
        kind = DifferenceKind(
            cause.field, *_values(cause), f"{became.model} → {became.kernel}" if became else ""
        )
        kind = out.setdefault(kind.name, kind)
        later = [d.field for d, moment in zip(differences, moments, strict=True) if moment != earliest]
        kind.follows = list(dict.fromkeys([*kind.follows, *(d.field for d in others), *later]))
    return list(out.values())


def _chose_otherwise(scenario: verbs.Scenario, a: Run, b: Run) -> bool:
    """Whether reclaim or ksmd chose other pages before anything else differed: what comes after it tells nothing about the kernels."""
    took = [{answer.step: answer.took for answer in run.answers if answer.took is not None} for run in (a, b)]
    other = [step for step in took[0].keys() | took[1].keys() if took[0].get(step) != took[1].get(step)]
    if not other:
        return False
    scans = _scans(scenario)
    return all(_moment(d, scans)[0] >= min(other) for d in between(0, a, b))


def _scans(scenario: verbs.Scenario) -> list[int]:
    """The step of each pass."""
    return [
        i for i, step in enumerate(scenario.steps) if isinstance(step, verbs.Scan) for _ in range(step.passes)
    ]


def _moment(difference: Difference, scans: Sequence[int]) -> tuple[int, int, int]:
    """When it was seen: the step, the pass, and whether before (0), in (1) or after (2) it; *scans*: the step of each pass."""
    if hit := re.match(r"pass (\d+) ", difference.where):
        return scans[int(hit[1]) - 1], int(hit[1]), 1
    if hit := re.match(r"(\w+) pass (\d+) \(step (\d+)\)", difference.where):
        return int(hit[3]), int(hit[2]), 2 if hit[1] == "after" else 0
    hit = re.search(r"step (\d+)", difference.where)
    return int(hit[1]) if hit else 0, 0, 0


def _rank(difference: Difference) -> tuple[int, int]:
    attempt = re.search(r" attempt (\d+)$", difference.where)
    known = difference.field in _ORDER
    rank = _ORDER.index(difference.field) if known else len(_ORDER)
    scan, last = _ORDER.index("swapin"), _ORDER.index("order")
    # The scan's fields come before every candidate's, the visit's own result after them.
    return (0 if rank < scan else 1000 if rank >= last else int(attempt[1]) if attempt else 1), rank


def _values(difference: Difference) -> tuple[str, str]:
    """Both values without the page that was met; of numbers and of lists only which is the greater."""
    first, second = re.sub(r" \(page .*\)", "", difference.model), difference.kernel
    if first.isdigit() and second.isdigit():
        return ("less", "more") if int(first) < int(second) else ("more", "less")
    if first[:1] == "[" == second[:1]:
        a, b = first.count(",") + (first != "[]"), second.count(",") + (second != "[]")
        return ("fewer", "more") if a < b else ("more", "fewer") if a > b else ("some", "others")
    return first, second


def guest_only(run: Run) -> bool:
    """Whether a visit of *run* met a block whose only sign of use was in a secondary MMU."""
    return any(b.young is not None and b.young[0] == b.young[1] == 0 < b.young[2] for b in run.blocks)


def _explained(
    scenario: verbs.Scenario, names: set[str], before: Rules, after: Rules, states: bool
) -> dict[str, list[str]]:
    """For each kind of *names*, the rules that the profiles differ in of which each alone makes the model differ so on *scenario*."""
    out: dict[str, list[str]] = {name: [] for name in names}

    def shown(rules: Rules) -> set[str]:
        try:
            turned = run_model(scenario, rules, keep_states=states)
        except SecondSightError:
            return set()
        return {kind.name for kind in of_scenario(scenario, plain, turned)} & names

    try:
        plain = run_model(scenario, before, keep_states=states)
    except SecondSightError:
        return out
    for rule in rule_names():
        if getattr(before, rule) == getattr(after, rule):
            continue
        try:
            turned = before.derive(**{rule: getattr(after, rule)})
        except SecondSightError:  # it needs another rule beside it
            continue
        for name in shown(turned):
            out[name].append(rule)
    if not all(out.values()) and before != after:
        for name in shown(after):
            out[name] = out[name] or [_TOGETHER]
    return out


class Expected(msgspec.Struct, frozen=True):
    """The kinds a file expects: those that *must* be found, and those that *may* be."""

    must: tuple[str, ...]
    may: tuple[str, ...]


def read(path: Path) -> Expected:
    """The kinds that a file expects, a line each, as `lab diff` prints them; after a ``?`` one that need not be found. # begins a
    comment.

    :raises InputError: it cannot be read.
    """
    try:
        text = read_whole(path, _LIMIT, "a list of kinds, as lab diff prints them").decode()
    except UnicodeDecodeError as error:
        raise InputError(str(path), "", f"cannot be read: {error}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and " → " not in line:
            raise InputError(
                str(path), f"line {number}", "no kind: FIELD: VALUE → VALUE, as lab diff prints it"
            )
    return Expected(
        tuple(line for line in lines if not line.startswith("?")),
        tuple(line[1:].strip() for line in lines if line.startswith("?")),
    )


def unexpected(kinds_shown: Sequence[DifferenceKind], expected: Expected) -> tuple[list[str], list[str]]:
    """Kinds that were found and not *expected*, and those that must be found and were not."""
    names = [kind.name for kind in kinds_shown]
    return (
        [n for n in names if n not in expected.must + expected.may],
        [e for e in expected.must if e not in names],
    )
