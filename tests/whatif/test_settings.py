"""``compare --apply`` from a file of results that anybody may have written."""

import msgspec
import pytest

from secondsight.errors import UsageError
from secondsight.whatif.settings import settings
from support.results import results


def settings_of(**changes):
    made = results(12, 3)
    rows = [msgspec.structs.replace(row, **changes) for row in made.rows if row.policy == "khugepaged"]
    return settings(msgspec.structs.replace(made, rows=rows))


def test_no_name_becomes_a_line_or_a_word_for_the_shell():
    lines = settings_of(label="a\x1b[31m\nreboot", policy="x; reboot\n\x1b[31m", options={"a": "$(reboot)"})
    assert all(line.isprintable() for each in lines for line in each.split("\n"))
    assert not any(line.startswith("reboot") for each in lines for line in each.split("\n"))
    (run,) = [line for line in lines if line.startswith("secondsight collapse")]
    assert (
        run.startswith("secondsight collapse --pid PID --policy '")
        and run.endswith("'")
        and run.count("'") == 2
    )


@pytest.mark.parametrize("value", ["x\nreboot", None, [1], {"a": 1}, 1e999])
def test_a_knob_that_is_no_number_is_one_line(value):
    with pytest.raises(UsageError, match=r"max_ptes_none=.* is no number"):
        settings_of(knobs={"max_ptes_none": value})
