"""Regular files in scenarios: what is refused, batches of many, random ones."""

from __future__ import annotations

import pytest

from secondsight.errors import UsageError
from secondsight.mm.profiles import PROFILES
from secondsight.scenario import batch, files, verbs
from secondsight.scenario.random_files import file_scenarios
from secondsight.scenario.run import Runner, run
from support.model import holds


def scenario(*steps: verbs.Verb, **space: object) -> verbs.Scenario:
    shared = verbs.Shared("data", file="shared")
    return verbs.Scenario((verbs.SpaceSpec("a", **{"shared": shared, **space}),), steps)


def test_a_kernel_that_collapses_no_files_says_so() -> None:
    with pytest.raises(UsageError, match=r"modelled from 7\.2 on"):
        run(scenario(), "6.18")


def test_batched_scenarios_have_files_of_their_own_and_answer_as_alone() -> None:
    made, _ = file_scenarios(8, 5)
    merged = batch.merge(made)
    assert len({space.shared.memory for space in merged.scenario.spaces}) == 8
    apart = batch.split(merged, run(merged.scenario, "7.3"))
    for alone, answer in zip(made, apart, strict=True):
        assert [f.file for f in answer.files] == [f.file for f in run(alone, "7.3").files]


def test_random_scenarios_run_and_every_count_holds() -> None:
    made, _ = file_scenarios(64, 11)
    results = set()
    for each in made:
        files.check(each)
        runner = Runner(each, PROFILES["7.3"])
        for step in each.steps:
            runner.take(step)
        holds(runner.host)
        results |= {f.result for f in runner.files}
    assert {
        "succeeded", "pte_mapped_hugepage", "not_suitable_page_count", "page_dirty_or_writeback", "exceed_none_pte",
    } <= results  # fmt: skip


def test_a_seed_makes_the_same_scenarios() -> None:
    assert file_scenarios(20, 3)[0] == file_scenarios(20, 3)[0] != file_scenarios(20, 4)[0]
