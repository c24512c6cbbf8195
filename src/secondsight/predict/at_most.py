"""The most that huge pages can bring a program of which nothing is known but its CPU time and how much memory it has.

A running process shows nobody how often it walks page tables, so that its run time cannot be predicted as ``runtime.py`` does. But the law
of ``model.py`` says what walks come to at the most: were there nothing but walks, each costs a share of the time *t* between two,

    cost / t  <=  price / knee * (footprint / 256 MiB) ** growth                reached where t is far below the knee

And what a pattern of the suite surely saved can be saved, whatever the law says.
"""

from __future__ import annotations

import msgspec

from secondsight.predict.calibration import Calibration
from secondsight.predict.model import AT, PROGRAMS_FLOOR, PROGRAMS_RELATIVE, UNSURE


class Bounds(msgspec.Struct, frozen=True):
    """What lies between *low* and *high*, nobody can say where."""

    low: float
    high: float

    def times(self, amount: float) -> Bounds:
        """Both times *amount*, not negative."""
        return Bounds(self.low * amount, self.high * amount)

    def plus(self, other: Bounds) -> Bounds:
        """The bounds of the sum: whatever the two have to do with each other."""
        return Bounds(self.low + other.low, self.high + other.high)


class AtMost:
    """What *calibration* says of programs on its machine."""

    def __init__(self, calibration: Calibration) -> None:
        """The calibration is read once, for many programs."""
        self._model = model = calibration.model
        base = {(cell.pattern, cell.footprint): cell.seconds for cell in calibration.cells if cell.share == 0}
        # What each pattern saved, as of a program of AT.
        self._seen = max(
            (
                (1 - cell.seconds / base[cell.pattern, cell.footprint])
                * (AT / cell.footprint) ** model.growth
                for cell in calibration.cells
                if cell.share > 0 and cell.width <= UNSURE and (cell.pattern, cell.footprint) in base
            ),
            default=0.0,
        )

    def saving(self, footprint: float) -> Bounds:
        """Share of its CPU time that a program with *footprint* MiB of small pages could save by huge ones, nine times of ten.

        Either bound has the error that a predicted saving has: what no saving shows, and of the saving a share. Less than nothing is
        possible. Only page walks count: memory that is there takes no faults, and khugepaged's own time is another's.
        """
        model, grown = self._model, (max(footprint, 1.0) / AT) ** self._model.growth
        floor, relative = max(model.floor, PROGRAMS_FLOOR), max(model.relative, PROGRAMS_RELATIVE)
        by_law = floor + (1 + relative) * model.price / model.knee * grown
        return Bounds(-floor, min(max(by_law, self._seen * grown, 0.0), 1.0))
