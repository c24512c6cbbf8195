"""Answers as tables: what a kernel does not tell is blank, not nought."""

from __future__ import annotations

from secondsight.scenario import verbs
from secondsight.scenario.results import BlockPass, Run
from secondsight.scenario.text import table


def test_what_is_not_known_is_blank(capsys) -> None:
    known = BlockPass(
        pass_=1, space="vm", block=0, status="succeeded", referenced=7, none_or_zero=0, unmapped=0,
        young=(1, 2, 3), test_young_calls=0,
    )  # fmt: skip
    unknown = BlockPass(
        pass_=1, space="vm", block=1, status="succeeded", referenced=7, none_or_zero=0, unmapped=0
    )
    scenario = verbs.Scenario(spaces=[verbs.SpaceSpec(name="vm", blocks=2)], steps=[])
    table(scenario, Run(source="kernel", blocks=[known, unknown]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " vm:" in line]
    assert lines == [
        ["1", "vm:0", "1", "2", "3", "7", "0", "0", "0", "succeeded"],
        ["1", "vm:1", "7", "0", "0", "succeeded"],
    ]
