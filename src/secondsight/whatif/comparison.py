"""Policies and rules compared on one trace, in one reading of it.

policies x rules --> combinations --replay--> runs --convert--> rows
--vary KNOB=a..b:step                     the same again, one for each value, without channels: the sensitivity curves
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec
import numpy as np

from secondsight import __version__
from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.config import HostConfig
from secondsight.mm.rules import Rules
from secondsight.policy import UNLIMITED, make
from secondsight.replay import tally
from secondsight.replay.clock import bound, scale_of
from secondsight.replay.configuration import HOST, Backing, Configuration
from secondsight.replay.engine import Engine, Progress
from secondsight.replay.events import EventSource
from secondsight.replay.layout import discover
from secondsight.replay.tlb import TlbConfig
from secondsight.report.answer import answer
from secondsight.report.metrics import METRICS
from secondsight.report.schema import BlockColumns, Results, ResultsOrigin, Sensitivity, pack
from secondsight.trace import Trace
from secondsight.trace.caveats import caveats, left_out
from secondsight.trace.provenance import PAGE_WALKS
from secondsight.whatif import convert
from secondsight.whatif.combine import Combination, PolicyLike, Range, combinations, grid, parse_budget
from secondsight.whatif.costs import CostModel
from secondsight.whatif.hot import Counting, hot_pages
from secondsight.whatif.passes import without_a_pass
from secondsight.whatif.predicted import PredictionBasis, predicting


class Setting(TypedDict, total=False):
    """How a trace is replayed, whatever is compared. config: the host, where a combination has none of its own; time_scale: ns of
    khugepaged's clock for one of the trace's; backing, fill: as a ``Configuration``'s; tlb: model a TLB, which figures of misses, walks and
    overhead need; costs: prices; predict: predict run times where the trace carries them, a note says why not; command: for the
    provenance."""

    config: HostConfig
    time_scale: float
    backing: Backing
    fill: bool | None
    tlb: TlbConfig | None
    costs: CostModel | None
    predict: PredictionBasis | None
    command: str


def compare(
    trace: EventSource | str | os.PathLike[str],
    policies: Sequence[PolicyLike] = ("khugepaged",),
    rules: Sequence[str | Rules] = ("7.2",),
    *,
    budget: int | str | None = None,
    vary: Range | Sequence[Range] = (),
    channels: bool = True,
    progress: Progress | None = None,
    **setting: Unpack[Setting],
) -> Results:
    """Replay *trace* under every combination and say what each would bring and cost.

    :param policies: names with options (``hawkeye,alpha=0.4``), or callables that make a policy (a class will do).
    :param budget: blocks that may become huge in the run: a number, or a share of the footprint (``"25%"``).
    :param setting: :class:`Setting`, by name.
    :param vary: run everything again for each value of a knob, one knob at a time, for the sensitivity curves.
    :param channels: keep what each channel said over time, for the map; without, the results are small.
    :raises UsageError: what is asked for does not exist or makes no sense.
    :raises InputError: the trace is damaged.
    """
    config, time_scale = setting.get("config", HOST), setting.get("time_scale", 1.0)
    wanted = combinations(policies, rules, config, budget)
    chosen = [combination for combination in wanted if not combination.not_run]
    if not chosen:
        raise UsageError(
            f"none of these profiles can be set up like this host: {wanted[0].not_run}; leave the size out, or take a newer kernel"
        )
    ranges = [vary] if isinstance(vary, Range) else list(vary)
    # Found out before anything is read.
    changed = {r.name: [c for c in grid(chosen, [r]) if c.knobs] for r in ranges}
    source: EventSource = Trace.open(trace) if isinstance(trace, (str, os.PathLike)) else trace
    for combos in (chosen, *changed.values()):
        bound(scale_of(time_scale), source.span, ((c.make(), c.config) for c in combos))
    name = Path(trace).name if isinstance(trace, (str, os.PathLike)) else "events in memory"
    again = sum(map(bool, changed.values()))
    results, facts = run(
        source, chosen, name=name, channels=channels, progress=_part(progress, 0, 1 + again), **setting
    )
    if len(chosen) < len(wanted):
        results = _with_those_not_run(results, wanted)
    curves: dict[str, Sensitivity] = {}
    for turn, (knob, combos) in enumerate(changed.items(), 1):
        engine = Engine(source, _subjects(source, combos, setting), scale_of(time_scale), channels=False)
        engine.run(_part(progress, turn, 1 + again))
        curves[knob] = _sensitivity(knob, combos, engine, facts)
    return msgspec.structs.replace(results, sensitivity=curves) if curves else results


def run(
    source: EventSource,
    chosen: Sequence[Combination],
    *,
    name: str,
    channels: bool = True,
    progress: Progress | None = None,
    **setting: Unpack[Setting],
) -> tuple[Results, convert.SharedFigures]:
    """Replay *source* under *chosen*, each with its own host and budget, in one reading; the config of *setting* and *name* are for the
    provenance."""
    config, time_scale, tlb = setting.get("config", HOST), setting.get("time_scale", 1.0), setting.get("tlb")
    prices = setting.get("costs") or CostModel()
    configurations = _subjects(source, chosen, setting)
    floor = next((i for i, c in enumerate(chosen) if c.policy == "never"), None)
    if tlb is not None and floor is None:
        # Misses with every page small are what the policies are measured by.
        common: dict[str, Any] = {
            "backing": setting.get("backing", "trace"),
            "fill": setting.get("fill"),
            "tlb": tlb,
        }
        configurations.append(
            Configuration("floor", chosen[0].rules, config=config, policy=lambda: make("never"), **common)
        )
        floor = len(chosen)
    backing = setting.get("backing", "trace")
    times = predicting(setting.get("predict"), source, chosen, config, backing)
    if times.extra is not None:
        times.today = len(configurations)
        configurations.append(
            Configuration(
                "today",
                times.extra.rules,
                config=config,
                policy=times.extra.make,
                backing=backing,
                fill=setting.get("fill"),
            )
        )
    counting = Counting(times.reads)
    engine = Engine(counting, configurations, scale_of(time_scale), channels)
    counting.start(engine.layout)
    times.start(engine)
    engine.run(progress)
    facts = convert.SharedFigures(
        hot=hot_pages(counting.pages),
        misses=None if floor is None else tally.result(engine.runs[floor])[1].blocks.walks,
        columns=convert.columns_for(engine.layout.rows, len(chosen)),
        costs=prices,
    )
    verdicts = convert.Verdicts()
    index = np.repeat(np.arange(len(engine.layout.spaces)), np.diff(engine.layout.first))
    row_of = {
        key: i for i, key in enumerate(zip(index.tolist(), engine.layout.numbers.tolist(), strict=True))
    }
    rows = [
        convert.row(driven, facts, verdicts, combination=combination, row_of=row_of)
        for combination, driven in zip(chosen, engine.runs, strict=False)
    ]
    rows = times.rows(rows, engine, counting.pages)
    touched = (counting.pages.reshape(-1, HPAGE_PMD_NR) > 0).sum(axis=1)
    bound = convert.oracle_curve(engine.layout.total)
    results = Results(
        title=f"SecondSight: {name}",
        answer=answer(rows, bound) + _of_a_part(source, int(engine.layout.total.sum())),
        provenance=_provenance(
            engine,
            name,
            time_scale,
            config,
            prices,
            setting.get("command", ""),
            chosen,
            [*without_a_pass(engine, chosen), *(times.notes if setting.get("predict") else [])],
        ),
        metrics=list(METRICS.values()),
        spaces=[space.name for space in engine.layout.spaces],
        rows=rows,
        blocks=BlockColumns(
            pack(index, "i4"),
            pack(engine.layout.numbers, "f8"),
            pack(engine.layout.total, "f8"),
            pack(touched, "i4"),
        ),
        verdicts=verdicts.rules,
        oracle=bound,
    )
    return results, facts


def _of_a_part(source: EventSource, accesses: int) -> str:
    """A sentence for the answer where a considerable part of what was seen is missing from *source*."""
    origin = getattr(source, "provenance", None)
    note = left_out(origin, accesses) if origin else ""
    return f" But {note}." if note else ""


def _subjects(
    source: EventSource,
    chosen: Sequence[Combination],
    setting: Setting,
) -> list[Configuration]:
    backing, fill, tlb = setting.get("backing", "trace"), setting.get("fill"), setting.get("tlb")
    footprint: int | None = None
    out = []
    for combination in chosen:
        limit = UNLIMITED
        if combination.budget is not None:
            if footprint is None:
                # Read only where a budget is a share of it.
                footprint = discover(source).rows if str(combination.budget).strip().endswith("%") else 0
            limit = parse_budget(combination.budget, footprint)
        out.append(Configuration(
            combination.label, combination.rules, config=combination.config, policy=combination.make, backing=backing, fill=fill,
            budget=limit, tlb=tlb,
        ))  # fmt: skip
    return out


def _with_those_not_run(results: Results, wanted: Sequence[Combination]) -> Results:
    """*results* with a row for each of *wanted* that no machine can be set up for, where it was asked for."""
    ran = iter(results.rows)
    rows = [convert.row_not_run(combination) if combination.not_run else next(ran) for combination in wanted]
    return msgspec.structs.replace(results, rows=rows)


def _part(progress: Progress | None, turn: int, turns: int) -> Progress | None:
    """*progress* over all readings, of which this is number *turn*."""
    if progress is None:
        return None
    return lambda done, total: progress(turn * total + done, turns * total)


def _sensitivity(
    knob: str, combos: Sequence[Combination], engine: Engine, facts: convert.SharedFigures
) -> Sensitivity:
    """For each policy under each kernel profile, its figures at each of the knob's values."""
    out: dict[str, list[tuple[float, Mapping[str, float | None]]]] = {}
    for combination, driven in zip(combos, engine.runs, strict=True):
        result, data = tally.result(driven)
        label = f"{combination.policy} under {combination.rules.title}"
        out.setdefault(label, []).append(
            (float(combination.knobs[knob]), convert.figures(result, data, driven, facts))
        )
    return out


