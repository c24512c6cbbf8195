"""The lab asks real kernels: the table of what guest-only blocks meet, and every verb once."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondsight.errors import MissingDependency
from secondsight.lab import kernels
from secondsight.lab.run import run
from secondsight.scenario import verbs as v
from secondsight.scenario.results import Run

pytestmark = pytest.mark.kernel

GUEST_ONLY = v.Scenario(
    spaces=(v.SpaceSpec("vm", 8, v.Vm()),),
    steps=(
        v.CpuWrite("vm", "0-7"),
        v.GuestWrite("vm", "2 3:5 5"),
        v.ClearRefs("vm"),
        v.CpuWrite("vm", "4:7 5:7"),
        v.Madvise("vm", "1-7", "hugepage"),
        v.Scan(),
    ),
)
EVERY_VERB = v.Scenario(
    spaces=(v.SpaceSpec("a", 4), v.SpaceSpec("vm", 2, v.Vm((v.Slot(1, 6, 0, 2),)))),
    steps=(
        v.CpuWrite("a", "0-1"),
        v.CpuWrite("a", "2:0-9", 7),
        v.CpuRead("a", "3:0-3"),
        v.IoCopied("a", "3:10-12"),
        v.IoZeroCopy("a", "3:20-22"),
        v.Pin("a", "0:3", "read"),
        v.Pin("a", "0:4", "write", write=True),
        v.GuestWrite("vm", "0"),
        v.GuestRead("vm", "0:0-9", view=1),
        v.GuestWrite("vm", "1:3", view=2, slot=1),
        v.SlotAdd("vm", v.Slot(2, 9, 1, 1)),
        v.SlotDelete("vm", 2),
        v.Madvise("a", "2", "mergeable"),
        v.KsmMerge(),
        v.Mprotect("a", "3:0", "r"),
        v.Mlock("a", "3:10"),
        v.Munlock("a", "3:10"),
        v.SwapOut("a", "1:0-9"),
        v.Age("vm", "0:0-9"),
        v.ClearRefs("vm"),
        v.Fork("a", "child"),
        v.CpuWrite("child", "1:100"),
        v.Exit("child"),
        v.Unpin("a", "read"),
        v.Unpin("a", "write"),
        v.Madvise("a", "0", "collapse"),
        v.SplitPmd("a", "0"),
        v.SplitHuge("a", "0"),
        v.SetKnobs(max_ptes_swap=10),
        v.Drain(),
        v.Observe(),
        v.Madvise("a", "0-1", "hugepage"),
        v.Madvise("vm", "0-1", "hugepage"),
        v.Scan(passes=2),
    ),
)


def ask(
    kernel: str, mmu: str, scenarios: list[v.Scenario], tmp_path: Path, states: bool = False
) -> list[Run]:
    try:
        booted = kernels.resolve(kernel)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    answers = run(scenarios, booted, mmu, states=states, folder=tmp_path)
    assert all(isinstance(a, Run) for a in answers), answers
    return answers  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kernel", "mmu", "collapsed"),
    [
        ("6.1", "npt", [2, 3, 4, 5]),
        ("6.1", "shadow", [2, 3, 4, 5]),
        ("6.12", "npt", [2, 3, 4, 5]),
        ("newest", "npt", [4, 5]),
    ],
)
def test_what_only_the_guest_uses(kernel: str, mmu: str, collapsed: list[int], tmp_path: Path) -> None:
    (answer,) = ask(kernel, mmu, [GUEST_ONLY], tmp_path)
    assert [b.block for b in answer.blocks] == [1, 2, 3, 4, 5, 6, 7]
    assert [b.block for b in answer.blocks if b.status == "succeeded"] == collapsed
    # The scan itself lets the guest's blocks pass everywhere.
    assert [b.block for b in answer.blocks if b.collapse is not None] == [2, 3, 4, 5]
    assert {b.status for b in answer.blocks if b.block not in collapsed} == {"lack_referenced_page"}


def test_every_verb_and_its_states_in_64_spaces_at_once(tmp_path: Path) -> None:
    answers = ask("6.1", "npt", [EVERY_VERB, *[GUEST_ONLY] * 8], tmp_path, states=True)
    first, *rest = answers
    said = {a.step: a.errno or a.took for a in first.answers}
    assert said[17] == "1:0-9"
    assert said[25] == "0"
    observed = {s.space: s for s in first.states if s.at == "observe"}
    assert sum(n for n, _ in observed["a"].pte) == 4 * 512
    # What fork write-protected nobody has written since; in block 0 the page pinned for writing stayed writable (the child got a copy).
    assert {b.status for b in first.blocks if b.space == "a" and b.block == 1} == {"no_writable_page"}
    assert first.blocks[0].block == 0 and first.blocks[0].status == "succeeded"
    assert all(b.young is not None for b in first.blocks)
    assert len({tuple(r.blocks) for r in rest}) == 1
