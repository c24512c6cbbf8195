"""Steps that are refused before they are taken: what the model does not know of shared memory and files, and what would wait for ever."""

from __future__ import annotations

import pytest

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.scenario import verbs
from secondsight.scenario.run import run


def of_memory(*steps: verbs.Verb, memory: str = "ram", **host: object) -> verbs.Scenario:
    space = verbs.SpaceSpec("vm", shared=verbs.Shared(memory))
    return verbs.Scenario((space,), steps, host=HostConfig(**host))


@pytest.mark.parametrize(
    "step",
    [
        verbs.Mlock("vm", "0"),
        verbs.Mprotect("vm", "0:1", "r"),
        verbs.Uffd("vm", "0", "missing"),
        verbs.Madvise("vm", "0", "cold"),
        verbs.Madvise("vm", "0", "guard_install"),
    ],
)
def test_what_is_not_modelled_over_shared_memory_is_refused(step) -> None:
    with pytest.raises(UsageError, match=r"steps\[0\]: space 'vm' is shared memory: .* is not modelled"):
        run(of_memory(step), "7.3")


def of_file(*steps: verbs.Verb, **space: object) -> verbs.Scenario:
    shared = verbs.Shared("data", file="shared")
    return verbs.Scenario((verbs.SpaceSpec("a", **{"shared": shared, **space}),), steps)


@pytest.mark.parametrize(
    "step",
    [
        verbs.SwapOut("a", "0"), verbs.SplitHuge("a", "0"), verbs.IoZeroCopy("a", "0"), verbs.Pin("a", "0:1", "p", write=True),
        verbs.Mlock("a", "0"), verbs.Mprotect("a", "0:1", "r"),
    ],
)  # fmt: skip
def test_what_is_not_modelled_over_a_file_is_refused(step) -> None:
    with pytest.raises(UsageError, match=r"steps\[0\]: space 'a' maps a regular file: .* is not modelled"):
        run(of_file(step), "7.3")


def test_a_second_vm_over_a_file_and_a_file_without_a_name_are_refused() -> None:
    with pytest.raises(UsageError, match="a second VM or a device over one"):
        run(of_file(vm=verbs.Vm(), vm2=verbs.Vm()), "7.3")
    with pytest.raises(UsageError, match=r"shared\.memory is to name it"):
        run(of_file(shared=verbs.Shared(file="private")), "7.3")


@pytest.mark.parametrize("shared", [None, verbs.Shared("ram")])
def test_files_verbs_are_for_files(shared) -> None:
    for step in (
        verbs.FileRead("a", "0"),
        verbs.FileWrite("a", "0"),
        verbs.FileSync("a"),
        verbs.FileDrop("a", "0"),
    ):
        with pytest.raises(UsageError, match="maps no regular file, which file_"):
            run(of_file(step, shared=shared), "7.3")


def waiting(step, mode="missing", armed="0:4"):
    """Takes *step* where userfaultfd watches pages *armed*; page 3 is populated, 4 and 5 are not."""
    before = (verbs.CpuWrite("a", "0:3"), verbs.Uffd("a", armed, mode))
    return run(verbs.Scenario((verbs.SpaceSpec("a", vm=verbs.Vm()),), (*before, step)), "7.3")


@pytest.mark.parametrize(
    "make",
    [
        verbs.CpuRead, verbs.CpuWrite, verbs.GuestRead, verbs.GuestWrite, verbs.Mlock, verbs.IoCopied, verbs.IoZeroCopy,
        lambda space, pages: verbs.Pin(space, pages, "p"),
    ],
)  # fmt: skip
def test_an_access_that_nobody_would_answer_is_refused(make) -> None:
    with pytest.raises(UsageError, match=r"steps\[2\]: a page there waits for userfaultfd's handler"):
        waiting(make("a", "0:4"))
    # Page 3 is there already, and page 5 is not watched.
    waiting(make("a", "0:3"))
    waiting(make("a", "0:5"))


def test_write_protection_stops_stores_alone() -> None:
    for step in (
        verbs.CpuRead("a", "0:3"),
        verbs.GuestRead("a", "0:3"),
        verbs.IoCopied("a", "0:3", write=False),
    ):
        waiting(step, "wp", "0:3")
    for step in (verbs.CpuWrite("a", "0:3"), verbs.GuestWrite("a", "0:3"), verbs.IoCopied("a", "0:3")):
        with pytest.raises(UsageError, match="would never end"):
            waiting(step, "wp", "0:3")


def test_what_faults_nothing_is_taken() -> None:
    for step in (
        verbs.Mlock("a", "0:4", onfault=True),
        verbs.ClearRefs("a"),
        verbs.Madvise("a", "0", "dontneed"),
        verbs.Scan(),
    ):
        waiting(step)
