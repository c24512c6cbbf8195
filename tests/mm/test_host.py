"""A machine: its processes and memories by name, its sysfs, its swap slots."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.host import Host
from secondsight.mm.page import HUGE_ZERO_PFN, LRU
from secondsight.mm.profiles import PROFILES
from secondsight.mm.vmscan import swap_out
from support.model import flags, holds, pages


def test_a_host_runs_a_profile_by_name_or_by_value() -> None:
    assert Host("6.1").rules == PROFILES["6.1"]
    assert Host(PROFILES["6.1"].derive(lru_batch=31)).rules.lru_batch == 31
    with pytest.raises(UsageError, match=r"6\.99"):
        Host("6.99")


def test_names_stand_for_one_process_or_memory() -> None:
    host = Host("7.3")
    host.mm("a", 1)
    with pytest.raises(UsageError, match="there is a space called 'a' already"):
        host.mm("a", 1)
    host.shared_memory("ram", 1)
    for again in (host.shared_memory, host.regular_file):
        with pytest.raises(UsageError, match="there is shared memory called 'ram' already"):
            again("ram", 1)
    assert host.shared_memory("", 1) is not host.shared_memory("", 1), "without a name each is another"
    assert set(host.mms) == {"a"} and set(host.memories) == {"ram"}


def test_regular_files_are_of_kernels_that_collapse_them_and_of_two_blocks_at_most() -> None:
    with pytest.raises(UsageError, match=r"^7\.1: regular files are modelled from 7\.2 on"):
        Host("7.1").regular_file("data", 1)
    with pytest.raises(UsageError, match=r"file 'data' has 3 blocks: .* at most two"):
        Host("7.2").regular_file("data", 3)
    memory = Host("7.2").regular_file("data", 2)
    assert len(memory.cache) == 1024 and not memory.is_shmem


def test_draining_brings_what_waits_to_the_lru() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1), write=True)
    assert not flags(mm, 1) & LRU
    host.drain()
    assert flags(mm, 1) & LRU
    holds(host)


def test_what_the_administrator_changes_holds_for_the_next_fault_alone() -> None:
    host = Host("6.1")
    mm = host.mm("p", 3)
    mm.cpu_access(pages(0, 1), write=True)
    host.configure(HostConfig(thp_enabled="always", knobs=Knobs(max_ptes_none=3)))
    mm.cpu_access(pages(1, 1), write=True)
    host.configure(HostConfig(thp_enabled="never"))
    mm.cpu_access(pages(2, 1), write=True)
    assert [bool(mm.arrays.pmd[block] & x86.PSE) for block in range(3)] == [False, True, False]
    holds(host)


def test_sizes_and_the_huge_zero_page_are_switched_while_it_runs() -> None:
    host = Host("7.2", HostConfig(thp_enabled="always"))
    mm = host.mm("p", 3)
    mm.cpu_access(pages(0, 1), write=False)
    host.configure(HostConfig(thp_enabled="always", use_zero_page=False))
    mm.cpu_access(pages(1, 1), write=False)
    host.configure(HostConfig(thp_enabled="never", sizes=Sizes(kb64="always")))
    mm.cpu_access(pages(2, 20), write=True)
    assert mm.folio(0) == HUGE_ZERO_PFN and mm.folio(512) not in (-1, HUGE_ZERO_PFN)
    assert [page - 1024 for page in range(1024, 1536) if mm.pfn(page) >= 0] == list(range(16, 32))
    holds(host)


def test_swap_slots_are_the_first_that_are_free_in_a_row_and_aligned() -> None:
    host = Host("6.12")
    assert host.swap_slots(3).tolist() == [0, 1, 2]
    assert host.swap_slots(4).tolist() == [4, 5, 6, 7], "aligned to its size"
    assert host.swap_slots(1).tolist() == [3]
    host.slots[0, 1] = 0
    assert host.swap_slots(1).tolist() == [1] and host.swap_slots(2).tolist() == [8, 9]
    # What was seen of a kernel is taken as it came, twice too: two entries name it.
    assert host.swap_slots(2, np.array([1, 40])).tolist() == [1, 40]
    assert host.swap[1] == 2 and host.swap[40] == 1


def test_more_swap_than_slots_makes_more_slots_for_every_process() -> None:
    host = Host("6.12")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 3), write=True)
    host.drain()
    swap_out(mm, pages(0, 3))
    assert len(host.swap) == 1024 and host.swap.tolist() == [1] + [0] * 1023
    assert host.swap_slots(2000)[-1] == 2000, "as many in a row, not aligned: 2000 is no power of two"
    assert len(host.swap) > 2000 and host.swap.sum() == 2001
    host.slots[0, 1:] = 0
    mm.cpu_access(pages(0, 3), write=False)
    assert mm.pfn(3) > 0 and not host.swap.any(), "the process saw the slots that there are now"
    holds(host)
