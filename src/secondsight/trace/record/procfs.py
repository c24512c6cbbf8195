"""What procfs shows of a running process: its mappings, which of their pages are present, which were written.

::

    /proc/PID/smaps    mappings, their Rss and Referenced
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
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secondsight.errors import InputError, MissingDependency, SecondSightError, TargetGone
from secondsight.geometry import PAGE_SHIFT
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind

_PRESENT, _FILE, _ONCE, _SOFT_DIRTY = (np.uint64(1 << bit) for bit in (63, 61, 56, 55))
_CHUNK: Final = 1 << 18  # pages read at once: 2 MiB of pagemap
_HEAD: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ")
_MOST_USER: Final = 1 << 56


class Sighting(NamedTuple):
    """Pages that were accessed: their numbers (uint64) in the trace's *space*, and how (uint8, a ``Kind`` each)."""

    space: int
    pages: NDArray[np.uint64]
    kinds: NDArray[np.uint8]


class SmapsEntry(NamedTuple):
    """A mapping of smaps: byte range, permissions, and how much is resident and has its accessed bit set, in kB."""

    start: int
    end: int
    permissions: str
    rss: int
    referenced: int


def parse_smaps(text: str) -> list[SmapsEntry]:
    """The mappings of *text*, an smaps file; user addresses only.

    :raises InputError: a line that cannot be, by its number.
    """
    entries: list[SmapsEntry] = []
    start = end = rss = referenced = 0
    permissions = ""
    for number, line in enumerate(text.splitlines(), 1):
        head = _HEAD.match(line)
        if head is not None:
            if permissions:
                entries.append(SmapsEntry(start, end, permissions, rss, referenced))
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
        entries.append(SmapsEntry(start, end, permissions, rss, referenced))
    return [m for m in entries if m.start < m.end <= _MOST_USER]


_PF_EXITING = 0x4  # include/linux/sched.h; the ninth field of /proc/PID/stat


