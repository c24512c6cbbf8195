"""What a collapse chose and did, in lines and in JSON."""

import json

import pytest

from secondsight.cli.collapsed import mib, percent, print_choices, print_round
from secondsight.live.act.candidates import Choice, Selection
from secondsight.live.act.collapse import Round
from secondsight.live.act.guard import Guard


def test_a_dry_run_counts_what_may_be_added(capsys):
    class Limited(Guard):
        start, derived, allowance, spent, problem = None, False, 40 * 4096, 0, "unseen"

        def __init__(self):
            pass

    chosen = [
        Choice(n << 21, 500, None, added, against="enabled=never" * (n > 1))
        for n, added in enumerate((30, 20, 10, 0, 1))
    ]
    selection = Selection(chosen, {"huge already": 2}, 7, [])
    assert print_choices(selection, Limited(), json=False) == 40 * 4096
    printed = capsys.readouterr().out
    assert "would collapse 3 blocks (6 MiB), adding 0.2 MiB of memory" in printed
    assert (
        " 2 against the administrator" in printed
        and " 2 left alone: it would add more than --max-added 0.2 MiB" in printed
    )
    assert " 2 left alone: huge already" in printed
    assert print_choices(selection, Limited(), json=True) == 40 * 4096
    as_json = json.loads(capsys.readouterr().out)
    assert [choice["address"] >> 21 for choice in as_json["chosen"]] == [0, 2, 3]
    assert as_json["overridden"] == {"enabled=never": 2} and sum(as_json["left"].values()) == 4


def test_what_could_not_be_read_after_a_collapse_is_unknown_not_none(capsys):
    print_round(
        Round(considered=3, chosen=2, collapsed=2, confirmed=None, after=None, stopped="gone"), json=False
    )
    printed = capsys.readouterr().out
    assert "2 collapsed (unknown confirmed by the page table)" in printed and "unknown after" in printed


def test_names_in_a_rounds_reasons_reach_no_terminal_raw(capsys):
    hostile = "memory.max of cgroup /a\x1b]0;title\x07"
    print_round(
        Round(refused={hostile: 1}, left={hostile: 1}, overridden={hostile: 1}, stopped=hostile), json=False
    )
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x07" not in printed and printed.count(r"\x1b]0;title\x07") == 4


def test_a_round_as_json_is_the_round(capsys):
    print_round(Round(considered=3, chosen=2, stopped="coverage reached"), json=True)
    decoded = json.loads(capsys.readouterr().out)
    assert (decoded["considered"], decoded["chosen"], decoded["stopped"]) == (3, 2, "coverage reached")


def test_one_of_a_kind_is_told_as_one(capsys):
    print_round(Round(considered=1, chosen=1), json=False)
    assert "1 block looked at, 1 chosen" in capsys.readouterr().out


def test_of_many_choices_some_are_printed(capsys):
    class Free(Guard):
        start, derived, allowance, spent, problem = None, False, 1 << 30, 0, "unseen"

        def __init__(self):
            pass

    chosen = [Choice(n << 21, 500, None, 0) for n in range(50)]
    print_choices(Selection(chosen, {}, 50, []), Free(), json=False)
    printed = capsys.readouterr().out
    assert printed.count(" pages present") == 40 and "… 10 more; --json lists all" in printed


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (mib(3 << 19), "1.5 MiB"),
        (mib(5 << 30, 0), "5,120 MiB"),
        (percent(None), "-"),
        (percent(0.125), "12.5 %"),
    ],
)
def test_amounts(said, words):
    assert said == words
