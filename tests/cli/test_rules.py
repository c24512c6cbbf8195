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
    told = capsys.readouterr()
    assert left.value.code == 0, told.err
    return told.out


def test_the_profiles(capsys) -> None:
    told = run(capsys)
    assert all(name in told for name in PROFILES) and f"{len(rule_names())} rules" in told


def test_what_is_piped_is_not_folded(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = run(capsys).splitlines()
    # A profile a line, whole.
    assert len([line for line in told if line.split(" ")[0] in PROFILES]) == len(PROFILES)
    assert all(ABOUT[name] in "\n".join(told) for name in PROFILES)


def test_every_rule_of_a_profile(capsys) -> None:
    told = run(capsys, "6.1+lru_batch=31")
    assert "lru_batch = 31" in told and "PAGEVEC_SIZE" in told
    assert all(f"{name} = " in told for name in rule_names())
    rows = json.loads(run(capsys, "7.2", "--json"))["rules"]
    assert [r["rule"] for r in rows] == rule_names()
    assert {"rule", "value", "doc", "cite", "evidence"} == set(rows[0])


def test_what_differs(capsys) -> None:
    told = run(capsys, "--diff", "6.12", "6.18")
    assert "zap_transfers_accessed = true → false" in told and "66bc627e7fee" in told
    rows = json.loads(run(capsys, "--diff", "2.6.38", "2.6.38-fixed", "--json"))["rules"]
    assert [(r["rule"], r["from"], r["to"]) for r in rows] == [("scan_tests_base_address", True, False)]


def test_all_as_json(capsys) -> None:
    told = json.loads(run(capsys, "--json"))
    assert (
        told["schema"] == 1
        and set(told["profiles"]) == set(PROFILES)
        and set(told["rules"]) == set(rule_names())
    )


@pytest.mark.parametrize("argv", [["5.4"], ["6.1", "--diff", "6.1", "7.2"], ["--diff", "6.1", "nope"]])
def test_a_wrong_request_is_one_line_and_exit_code_2(capsys, argv) -> None:
    with pytest.raises(SystemExit) as left:
        main(["rules", *argv])
    told = capsys.readouterr()
    assert (
        left.value.code == 2
        and told.err.startswith("secondsight: ")
        and told.err.count("\n") == 1
        and not told.out
    )
