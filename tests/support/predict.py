"""A calibration of no machine: cells of a known law, prices that are round."""

from __future__ import annotations

import numpy as np

from secondsight.predict.calibration import Calibration
from secondsight.predict.machine import Hardware
from secondsight.predict.model import Measurement, fit
from secondsight.predict.prices import Price, Prices

PRICE, KNEE, BEND, GROWTH = 120.0, 400.0, 3.0, 0.2
HERE = Hardware(cpu="CPU A", kernel="6.18.1", virtualised=False, memory=1 << 34, cpus=2)


def law(ns: float, mib: float) -> float:
    """What a walk costs, ns: secondsight/predict/model.py's head, in plain Python."""
    return PRICE * ns / (ns**BEND + KNEE**BEND) ** (1 / BEND) * (mib / 256) ** GROWTH


def suite(noise: float = 0.0, law=law) -> list[Measurement]:
    """Patterns from short to long times a walk, each under four layouts."""
    rng = np.random.default_rng(3)
    out = []
    for i, (ns, walks) in enumerate(
        [(6, 1.0), (20, 0.9), (60, 0.8), (250, 0.9), (300, 0.5), (1400, 0.12), (400, 0.1)]
    ):
        for mib in (64, 256, 1024):
            for share in (0.0, 0.25, 0.5, 1.0):
                small = walks * (1 - share)
                seconds = (
                    (ns * walks - law(ns, mib) * (walks - small))
                    * 1e-9
                    * (1 + noise * rng.standard_normal() * (share > 0))
                )
                out.append(Measurement(
                    pattern=f"p{i}", footprint=mib, share=share, scattered=True, seconds=seconds, width=0.01, small=small, huge=0.0
                ))  # fmt: skip
    return out


def made(machine: Hardware = HERE) -> Calibration:
    """A calibration of *machine*: a fault 1 µs, a huge one 100 µs, stalls of 2 µs to 9 ms."""
    one = Price(seconds=1e-6, longest=2e-6, times=3)
    prices = Prices(
        fault=one, fault_huge=Price(seconds=1e-4, longest=3e-3, times=3), fault_huge_cold=Price(seconds=1e-4, longest=3e-3, times=3),
        zero=one, zero_huge=one, collapse=one,
        collapse_full=Price(seconds=1e-3, longest=9e-3, times=3), copy=one, copy_huge=Price(seconds=1e-3, longest=5e-3, times=3),
        copy_huge_is="split",
    )  # fmt: skip
    return Calibration(
        tool="t",
        made="2026-01-01",
        machine=machine,
        pmu=False,
        tlb={},
        seconds=1.0,
        model=fit(suite(), nested=False),
        prices=prices,
        cells=[],
    )
