"""What a walk costs, and what a program would take: fitted to the suite, checked on patterns that were left out.

Partial simulation plus a linear model of run time errs by 25 to 192 % (Agbarya, Yaniv, Gandhi, Tsafrir: "Predicting execution times with
partial simulations in virtual memory research", MICRO 2020), for one price is put on every walk. A walk that nothing overlaps costs its
whole latency; one among many independent reads nearly nothing. How much is hidden shows in the time that passes for each walk:

    t    = time with every page small / walks            ns: short where walks overlap, long where the program waits for each
    cost = price * t / (t**bend + knee**bend) ** (1 / bend) * (footprint / 256 MiB) ** growth             ns a walk
    time = time today + cost * (walks - walks today)     a walk to a huge page counts as HUGE of one to a small page

Far below the knee a walk costs a share of t (the processor's walkers are what the reads wait for), far above it its latency, the price; how
sharply one becomes the other says the bend. More memory has more page tables, and more of their lines are not in the caches: growth. All
four
come from the suite. Errors are those of patterns whose every measurement was left out of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import SecondSightError

Floats = npt.NDArray[np.float64]

#: References of a walk to a huge page over those of one to a small page: native 3 of 4; nested, the guest's page huge too, 19 of 24.
HUGE_NATIVE, HUGE_NESTED = 3 / 4, 19 / 24
#: The footprint, MiB, at which the price is told.
AT = 256.0
#: Relative errors are told of savings from this share of the time on; what no saving shows is taken to be off by NOISE.
LARGE, NOISE = 0.05, 0.02
#: Measurements less sure than this share have no part in the errors told.
UNSURE = 0.10
#: Beyond this an error counts in proportion, not by its square.
FAR = 0.05
#: How weakly the law is held at a plausible one where the suite shows nothing.
PULL = 0.02

#: How far a prediction of a real program may be off at the least, nine times of ten: share of the time, and of the saving
#: (docs/run-time.md).
PROGRAMS_FLOOR, PROGRAMS_RELATIVE = 0.04, 0.5


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measurement of the suite, of one read: *seconds* (CPU), *width* of its interval as a share, walks to small and huge pages.

    share: of the blocks huge; scattered: drawn from all, else the first in one piece.
    """

    pattern: str
    footprint: int  # MiB
    share: float
    scattered: bool
    seconds: float
    width: float
    small: float
    huge: float


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted law (the file's head), and its errors on patterns left out.

    price ns; knee ns; bend; growth; huge: see above. error, worst: median and worst error of a predicted time, as shares of the time;
    still, still_worst: the same of predicting "no change". A saving (share of the time) that is predicted is right to *floor* + *relative*
    of it, nine times of ten.
    """

    price: float
    knee: float
    bend: float
    growth: float
    huge: float
    error: float
    worst: float
    still: float
    still_worst: float
    floor: float
    relative: float

    def within(self, saving: float) -> float:
        """How far a predicted *saving* (a share of the time) may be off, either way."""
        return self.floor + self.relative * abs(saving)

    def cost(self, seconds: float, walks: float, footprint: float) -> float:
        """Seconds that one walk to a small page costs a program of *footprint* MiB with so many *walks* in *seconds*, every page small."""
        if walks <= 0 or seconds <= 0:
            return 0.0
        inputs = np.array([[seconds / walks * 1e9, footprint]])
        law = np.array([np.log(self.price), np.log(self.knee), np.log(self.bend), self.growth])
        return float(_cost(law, inputs)[0]) * 1e-9


def _cost(law: Floats, inputs: Floats) -> Floats:
    """ns a walk; *inputs*: (t ns, footprint MiB) a row; *law*: log price, log knee, log bend, growth."""
    t, footprint = inputs.T
    bend = np.exp(np.clip(law[2], -1.5, 1.5))
    hidden = -np.log1p((np.exp(law[1]) / t) ** bend) / bend
    return np.exp(law[0] + hidden + law[3] * np.log(footprint / AT))


class _Data:
    """The cells against those of the same pattern and footprint with every page small."""

    def __init__(self, cells: Sequence[Measurement], huge: float) -> None:
        base = {(c.pattern, c.footprint): c for c in cells if c.share == 0}
        used = [
            (c, base[c.pattern, c.footprint])
            for c in cells
            if c.share > 0 and (c.pattern, c.footprint) in base
        ]
        used = [(c, b) for c, b in used if b.small > 0]
        self.pattern = np.array([c.pattern for c, _ in used])
        self.inputs = np.array([[b.seconds / b.small * 1e9, b.footprint] for _, b in used]).reshape(-1, 2)
        # Walks fewer a second of the time with every page small.
        self.fewer = np.array([(b.small - c.small - huge * c.huge) / b.seconds for c, b in used])
        self.saved = np.array([1 - c.seconds / b.seconds for c, b in used])
        self.sure = np.array([c.width <= UNSURE for c, _ in used], np.bool_)

    def predicted(self, law: Floats, chosen: npt.NDArray[np.bool_]) -> Floats:
        """Shares of the time saved, as *law* has it."""
        return _cost(law, self.inputs[chosen]) * 1e-9 * self.fewer[chosen]

    def fit(self, chosen: npt.NDArray[np.bool_]) -> Floats:
        """The law that misses the savings of *chosen* least: Levenberg and Marquardt's steps from what a walk of four references costs."""
        start = np.array([np.log(60.0), np.log(200.0), 0.0, 0.1])
        law, damping = start, 1e-2

        def missed(now: Floats) -> Floats:
            # A weak pull keeps what the suite does not show where it is plausible.
            pull = PULL * (now - start)
            # Every cell counts alike, however sure: the least sure ones are those of the largest footprints, where most is saved, and a
            # law that follows the others says too little there.
            off = self.predicted(now, chosen) - self.saved[chosen]
            # What is far off is pulled at no harder than what is somewhat (Huber): noise has long tails.
            far = np.abs(off) > FAR
            off = np.where(far, np.sign(off) * np.sqrt(FAR * np.maximum(2 * np.abs(off) - FAR, 0)), off)
            return np.concatenate([off, pull])

        error = missed(law)
        for _ in range(200):
            slope = np.stack([(missed(law + step) - error) / 1e-5 for step in np.eye(4) * 1e-5], axis=1)
            normal = slope.T @ slope
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -slope.T @ error)
            trial = missed(law + step)
            if trial @ trial < error @ error:
                done = error @ error - trial @ trial < 1e-12
                law, error, damping = law + step, trial, max(damping / 3, 1e-9)
                if done:
                    break
            else:
                damping *= 4
                if damping > 1e9:
                    break
        return law


