"""Pagemap and frame tables: right words in the right places, whatever the reads do."""

import errno
import mmap
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.bits import pagemap as pm
from secondsight.bits import pte as bits
from secondsight.errors import MissingPart, SecondSightError, TargetGone, UsageError
from secondsight.live import capture
from secondsight.live.process import Process, explain_oserror
from secondsight.live.procfs import BLOCK, FrameTable, Pagemap
from secondsight.live.reader import ProcfsReader


@pytest.fixture
def own():
    with Process.open(os.getpid()) as process:
        yield process


def area(pages):
    """Anonymous memory of our own with the given pages of its first whole block touched: (mapping, address of the block)."""
    memory = mmap.mmap(-1, 3 * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    block = (start + BLOCK - 1) & ~(BLOCK - 1)
    for page in pages:
        memory[block - start + page * 4096] = 1
    return memory, block


def test_present_pages_of_our_own(own):
    _memory, block = area([0, 7, 511])
    with Pagemap(own) as pagemap:
        words = pagemap.read_blocks(np.array([block], np.uint64))
        assert np.flatnonzero(words[0] & pm.PRESENT).tolist() == [0, 7, 511]
        assert block in pagemap.populated_blocks(block - BLOCK, block + 2 * BLOCK)
        assert not pagemap.populated_blocks(block + 4096, block + BLOCK).size, (
            "only whole blocks inside the range"
        )


def test_what_reading_costs_the_process_is_told(own):
    _memory, block = area([0])
    slow = 0.5

    def sleeping(fd, buffers, offset):
        time.sleep(slow)
        return os.preadv(fd, buffers, offset)

    assert own.longest_call == 0.0
    taken = capture.take(own, None, within=(block, block + BLOCK))
    assert taken.header.longest_call > 0
    with Pagemap(own, sleeping) as pagemap:
        pagemap.read(block, 1)
    assert slow <= own.longest_call


def test_without_pagemap_scan_the_words_tell(own):
    _memory, block = area([3])
    with Pagemap(own) as pagemap:
        pagemap._scan_works = False
        assert block in pagemap.populated_blocks(block, block + 2 * BLOCK)
        assert pagemap.huge_blocks(np.array([block], np.uint64)) is None


def test_a_terabyte_of_nothing_is_quick(own):
    memory = mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    memory[(1 << 39) + 5] = 1
    start = np.frombuffer(memory, np.uint8).ctypes.data
    with Pagemap(own) as pagemap:
        try:
            pagemap.scan(start, start + BLOCK, pm.SCAN_PRESENT, 0)
        except MissingPart:
            pytest.skip("needs PAGEMAP_SCAN")
        assert len(pagemap.populated_blocks(start, start + (1 << 40))) == 1


@pytest.mark.parametrize("there", [1.0, 0.98, 0.3, 0.0])
def test_columns_say_what_the_words_say(own, tmp_path, monkeypatch, there):
    """Page by page: present, swapped, none, write-protected, shared, the zero page, in the swap cache."""
    luck = np.random.default_rng(int(100 * there))
    shape, frames = (70, 512), 60_000
    present = luck.random(shape) < there
    present[:3] = there > 0  # some blocks are whole
    swapped = ~present & (luck.random(shape) < 0.5)
    frame = luck.integers(1, frames, shape).astype(np.uint64)
    alone, guarded = luck.random(shape) < 0.9, luck.random(shape) < 0.01
    alone[:3], guarded[:2] = True, False
    words = np.where(present | swapped, frame, 0).astype(np.uint64)
    for mask, bit in (
        (present, pm.PRESENT),
        (swapped, pm.SWAPPED),
        (present & alone, pm.EXCLUSIVE),
        (guarded, pm.UFFD_WP),
    ):
        words |= np.where(mask, bit, np.uint64(0))
    flags = luck.choice(
        np.array([kpf.LRU, kpf.LRU | kpf.REFERENCED, kpf.ZERO_PAGE, kpf.LRU | kpf.SWAPCACHE], np.uint64),
        frames,
        p=[0.6, 0.3, 0.05, 0.05],
    )
    maps = luck.integers(1, 4, frames).astype(np.uint64)
    flags.tofile(tmp_path / "flags")
    maps.tofile(tmp_path / "counts")
    blocks = np.arange(70, dtype=np.uint64) * np.uint64(BLOCK)

    def read_blocks(some, out):
        out[:] = words[(some // np.uint64(BLOCK)).astype(np.int64)]
        return out

    with (
        ProcfsReader(own) as reader,
        FrameTable(str(tmp_path / "flags")) as told,
        FrameTable(str(tmp_path / "counts")) as counted,
    ):
        monkeypatch.setattr(reader.pagemap, "read_blocks", read_blocks)
        reader._flags, reader._counts, reader._trust_ksm = told, counted, True
        found = reader.read_blocks(blocks)
    flag = np.where(present, flags[frame.astype(np.int64)], 0)
    zero = present & (flag == kpf.ZERO_PAGE)
    mapped = np.where(alone, 1, maps[frame.astype(np.int64)].astype(np.int64)) * present
    assert np.array_equal(bits.pte_present(found.pte), present) and np.array_equal(
        bits.is_swap_pte(found.pte), swapped
    )
    assert np.array_equal(bits.pte_pfn(found.pte)[present], np.where(zero, 0, frame)[present])
    assert np.array_equal(found.pte[swapped], bits.swap_pte(frame[swapped]))
    assert np.array_equal((found.pte & bits.UFFD_WP)[present] != 0, guarded[present])
    assert (
        np.array_equal(found.pmd != 0, (present | swapped).any(axis=1))
        and not bits.pmd_trans_huge(found.pmd).any()
    )
    assert np.array_equal(found.flags, np.where(zero, 0, flag))
    assert np.array_equal(found.mapcount, mapped) and np.array_equal(found.folio_mapcount, mapped)
    assert np.array_equal(found.shared, mapped > 1)
    assert np.array_equal(found.refcount, mapped + ((flag & kpf.SWAPCACHE) != 0))
    assert np.array_equal(found.folio, np.where(present, frame.astype(np.int64), -1))
    assert found.page_known.all() and np.array_equal(found.pte_known, ~present)


def test_frames_that_may_not_be_seen_are_unknown_and_not_the_zero_page(own):
    """Without CAP_SYS_ADMIN pagemap shows frame 0 for every page."""

    def hiding(fd, buffers, offset):
        count = os.preadv(fd, buffers, offset)
        words = np.frombuffer(buffers[0], np.uint64, count // 8)
        words &= ~pm.PFN_MASK
        return count

    memory, block = area([0, 7])
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert memory[block - start + 9 * 4096] == 0  # maps the zero page
    with ProcfsReader(own) as reader:
        reader.pagemap._preadv = hiding
        found = reader.read_blocks(np.array([block], np.uint64))
        try:
            told = reader.pagemap.zero_pages(np.array([block], np.uint64)) is not None
        except MissingPart:
            told = False
    zero = bits.pte_present(found.pte[0]) & (bits.pte_pfn(found.pte[0]) == 0)
    assert np.flatnonzero(zero).tolist() == ([9] if told else [])
    assert np.flatnonzero(~found.page_known[0]).tolist() == ([0, 7] if told else [0, 7, 9])
    assert np.flatnonzero(bits.pte_present(found.pte[0])).tolist() == [0, 7, 9]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4096), st.integers(0, 1 << 30))
def test_short_reads_are_asked_again(limit, seed):
    luck = random.Random(seed)

    def stingy(fd, buffers, offset):
        if luck.random() < 0.25:
            raise InterruptedError
        return os.preadv(fd, [buffers[0][: max(limit // 8 * 8, 8)]], offset)

    _memory, block = area([0, 100])
    with Process.open(os.getpid()) as own, Pagemap(own, stingy) as pagemap:
        words = pagemap.read(block, 128)
    assert np.flatnonzero(words & pm.PRESENT).tolist() == [0, 100]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EPERM, MissingPart), (errno.ESRCH, TargetGone), (errno.EIO, SecondSightError)],
)
def test_errors_are_told_as_what_they_are(own, number, expected):
    def broken(fd, buffers, offset):
        raise OSError(number, os.strerror(number))

    with Pagemap(own, broken) as pagemap, pytest.raises(expected):
        pagemap.read(0, 8)


def test_end_of_file_means_the_address_space_has_gone(own):
    with (
        Pagemap(own, lambda fd, buffers, offset: 0) as pagemap,
        pytest.raises(TargetGone, match="exit or exec"),
    ):
        pagemap.read(0, 8)


CHILD = (
    "import os, sys; print('up', flush=True); sys.stdin.readline(); os.execv('/bin/sleep', ['sleep', '30'])"
)


def test_exit_and_exec_of_the_target():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    child.stdout.readline()
    with Process.open(child.pid) as process, Pagemap(process) as pagemap:
        before = pagemap.read(0x1000, 8)
        assert len(before) == 8
        child.stdin.write(b"\n")
        child.stdin.flush()
        with pytest.raises(TargetGone):
            for _ in range(2000):
                pagemap.read(0x1000, 8)
                process.require_alive()
                subprocess.run(["true"], check=True)
        assert process.alive(), "an exec is not an exit"
        child.kill()
        child.wait()
        assert not process.alive()
        with pytest.raises(TargetGone):
            process.read_file("maps")


def test_a_dead_number_and_a_thread_are_refused():
    import threading

    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(UsageError, match="no such process"):
        Process.open(child.pid)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(UsageError, match=f"thread of process {os.getpid()}"):
            Process.open(thread.native_id)
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "words"
    (np.arange(5000, dtype=np.uint64) * np.uint64(3) + np.uint64(1)).tofile(path)
    return path


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 4999), st.integers(0, 60)), max_size=300), st.booleans())
def test_frames_come_back_in_the_order_asked(table, frames, ordered):
    asked = np.array(sorted(frames) if ordered else frames, np.uint64)
    with FrameTable(str(table)) as words:
        assert np.array_equal(words.read(asked), asked * np.uint64(3) + np.uint64(1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5100), st.integers(1, 900)), min_size=1, max_size=12))
