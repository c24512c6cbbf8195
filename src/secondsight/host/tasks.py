"""Who runs on this host: a task for each process that has memory, and what stood in the way of the others, counted.

::

    /proc/PID/stat      name, state, kernel thread or not, start time       anyone
    /proc/PID/status    effective user                                      anyone
    /proc/PID/cgroup    the cgroup paths                                    anyone
    /proc/PID/cmdline   the words it was started with                       anyone
    /proc/PID/smaps_rollup  sums over its mappings, in one walk             PTRACE_MODE_READ: one's own, or root

Read through one descriptor of ``/proc/PID``, so that a number that is given to another process in the middle answers ESRCH.
A process that ends while it is read is counted, not told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from secondsight.geometry import PAGE_SIZE

#: a task's flag (include/linux/sched.h), in field 9 of ``/proc/PID/stat``
_PF_KTHREAD = 0x00200000
_AT_ONCE = 1 << 16
#: what can stand in the way of a process, as it is counted
KERNEL_THREAD = "kernel threads"
ZOMBIE = "zombies"
GONE = "ended meanwhile"
UNREADABLE = "not readable (another user's, or protected; root or CAP_SYS_PTRACE reads most)"
FAILED = "could not be read"
#: fields of smaps_rollup that are kept, kB there, bytes here
_SUMS = re.compile(
    rb"^(Rss|Pss|Pss_Anon|Pss_File|Pss_Shmem|Referenced|Anonymous|KSM|AnonHugePages|ShmemPmdMapped|FilePmdMapped|"
    rb"Shared_Hugetlb|Private_Hugetlb|Swap):\s+(\d+) kB$",
    re.M,
)


class Task(msgspec.Struct):
    """A process as it was found. *sums*: bytes by the names of smaps_rollup; *start_time*: clock ticks since boot; *uid* the effective
    one."""

    pid: int
    name: str
    uid: int
    start_time: int
    cgroup: str
    command: tuple[str, ...]
    sums: dict[str, int]

    @property
    def user(self) -> str:
        """The user's name; the number where it has none."""
        return user_name(self.uid)

    @property
    def resident(self) -> int:
        """Bytes mapped, Rss."""
        return self.sums.get("Rss", 0)

    @property
    def huge(self) -> int:
        """Bytes that a PMD maps: anonymous, shmem and files."""
        return sum(self.sums.get(name, 0) for name in ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"))


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The name of user *uid*; its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def pids(proc: str = "/proc") -> list[int]:
    """The numbers of all processes in this PID namespace, rising."""
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208 - a thousand Paths take longer


def read_tasks(
    numbers: Iterable[int], proc: str = "/proc", sums: bool = True
) -> tuple[list[Task], Counter[str]]:
    """A task for each of the processes *numbers* that has memory which may be read; the others, counted by what stood in the way.

    *sums* False: without smaps_rollup, and so without needing any right.
    """
    tasks: list[Task] = []
    trouble: Counter[str] = Counter()
    for pid in numbers:
        task = _read_task(pid, proc, sums)
        if isinstance(task, str):
            trouble[task] += 1
        else:
            tasks.append(task)
    return tasks, trouble


def _read_task(pid: int, proc: str, sums: bool) -> Task | str:
    try:
        directory = os.open(f"{proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return UNREADABLE if error.errno in (errno.EACCES, errno.EPERM) else GONE
    try:
        stat = _read(directory, "stat")
        # The command may hold spaces, parentheses and newlines: the fields start after the last one.
        left, right = stat.index(b"(") + 1, stat.rindex(b")")
        after = stat[right + 2 :].split()
        if int(after[6]) & _PF_KTHREAD:
            return KERNEL_THREAD
        if after[0] in b"ZX":
            return ZOMBIE
        if after[20] == b"0":
            return GONE  # exiting: its memory has gone already
        text = b""
        if sums:
            try:
                text = _read(directory, "smaps_rollup")
            except PermissionError:
                return UNREADABLE
            if not text:
                return GONE
        return Task(
            pid,
            stat[left:right].decode("utf-8", "replace"),
            _uid(_read(directory, "status")),
            int(after[19]),
            _read(directory, "cgroup").decode("utf-8", "surrogateescape"),
            tuple(_read(directory, "cmdline").decode("utf-8", "replace").rstrip("\0").split("\0")),
            {name.decode(): int(value) << 10 for name, value in _SUMS.findall(text)},
        )
    except (OSError, ValueError, IndexError):
        return GONE
    finally:
        os.close(directory)


def _uid(status: bytes) -> int:
    at = status.index(b"\nUid:")
    return int(status[at : status.index(b"\n", at + 1)].split()[2])


def _read(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        text = os.read(fd, _AT_ONCE)
        if len(text) < PAGE_SIZE - 256 or name == "stat":
            return text  # procfs answers a small file in one go
        parts = [text]
        while part := os.read(fd, _AT_ONCE):
            parts.append(part)
        return b"".join(parts)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
