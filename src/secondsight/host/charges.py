"""Memory cgroups of a host: which one a process is charged to, what is charged there, and how far its limits are.

::

    v1       the hierarchy of the controller ``memory``   rss, rss_huge, mapped_file, of the group itself
    v2       the unified hierarchy                        anon, anon_thp, file_mapped, with its descendants: those are taken off
    hybrid   whichever of the two the memory controller is bound to; /proc/PID/cgroup has a line for each

Memory that several processes map is charged once, to the group whose process touched it first: these counters count it there.
Limits and their headroom are ``live/read/limits.py``'s.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from secondsight.errors import SecondSightError
from secondsight.live.read.limits import MemoryCgroup, tightest

_STAT = re.compile(r"^(anon|anon_thp|file_mapped|rss|rss_huge|mapped_file) (\d+)$", re.M)


class Charged(msgspec.Struct, frozen=True):
    """What is charged to a group itself and mapped by somebody. Bytes. *anon_huge*: anonymous, mapped by PMDs (NR_ANON_THPS)."""

    anon: int
    anon_huge: int
    mapped_file: int

    @property
    def mapped(self) -> int:
        """Anonymous memory, and what is mapped of files and shmem."""
        return self.anon + self.mapped_file


def memory_path(text: str) -> str:
    """The memory cgroup's path in *text*, what ``/proc/PID/cgroup`` says; empty where memory is under no controller."""
    unified = ""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            return path
        if number == "0" and not controllers:
            unified = path
    return unified


class Groups:
    """The memory cgroups of a pass, each looked at once."""

    def __init__(self, mountinfo: str | None = None) -> None:
        """*mountinfo*: ``/proc/self/mountinfo`` unless given."""
        try:
            self._mounts = (
                Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
                if mountinfo is None
                else mountinfo
            )
        except OSError:
            self._mounts = ""
        self._groups: dict[str, MemoryCgroup | None] = {}
        self._headroom: dict[str, tuple[int, str] | None] = {}
        self._charged: dict[str, Charged | None] = {}

    def group(self, text: str) -> MemoryCgroup | None:
        """The group named by *text* (``/proc/PID/cgroup``); None where there is none, or it is not seen from here."""
        path = memory_path(text)
        if path not in self._groups:
            try:
                self._groups[path] = MemoryCgroup.of(text, self._mounts)
            except SecondSightError:
                self._groups[path] = None
        return self._groups[path]

    def headroom(self, text: str) -> tuple[int, str] | None:
        """Bytes that may still be charged to the group, and the path whose limit that is; None where no limit is seen."""
        path = memory_path(text)
        if path not in self._headroom:
            group = self.group(text)
            try:
                limit = tightest(group.limits()) if group is not None else None
            except SecondSightError:
                limit = None
            self._headroom[path] = (limit.headroom, limit.where) if limit is not None else None
        return self._headroom[path]

    def charged(self, text: str) -> Charged | None:
        """What is charged to the group itself; None where its counters are not seen."""
        path = memory_path(text)
        if path not in self._charged:
            group = self.group(text)
            self._charged[path] = charged(group.folder, group.version) if group is not None else None
        return self._charged[path]


def charged(folder: Path, version: int) -> Charged | None:
    """What is charged to the group at *folder* itself, by its ``memory.stat``; None where that cannot be read."""
    own = _stat(folder)
    if own is None:
        return None
    if version == 1:
        return Charged(own.get("rss", 0), own.get("rss_huge", 0), own.get("mapped_file", 0))
    names = ("anon", "anon_thp", "file_mapped")
    # v2's counters are of the whole subtree (mem_cgroup_stat_aggregate): what the children have is not the group's own.
    sums = [own.get(name, 0) for name in names]
    try:
        children = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        children = []
    for child in children:
        below = _stat(Path(child))
        if below is not None:
            sums = [max(mine - below.get(name, 0), 0) for mine, name in zip(sums, names, strict=True)]
    return Charged(*sums)


def _stat(folder: Path) -> dict[str, int] | None:
    try:
        text = (folder / "memory.stat").read_text(encoding="ascii")
    except OSError:
        return None
    return {name: int(value) for name, value in _STAT.findall(text)}
