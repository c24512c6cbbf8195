"""The run time that a layout means: today's CPU time, and what walks and faults would be more or less.

    share huge of each block's accesses (replay) ──▶ walks = sum over blocks of small * (1 - share) + HUGE * huge * share
    faults, a fork's copies (replay) x prices    ──▶ time  = today + cost * (walks - today's) + faults' price - today's

The interval is what the suite's patterns that were left out, and real programs, support: :meth:`Model.within`, no less than PROGRAMS_*;
and the price of huge pages that a hypervisor must give first, where today has fewer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.predict.calibration import Calibration
from secondsight.predict.model import HUGE_NESTED, PROGRAMS_FLOOR, PROGRAMS_RELATIVE
from secondsight.predict.prices import Waits
from secondsight.predict.walks import FEWEST, Profile

#: How far the fault prices are taken to be off: page tables, cgroups and zeroing differ from program to program.
FAULTS_OFF = 0.3


class ReplayedRow(NamedTuple):
    """What a replay says of one row. share float64[rows]: of each block's accesses, those that landed in a huge page; events: its faults
    and a fork's copies."""

    share: npt.NDArray[np.float64]
    events: Waits


class Predicted(NamedTuple):
    """CPU seconds, and the interval they lie in nine times of ten."""

    seconds: float
    low: float
    high: float


def walks(profile: Profile, share: npt.NDArray[np.float64], huge: float) -> float:
    """Walks under a layout, one to a huge page counting as *huge* of one to a small page."""
    return float(np.sum(profile.small * (1 - share) + huge * profile.huge * share))


class RunTime:
    """Predicts for one program, of which today's layout and CPU time are known."""

    def __init__(
        self,
        calibration: Calibration,
        profile: Profile,
        today: ReplayedRow,
        *,
        seconds: float,
        footprint: float,
        guest: bool,
    ) -> None:
        """*footprint* MiB; *guest*: the trace's memory is a VM's, whose TLB entries stay small while the host's page makes walks
        shorter."""
        self.calibration, self.profile, self.today, self.seconds = calibration, profile, today, seconds
        self.huge = HUGE_NESTED if guest else calibration.model.huge
        if guest:
            self.profile = Profile(
                profile.small, profile.small, profile.accesses, profile.counted, profile.error
            )
        self.cost = self._cost(footprint)

    def _cost(self, footprint: float) -> float:
        """Seconds a walk: by the time with every page small, which itself depends on the cost."""
        every = walks(self.profile, np.zeros(len(self.profile.small)), self.huge)
        more = every - walks(self.profile, self.today.share, self.huge)
        cost = 0.0
        for _ in range(20):
            cost = self.calibration.model.cost(self.seconds + cost * more, every, footprint)
        return cost

    def of(self, layout: ReplayedRow) -> Predicted:
        """The CPU time under *layout*."""
        prices = self.calibration.prices
        fewer = walks(self.profile, self.today.share, self.huge) - walks(
            self.profile, layout.share, self.huge
        )
        by_walks = self.cost * fewer
        by_faults = prices.took(self.today.events) - prices.took(layout.events)
        if fewer == 0 and by_faults == 0:
            return Predicted(self.seconds, self.seconds, self.seconds)
        saving, model = by_walks / self.seconds, self.calibration.model
        off = max(model.floor, PROGRAMS_FLOOR) + (
            max(model.relative, PROGRAMS_RELATIVE) + 2 * self.profile.error
        ) * abs(saving)
        off = self.seconds * off + FAULTS_OFF * abs(by_faults)
        time = max(self.seconds - by_walks - by_faults, 0.0)
        # Whether a hypervisor has the memory ready nobody here can know.
        cold = max(prices.fault_huge_cold.seconds - prices.fault_huge.seconds, 0.0) * (
            layout.events.huge_faults - self.today.events.huge_faults
        )
        return Predicted(time, max(time - off + min(cold, 0.0), 0.0), time + off + max(cold, 0.0))


def too_few(profile: Profile) -> str:
    """Why *profile* carries no prediction; empty if it does."""
    if profile.counted < FEWEST:
        return f"only {profile.counted:,} accesses were seen in their order"
    return ""
