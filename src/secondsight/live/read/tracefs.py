"""Tracepoints, khugepaged's unless asked otherwise, through a private tracefs instance.

An instance is a trace buffer of our own (``instances/NAME``): nobody else's tracing is read, stopped or cleared, and removing
the folder leaves nothing behind. Its name carries our PID and start time, so that a start after a SIGKILL can tell an
instance whose owner has gone, and remove it.

A line of ``trace_pipe``::

          khugepaged-30      [000] .....    12.915983: mm_khugepaged_scan_pmd: mm=00000000618a95bb, scan_pfn=0xe614, …
    task's name - its number  CPU   flags    seconds    event                   fields

``mm`` is a hashed pointer: the same for one address space in every event until the next boot, and no address.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
from pathlib import Path
from types import TracebackType

import msgspec

from secondsight.errors import MissingDependency
from secondsight.signals import ENDING

SYSTEM = "huge_memory"
EVENTS = (
    "mm_khugepaged_scan_pmd",
    "mm_collapse_huge_page",
    "mm_collapse_huge_page_isolate",
    "mm_collapse_huge_page_swapin",
    "mm_khugepaged_scan_file",
    "mm_khugepaged_collapse_file",
)
_PREFIX = "secondsight-"
# A task's name has at most 15 bytes and may hold spaces, dashes and colons.
_LINE = re.compile(rb" *(.{1,16}?)-(\d+) +\[\d+\] +(?:\S+ +)?(\d+)\.(\d+): (\w+): (.*)")
_FILE = re.compile(r"(.*?), filename=(.*), ((?:present|nr)=-?\d+, .*)", re.DOTALL)
_LOST = re.compile(rb"LOST (\d+) EVENTS")
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 1 << 14, 1 << 18


class Event(msgspec.Struct, frozen=True):
    """One line: *time* ns of the trace clock, the *task* and its *pid*, the event's *name* and its *fields* as printed."""

    time: int
    task: str
    pid: int
    name: str
    fields: dict[str, str]


def _folder(name: str) -> str:
    return name if "/" in name else f"{SYSTEM}/{name}"


def parse_line(line: bytes) -> Event | int | None:
    """The event of a line of ``trace_pipe``; the number of lost events if it tells of some; None for any other line."""
    match = _LINE.match(line)
    if match is None:
        lost = _LOST.search(line)
        return int(lost[1]) if lost else None
    task, pid, seconds, fraction, name, rest = match.groups()
    text = rest.decode("utf-8", "replace")
    # A file may have any name: what stands before and after it is the kernel's.
    named = _FILE.match(text)
    parts = f"{named[1]}, {named[3]}" if named else text
    fields = dict([part.split("=", 1) for part in parts.split(", ") if "=" in part])
    if named:
        fields["filename"] = named[2]
    time = int(seconds) * 1_000_000_000 + int((fraction + b"00000000")[:9])
    return Event(time, task.decode("utf-8", "replace").strip(), int(pid), name.decode("ascii"), fields)


def folder(mount: bool = True) -> Path:
    """Where tracefs is. With *mount*, and none mounted, it is mounted for this process alone (a mount namespace of its own).

    :raises MissingDependency: no tracefs in the kernel, or no permission.
    """
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, mounted, kind = line.split()[:3]
        if kind == "tracefs":
            return _readable(Path(mounted))
    for point in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        if (point / "events").exists():
            return _readable(point)
    if "tracefs" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        raise MissingDependency("tracefs: this kernel does not have it (CONFIG_TRACING)")
    if not mount:
        raise MissingDependency("tracefs: not mounted; mount -t tracefs nodev /sys/kernel/tracing")
    _mount_privately("/sys/kernel/tracing")
    return _readable(Path("/sys/kernel/tracing"))


def _readable(point: Path) -> Path:
    if not os.access(point / "events", os.R_OK | os.X_OK):
        raise MissingDependency(f"{point}: permission denied; tracing needs root")
    return point