def _provenance(
    engine: Engine,
    name: str,
    time_scale: float,
    config: HostConfig,
    costs: CostModel,
    command: str,
    chosen: Sequence[Combination],
    notes_before: Sequence[str] = (),
) -> ResultsOrigin:
    origin = getattr(engine.source, "provenance", None)
    accesses = int(engine.layout.total.sum())
    notes = [*(caveats(origin, accesses) if origin else []), *notes_before]
    notes += (note for run in engine.runs for note in tally.result(run)[0].notes)
    settings: dict[str, Any] = msgspec.to_builtins(config)
    settings |= {f"khugepaged {k}": v for k, v in settings.pop("knobs").items()}
    settings |= {f"cost {k}": v for k, v in msgspec.to_builtins(costs).items()}
    budgets = {c.budget for c in chosen}
    if len(budgets) == 1 and (budget := budgets.pop()) is not None:
        settings["budget"] = f"{parse_budget(budget, engine.layout.rows)} blocks"
    return ResultsOrigin(
        tool=f"secondsight {__version__}",
        command=command,
        trace=name,
        trace_hash=(origin.content_hash or "") if origin else "",
        source=origin.source if origin else "",
        unseen=[each for each in origin.unseen if each != PAGE_WALKS or not origin.walks] if origin else [],
        accesses=accesses,
        rows=engine.layout.events,
        seconds=(engine.end - engine.start) / 1e9,
        time_scale=float(time_scale),
        config=settings,
        notes=sorted(set(notes)),
    )
