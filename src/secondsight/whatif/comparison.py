"""Policies and rules compared on one trace, in one reading of it.

policies x rules --> subjects --replay--> runs --convert--> rows      never and oracle are bounds: once, under the first rules
--vary KNOB=a..b:step                     the same subjects again, one for each value, without channels
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from secondsight import __version__
from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.rules import Rules, preset
from secondsight.policy import UNLIMITED, Policy, describe, make
from secondsight.replay import tally
from secondsight.replay.engine import Engine, Progress
from secondsight.replay.events import Source
from secondsight.replay.layout import discover
from secondsight.replay.subject import HOST, Backing, Subject
from secondsight.replay.tlb import TlbConfig
from secondsight.report.answer import answer
from secondsight.report.metrics import METRICS
from secondsight.report.schema import Blocks, Provenance, Results, pack
from secondsight.trace import Trace
from secondsight.whatif import convert
from secondsight.whatif.costs import CostModel
from secondsight.whatif.hot import Counting, hot_pages

#: A policy's text (``hawkeye,alpha=0.4``), or what makes one.
PolicyLike = str | Callable[[], Policy]

#: Rows that no rules change: run once, under the first.
BOUNDS = frozenset({"never", "oracle"})


@dataclass(frozen=True, slots=True)
class Combination:
    """One row to be: what makes the policy, its text, and its rules."""

    make: Callable[[], Policy]
    policy: str
    rules: Rules

    @property
    def label(self) -> str:
        """How the row is called."""
        return f"{self.policy} under {self.rules.name}"


def combinations(policies: Sequence[PolicyLike], rules: Sequence[str | Rules]) -> list[Combination]:
    """Every policy under every rules, bounds once; in the order given, without repetitions.

    :raises UsageError: an unknown policy, option or rules; none at all; :raises MissingPart: a broken plug-in.
    """
    if not policies or not rules:
        raise UsageError("compare needs at least one --policy and one --rules")
    values = [preset(r) if isinstance(r, str) else r for r in rules]
    out: dict[str, Combination] = {}
    for given in policies:
        maker = _maker(given)
        told = maker()
        text = describe(told)
        for value in values[:1] if told.name in BOUNDS else values:
            one = Combination(maker, text, value)
            out.setdefault(one.label, one)
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
    def parse(cls, text: str) -> Range:
        """Read ``max_ptes_none=0..511:64`` (the last value is always among them) or ``alpha=0.2,0.4,0.6``.

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
        except ValueError:
            raise UsageError(f"--vary {text!r}: write KNOB=FIRST..LAST:STEP or KNOB=A,B,C") from None
        return cls(name, tuple(values))


def _steps(low: float, high: float, step: float) -> list[float]:
    if not step > 0 or not high >= low or (high - low) / step > 1000:
        raise ValueError
    values = [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]
    if high - values[-1] > 1e-9:
        values.append(high)
    return values


def varied(one: Combination, config: HostConfig, knob: str, value: float) -> Subject | None:
    """The subject of *one* with *knob* at *value*; None where neither its host nor its policy has such a knob.

    :raises UsageError: the value is not one the knob can take.
    """
    policy = one.make()
    if knob in Knobs.__struct_fields__:
        if not (policy.khugepaged or knob in policy.knobs):
            return None
        config = msgspec.structs.replace(
            config, knobs=msgspec.structs.replace(config.knobs, **{knob: round(value)})
        )
        if knob not in policy.knobs:
            return Subject(f"{one.label} {knob}={value:g}", one.rules, config, one.make)
    if not hasattr(policy, knob):
        return None
    # A policy's own option, which may shadow the host's file.
    kind = type(getattr(policy, knob))

    def maker() -> Policy:
        changed = one.make()
        setattr(changed, knob, kind(value))
        return changed

    return Subject(f"{one.label} {knob}={value:g}", one.rules, config, maker)


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


