"""Figures are found by key and by title, and printed for people."""

import pytest

from secondsight.errors import UsageError
from secondsight.report import explain
from secondsight.report.metrics import METRICS, SHOWN, text


def test_figures_are_found_by_key_and_by_title():
    assert explain("bloat_share").key == "bloat_share"
    assert explain("MMU overhead, nested").key == "overhead_nested"
    with pytest.raises(UsageError, match="did you mean coverage"):
        explain("coverge")
    assert set(SHOWN) <= set(METRICS)


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [(None, "count", "–"), (0.9314, "share", "93.1 %"), (12.5 * 2**20, "bytes", "12.5 MiB"), (100, "bytes", "100 B"),
     (0.0018, "seconds", "1.8 ms"),
     (2.5e-7, "seconds", "0.2 µs"), (0, "seconds", "0"), (1234567, "count", "1.2 M"), (12345, "count", "12 345"), (0.5, "index", "0.50")],
)  # fmt: skip
def test_figures_are_printed_for_people(value, form, said):
    assert text(value, form) == said