def _mount_privately(point: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # Own namespace, nothing propagated: the mount ends with this process and nobody else sees it.
    private = ctypes.c_ulong(_MS_REC | _MS_PRIVATE)
    failed = (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(b"nodev", point.encode(), b"tracefs", ctypes.c_ulong(0), None)
    )
    if failed:
        problem = os.strerror(ctypes.get_errno())
        raise MissingDependency(f"tracefs: not mounted, and mounting it failed ({problem}); run as root")


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat[stat.rindex(")") + 2 :].split()[19]


def remove_leftovers(tracing: Path) -> list[str]:
    """Remove instances of ours whose owner has gone (killed before it could); their names."""
    removed = []
    for instance in sorted((tracing / "instances").glob(_PREFIX + "*")):
        try:
            pid, started = instance.name[len(_PREFIX) :].split("-")
            alive = _start_time(int(pid)) == started
        except ValueError:
            continue  # named alike by somebody else
        if not alive:
            try:
                instance.rmdir()
            except OSError:
                continue
            removed.append(instance.name)
    return removed


def make_folder(tracing: Path) -> Path:
    """A new instance of our own under *tracing*.

    :raises MissingDependency: no permission.
    """
    pid = os.getpid()
    path = tracing / "instances" / f"{_PREFIX}{pid}-{_start_time(pid)}"
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise MissingDependency(f"{path}: {error.strerror}; a tracing instance needs root") from None
    return path


def remove_folder(path: Path, *silent: tuple[str, str]) -> None:
    """Remove the instance at *path*. Where a reader is still in the kernel (an interrupted read), write what makes it *silent*, file and
    word, and leave it to the next start."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY:
            for name, word in silent:
                try:
                    (path / name).write_text(word, encoding="ascii")
                except OSError as problem:
                    raise MissingDependency(f"{path / name}: {problem.strerror}") from None


class Instance:
    """A private trace buffer with khugepaged's events on, from :meth:`open` to :meth:`close` (a context manager)."""

    def __init__(self, path: Path, events: tuple[str, ...]) -> None:
        self.path = path
        #: those of the events asked for that this kernel has
        self.events = events
        self._pipe = -1
        self._rest = b""
        #: events that the buffer could not hold
        self.lost = 0

    @classmethod
    def open(
        cls, tracing: Path | None = None, events: tuple[str, ...] = EVENTS, buffer_kb: int = 4096
    ) -> Instance:
        """Remove what earlier runs left, make an instance, switch *events* on: khugepaged's by name, others as ``system/name``.

        :raises MissingDependency: no tracefs, no instances, no khugepaged tracepoints, or no permission.
        """
        tracing = folder() if tracing is None else tracing
        remove_leftovers(tracing)
        present = tuple(name for name in events if (tracing / "events" / _folder(name)).exists())
        if EVENTS[0] in events and EVENTS[0] not in present:
            raise MissingDependency(f"{tracing}/events/{SYSTEM}: this kernel has no khugepaged tracepoints")
        # An interrupt between making the folder and remembering it would leave it behind.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            made = cls(make_folder(tracing), present)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        try:
            made._start(buffer_kb)
        except BaseException:
            made.close()
            raise
        return made

    def _start(self, buffer_kb: int) -> None:
        self._write("buffer_size_kb", str(buffer_kb))
        self._write("trace_clock", "mono")
        for name in self.events:
            self._write(f"events/{_folder(name)}/enable", "1")
        self._pipe = os.open(self.path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _write(self, name: str, value: str) -> None:
        try:
            (self.path / name).write_text(value, encoding="ascii")
        except OSError as error:
            raise MissingDependency(f"{self.path / name}: {error.strerror}") from None

    def show_pointers(self) -> bool:
        """Print pointers as they are from now on, in this instance alone, not hashed; False where the kernel cannot (before 5.11)."""
        try:
            (self.path / "options/hash-ptr").write_text("0", encoding="ascii")
        except OSError:
            return False
        return True

    def read(self) -> list[Event]:
        """The events since the last call, in the order of their times; does not wait."""
        chunks = [self._rest]
        while True:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            except InterruptedError:
                continue
            if not chunk:
                break
            chunks.append(chunk)
        *lines, self._rest = b"".join(chunks).split(b"\n")
        events = []
        for line in lines:
            event = parse_line(line)
            if isinstance(event, Event):
                events.append(event)
            elif event is not None:
                self.lost += event
        # trace_pipe merges the CPUs as it drains them: two reads of one moment may come swapped.
        events.sort(key=lambda event: event.time)
        return events

    def close(self) -> None:
        """Switch off and remove the instance; may be called twice."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        remove_folder(self.path, *((f"events/{_folder(name)}/enable", "0") for name in self.events))

    def __enter__(self) -> Instance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
