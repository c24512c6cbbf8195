"""Run times: worked out by hand, and never without an interval."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from secondsight.predict.prices import Waits
from secondsight.predict.runtime import ReplayedRow, RunTime, too_few
from secondsight.predict.walks import Profile
from support.predict import law, made

NONE, ALL = np.zeros(2), np.ones(2)


def predictor(today=NONE, seconds=1.0, guest=False, faults=(0, 0)):
    profile = Profile(np.array([3e6, 1e6]), np.array([0.0, 1e6]), 10**8, 10**6)
    return RunTime(
        made(), profile, ReplayedRow(today, Waits(*faults)), seconds=seconds, footprint=256.0, guest=guest
    )


def test_walks_that_go_are_saved():
    """4 M walks in 1 s: 250 ns each. All huge leaves 1 M of three quarters' cost: 3.25 M are saved."""
    predicted = predictor().of(ReplayedRow(ALL, Waits(0, 0)))
    saved = 3.25e6 * law(250, 256) * 1e-9
    assert predicted.seconds == pytest.approx(1 - saved, abs=0.02)
    assert predicted.low < predicted.seconds < predicted.high


def test_today_is_what_was_measured():
    assert predictor().of(ReplayedRow(NONE, Waits(0, 0))) == (1.0, 1.0, 1.0)


def test_there_and_back():
    """From huge to small costs what from small to huge saves."""
    fast = predictor().of(ReplayedRow(ALL, Waits(0, 0))).seconds
    assert predictor(today=ALL, seconds=fast).of(ReplayedRow(NONE, Waits(0, 0))).seconds == pytest.approx(
        1.0, rel=1e-3
    )


def test_faults_have_their_price():
    """1,024 faults of 1 µs become two of 100 µs."""
    predicted = predictor(faults=(1024, 0)).of(ReplayedRow(NONE, Waits(0, 2)))
    assert predicted.seconds == pytest.approx(1 - 1024e-6 + 200e-6)


def test_memory_that_a_hypervisor_must_give_first_widens_the_interval_alone():
    calibration = made()
    prices = msgspec.structs.replace(
        calibration.prices,
        fault_huge_cold=msgspec.structs.replace(calibration.prices.fault_huge, seconds=5.1e-3),
    )
    warm = predictor().of(ReplayedRow(ALL, Waits(0, 10)))
    one = predictor()
    one.calibration = msgspec.structs.replace(calibration, prices=prices)
    cold = one.of(ReplayedRow(ALL, Waits(0, 10)))
    assert (cold.seconds, cold.low) == (warm.seconds, warm.low)
    assert cold.high - warm.high == pytest.approx(10 * 5e-3)


def test_a_guests_entries_stay_small():
    """The host's huge pages shorten its walks, 19 references for 24; none of them goes."""
    predicted = predictor(guest=True).of(ReplayedRow(ALL, Waits(0, 0)))
    assert 1 - predicted.seconds == pytest.approx(4e6 * 5 / 24 * law(250, 256) * 1e-9, rel=0.15)


def test_the_interval_is_no_narrower_than_the_suites_errors():
    predicted = predictor().of(ReplayedRow(ALL, Waits(0, 0)))
    model = made().model
    assert predicted.high - predicted.seconds >= model.within(1 - predicted.seconds) - 1e-12


def test_too_few_accesses():
    assert "5,000" in too_few(Profile(NONE, NONE, 10**6, 5000))
    assert too_few(Profile(NONE, NONE, 10**6, 10**6)) == ""
    assert msgspec.json.encode(made())
