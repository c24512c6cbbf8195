"""process_madvise(MADV_COLLAPSE): what is asked of the kernel, what its errnos mean, and a kernel that has none."""

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from secondsight.live.act import madvise
from support.snapshots import BLOCK


@pytest.mark.parametrize("number", list(madvise.CAUSES))
def test_each_errno_has_its_cause(number):
    said = madvise.cause(number)
    assert said == madvise.CAUSES[number] and len(said) > 10 and not said.endswith(".")


def test_another_errno_is_named_as_the_system_names_it():
    assert madvise.cause(errno.EBADF) == os.strerror(errno.EBADF)


def test_what_is_no_process_is_an_errno():
    # Not a pidfd.
    with Path(os.devnull).open() as file:
        assert madvise.collapse(file.fileno(), BLOCK) in (errno.EBADF, errno.ENOSYS)


def test_a_block_of_our_own_is_collapsed_or_refused_for_a_known_cause():
    if why := madvise.available():
        pytest.skip(why)
    pidfd = os.pidfd_open(os.getpid())
    try:
        with mmap.mmap(-1, 3 * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            whole = np.frombuffer(memory, np.uint8)
            start = whole.ctypes.data
            whole[:] = 7
            block = start + -start % BLOCK
            answer = madvise.collapse(pidfd, block)
            assert answer == 0 or answer in madvise.CAUSES
            # Not the start of a page, let alone of a block.
            assert madvise.collapse(pidfd, block + 1) == errno.EINVAL
            assert (whole == 7).all()
            del whole
    finally:
        os.close(pidfd)


def test_availability_is_said_and_nothing_is_collapsed():
    said = madvise.available()
    assert said == "" or "6.1" in said or said in madvise.CAUSES.values() or said.startswith("pidfd_open")


def test_without_pidfds_the_system_call_is_named(monkeypatch):
    def refuse(pid):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert madvise.available() == f"pidfd_open: {os.strerror(errno.ENOSYS)}"
