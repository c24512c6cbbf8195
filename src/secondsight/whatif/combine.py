"""What is compared: policies x rules x knobs, written out as entries, each of which becomes one row.

policies x rules --> entries                     never and oracle are bounds: once, under the first rules
         x knobs --> an entry for each value of each knob that the policy or its host has; the others once
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.profiles import profile
from secondsight.mm.rules import Rules
from secondsight.policy import UNLIMITED, Policy, check, describe, make
from secondsight.replay.configuration import HOST

#: A policy's text (``hawkeye,alpha=0.4``), or what makes one.
PolicyLike = str | Callable[[], Policy]

#: Rows that no rules change: run once, under the first.
BOUNDS = frozenset({"never", "oracle"})

#: Values that one range may have, and that a sweep's ranges may have together for one policy.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Combination:
    """One row to be: what makes the policy, its text, its rules, its host, its budget (blocks, a share, or none), and the knobs that
    were varied to get it, by name.
    """

    make: Callable[[], Policy]
    policy: str
    rules: Rules
    config: HostConfig = HOST
    budget: int | str | None = None
    knobs: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How the row is called."""
        varied = "".join(
            f" {k}={v:g}" if isinstance(v, float) else f" {k}={v}" for k, v in self.knobs.items()
        )
        return f"{self.policy} under {self.rules.title}{varied}"

    @property
    def not_run(self) -> str:
        """Why this kernel cannot be set up like this host; "" where it can."""
        if self.config.sizes != Sizes() and not self.rules.has_sizes:
            return f"{self.rules.name} has no hugepages-*kB/enabled (they came in 6.8)"
        return ""


def combinations(
    policies: Sequence[PolicyLike],
    rules: Sequence[str | Rules],
    config: HostConfig = HOST,
    budget: int | str | None = None,
) -> list[Combination]:
    """Every policy under every rules, bounds once; in the order given, without repetitions.

    :raises UsageError: an unknown policy, option or rules, a value out of its range; none at all.
    :raises MissingDependency: a broken plug-in.
    """
    if not policies or not rules:
        raise UsageError("a comparison needs at least one policy and one kernel profile")
    values = [profile(r) if isinstance(r, str) else r for r in rules]
    out: dict[str, Combination] = {}
    for given in policies:
        maker = _maker(given)
        policy_made = maker()
        check(policy_made)
        text = describe(policy_made)
        under = [Combination(maker, text, value, config, budget) for value in values]
        if policy_made.name in BOUNDS:
            # The first that the host can be.
            under = [next((combination for combination in under if not combination.not_run), under[0])]
        for combination in under:
            out.setdefault(combination.label, combination)
    return list(out.values())


def _maker(given: PolicyLike) -> Callable[[], Policy]:
    if isinstance(given, str):
        return lambda: make(given)
    return given


@dataclass(frozen=True, slots=True)
class Range:
    """The values of a numeric knob: *name* a field of :class:`Knobs`, or an option of the policies that have it."""

    name: str
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str, said: str = "--vary") -> Range:
        """Read ``max_ptes_none=0..511:64`` (the last value is always among them) or ``alpha=0.2,0.4,0.6``; *said*: where it stood.

        :raises UsageError: *text* is neither.
        """
        name, equals, span = text.partition("=")
        try:
            if not equals or not name:
                raise ValueError
            if ".." in span:
                ends, _, step = span.partition(":")
                low, _, high = ends.partition("..")
                values = _steps(float(low), float(high), float(step or 1))
            else:
                values = [float(v) for v in span.split(",")]
                if any(v != v or abs(v) == float("inf") for v in values):
                    raise ValueError
        except ValueError:
            raise UsageError(f"{said} {text!r}: write KNOB=FIRST..LAST:STEP or KNOB=A,B,C") from None
        return cls(name.strip(), tuple(dict.fromkeys(values)))


def _steps(low: float, high: float, step: float) -> list[float]:
    if not step > 0 or not high >= low or (high - low) / step > MOST:
        raise ValueError
    values = [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]
    if high - values[-1] > 1e-9:
        values.append(high)
    return values


def varied(combination: Combination, knob: str, value: float) -> Combination | None:
    """*combination* with *knob* at *value*; None where neither its host nor its policy has such a knob.

    :raises UsageError: the value is not one the knob can take.
    """
    policy = combination.make()
    knobs = {**combination.knobs, knob: value}
    if knob in Knobs.__struct_fields__:
        if not (policy.khugepaged or knob in policy.knobs):
            return None
        if knob not in policy.knobs:
            changes = {knob: _whole(knob, value)}
            config = msgspec.structs.replace(
                combination.config, knobs=msgspec.structs.replace(combination.config.knobs, **changes)
            )
            return replace(combination, config=config, knobs=knobs)
    if isinstance(getattr(type(policy), knob, None), property) or not hasattr(policy, knob):
        return None
    # A policy's own option, which may shadow the host's file.
    kind = type(getattr(policy, knob))
    if kind not in (int, float):
        raise UsageError(f"{knob} of {policy.name} is not a number: it cannot be varied")
    wanted = _whole(knob, value) if kind is int else value

    def maker() -> Policy:
        changed = combination.make()
        setattr(changed, knob, wanted)
        return changed

    check(maker())
    return replace(combination, make=maker, knobs=knobs)


def _whole(knob: str, value: float) -> int:
    if value != round(value):
        raise UsageError(f"{knob}={value:g}: takes whole numbers")
    return round(value)


def grid(chosen: Sequence[Combination], ranges: Sequence[Range]) -> list[Combination]:
    """*chosen*, each at every value of those *ranges* whose knob it has (one that has none: as it is).

    :raises UsageError: a range whose knob none of them has, or more than a thousand values together for one of them.
    """
    met: set[str] = set()
    out: list[Combination] = []
    for combination in chosen:
        mine = [r for r in ranges if varied(combination, r.name, r.values[0]) is not None]
        met.update(r.name for r in mine)
        size = 1
        for r in mine:
            size *= len(r.values)
        if size > MOST:
            raise UsageError(
                f"{combination.label}: {size} values of its knobs together; at most {MOST} are run"
            )
        out.extend(_each(combination, mine))
    for r in ranges:
        if r.name not in met:
            raise UsageError(f"{r.name}: neither khugepaged nor any of these policies has such a knob")
    return out


def _each(combination: Combination, ranges: Sequence[Range]) -> Iterator[Combination]:
    for values in itertools.product(*(r.values for r in ranges)):
        changed: Combination | None = combination
        for r, value in zip(ranges, values, strict=True):
            assert changed is not None
            changed = varied(changed, r.name, value)
        assert changed is not None
        yield changed


def parse_budget(budget: int | str | None, blocks: int) -> int:
    """Blocks that may become huge: a number, or a share of the footprint of *blocks* (``25%``); None: no limit.

    :raises UsageError: neither.
    """
    if budget is None:
        return UNLIMITED
    text = str(budget).strip()
    try:
        value = float(text[:-1]) / 100 * blocks if text.endswith("%") else float(int(text))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"budget {budget!r}: write a number of blocks, or a share of the footprint like 25%")
    return int(value)
