"""Predicted run times in a comparison: whether the trace carries them, today's layout, and the figures of each row.

asked + provenance --> a reason why not, or: today's row, the calibration, who counts the walks
after the replay   --> run_time, run_time_low, run_time_high, run_time_change, longest_stall, mean_stall of each row
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.predict.calibration import Calibration, find
from secondsight.predict.prices import Waits
from secondsight.predict.runtime import ReplayedRow, RunTime, too_few
from secondsight.predict.walks import Walking, recorded, touched_mib
from secondsight.replay import tally
from secondsight.replay.configuration import Backing
from secondsight.replay.engine import Engine
from secondsight.replay.events import EventSource
from secondsight.replay.metrics import SpaceResult
from secondsight.replay.run import ConfigurationReplay
from secondsight.report.schema import Row
from secondsight.whatif.combine import Combination, combinations

#: What decides today where nobody says: by transparent_hugepage/enabled when the CPU time was measured.
BY_SETTING = {"always": "always", "madvise": "never", "never": "never", "": "never"}


@dataclass(frozen=True, slots=True)
class PredictionBasis:
    """What a prediction rests on. cpu_seconds: that the program takes today, None: as the trace says; today: the policy that decides today,
    None: by the THP setting when it was measured; calibration: a file, None: this machine's.
    """

    cpu_seconds: float | None = None
    today: str | None = None
    calibration: Path | None = None

    def __post_init__(self) -> None:
        """:raises UsageError: no CPU time is like that."""
        if self.cpu_seconds is not None and not 0 < self.cpu_seconds < 1e9:
            raise UsageError(f"--cpu-time {self.cpu_seconds}: expected seconds, above 0")

    @property
    def insisted(self) -> bool:
        """Whether a prediction was asked for in so many words: what stands against it is an error then."""
        return self.cpu_seconds is not None or self.calibration is not None or self.today is not None


@dataclass(slots=True)
class Predicting:
    """One comparison's predictions. reason: why there are none."""

    source: EventSource
    reason: str = ""
    seconds: float = 0.0
    calibration: Calibration | None = None
    walking: Walking | None = None
    today: int = -1
    label: str = ""
    extra: Combination | None = None
    guest: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def reads(self) -> EventSource:
        """What the replay is to read."""
        return self.walking or self.source

    def start(self, engine: Engine) -> None:
        """The trace is laid out."""
        if self.walking is not None:
            self.walking.start(engine.layout)

    def rows(self, rows: list[Row], engine: Engine, pages: npt.NDArray[np.uint64]) -> list[Row]:
        """*rows* with their figures; *pages*: accesses of each page. ``reason`` says why not, if not."""
        if self.reason or self.calibration is None:
            self.notes.append(f"no run time is predicted: {self.reason}")
            return rows
        layout, provenance = engine.layout, getattr(self.source, "provenance", None)
        profile = self.walking.profile() if self.walking is not None else recorded(provenance, layout)  # type: ignore[arg-type]
        assert profile is not None
        if reason := too_few(profile):
            self.notes.append(f"no run time is predicted: {reason}")
            return rows
        runs = engine.runs
        predictor = RunTime(
            self.calibration, profile, _layout(runs[self.today]), seconds=self.seconds, footprint=touched_mib(pages), guest=self.guest
        )  # fmt: skip
        out = []
        for row, run in zip(rows, runs, strict=False):
            predicted_time = predictor.of(_layout(run))
            counted = tally.result(run)[0].total
            prices, events = self.calibration.prices, _events(counted)
            stall, _ = prices.stall(events, collapses=counted.collapses > 0)
            figures = {
                "run_time": predicted_time.seconds, "run_time_low": predicted_time.low, "run_time_high": predicted_time.high,
                "run_time_change": predicted_time.seconds / self.seconds - 1, "longest_stall": stall, "mean_stall": prices.mean(events),
            }  # fmt: skip
            out.append(msgspec.structs.replace(row, metrics=dict(row.metrics) | figures))
        kind = "nested" if self.calibration.machine.virtualised else "native"
        self.notes.append(
            f"predicted run time: CPU seconds, {self.seconds:.3g} s under {self.label} being today's, walks {kind}, "
            f"priced by the calibration of "
            f"{self.calibration.machine.title}; the interval is as wide as nine programs' errors ask (docs/run-time.md)"
        )
        if profile.error:
            self.notes.append(
                f"walks were counted in {profile.counted:,} of {profile.accesses:,} accesses, to ± {profile.error:.1%}"
            )
        return out


def predicting(
    asked: PredictionBasis | None,
    source: EventSource,
    chosen: Sequence[Combination],
    config: HostConfig,
    backing: Backing,
) -> Predicting:
    """What can be predicted of *source*.

    :raises UsageError: what was *asked* for in so many words cannot be had.
    """
    out = Predicting(source)
    if asked is None:
        out.reason = "not asked for"
        return out
    provenance = getattr(source, "provenance", None)
    seconds = asked.cpu_seconds or (provenance.cpu_seconds if provenance else None)
    kinds = {
        "vm" if backing == "vm" or (backing == "trace" and s.type == "vm") else "process"
        for s in source.spaces
    }
    if provenance is not None and provenance.source == "record-pid":
        out.reason = "the trace holds samples, which have no order"
    elif provenance is not None and provenance.quantum and not provenance.walks:
        out.reason = (
            "the trace is aggregated and its recorder counted no walks; `record run` counts them, or record every access "
            "(--quantum 0)"
        )
    elif len(kinds) > 1:
        out.reason = "the trace holds processes and VMs, whose walks cost differently"
    elif seconds is None:
        out.reason = (
            "the trace does not say what CPU time the program takes today: --cpu-time SECONDS does "
            "(record run --cpu-time measures it)"
        )
    if not out.reason:
        try:
            out.calibration, calibration_notes = find(asked.calibration)
            out.notes.extend(calibration_notes)
        except UsageError as error:
            out.reason = str(error)
    if out.calibration is not None and kinds == {"vm"} and not out.calibration.machine.virtualised:
        out.reason = (
            "the trace's memory is a VM's, whose walks are nested, and the calibration is of a machine without a hypervisor beneath: run "
            "`secondsight calibrate --nested` in a guest and give its file by --calibration"
        )
    if out.reason:
        if asked.insisted:
            raise UsageError(f"no run time can be predicted: {out.reason}")
        return out
    assert seconds is not None
    out.seconds, out.guest = seconds, kinds == {"vm"}
    if provenance is None or not provenance.walks:
        out.walking = Walking(source)
    policy = asked.today or BY_SETTING.get(provenance.cpu_thp if provenance else "", "never")
    out.today = next((i for i, combination in enumerate(chosen) if combination.policy == policy), -1)
    out.label = policy
    if out.today < 0:
        out.extra = combinations([policy], [chosen[0].rules], config, None)[0]
    return out


def _layout(run: ConfigurationReplay) -> ReplayedRow:
    total = tally.result(run)[0].total
    share = np.divide(
        run.accesses_huge, run.accesses, out=np.zeros(len(run.accesses)), where=run.accesses > 0
    )
    return ReplayedRow(share, _events(total))


def _events(total: SpaceResult) -> Waits:
    """What the kernel counted as faults, apart by what each did."""
    return Waits(
        faults=total.faults - total.fault_huge - total.copied - total.copied_huge,
        huge_faults=total.fault_huge,
        copied=total.copied - total.copy_splits,
        copied_huge=total.copied_huge,
        copy_splits=total.copy_splits,
    )
