"""Accesses and system calls by machine code: the pages named and no others, and what the kernel denies is counted."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
from pathlib import Path

import numpy as np
import pytest

from secondsight.lab.agent import code, libc
from secondsight.lab.agent.routines import Routines
from support.in_child import in_child

native = pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine code is x86-64")


def _the_loops_touch_the_pages_named_and_no_others() -> bool:
    memory = mmap.mmap(-1, 8 * 4096)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    routines = Routines()
    assert routines.touch(code.WRITE, [3, 1], 1 << 31, base) is None
    assert routines.touch(code.READ, [0, 1, 2], 0, base) is None
    assert routines.touch(code.FILL, [5], 0x0102030405060708, base) is None
    words = np.frombuffer(memory, np.uint32)
    heads = words[::1024].tolist()
    whole = np.frombuffer(memory, np.uint64)[5 * 512 : 6 * 512]
    return (
        heads == [0, 1 << 31 | 1, 0, 1 << 31 | 3, 0, 0x05060708, 0, 0] and (whole == 0x0102030405060708).all()
    )


@native
def test_the_loops_touch_the_pages_named_and_no_others() -> None:
    assert in_child(_the_loops_touch_the_pages_named_and_no_others) == 0


def _a_denied_access_is_stepped_over_and_counted() -> bool:
    memory = mmap.mmap(-1, 4 * 4096)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    routines = Routines()
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + 4096), 4096, 0)
    answers = [routines.touch(r, [0, 1, 2], 5, base) for r in (code.READ, code.WRITE, code.FILL)]
    after = ctypes.c_uint64.from_address(base + 2 * 4096).value
    return answers == ["EFAULT"] * 3 and after == 5


@native
def test_a_denied_access_is_stepped_over_and_counted() -> None:
    assert in_child(_a_denied_access_is_stepped_over_and_counted) == 0


def _a_fault_of_anyone_else_still_kills() -> bool:
    keep = Routines()
    ctypes.c_char.from_address(16).value  # noqa: B018
    return keep is None


@native
def test_a_fault_of_anyone_else_still_kills() -> None:
    assert in_child(_a_fault_of_anyone_else_still_kills) == -signal.SIGILL


def _a_system_call_keeps_its_arguments_through_the_drain() -> bool:
    routines = Routines()
    out, into = os.pipe()
    data = ctypes.create_string_buffer(b"abc")
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(data), 3)
    sent = routines.syscall(libc.SYS_WRITEV, into, ctypes.addressof(vector), 1)
    return (
        sent == 3
        and os.read(out, 9) == b"abc"
        and routines.failed(libc.SYS_WRITEV, 999, 0, 0) == "EBADF"
        and routines.failed(libc.SYS_MADVISE, 0, 0, 0) is None
    )


@native
def test_a_system_call_keeps_its_arguments_through_the_drain() -> None:
    assert in_child(_a_system_call_keeps_its_arguments_through_the_drain) == 0


def _run_says_what_ails_a_vcpu() -> bool:
    routines = Routines()
    with Path(os.devnull).open() as wrong, mmap.mmap(-1, 4096) as state:
        try:
            routines.run(wrong.fileno(), state, 0)
        except libc.SysError as error:
            return error.errno == errno.ENOTTY
    return False


@native
def test_run_says_what_ails_a_vcpu() -> None:
    assert in_child(_run_says_what_ails_a_vcpu) == 0
