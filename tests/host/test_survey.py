"""One pass, on processes of our own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.errors import SecondSightError, UsageError
from secondsight.geometry import PMD_SIZE
from secondsight.host import host, judging, strata
from secondsight.host.intervals import Interval
from secondsight.live.read.capture import check_room

#: Twelve aligned blocks: four whole and advised, four with every second page, four untouched; and two that may not be huge. Advised
#: while the process may have no huge pages (PR_SET_THP_DISABLE), so that khugepaged does not come to know it and leaves the blocks.
TARGET = """
import ctypes, mmap, sys
def huge_pages(allowed):
    assert ctypes.CDLL(None).prctl(41, int(not allowed), 0, 0, 0) == 0
BLOCK = 2 << 20
def blocks(count):
    memory = mmap.mmap(-1, (count + 1) * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return memory, -start % BLOCK
kept = []
memory, at = blocks(12)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(4 * 512):
    memory[at + page * 4096] = 1
for page in range(4 * 512, 8 * 512, 2):
    memory[at + page * 4096] = 1
huge_pages(False)
memory.madvise(mmap.MADV_HUGEPAGE)
kept.append(memory)
memory, at = blocks(2)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(2 * 512):
    memory[at + page * 4096] = 1
kept.append(memory)
huge_pages(True)
print("ready", flush=True)
sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="this kernel has no THP"
)


