"""The routines of ``code.HOST``, ready to be called: accesses and system calls that begin on empty LRU batches.

How full a batch is decides what a second mark makes of a page, so whatever puts pages of the area into one goes through here. Python
itself takes fresh memory at any bytecode (after a fork each of its pages is copied when it is next written), and between two
instructions of a routine there is no Python. The process is also the only one that runs: see ``worker.main``.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
from collections.abc import Iterable

import numpy as np

from secondsight.lab.agent import code, libc

__all__ = ["Routines"]

_WORD = ctypes.c_uint64


class Routines:
    """The machine code in a page of its own, and its SIGSEGV handler, which steps over denied accesses."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, libc.PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page[: len(code.HOST)] = code.HOST
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._denied = ctypes.c_uint32.from_address(base + code.DENIED)
        self._base = base
        touch = ctypes.CFUNCTYPE(None, _WORD, ctypes.c_void_p, _WORD, _WORD)
        self._touch = {at: touch(base + at) for at in (code.READ, code.WRITE, code.FILL)}
        self._syscall = ctypes.CFUNCTYPE(ctypes.c_int64, *[_WORD] * 6)(base + code.SYSCALL)
        self._run = ctypes.CFUNCTYPE(ctypes.c_int32, *[_WORD] * 5)(base + code.RUN)
        # struct sigaction of glibc: handler, a mask of 128 bytes, flags (SA_SIGINFO), restorer
        action = struct.pack("<Q128xi4xQ", base + code.HANDLER, 4, 0)
        libc.check(libc.lib.sigaction(signal.SIGSEGV, action, None), "sigaction")

    def address(self, routine: int) -> int:
        """Where *routine* (an offset in ``code.HOST``) is."""
        return self._base + routine

    def touch(
        self, routine: int, pages: Iterable[int], argument: int = 0, base: int = libc.AREA
    ) -> str | None:
        """READ, WRITE or FILL *pages* of the memory at *base*; EFAULT where some were denied."""
        numbers = np.fromiter(pages, dtype=np.uint32)
        self._denied.value = 0
        self._touch[routine](base, numbers.ctypes.data, len(numbers), argument)
        return "EFAULT" if self._denied.value else None

    def syscall(self, number: int, *arguments: int) -> int:
        """The system call *number* with at most five *arguments*; its result, or the negative errno."""
        return int(self._syscall(number, *arguments, *[0] * (5 - len(arguments))))

    def failed(self, number: int, *arguments: int) -> str | None:
        """The same; errno's name where it failed."""
        result = self.syscall(number, *arguments)
        return errno.errorcode.get(-result, "?") if result < 0 else None

    def run(self, vcpu: int, state: mmap.mmap, onwards: int) -> dict[str, int]:
        """Run *vcpu* until its guest halts, at *onwards* after each access that the host denies; how many it denied, by errno.

        *state* is the vCPU's ``struct kvm_run``. ENXIO: no memslot there.

        :raises SysError: KVM_RUN itself fails.
        """
        # Written now, so that the kernel meets memory that is this process's own.
        buffer = ctypes.create_string_buffer(b"\0" * 152, 152)
        at = ctypes.addressof(buffer)
        run = ctypes.addressof(ctypes.c_char.from_buffer(state))
        wrong = self._run(vcpu, run, at, onwards, at + 144)
        if wrong:
            raise libc.SysError(-wrong, "KVM_RUN: " + os.strerror(-wrong))
        efault, enxio = struct.unpack_from("<II", buffer, 144)
        return {"EFAULT": efault, "ENXIO": enxio}
