"""``secondsight rules``."""

from __future__ import annotations

import json

import pytest

from secondsight.cli import main
from secondsight.mm.profiles import ABOUT, PROFILES
from secondsight.mm.rules import rule_names


def run(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(["rules", *argv])
    captured = capsys.readouterr()
    assert left.value.code == 0, captured.err
    return captured.out


def test_the_profiles(capsys) -> None:
    printed = run(capsys)
    assert all(name in printed for name in PROFILES) and f"{len(rule_names())} rules" in printed


def test_what_is_piped_is_not_folded(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(capsys).splitlines()
    # A profile a line, whole.
    assert len([line for line in lines if line.split(" ")[0] in PROFILES]) == len(PROFILES)
    assert all(ABOUT[name] in "\n".join(lines) for name in PROFILES)


def test_every_rule_of_a_profile(capsys) -> None:
    printed = run(capsys, "6.1+lru_batch=31")
    assert "lru_batch = 31" in printed and "PAGEVEC_SIZE" in printed
    assert all(f"{name} = " in printed for name in rule_names())
    rows = json.loads(run(capsys, "7.2", "--json"))["rules"]
    assert [r["rule"] for r in rows] == rule_names()
    assert {"rule", "value", "doc", "cite", "evidence"} == set(rows[0])


def test_what_differs(capsys) -> None:
    printed = run(capsys, "--diff", "6.12", "6.18")
    assert "zap_transfers_accessed = true → false" in printed and "66bc627e7fee" in printed
    rows = json.loads(run(capsys, "--diff", "2.6.38", "2.6.38-fixed", "--json"))["rules"]
    assert [(r["rule"], r["from"], r["to"]) for r in rows] == [("scan_tests_base_address", True, False)]


def test_all_as_json(capsys) -> None:
    decoded = json.loads(run(capsys, "--json"))
    assert (
        decoded["schema"] == 1
        and set(decoded["profiles"]) == set(PROFILES)
        and set(decoded["rules"]) == set(rule_names())
    )


@pytest.mark.parametrize("argv", [["5.4"], ["6.1", "--diff", "6.1", "7.2"], ["--diff", "6.1", "nope"]])
def test_a_wrong_request_is_one_line_and_exit_code_2(capsys, argv) -> None:
    with pytest.raises(SystemExit) as left:
        main(["rules", *argv])
    captured = capsys.readouterr()
    assert (
        left.value.code == 2
        and captured.err.startswith("secondsight: ")
        and captured.err.count("\n") == 1
        and not captured.out
    )