@pytest.fixture(scope="module")
def target():
    with subprocess.Popen(
        [sys.executable, "-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        yield child.pid
        child.kill()


def sums(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) << 10 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def test_a_process_is_what_its_sums_say(target):
    before = sums(target)
    view = host(pids=[target], budget=None)
    assert len(view.rows) == 1
    row, kernel = view.rows[0], sums(target)
    # The kernel may take back a page of its program in between.
    assert min(before["Rss"], kernel["Rss"]) <= row.resident <= max(before["Rss"], kernel["Rss"])
    assert row.huge == kernel["AnonHugePages"] + kernel["ShmemPmdMapped"] + kernel["FilePmdMapped"]
    assert view.total.processes == 1
    assert view.trouble == {}


def test_what_the_blocks_come_to(target):
    row = host(pids=[target], switches={"enabled": "madvise", "max_ptes_none": 0}, budget=None).rows[0]
    assert row.share_read == 1.0
    # Python's own memory is in no advised mapping: what could be huge is the eight blocks, and under max_ptes_none=0 the four whole ones.
    assert row.now.known
    assert row.then == Interval.exact(4 * PMD_SIZE)
    if row.now.value:
        assert row.now == Interval.exact(8 * PMD_SIZE)
        assert row.added == Interval.exact(4 * PMD_SIZE / 2)
    kept = {reason.status: reason.bytes for reason in row.reasons}
    assert kept["MADV_NOHUGEPAGE"] >= 2 * PMD_SIZE


#: Four aligned blocks of shared memory that may not be huge, touched by this process and by a child of it.
SHARING = """
import ctypes, mmap, os, signal, sys
BLOCK = 2 << 20
memory = mmap.mmap(-1, 5 * BLOCK)
memory.madvise(mmap.MADV_NOHUGEPAGE)
at = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % BLOCK
def touch():
    for page in range(4 * 512):
        memory[at + page * 4096] = 1
touch()
read, write = os.pipe()
if child := os.fork():
    os.read(read, 1)
    print(child, flush=True)
    sys.stdin.read()
else:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    touch()
    os.write(write, b"!")
    while True:
        signal.pause()
"""


def test_of_a_group_a_block_that_two_map_is_kept_small_once():
    with subprocess.Popen(
        [sys.executable, "-c", SHARING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        pids = [parent.pid, int(parent.stdout.readline())]

        def kept(by):
            rows = host(by, pids=pids, budget=None).rows
            # Where mmap puts it, it may be misaligned against its file, which is said first.
            mine = ("MADV_NOHUGEPAGE", "misaligned")
            return [sum(each.bytes for each in row.reasons if each.status.startswith(mine)) for row in rows]

        try:
            assert kept("process") == [4 * PMD_SIZE] * 2
            assert kept("user") == [4 * PMD_SIZE]
        finally:
            parent.kill()


def test_blocks_are_judged_alike_in_parts_and_at_once(target, monkeypatch):
    at_once = host(pids=[target], budget=None).rows[0]
    monkeypatch.setattr(judging, "AT_ONCE", 3)
    in_parts = host(pids=[target], budget=None).rows[0]
    for name in ("now", "then", "added", "wasted", "reasons", "sizes"):
        assert getattr(in_parts, name) == getattr(at_once, name), name
    assert in_parts.share_read == 1.0 and in_parts.then.value > 0


#: 1 TiB, a page of every 8 GiB touched, while the process may have no huge pages; beside it 1 TiB that nobody may touch.
TEBIBYTE = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def take(prot):
    return libc.mmap(None, 1 << 40, prot, 0x4022, -1, 0)  # private, anonymous, MAP_NORESERVE
libc.prctl(41, 1, 0, 0, 0)
memory, forbidden = take(3), take(0)
failed = ctypes.c_void_p(-1).value
if memory in (None, failed) or forbidden in (None, failed):
    print("refused", flush=True)
    sys.exit()
for at in range(128):
    ctypes.memset(memory + (at << 33) + (4 << 20), 1, 1)
libc.prctl(41, 0, 0, 0, 0)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_of_a_tebibyte_is_read_by_what_it_holds():
    with subprocess.Popen(
        [sys.executable, "-c", TEBIBYTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        if child.stdout.readline() != b"ready\n":
            pytest.skip("1 TiB may not be mapped here (vm.overcommit_memory)")
        view = host(pids=[child.pid], budget=None)
        child.kill()
    row = view.rows[0]
    assert view.trouble == {} and row.share_read == 1.0
    # 128 blocks of one page each, and Python's own memory: each is huge, or could be, or something is said of it. How many could be under
    # other switches depends on accessed bits, and a DAMON of others may clear those.
    judged = row.now.value + sum(reason.bytes for reason in row.reasons)
    assert row.now.known and row.then.known and judged + row.huge >= 128 * PMD_SIZE
    assert row.resident < (1 << 28) + row.huge


def test_more_blocks_than_memory_can_hold_are_refused_with_a_way_out():
    check_room(8192, 1, lambda: 0)
    check_room(100_000, 1, lambda: 12_000_000_000)
    with pytest.raises(SecondSightError, match=re.escape("process 7: 100,000 blocks hold memory")) as raised:
        check_room(100_000, 7, lambda: 11_999_999_999)
    assert "`secondsight top --pid 7` reads all in parts" in str(raised.value) and raised.value.exit_code == 1


def test_switches_that_refuse_all(target):
    row = host(pids=[target], switches={"enabled": "never"}, budget=None).rows[0]
    assert row.then == Interval.exact(0)
    if row.sizes:  # whose frames' flags may be read: root's
        assert row.sizes["4K"].value >= (4 + 2 + 2) * PMD_SIZE
    else:
        assert os.geteuid() != 0


def test_a_sample_holds_the_full_reading(target, monkeypatch):
    monkeypatch.setattr(strata, "ANYWAY", 0)
    full = host(pids=[target], budget=None).rows[0]
    for seed in range(3):
        some = host(pids=[target], budget=0.0, seed=seed).rows[0]
        assert some.then.low <= full.then.value <= some.then.high
        assert some.added.low <= full.added.value <= some.added.high


def test_sums_alone_read_no_block(target):
    view = host(pids=[target], blocks=False)
    assert view.source == ""
    assert view.rows[0].now is None
    assert view.rows[0].resident == sums(target)["Rss"]


@pytest.mark.parametrize("by", ["process", "vm", "cgroup", "container", "user", "name"])
def test_every_kind_of_row_covers_every_process(by):
    view = host(by, blocks=False)
    assert sum(row.processes for row in view.rows) == view.total.processes
    assert len({(row.name, row.pid) for row in view.rows}) == len(view.rows)


def test_each_page_counts_once_over_users(target):
    view = host("user", pids=[target], blocks=False)
    # Others that start and end change what libraries' pages are divided by.
    assert view.rows[0].resident == pytest.approx(sums(target)["Pss"], rel=0.05)
    assert view.rows[0].resident < sums(target)["Rss"]


@pytest.mark.parametrize(
    ("switches", "problem"),
    [
        ({"enabled": "sometimes"}, "--if enabled=sometimes: is one of always, madvise, never"),
        ({"colour": "red"}, "--if colour=red: is one of enabled"),
        ({"max_ptes_none": "many"}, "write a number"),
        ({"max_ptes_none": 512}, "max_ptes_none=512"),
    ],
)
def test_wrong_switches_are_told(switches, problem):
    with pytest.raises(UsageError, match=re.escape(problem)):
        host(switches=switches, pids=[])


def test_a_wrong_kind_is_told():
    with pytest.raises(UsageError, match="--by planet: is one of process, vm"):
        host("planet")


def test_a_process_that_went_is_counted():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    view = host(pids=[child.pid])
    assert view.rows == ()
    assert view.total is None
    assert view.trouble == {"ended meanwhile": 1}
