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


@pytest.mark.parametrize(
    "step",
    [
        verbs.SwapOut("a", "0"), verbs.SplitHuge("a", "0"), verbs.IoZeroCopy("a", "0"), verbs.Pin("a", "0:1", "p", write=True),
        verbs.Mlock("a", "0"), verbs.Mprotect("a", "0:1", "r"),
    ],
)  # fmt: skip
def test_what_is_not_modelled_there_is_refused(step) -> None:
    with pytest.raises(UsageError, match=r"steps\[0\]: space 'a' maps a regular file: .* is not modelled"):
        run(scenario(step), "7.3")


def test_a_second_vm_over_a_file_and_a_file_without_a_name_are_refused() -> None:
    with pytest.raises(UsageError, match="a second VM or a device over one"):
        run(scenario(vm=verbs.Vm(), vm2=verbs.Vm()), "7.3")
    with pytest.raises(UsageError, match=r"shared\.memory is to name it"):
        run(scenario(shared=verbs.Shared(file="private")), "7.3")


def test_a_kernel_that_collapses_no_files_says_so() -> None:
    with pytest.raises(UsageError, match=r"modelled from 7\.2 on"):
        run(scenario(), "6.18")


@pytest.mark.parametrize("shared", [None, verbs.Shared("ram")])
def test_files_verbs_are_for_files(shared) -> None:
    for step in (
        verbs.FileRead("a", "0"),
        verbs.FileWrite("a", "0"),
        verbs.FileSync("a"),
        verbs.FileDrop("a", "0"),
    ):
        with pytest.raises(UsageError, match="maps no regular file, which file_"):
            run(scenario(step, shared=shared), "7.3")


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
