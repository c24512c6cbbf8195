"""The most that huge pages can bring, beside what the law says of programs that walk as often as they can."""

import msgspec
import pytest

from secondsight.predict.at_most import AtMost, Bounds
from secondsight.predict.calibration import shipped
from support.predict import GROWTH, KNEE, PRICE, law, made


def exactly(**other):
    """A calibration that knows the law, with the errors of no program."""
    calibration = made()
    known = {"price": PRICE, "knee": KNEE, "bend": 3.0, "growth": GROWTH, "floor": 0.0, "relative": 0.0}
    return msgspec.structs.replace(
        calibration, model=msgspec.structs.replace(calibration.model, **(known | other))
    )


@pytest.mark.parametrize("mib", [4, 16, 256, 1024, 1 << 13])
def test_no_time_between_two_walks_saves_more(mib):
    """What a walk costs of the time between two, law() in plain Python, for programs from nothing but walks to hardly any."""
    shares = [law(ns, mib) / ns for ns in (0.1, 1, 6, 20, 250, 400, 5000)]
    most = (
        AtMost(exactly()).saving(mib).high - 0.04
    ) / 1.5  # the least of the errors: of a real program's time, and of its saving
    assert max(shares) <= most <= max(shares) * 1.01


def test_both_bounds_have_the_errors_of_a_prediction():
    saving = AtMost(exactly(floor=0.1, relative=0.7)).saving(256)
    assert saving.low == -0.1
    assert saving.high == pytest.approx(0.1 + 1.7 * PRICE / KNEE)


def test_nobody_saves_more_than_all():
    assert AtMost(exactly(price=10 * KNEE)).saving(256).high == 1.0


def test_what_the_suite_saved_lies_within():
    """Every pattern of the shipped calibration that was measured surely, all of its blocks huge against none."""
    calibration = shipped()
    base = {(cell.pattern, cell.footprint): cell.seconds for cell in calibration.cells if cell.share == 0}
    surely = [cell for cell in calibration.cells if cell.share == 1 and cell.width <= 0.1]
    assert len(surely) > 20
    for cell in surely:
        bounds = AtMost(calibration).saving(cell.footprint)
        assert bounds.low <= 1 - cell.seconds / base[cell.pattern, cell.footprint] <= bounds.high


def test_what_the_suite_saved_can_be_saved():
    """Two patterns beside those of which nothing is known: one saved 70 %, one saved 90 % unsurely."""
    one = shipped().cells[0]
    cells = [
        msgspec.structs.replace(one, pattern=name, footprint=256, share=share, seconds=seconds, width=width)
        for name, share, seconds, width in [("a", 0.0, 1.0, 0.01), ("a", 1.0, 0.3, 0.01), ("b", 0.0, 1.0, 0.5), ("b", 1.0, 0.1, 0.5)]
    ]  # fmt: skip
    calibration = msgspec.structs.replace(exactly(), cells=cells)
    assert AtMost(calibration).saving(256).high == pytest.approx(0.7)
    assert AtMost(calibration).saving(512).high == pytest.approx(0.7 * 2**GROWTH)


def test_sums():
    assert Bounds(-1.0, 2.0).plus(Bounds(0.5, 1.0)) == Bounds(-0.5, 3.0)
    assert Bounds(-1.0, 2.0).times(3) == Bounds(-3.0, 6.0)