def test_frames_in_rows_are_read_as_they_come(table, rows):
    """Of folios and fresh memory: long rows, in any order, over each other, beyond the end."""
    asked = np.concatenate([np.arange(first, first + length) for first, length in rows]).astype(np.uint64)
    into = np.zeros(asked.shape, np.uint32)
    with FrameTable(str(table)) as words:
        words.read(asked, into, np.uint64(0xFFF))
    told = np.where(asked < 5000, asked * np.uint64(3) + np.uint64(1), np.uint64(0))
    assert np.array_equal(into, told & np.uint64(0xFFF))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4400), st.integers(300, 900)), min_size=1, max_size=4),
    st.lists(st.integers(0, 5100), max_size=3),
    st.randoms(use_true_random=False),
)
def test_frames_that_lie_densely_are_read_in_any_order(table, rows, others, luck):
    asked = [frame for first, length in rows for frame in range(first, first + length)] + others
    luck.shuffle(asked)
    frames = np.array(asked, np.uint64)
    into = np.zeros(frames.shape, np.uint16)
    with FrameTable(str(table)) as words:
        words.read(frames, into, np.uint64(0x7FFF))
    told = np.where(frames < 5000, frames * np.uint64(3) + np.uint64(1), np.uint64(0))
    assert np.array_equal(into, told & np.uint64(0x7FFF))