def compare(
    trace: Source | str | os.PathLike[str],
    policies: Sequence[PolicyLike] = ("khugepaged",),
    rules: Sequence[str | Rules] = ("7.2",),
    *,
    config: HostConfig = HOST,
    time_scale: float = 1.0,
    backing: Backing = "trace",
    fill: bool | None = None,
    budget: int | str | None = None,
    tlb: TlbConfig | None = None,
    vary: Range | None = None,
    costs: CostModel | None = None,
    channels: bool = True,
    progress: Progress | None = None,
    command: str = "",
) -> Results:
    """Replay *trace* under every combination and say what each would bring and cost.

    :param policies: names with options (``hawkeye,alpha=0.4``), or callables that make a policy (a class will do).
    :param budget: blocks that may become huge in the run: a number, or a share of the footprint (``"25%"``).
    :param tlb: model a TLB: figures of misses, walks and overhead need one.
    :param vary: run everything again for each value of a knob, for the sensitivity curves.
    :param channels: keep what each channel said over time, for the map; without, the results are small.
    :raises UsageError: what is asked for does not exist or makes no sense; :raises InputError: the trace is damaged.
    """
    chosen = combinations(policies, rules)
    source: Source = Trace.open(trace) if isinstance(trace, (str, os.PathLike)) else trace
    prices = costs or CostModel()
    common = {"config": config, "backing": backing, "fill": fill, "tlb": tlb}
    limit = UNLIMITED if budget is None else parse_budget(budget, _footprint(source, budget))
    subjects = [Subject(c.label, c.rules, policy=c.make, budget=limit, **common) for c in chosen]  # type: ignore[arg-type]
    floor = next((i for i, c in enumerate(chosen) if c.policy == "never"), None)
    if tlb is not None and floor is None:
        # Misses with every page small are what the policies are measured by.
        subjects.append(Subject("floor", chosen[0].rules, policy=lambda: make("never"), **common))  # type: ignore[arg-type]
        floor = len(chosen)
    counting = Counting(source)
    engine = Engine(counting, subjects, _scale(time_scale), channels)
    counting.start(engine.found)
    engine.run(progress)
    misses = None
    if floor is not None:
        misses = tally.result(engine.runs[floor])[1].blocks.walks
    facts = convert.Facts(
        hot=hot_pages(counting.pages),
        misses=misses,
        columns=convert.columns_for(engine.found.rows, len(chosen)),
        costs=prices,
    )
    verdicts = convert.Verdicts()
    index = np.repeat(np.arange(len(engine.found.spaces)), np.diff(engine.found.first))
    row_of = {key: i for i, key in enumerate(zip(index.tolist(), engine.found.numbers.tolist(), strict=True))}
    rows = []
    for one, run in zip(chosen, engine.runs, strict=False):
        daemon = run.machine.daemon
        rows.append(
            convert.row(
                run, facts, verdicts, label=one.label, policy=one.policy, daemon=daemon, row_of=row_of
            )
        )
    touched = (counting.pages.reshape(-1, 512) > 0).sum(axis=1)
    bound = convert.oracle_curve(engine.found.total)
    return Results(
        title=f"SecondSight: {_name(trace)}",
        answer=answer(rows, bound),
        provenance=_provenance(engine, _name(trace), time_scale, config, prices, command, limit),
        metrics=list(METRICS.values()),
        spaces=[space.name for space in engine.found.spaces],
        rows=rows,
        blocks=Blocks(
            pack(index, "i4"),
            pack(engine.found.numbers, "f8"),
            pack(engine.found.total, "f8"),
            pack(touched, "i4"),
        ),
        verdicts=verdicts.rules,
        oracle=bound,
        vary=vary.name if vary else "",
        sensitivity=_sensitivity(source, chosen, vary, limit, common, time_scale, facts, progress)
        if vary
        else {},
    )


def _scale(value: float) -> float:
    if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"time scale {value}: must be a positive number")
    return value


def _footprint(source: Source, budget: int | str) -> int:
    """Blocks of the trace, read only where the budget is a share of them."""
    return discover(source).rows if str(budget).strip().endswith("%") else 0


def _name(trace: object) -> str:
    return Path(trace).name if isinstance(trace, (str, os.PathLike)) else "events in memory"


def _sensitivity(
    source: Source,
    chosen: Sequence[Combination],
    vary: Range,
    limit: int,
    common: Mapping[str, Any],
    time_scale: float,
    facts: convert.Facts,
    progress: Progress | None,
) -> dict[str, list[tuple[float, dict[str, float | None]]]]:
    """For each combination that has the knob, its figures at each of the knob's values."""
    found = [(c.label, v, varied(c, common["config"], vary.name, v)) for c in chosen for v in vary.values]
    wanted = [
        (
            label,
            value,
            replace(s, backing=common["backing"], fill=common["fill"], tlb=common["tlb"], budget=limit),
        )
        for label, value, s in found
        if s is not None
    ]
    if not wanted:
        raise UsageError(f"--vary {vary.name}: neither khugepaged nor any of these policies has such a knob")
    engine = Engine(source, [s for _, _, s in wanted], time_scale, False)
    engine.run(progress)
    out: dict[str, list[tuple[float, dict[str, float | None]]]] = {}
    for (label, value, _), run in zip(wanted, engine.runs, strict=True):
        result, data = tally.result(run)
        out.setdefault(label, []).append((value, convert.figures(result, data, run, facts)))
    return out


def _provenance(
    engine: Engine,
    name: str,
    time_scale: float,
    config: HostConfig,
    costs: CostModel,
    command: str,
    limit: int,
) -> Provenance:
    origin = getattr(engine.source, "provenance", None)
    notes = [note for run in engine.runs for note in tally.result(run)[0].notes]
    told: dict[str, Any] = msgspec.to_builtins(config)
    told |= {f"khugepaged {k}": v for k, v in told.pop("knobs").items()}
    told |= {f"cost {k}": v for k, v in msgspec.to_builtins(costs).items()}
    if limit < UNLIMITED:
        told["budget"] = f"{limit} blocks"
    return Provenance(
        tool=f"secondsight {__version__}",
        command=command,
        trace=name,
        trace_hash=(origin.content_hash or "") if origin else "",
        source=origin.source if origin else "",
        unseen=list(origin.unseen) if origin else [],
        accesses=int(engine.found.total.sum()),
        rows=engine.found.events,
        seconds=(engine.end - engine.start) / 1e9,
        time_scale=float(time_scale),
        config=told,
        notes=sorted(set(notes)),
    )