class ProcessDirectory:
    """The procfs directory of a process, held so that a reused pid cannot be mistaken for it.

    :raises TargetGone: there is no such process.
    :raises MissingDependency: its pagemap may not be opened.
    """

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
            raise MissingDependency(
                f"/proc/{self.pid}/{name} may not be opened: be the process's owner or root (CAP_SYS_PTRACE)"
            ) from None
        except (FileNotFoundError, ProcessLookupError):
            raise TargetGone(f"process {self.pid} has exited") from None

    def text(self, name: str) -> str:
        """The content of /proc/PID/*name*.

        :raises TargetGone: the process has exited.
        :raises MissingDependency: no permission.
        """
        try:
            with os.fdopen(self._open(name, os.O_RDONLY), "rb") as file:
                return file.read().decode("utf-8", "replace")
        except ProcessLookupError:
            raise TargetGone(f"process {self.pid} has exited") from None
        except PermissionError:
            raise MissingDependency(f"/proc/{self.pid}/{name} may not be read (CAP_SYS_PTRACE)") from None

    def clear(self, what: str) -> None:
        """Write *what* to clear_refs: 1 accessed bits, 4 soft-dirty bits.

        :raises TargetGone: the process has exited.
        :raises MissingDependency: no permission.
        :raises SecondSightError: the kernel refuses it.
        """
        try:
            with os.fdopen(self._open("clear_refs", os.O_WRONLY), "w") as file:
                file.write(what)
        except ProcessLookupError:
            raise TargetGone(f"process {self.pid} has exited") from None
        except OSError as error:
            raise SecondSightError(f"/proc/{self.pid}/clear_refs: {error.strerror}") from None

    def words(self, first: int, pages: int) -> NDArray[np.uint64]:
        """The pagemap words of *pages* pages from page number *first* (uint64); fewer where the address space ends.

        :raises TargetGone: the process has exited.
        """
        assert self._pagemap is not None
        try:
            data = os.pread(self._pagemap, 8 * pages, 8 * first)
        except OSError as error:
            raise TargetGone(f"process {self.pid} has exited ({error.strerror})") from None
        return np.frombuffer(data, np.uint64, len(data) // 8)

    def require_memory(self) -> None:
        """Is the address space that was opened still there? Pagemap is empty after an exit and after an exec.

        :raises TargetGone: it has gone.
        """
        if not self.words(0, 1).size:
            raise TargetGone(f"process {self.pid} has exited or called exec")

    def ending(self) -> str:
        """How the recording of an address space that has gone is to be understood, in words."""
        try:
            words = self.text("stat").rpartition(")")[2].split()
            # On its way out a process has no memory any more and is no zombie yet.
            lives = words[0] not in "ZX" and not int(words[6]) & _PF_EXITING
        except (TargetGone, MissingDependency, IndexError):
            lives = False
        if lives:
            return (
                "the process called exec while it was recorded; the program that it is now was not looked at"
            )
        return "the process exited while it was recorded"

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
    target = ProcessDirectory(os.getpid())
    try:
        return bool((target.words(here >> PAGE_SHIFT, 1) & _SOFT_DIRTY).any())
    finally:
        target.close()


class ProcfsLooker:
    """Looks through procfs; keeps the pages that were present."""

    def __init__(self, target: ProcessDirectory, clear: bool, soft_dirty: bool) -> None:
        """*clear*: the recorder clears the bits after each look; *soft_dirty*: those of writes too."""
        self._target, self._clear, self._soft_dirty = target, clear, soft_dirty
        self.left_out: dict[str, int] = {}
        self._before = np.empty(0, np.uint64)
        self._first = True

    def seen(self) -> list[str]:
        """What is seen, in words."""
        phrases = ["procfs: pages that became present"]
        if self._soft_dirty:
            phrases.append("procfs: pages written (soft-dirty)")
        if self._clear:
            phrases.append("procfs: pages accessed, where all of a mapping were (smaps' Referenced)")
        return phrases

    def unseen(self) -> list[str]:
        """What is not."""
        phrases = ["secondary MMUs: what a guest or a device did"]
        if not self._clear:
            phrases.append("touches of pages that were present already (--clear or kernel memory could tell)")
        return phrases

    def begin(self, intake: Intake) -> None:
        """The one space."""
        intake.add_space(self._target.name)

    def look(self) -> Iterator[Sighting]:
        """What was accessed since the last look; the first only takes stock.

        :raises TargetGone: the process has exited.
        :raises MissingDependency: no permission.
        """
        present: list[NDArray[np.uint64]] = []
        unnamed = 0
        text = self._target.text("smaps")
        if not text:  # of a process that has exited and that its parent has not waited for
            raise TargetGone(f"process {self._target.pid} has no memory any more")
        for mapping in parse_smaps(text):
            if mapping.rss == 0 or mapping.permissions.startswith("---"):
                continue
            every = self._clear and mapping.referenced >= mapping.rss
            named = 0
            for first in range(mapping.start >> PAGE_SHIFT, mapping.end >> PAGE_SHIFT, _CHUNK):
                words = self._target.words(first, min(_CHUNK, (mapping.end >> PAGE_SHIFT) - first))
                here = np.flatnonzero(words & _PRESENT).astype(np.uint64)
                pages, words = here + np.uint64(first), words[here]
                present.append(pages)
                if self._first:
                    continue
                appeared = ~np.isin(pages, self._before, assume_unique=True)
                # A private page mapped once was not there before: its fault wrote it. Others may have been read.
                wrote = appeared & (words & _FILE == 0) & (words & _ONCE != 0)
                if self._soft_dirty:
                    wrote |= words & _SOFT_DIRTY != 0
                seen = wrote | appeared | every
                named += int(np.count_nonzero(seen))
                if seen.any():
                    kinds = np.where(wrote[seen], np.uint8(Kind.CPU_WRITE), np.uint8(Kind.CPU_READ))
                    yield Sighting(0, pages[seen], kinds)
            if self._clear and not self._first:
                unnamed += max(0, (mapping.referenced >> 2) - named)
        self._before = np.concatenate(present) if present else np.empty(0, np.uint64)
        self._first = False
        if unnamed:
            reason = "pages accessed that smaps counts and does not name"
            self.left_out[reason] = self.left_out.get(reason, 0) + unnamed

    def within(self, first: int, stop: int) -> Iterator[Sighting]:
        """The pages from number *first* up to *stop* that can have been accessed: those that were present at the last look."""
        low, high = np.searchsorted(self._before, np.array([first, stop], np.uint64))
        pages = self._before[low:high]
        yield Sighting(0, pages, np.full(pages.size, Kind.CPU_READ, np.uint8))
