"""The model of a walk's cost: a known law is found again, errors are of patterns left out, noise is refused."""

from __future__ import annotations

import msgspec
import pytest

from secondsight.errors import SecondSightError
from secondsight.predict.model import HUGE_NATIVE, Measurement, fit
from support.predict import law, suite


def test_a_known_law_is_found():
    model = fit(suite(), nested=False)
    for ns in (20, 250, 1000):
        for mib in (64, 512):
            assert model.cost(ns * 1e-9, 1, mib) == pytest.approx(law(ns, mib) * 1e-9, rel=0.1)
    assert model.error < 0.01
    assert model.still > 0.05
    assert model.huge == HUGE_NATIVE


def test_large_footprints_count_as_much_as_those_measured_more_surely():
    """Walks that cost 1.7 times what the law says in 1 GiB, where measurements differ most: the law comes half way at the least."""

    def steeper(ns, mib):
        return law(ns, mib) * (1.7 if mib == 1024 else 1.0)

    cells = [
        msgspec.structs.replace(cell, width=0.3 if cell.footprint == 1024 else 0.01)
        for cell in suite(law=steeper)
    ]
    assert fit(cells, nested=False).cost(100e-9, 1, 1024) > 1.35 * law(100, 1024) * 1e-9


def test_errors_are_of_patterns_left_out():
    """One pattern of its own law: whoever left it out cannot know, so the worst error tells of it."""
    cells = suite()
    odd = [
        Measurement(pattern="odd", footprint=c.footprint, share=c.share, scattered=True, width=0.01, small=c.small, huge=0.0,
             seconds=c.seconds if c.share == 0 else c.seconds + 0.25 * c.share * 225e-9)
        for c in cells if c.pattern == "p3"
    ]  # fmt: skip
    assert fit(cells, nested=False).worst < 0.02 < fit(cells + odd, nested=False).worst


def test_the_interval_holds_what_noise_does():
    model = fit(suite(noise=0.03), nested=False)
    assert 0.005 < model.floor < 0.12
    assert model.within(0.2) > model.within(0.0) == model.floor


def test_no_gain_is_no_model():
    with pytest.raises(SecondSightError, match="no gain"):
        fit(suite(law=lambda ns, mib: 0.0), nested=False)


def test_no_walks_cost_nothing():
    assert fit(suite(), nested=True).cost(1.0, 0, 100) == 0