def fit(cells: Sequence[Measurement], *, nested: bool) -> Model:
    """The model of *cells*; *nested*: a hypervisor is beneath, so that walks are nested ones.

    :raises SecondSightError: the suite shows no cost of walks: too noisy, or too few patterns.
    """
    huge = HUGE_NESTED if nested else HUGE_NATIVE
    data = _Data(cells, huge)
    names = sorted(set(data.pattern.tolist()))
    everything = np.ones(len(data.saved), np.bool_)
    if len(names) < 3 or np.median(data.saved[data.saved >= np.median(data.saved)]) <= 0:
        raise SecondSightError(
            "the suite shows no gain from huge pages beyond the noise: nothing to fit a price to"
        )
    predictions, real = [], []
    for name in names:
        out = data.pattern == name
        law, judged = data.fit(~out), out & data.sure
        predictions.append(data.predicted(law, judged))
        real.append(data.saved[judged])
    predicted, saved = np.concatenate(predictions), np.concatenate(real)
    missed = np.abs(predicted - saved) / (1 - saved)
    still = np.abs(saved) / (1 - saved)
    off, large = np.abs(predicted - saved), predicted >= LARGE
    floor = float(np.quantile(off[~large], 0.9)) if (~large).any() else NOISE
    relative = (
        float(np.quantile(np.maximum(off[large] - floor, 0) / predicted[large], 0.9)) if large.any() else 1.0
    )
    law = data.fit(everything)
    return Model(
        price=float(np.exp(law[0])), knee=float(np.exp(law[1])), bend=float(np.exp(np.clip(law[2], -1.5, 1.5))), growth=float(law[3]),
        huge=huge,
        error=float(np.median(missed)), worst=float(missed.max()), still=float(np.median(still)), still_worst=float(still.max()),
        floor=floor, relative=relative,
    )  # fmt: skip
