"""``compare --apply`` from a file of results that anybody may have written."""

import msgspec
import pytest

from secondsight.errors import UsageError
from secondsight.report.answer import answer
from secondsight.whatif.settings import best, settings
from support.results import results


def settings_of(config=None, **changes):
    made = results(12, 3)
    if config is not None:
        made = msgspec.structs.replace(
            made, provenance=msgspec.structs.replace(made.provenance, config=config)
        )
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


def test_what_the_whole_comparison_was_told_is_a_setting_too():
    told = {"khugepaged max_ptes_none": 64, "khugepaged pages_to_scan": 4096, "sizes": {"64kB": "always"}}
    files = [line for line in settings_of(told) if line.startswith("echo") and "/khugepaged/" in line]
    assert files == [
        "echo 1 > /sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
        "echo 64 > /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none",  # 4096 is the kernel's own
    ]
    assert "echo always > /sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled" in settings_of(told)
    # The row's own value goes before the host's; an option of -1 is the host's.
    assert any(line.startswith("echo 0 >") for line in settings_of(told, knobs={"max_ptes_none": 0.0}))
    assert not any("-1" in line for line in settings_of(told, options={"max_ptes_swap": "-1"}))


def test_no_line_is_told_that_collapse_refuses():
    assert "secondsight collapse --pid PID --policy madv_collapse" in settings_of(policy="madv_collapse")
    lines = settings_of(policy="hawkeye")
    assert not any("--policy" in line for line in lines)
    assert any("clears accessed bits" in line for line in lines)


def test_the_answer_and_the_settings_name_one_row():
    made = results(12, 3)
    high, low = (row for row in made.rows if row.policy == "khugepaged")
    high = msgspec.structs.replace(
        high, label="high", metrics={"coverage": 0.995, "bloat": 2e9, "huge_share": 1.0}
    )
    low = msgspec.structs.replace(
        low, label="low", metrics={"coverage": 0.99, "bloat": 1e6, "huge_share": 1.0}
    )
    for rows in ([high, low], [low, high]):
        assert answer(rows, []).startswith("low serves")
        assert best(rows).label == "low"
