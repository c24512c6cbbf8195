"""Shared memory in scenarios: files that say it, what the model refuses there, batches of many, answers as text."""

from __future__ import annotations

import msgspec
import pytest

from secondsight.errors import InputError
from secondsight.mm.config import HostConfig
from secondsight.scenario import batch, files, verbs
from secondsight.scenario.random_shared import shared_scenarios
from secondsight.scenario.results import CollapseFileEvent, FilePass
from secondsight.scenario.run import run
from secondsight.scenario.text import lines

TEXT = b"""
[host]
shmem_enabled = "force"
[[spaces]]
name = "vm"
blocks = 2
vm = {}
shared = {memory = "ram"}
[[spaces]]
name = "backend"
shared = {memory = "ram", block = 2}
[[steps]]
do = "cpu_write"
space = "backend"
pages = "0:3"
[[steps]]
do = "scan"
"""


def scenario(*steps: verbs.Verb, memory: str = "ram", **host: object) -> verbs.Scenario:
    space = verbs.SpaceSpec("vm", shared=verbs.Shared(memory))
    return verbs.Scenario((space,), steps, host=HostConfig(**host))


def test_a_file_says_it_and_the_memory_is_as_long_as_its_farthest_mapping() -> None:
    read = files.decode(TEXT, "here", toml=True)
    assert verbs.memory_blocks(read, read.spaces[0]) == verbs.memory_blocks(read, read.spaces[1]) == 3
    answer = run(read, "7.3")
    assert answer.files == [
        FilePass(1, "vm", 0, "memfd:ram", "exceed_none_pte", 0, 0),
        FilePass(1, "vm", 1, "memfd:ram", "exceed_none_pte", 0, 0),
        FilePass(1, "backend", 0, "memfd:ram", "pte_mapped_hugepage", 0, 0, names_page=True),
    ]
    with pytest.raises(InputError, match=r"shared\.block=-1"):
        files.decode(TEXT.replace(b"block = 2", b"block = -1"), "here", toml=True)
    with pytest.raises(InputError, match="shmem_enabled"):
        files.decode(TEXT.replace(b"force", b"sometimes"), "here", toml=True)


def test_the_collapse_is_told_where_the_kernel_tells_it() -> None:
    steps = (verbs.CpuWrite("vm", "0:0-9"), verbs.Madvise("vm", "0", "hugepage"), verbs.Scan())
    visits = run(scenario(*steps, memory="", shmem_enabled="always"), "7.3").files
    assert [f.result for f in visits] == ["pte_mapped_hugepage"] and visits[0].file == "dev/zero"
    visits = run(scenario(*steps, shmem_enabled="advise"), "6.12").files
    assert visits[0].collapse == CollapseFileEvent("succeeded", 512, 512, 1)
    twice = (*steps[:2], *steps[1:])
    assert [f.collapse for f in run(scenario(*twice, shmem_enabled="advise"), "6.1").files] == [None]
    # 6.1 looks at the advice that the area had: once is not enough to become known.
    assert not run(scenario(*steps, shmem_enabled="advise"), "6.1").files


def test_free_is_for_private_memory() -> None:
    assert run(scenario(verbs.Madvise("vm", "0", "free")), "7.3").answers[0].errno == "EINVAL"


def test_batched_scenarios_have_memories_of_their_own_and_answer_as_alone() -> None:
    made, _ = shared_scenarios(8, 5)
    merged = batch.merge(made)
    memories = {space.shared.memory for space in merged.scenario.spaces if space.shared}
    assert len(memories - {""}) == len({k for k, s in enumerate(made) if s.spaces[0].shared.memory})
    apart = batch.split(merged, run(merged.scenario, "6.12"))
    for alone, answer in zip(made, apart, strict=True):
        assert [f.file for f in answer.files] == [f.file for f in run(alone, "6.12").files]


def test_a_line_a_visit() -> None:
    answer = run(scenario(shmem_enabled="force"), "7.3")
    assert lines(answer) == []
    visit = FilePass(2, "vm", 1, "memfd:ram", "exceed_swap_pte", 4, 65)
    assert lines(msgspec.structs.replace(answer, files=[visit])) == [
        "pass 2 vm:1 exceed_swap_pte file memfd:ram present 4 swapped 65"
    ]