def test_frames_far_apart_are_sorted_and_long_lists_read_in_parts(table):
    near = np.tile(np.arange(5000, dtype=np.uint64)[::-1], 8)
    with FrameTable(str(table)) as words:
        assert np.array_equal(words.read(near), near * np.uint64(3) + np.uint64(1))
        far = np.array([7, 1 << 44, 4999, 7, (1 << 44) + 1], np.uint64)
        assert words.read(far).tolist() == [22, 0, 14998, 22, 0]
        farther = np.where(np.arange(300) % 3 == 1, 1 << 55, np.arange(300) * 16).astype(np.uint64)
        told = words.read(farther.reshape(3, 100)).reshape(-1)
        assert np.array_equal(
            told, np.where(farther < 5000, farther * np.uint64(3) + np.uint64(1), np.uint64(0))
        )


def test_many_frames_are_read_by_several_threads(tmp_path, monkeypatch):
    """Long runs, short ones, gaps, some bits of each word, into memory of the caller's."""
    count = 200_000
    (np.arange(count, dtype=np.uint64) * np.uint64(5)).tofile(tmp_path / "words")
    luck = np.random.default_rng(1)
    frames = np.concatenate([np.arange(90_000), luck.integers(90_000, count, 30_000)]).astype(np.uint64)
    luck.shuffle(frames)
    into = np.zeros((40, 3000), np.uint32)
    for cores in ({0}, {0, 1}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: cores)
        with FrameTable(str(tmp_path / "words")) as words:
            assert words.read(frames.reshape(40, 3000), into, np.uint64(0xFFF)) is into
        assert np.array_equal(into.reshape(-1), frames * np.uint64(5) & np.uint64(0xFFF))
        into[:] = 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5200), min_size=1, max_size=300), st.integers(0, 1 << 30))
