"""``process_madvise(MADV_COLLAPSE)``: make one block of another process huge, now.

The call is synchronous: it allocates, copies up to 512 pages under the target's mmap lock, and answers for one range. Its errnos, as
``madvise_collapse_errno`` (mm/khugepaged.c, 6.1 on) maps khugepaged's answers to them::

    ENOMEM  no huge page could be allocated          EBUSY   the memory cgroup refused, or (6.12) a page is missing
    EAGAIN  a page is pinned, locked or off the LRU  EINVAL  anything else: the mapping may not be huge, not aligned …
"""

from __future__ import annotations

import ctypes
import errno
import os

from secondsight.geometry import PMD_SIZE

MADV_COLLAPSE = 25
_SYS_PROCESS_MADVISE = 440  # the same number on every architecture

CAUSES = {
    errno.ENOMEM: "no huge page could be had (memory fragmented or short)",
    errno.EBUSY: "no charge was refused: a page is missing that userfaultfd waits for (of shared memory, any process's)",
    errno.EAGAIN: "a page is pinned, locked or off the LRU just now",
    errno.EINVAL: "the mapping may not have a huge page here (advice, alignment, kind), or the kernel lacks MADV_COLLAPSE",
    errno.EPERM: "no permission: needs CAP_SYS_NICE and PTRACE_MODE_READ on the process (run as root)",
    errno.ESRCH: "the process has exited",
    errno.EINTR: "interrupted",
    errno.ENOSYS: "the kernel has no process_madvise (needs 5.10, for MADV_COLLAPSE 6.1)",
}


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)


def _process_madvise(pidfd: int, ranges: ctypes.Array[_Iovec], count: int, advice: int) -> int:
    """Bytes advised, or -errno."""
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(
        ctypes.c_long(_SYS_PROCESS_MADVISE), ctypes.c_int(pidfd), ranges, ctypes.c_size_t(count),
        ctypes.c_int(advice), ctypes.c_uint(0),
    )  # fmt: skip
    return int(result) if result >= 0 else -ctypes.get_errno()


def collapse(pidfd: int, address: int) -> int:
    """Collapse the 2 MiB block at *address* of the process behind *pidfd*; 0, or the errno (a key of ``CAUSES``)."""
    one = (_Iovec * 1)(_Iovec(address, PMD_SIZE))
    result = _process_madvise(pidfd, one, 1, MADV_COLLAPSE)
    if result == PMD_SIZE:
        return 0
    return -result if result < 0 else errno.EINVAL


def cause(number: int) -> str:
    """What an errno of :func:`collapse` means."""
    return CAUSES.get(number, os.strerror(number))


def available() -> str:
    """Empty if this kernel collapses in other processes; else why not. Asks about no memory: nothing is collapsed."""
    try:
        own = os.pidfd_open(os.getpid())
    except OSError as error:
        return f"pidfd_open: {error.strerror}"
    try:
        result = _process_madvise(own, (_Iovec * 1)(_Iovec(0, 0)), 0, MADV_COLLAPSE)
    finally:
        os.close(own)
    if result >= 0:
        return ""
    return "this kernel has no MADV_COLLAPSE (needs 6.1)" if result == -errno.EINVAL else cause(-result)
