"""Recording a running process by looking at it now and then, through procfs alone.

::

    every interval   /proc/PID/smaps    mappings, their Rss and Referenced
                     /proc/PID/pagemap  63 present, 61 file or shared, 56 mapped once, 55 soft-dirty
                     /proc/PID/clear_refs   only with clear: 4 soft-dirty bits, 1 accessed bits

Without *clear* nothing of the process changes, and only pages that become present are seen: a touch that faults. With it,
soft-dirty bits tell which pages were written since the last look, and the accessed bits that smaps counts tell the pages
that were accessed where all or none of a mapping were; where some were, their number is known and not which, and that number
is counted as left out. Clearing changes what the kernel knows: reclaim and khugepaged see those pages as not referenced.

procfs never shows a page's own accessed bit nor any secondary MMU: what a VM's guest did through KVM is not seen here.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secondsight.errors import InputError, MissingPart, SecondSightError, TargetGone, UsageError
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import PAGE_SHIFT, Kind
from secondsight.trace.provenance import Clock, Provenance
from secondsight.trace.writer import Profile, Recording

CLOCK: Final = "monotonic time since the recording began; each row carries the time of the look that saw it"
UNSEEN: Final = [
    "accesses between two looks beyond the fact that there were any",
    "secondary MMUs: what a guest or a device did",
    "page walks",
]
_PRESENT, _FILE, _ONCE, _SOFT_DIRTY = (np.uint64(1 << bit) for bit in (63, 61, 56, 55))
_CHUNK: Final = 1 << 18  # pages read at once: 2 MiB of pagemap
_HEAD: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ")
_MOST_USER: Final = 1 << 56

Report = Callable[[int, int, int], None]  # pages seen so far, rows so far, looks so far


class Mapping(NamedTuple):
    """A mapping of smaps: byte range, permissions, and how much is resident and has its accessed bit set, in kB."""

    start: int
    end: int
    permissions: str
    rss: int
    referenced: int


def parse_smaps(text: str) -> list[Mapping]:
    """The mappings of *text*, an smaps file; user addresses only. Raises :class:`InputError` naming the line."""
    found: list[Mapping] = []
    start = end = rss = referenced = 0
    permissions = ""
    for number, line in enumerate(text.splitlines(), 1):
        head = _HEAD.match(line)
        if head is not None:
            if permissions:
                found.append(Mapping(start, end, permissions, rss, referenced))
            start, end, permissions = int(head[1], 16), int(head[2], 16), head[3]
            rss = referenced = 0
        elif line.startswith(("Rss:", "Referenced:")):
            fields = line.split()
            if len(fields) != 3 or not fields[1].isdecimal() or not permissions:
                raise InputError(
                    "smaps", f"line {number}", f"expected '{fields[0]} N kB', found {line[:60]!r}"
                )
            if fields[0] == "Rss:":
                rss = int(fields[1])
            else:
                referenced = int(fields[1])
    if permissions:
        found.append(Mapping(start, end, permissions, rss, referenced))
    return [m for m in found if m.start < m.end <= _MOST_USER]


class Target:
    """The procfs directory of a process, held so that a reused pid cannot be mistaken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise TargetGone(f"there is no process {pid}") from None
        self._pagemap: int | None = None
        try:
            self.name = self.text("comm").strip()
            self._pagemap = self._open("pagemap", os.O_RDONLY)
        except BaseException:
            self.close()
            raise

    def _open(self, name: str, flags: int) -> int:
        try:
            return os.open(name, flags, dir_fd=self._directory)
        except PermissionError:
            raise MissingPart(
                f"/proc/{self.pid}/{name} may not be opened: be the process's owner or root (CAP_SYS_PTRACE)"
            ) from None
        except (FileNotFoundError, ProcessLookupError):
            raise TargetGone(f"process {self.pid} has exited") from None

    def text(self, name: str) -> str:
        """The content of /proc/PID/*name*."""
        try:
            with os.fdopen(self._open(name, os.O_RDONLY), "rb") as file:
                return file.read().decode("utf-8", "replace")
        except ProcessLookupError:
            raise TargetGone(f"process {self.pid} has exited") from None
        except PermissionError:
            raise MissingPart(f"/proc/{self.pid}/{name} may not be read (CAP_SYS_PTRACE)") from None

    def clear(self, what: str) -> None:
        """Write *what* to clear_refs: 1 accessed bits, 4 soft-dirty bits."""
        try:
            with os.fdopen(self._open("clear_refs", os.O_WRONLY), "w") as file:
                file.write(what)
        except ProcessLookupError:
            raise TargetGone(f"process {self.pid} has exited") from None
        except OSError as error:
            raise SecondSightError(f"/proc/{self.pid}/clear_refs: {error.strerror}") from None

    def words(self, first: int, pages: int) -> NDArray[np.uint64]:
        """The pagemap words of *pages* pages from page number *first* (uint64); fewer where the address space ends."""
        assert self._pagemap is not None
        try:
            data = os.pread(self._pagemap, 8 * pages, 8 * first)
        except OSError as error:
            raise TargetGone(f"process {self.pid} has exited ({error.strerror})") from None
        return np.frombuffer(data, np.uint64, len(data) // 8)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._directory)
        if self._pagemap is not None:
            os.close(self._pagemap)


def soft_dirty_works() -> bool:
    """Whether this kernel keeps soft-dirty bits (CONFIG_MEM_SOFT_DIRTY): a page of ours that was just written has one."""
    area = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[0] = 1
    here = ctypes.addressof(ctypes.c_char.from_buffer(area))
    target = Target(os.getpid())
    try:
        return bool((target.words(here >> PAGE_SHIFT, 1) & _SOFT_DIRTY).any())
    finally:
        target.close()


class _Looker:
    """What is kept between two looks: the pages that were present."""

    def __init__(self, target: Target, clear: bool, soft_dirty: bool) -> None:
        self.target, self.clear, self.soft_dirty = target, clear, soft_dirty
        self.unnamed = 0
        self._before = np.empty(0, np.uint64)
        self._first = True

    def look(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint8]]]:
        """Pages (numbers) that were accessed since the last look, with kinds; the first look only takes stock."""
        present: list[NDArray[np.uint64]] = []
        for mapping in parse_smaps(self.target.text("smaps")):
            if mapping.rss == 0 or mapping.permissions.startswith("---"):
                continue
            every = self.clear and mapping.referenced >= mapping.rss
            named = 0
            for first in range(mapping.start >> PAGE_SHIFT, mapping.end >> PAGE_SHIFT, _CHUNK):
                words = self.target.words(first, min(_CHUNK, (mapping.end >> PAGE_SHIFT) - first))
                here = np.flatnonzero(words & _PRESENT).astype(np.uint64)
                pages, words = here + np.uint64(first), words[here]
                present.append(pages)
                if self._first:
                    continue
                appeared = ~np.isin(pages, self._before, assume_unique=True)
                # A private page mapped once was not there before: its fault wrote it. Others may have been read.
                wrote = appeared & (words & _FILE == 0) & (words & _ONCE != 0)
                if self.soft_dirty:
                    wrote |= words & _SOFT_DIRTY != 0
                seen = wrote | appeared | every
                named += int(np.count_nonzero(seen))
                if seen.any():
                    kinds = np.where(wrote[seen], np.uint8(Kind.CPU_WRITE), np.uint8(Kind.CPU_READ))
                    yield pages[seen], kinds
            if self.clear and not self._first:
                self.unnamed += max(0, (mapping.referenced >> 2) - named)
        self._before = np.concatenate(present) if present else np.empty(0, np.uint64)
        self._first = False
        if self.clear:
            if self.soft_dirty:
                self.target.clear("4")
            self.target.clear("1")