def test_short_and_interrupted_reads_of_frames(table, frames, seed):
    luck = random.Random(seed)

    def stingy(fd, buffers, offset):
        if luck.random() < 0.2:
            raise InterruptedError
        return os.preadv(fd, [buffers[0][: 8 * luck.randint(1, 40)]], offset)

    asked = np.array(frames, np.uint64)
    with FrameTable(str(table), stingy) as words:
        found = words.read(asked)
    assert np.array_equal(found, np.where(asked < 5000, asked * np.uint64(3) + np.uint64(1), np.uint64(0)))


def test_an_error_of_the_frame_table_is_told_as_what_it_is(table):
    def refused(fd, buffers, offset):
        raise PermissionError(errno.EPERM, "refused")

    with FrameTable(str(table), refused) as words, pytest.raises(MissingPart):
        words.read(np.arange(10, dtype=np.uint64))


def advised():
    """A block of our own that may be huge: (mapping, address of the block)."""
    memory = mmap.mmap(-1, 3 * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    return memory, (start + BLOCK - 1) & ~(BLOCK - 1)


@pytest.mark.parametrize("written", [True, False])
def test_a_huge_page_and_the_huge_zero_page_are_huge(own, written):
    memory, block = advised()
    at = block - np.frombuffer(memory, np.uint8).ctypes.data
    if written:
        memory[at] = 1
    assert memory[at + 4096] == 0
    with ProcfsReader(own) as reader:
        told = reader.pagemap.huge_blocks(np.array([block], np.uint64))
        if told is None or not told[0]:
            pytest.skip("no huge page was to be had, or no PAGEMAP_SCAN to tell")
        found = reader.read_blocks(np.array([block], np.uint64))
    assert bits.pmd_trans_huge(found.pmd[0]) and not found.pte.any()


def test_frames_beyond_memory_answer_zero(table):
    with FrameTable(str(table)) as words:
        assert words.read(np.array([[4999, 5000], [1 << 40, 2]], np.uint64)).tolist() == [[14998, 0], [0, 7]]


def test_a_missing_table_says_so():
    with pytest.raises(MissingPart, match="does not have it"):
        FrameTable("/proc/kpage-nothing")


def told_of(tmp_path, status, flags):
    """What is said of process 4242 with these lines of status and these flags in stat."""
    (tmp_path / "status").write_text("".join(f"{line}\n" for line in ("Name:\tx", "Tgid:\t4242", *status)))
    (tmp_path / "stat").write_text(f"4242 (a) b) S 1 1 1 0 -1 {flags} " + " ".join(["0"] * 40))
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(UsageError) as told:
            Process._from_directory(4242, directory)
    finally:
        os.close(directory)
    return str(told.value)


def test_without_memory_a_kernel_thread_is_told_from_what_exits(tmp_path):
    # PF_KTHREAD and PF_EXITING (include/linux/sched.h)
    assert "kernel thread" in told_of(tmp_path, [], 0x00200000 | 0x40)
    assert "is exiting" in told_of(tmp_path, [], 0x00000004 | 0x40)
    assert "zombie" in told_of(tmp_path, ["State:\tZ (zombie)"], 0x4)


def test_a_refusal_in_spite_of_the_capabilities_does_not_advise_them(monkeypatch):
    denied = PermissionError(errno.EACCES, "denied")
    monkeypatch.setattr("secondsight.live.process.own_capabilities", lambda: {"CAP_SYS_PTRACE"})
    assert "run as root" in str(explain_oserror(denied, "x"))
    every = {"CAP_SYS_PTRACE", "CAP_SYS_ADMIN"}
    monkeypatch.setattr("secondsight.live.process.own_capabilities", lambda: every)
    assert "security module" in str(explain_oserror(denied, "x"))
