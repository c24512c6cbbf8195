"""System calls through ctypes: runs of pages, errnos by name, and memory at fixed places."""

import ctypes
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.lab.agent import libc
from secondsight.lab.agent.libc import SysError
from support.in_child import in_child


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([], []),
        ([5], [(5, 1)]),
        ([1, 2, 3, 9, 10], [(1, 3), (9, 2)]),
        ([3, 2, 1], [(3, 1), (2, 1), (1, 1)]),
        ([4, 4, 5], [(4, 1), (4, 2)]),
    ],
)
def test_runs_go_up_and_are_in_the_order_written(pages, expected):
    assert libc.runs(pages) == expected


@given(st.lists(st.integers(0, 600), max_size=60))
def test_runs_hold_every_page_in_its_place(pages):
    assert [first + i for first, count in libc.runs(pages) for i in range(count)] == pages


def test_a_failed_call_is_its_errnos_name():
    assert libc.check(0, "nothing") == 0 and libc.check(7, "nothing") == 7 and libc.failed(0) is None
    ctypes.set_errno(errno.EBUSY)
    assert libc.failed(-1) == "EBUSY"
    with pytest.raises(SysError, match=f"the thing: EBUSY {os.strerror(errno.EBUSY)}") as caught:
        libc.check(-1, "the thing")
    assert caught.value.errno == errno.EBUSY


def _memory_lies_where_it_is_to_and_nothing_is_put_over_it():
    at = libc.mmap_fixed(libc.AREA, libc.BLOCK_BYTES)
    ctypes.memset(at, 7, 4)
    try:
        libc.mmap_fixed(libc.AREA + libc.PAGE, libc.PAGE)
    except SysError as error:
        twice = error.errno == errno.EEXIST
    else:
        twice = False
    kept = ctypes.string_at(at, 4) == b"\7" * 4
    libc.munmap(at, libc.BLOCK_BYTES)
    return twice and kept and libc.mmap_fixed(libc.AREA, libc.PAGE) == libc.AREA


def _shared_memory_shows_what_was_written_from_its_offset_on():
    memory = os.memfd_create("ram")
    os.ftruncate(memory, 3 * libc.PAGE)
    libc.mmap_shared(libc.AREA, libc.PAGE, memory, 2 * libc.PAGE)
    ctypes.memset(libc.AREA, 9, 3)
    written = os.pread(memory, 4, 2 * libc.PAGE) == b"\t\t\t\0"
    libc.mmap_file(libc.BUFFER, libc.PAGE, memory, 2 * libc.PAGE, shared=False)
    read = ctypes.string_at(libc.BUFFER, 3) == b"\t\t\t"
    libc.mmap_shared(libc.SCRATCH, libc.PAGE, -1, 0)
    ctypes.memset(libc.SCRATCH, 1, 1)
    return written and read and ctypes.string_at(libc.SCRATCH, 1) == b"\1"


def _advice_is_taken_or_refused_by_name():
    libc.mmap_fixed(libc.AREA, libc.PAGE)
    ctypes.memset(libc.AREA, 1, 1)
    taken = libc.madvise(libc.AREA, libc.PAGE, "dontneed")
    gone = ctypes.string_at(libc.AREA, 1) == b"\0"
    refused = libc.madvise(libc.AREA + 1, libc.PAGE, "dontneed")
    return taken is None and gone and refused == "EINVAL"


def _draining_runs_on_every_processor_and_comes_back():
    libc.mmap_fixed(libc.SCRATCH, libc.PAGE)
    before = os.sched_getaffinity(0)
    libc.drain()
    every = os.sched_getaffinity(0) == before
    libc.run_on(0)
    one = os.sched_getaffinity(0) == {min(libc.CPUS)}
    libc.drain()
    return every and one and os.sched_getaffinity(0) == {min(libc.CPUS)}


BODIES = [
    _memory_lies_where_it_is_to_and_nothing_is_put_over_it, _shared_memory_shows_what_was_written_from_its_offset_on,
    _advice_is_taken_or_refused_by_name, _draining_runs_on_every_processor_and_comes_back,
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__.strip("_"))
def test_in_a_process_of_its_own(body):
    assert in_child(body) == 0