def record_pid(
    path: str | os.PathLike[str],
    pid: int,
    *,
    interval: float = 1.0,
    duration: float | None = None,
    clear: bool = False,
    profile: Profile = "compact",
    report: Report | None = None,
) -> Provenance:
    """Look at process *pid* every *interval* seconds, for *duration* seconds or until it exits, into the trace *path*.

    *clear*: see the module. Ctrl-C ends the recording and keeps it. Raises :class:`TargetGone` for a process that is not
    there, :class:`MissingPart` without the permission to look, :class:`UsageError` for times that cannot be.
    """
    if not 0.001 <= interval <= 3600 or (duration is not None and duration <= 0):
        raise UsageError("expected an interval of 0.001 to 3600 s, and a duration above 0")
    target = Target(pid)
    try:
        soft_dirty = clear and soft_dirty_works()
        seen = ["pages that became present", *(["pages written (soft-dirty)"] if soft_dirty else [])]
        unseen = list(UNSEEN)
        if clear:
            seen.append("pages accessed, where all of a mapping were (smaps' Referenced)")
        else:
            unseen.append("touches of pages that were present already (only --clear could tell)")
        start = Provenance(
            source="record-pid", clock=Clock(meaning=CLOCK), unseen=unseen, quantum=int(interval * 1e9),
            notes=["channels seen: " + "; ".join(seen)],
        )  # fmt: skip
        with Recording(Path(path), start, profile=profile) as recording:
            intake = Intake(recording, 0)
            intake.update(quantum=int(interval * 1e9))
            intake.add_space(target.name)
            notes = _follow(_Looker(target, clear, soft_dirty), intake, interval, duration, report)
            return intake.close(notes=[*start.notes, *notes])
    finally:
        target.close()


def _follow(
    looker: _Looker, intake: Intake, interval: float, duration: float | None, report: Report | None
) -> list[str]:
    """Look until the time is over, the process gone or Ctrl-C; returns what to note."""
    began = time.monotonic_ns()
    looks, notes = 0, list[str]()
    try:
        while True:
            now = time.monotonic_ns() - began
            for pages, kinds in looker.look():
                intake.append(np.full(pages.size, now, np.uint64), 0, pages << np.uint64(PAGE_SHIFT), kinds)
            looks += 1
            intake.flush()
            if report is not None:
                report(intake.events, intake.sink.rows, looks)
            if duration is not None and now >= duration * 1e9:
                break
            late = (time.monotonic_ns() - began) / 1e9 - looks * interval
            time.sleep(max(0.0, -late))
    except TargetGone:
        if not looks:
            raise
        notes.append("the process exited while it was recorded")
    except KeyboardInterrupt:
        notes.append("interrupted; holds what was recorded until then")
    intake.drop("pages accessed that smaps counts and does not name", looker.unnamed)
    return [*notes, f"{looks} looks"]
