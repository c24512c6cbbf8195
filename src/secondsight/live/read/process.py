"""A process held so that nothing read from it can belong to another one.

A PID is a number that the kernel hands out again. Three handles hold the process itself:

- a directory descriptor of ``/proc/PID``: tied to the process, it answers ESRCH once that has gone;
- a pidfd: readable when the process exits, and the handle ``process_madvise`` takes;
- files opened through the directory before reading (``maps``, ``pagemap``): tied to the address space, so that
  after an ``exec`` they answer "empty" instead of another program's memory.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from secondsight.errors import MissingDependency, SecondSightError, TargetGone, UsageError

Answer = TypeVar("Answer")
_AT_ONCE = 1 << 16
#: a task's flag (include/linux/sched.h), in field 9 of ``/proc/PID/stat``
_PF_KTHREAD = 0x00200000

#: the capabilities that reading and collapsing need, by bit (include/uapi/linux/capability.h)
CAPABILITIES = {19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN", 23: "CAP_SYS_NICE"}


def own_capabilities() -> frozenset[str]:
    """The effective capabilities of this process among those that the readers need."""
    with Path("/proc/self/status").open(encoding="ascii") as status:
        mask = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    return frozenset(name for bit, name in CAPABILITIES.items() if mask >> bit & 1)


def explain_oserror(error: OSError, what: str, pid: int | None = None) -> SecondSightError:
    """Turn an ``OSError`` met on *what* into the error that tells the user what is wrong and how to mend it."""
    import errno

    if error.errno in (errno.ESRCH, errno.ENOENT) and pid is not None:
        return TargetGone(f"process {pid} has exited or called exec (while reading {what})")
    if error.errno in (errno.EPERM, errno.EACCES):
        if {"CAP_SYS_PTRACE", "CAP_SYS_ADMIN"} <= own_capabilities():
            return MissingDependency(
                f"{what}: permission denied in spite of CAP_SYS_PTRACE and CAP_SYS_ADMIN: the process has more rights, or a security "
                "module (Yama, SELinux, AppArmor) forbids it"
            )
        return MissingDependency(
            f"{what}: permission denied; run as root, or with CAP_SYS_PTRACE and CAP_SYS_ADMIN"
        )
    if error.errno == errno.ENOENT:
        return MissingDependency(f"{what}: this kernel does not have it")
    return SecondSightError(f"{what}: {error.strerror or error}")


class Process:
    """One process, from :meth:`open` until :meth:`close` (also a context manager)."""

    def __init__(self, pid: int, directory: int, pidfd: int | None, name: str, start_time: int) -> None:
        self.pid = pid
        self.name = name
        #: in clock ticks since boot, field 22 of ``/proc/PID/stat``: with the PID, the identity of the process
        self.start_time = start_time
        #: seconds of the longest call so far that takes the process's mmap lock (maps, smaps, pagemap): what reading cost it at most
        self.longest_call = 0.0
        self._directory = directory
        self._pidfd = pidfd

    @classmethod
    def open(cls, pid: int) -> Process:
        """Hold process *pid*.

        :raises UsageError: *pid* is not a number of a process (a thread, a kernel thread, nobody).
        :raises MissingDependency: the kernel hides the process from us.
        """
        if pid <= 0:
            raise UsageError(f"--pid {pid}: a process number is positive")
        try:
            directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UsageError(f"--pid {pid}: there is no such process") from None
        except OSError as error:
            raise explain_oserror(error, f"/proc/{pid}") from None
        try:
            return cls._from_directory(pid, directory)
        except BaseException:
            os.close(directory)
            raise

    @classmethod
    def _from_directory(cls, pid: int, directory: int) -> Process:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            pidfd = (
                None  # a thread's number (refused below), a kernel before 5.3, or it has gone (seen below)
            )
        try:
            # Read after pidfd_open: if the directory still answers, both handles are of one process.
            status = _read_at(directory, "status")
            stat = _read_at(directory, "stat")
        except OSError as error:
            if pidfd is not None:
                os.close(pidfd)
            raise explain_oserror(error, f"/proc/{pid}", pid) from None
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        group = int(fields.get("Tgid", pid))
        # The command may hold spaces and parentheses: the fields start after the last one.
        after = stat[stat.rindex(")") + 2 :].split()
        problem = ""
        if group != pid:
            problem = f"--pid {pid}: is a thread of process {group}; use --pid {group}"
        elif fields.get("State", "").startswith("Z"):
            problem = f"--pid {pid}: has exited (a zombie has no memory)"
        elif int(after[6]) & _PF_KTHREAD:
            problem = f"--pid {pid}: is a kernel thread; it has no memory of its own"
        elif "VmSize" not in fields:
            problem = f"--pid {pid}: is exiting; its memory has gone"
        if problem:
            if pidfd is not None:
                os.close(pidfd)
            raise UsageError(problem)
        start_time = int(after[19])
        return cls(pid, directory, pidfd, fields.get("Name", "?").strip(), start_time)

    @property
    def pidfd(self) -> int:
        """The pidfd.

        :raises MissingDependency: this kernel has no ``pidfd_open``.
        """
        if self._pidfd is None:
            raise MissingDependency("pidfd_open: needs Linux 5.3 or newer")
        return self._pidfd

    def alive(self) -> bool:
        """Whether the process has not exited; never answers for a recycled number."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(0):
                return False
        try:
            stat = _read_at(self._directory, "stat")
        except OSError:
            return False
        return stat[stat.rindex(")") + 2] not in "ZX"

    def require_alive(self) -> None:
        """Raise ``TargetGone`` if the process has exited."""
        if not self.alive():
            raise TargetGone(f"process {self.pid} ({self.name}) has exited")

    def state(self) -> str:
        """The letter of ``/proc/PID/stat``: R running, S sleeping, T stopped, Z zombie …"""
        try:
            stat = _read_at(self._directory, "stat")
        except OSError as error:
            raise explain_oserror(error, f"/proc/{self.pid}/stat", self.pid) from None
        return stat[stat.rindex(")") + 2]

    def open_file(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of ``/proc/PID/name``, of this process and no other.

        :raises TargetGone: the process has exited.
        :raises MissingDependency: no permission, or the kernel lacks the file.
        """
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError as error:
            raise explain_oserror(
                error, f"/proc/{self.pid}/{name}", None if self.alive() else self.pid
            ) from None
        except OSError as error:
            raise explain_oserror(error, f"/proc/{self.pid}/{name}", self.pid) from None

    def timed(self, call: Callable[..., Answer], *arguments: object) -> Answer:
        """What *call* answers to *arguments*; its time counts for :attr:`longest_call`."""
        begun = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.longest_call = max(self.longest_call, time.perf_counter() - begun)

    def read_file(self, name: str) -> bytes:
        """The whole of ``/proc/PID/name``; errors as :meth:`open_file`."""
        fd = self.open_file(name)
        parts = []
        try:
            # The kernel holds the mmap lock for as much as is asked for at once.
            while part := self.timed(os.read, fd, _AT_ONCE):
                parts.append(part)
        except OSError as error:
            raise explain_oserror(error, f"/proc/{self.pid}/{name}", self.pid) from None
        finally:
            os.close(fd)
        return b"".join(parts)

    def stat_file(self, name: str) -> os.stat_result | None:
        """What ``/proc/PID/name`` leads to; None where it does not, or we may not follow it."""
        try:
            return os.stat(name, dir_fd=self._directory)
        except OSError:
            return None

    def locate(self, name: str) -> int:
        """A descriptor that only says where the link ``/proc/PID/name`` leads to (O_PATH): nothing is opened, no driver hears of it.

        :raises OSError: it leads nowhere, or we may not follow it.
        """
        return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._directory)

    def list_links(self, name: str) -> dict[str, str]:
        """Targets of the links in ``/proc/PID/name`` (``fd``); empty where we may not look."""
        try:
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError:
            return {}
        targets: dict[str, str] = {}
        try:
            for entry in os.listdir(folder):  # noqa: PTH208 - a descriptor
                try:
                    targets[entry] = os.readlink(entry, dir_fd=folder)
                except OSError:
                    continue
        except OSError:
            pass
        finally:
            os.close(folder)
        return targets

    def close(self) -> None:
        """Let go of the process."""
        for fd in (self._directory, self._pidfd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._directory, self._pidfd = -1, None

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_at(directory: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(fd, encoding="utf-8", errors="replace") as stream:
        return stream.read()
