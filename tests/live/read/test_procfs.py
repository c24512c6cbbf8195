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

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency, SecondSightError, TargetGone
from secondsight.geometry import PMD_SIZE as BLOCK
from secondsight.live.read import capture
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from support.area import area


@pytest.fixture
def own():
    with Process.open(os.getpid()) as process:
        yield process


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


def no_scan(*arguments):
    raise MissingDependency("no PAGEMAP_SCAN before Linux 6.7")


def test_without_pagemap_scan_the_words_tell(own, monkeypatch):
    _memory, block = area([3])
    with Pagemap(own) as pagemap:
        monkeypatch.setattr(pagemap, "scan", no_scan)
        assert block in pagemap.populated_blocks(block, block + 2 * BLOCK)
        assert pagemap.huge_blocks(np.array([block], np.uint64)) is None


def test_one_page_in_a_terabyte_is_one_block(own):
    memory = mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    memory[(1 << 39) + 5] = 1
    start = np.frombuffer(memory, np.uint8).ctypes.data
    with Pagemap(own) as pagemap:
        try:
            pagemap.scan(start, start + BLOCK, pm.SCAN_PRESENT, 0)
        except MissingDependency:
            pytest.skip("needs PAGEMAP_SCAN")
        assert len(pagemap.populated_blocks(start, start + (1 << 40))) == 1


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
    [(errno.EPERM, MissingDependency), (errno.ESRCH, TargetGone), (errno.EIO, SecondSightError)],
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
        with pytest.raises(TargetGone, match="exec"):
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


@pytest.mark.parametrize("blocks", [2, 4, 20])
def test_no_range_is_told_twice(own, blocks):
    """More ranges than the kernel gathers at a time (512), and than one call answers (4,096)."""
    memory = mmap.mmap(-1, (blocks + 1) * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    first = (start + BLOCK - 1) & ~(BLOCK - 1)
    for page in range(0, blocks * 512, 2):
        memory[first - start + page * 4096] = 1
    with Pagemap(own) as pagemap:
        try:
            regions = pagemap.scan(first, first + blocks * BLOCK, pm.SCAN_PRESENT, pm.SCAN_PRESENT)
        except MissingDependency:
            pytest.skip("no PAGEMAP_SCAN here")
        assert regions["start"].tolist() == list(range(first, first + blocks * BLOCK, 8192))
        assert pagemap.populated_blocks(first, first + blocks * BLOCK).tolist() == list(
            range(first, first + blocks * BLOCK, BLOCK)
        )
