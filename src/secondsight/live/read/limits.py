"""The limits that memory lives under: memory cgroups, free memory with its watermarks, free huge blocks, stalls.

::

    what                      read from                                                     refused or stalled beyond it
    memory.max                v2, the group and every ancestor that sets it                 charges (reclaim first, then the OOM killer)
    memory.high               v2, likewise                                                  slowed down (mem_cgroup_handle_over_high)
    memory.limit_in_bytes     v1, likewise (hierarchical since 5.11)                        charges
    memory.memsw.limit_…      v1, memory and swap together                                  charges
    MemAvailable, watermarks  /proc/meminfo, /proc/zoneinfo                                 reclaim wakes below low, stalls below min
    free huge blocks          /proc/buddyinfo, orders of 2 MiB and more                     compaction
    stalls                    /proc/pressure/memory, memory.pressure of the group (v2)      -

A limit's *headroom* is what is unused, and half of what the kernel gives up for a charge without losing anything: pages of files that wait
on the inactive list (``try_charge_memcg`` reclaims before it refuses, mm/memcontrol.c; half, since some are dirty or used). Nothing here
is written. What cannot be read is an error or None, never "no limit".
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from secondsight.errors import MissingDependency
from secondsight.geometry import PAGE_SIZE, PMD_ORDER

PROC = Path("/proc")
#: the number of the first cgroup namespace's inode (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h)
_INIT_CGROUP_NS = 0xEFFFFFFB
#: v1 writes "no limit" as PAGE_COUNTER_MAX pages
_NO_LIMIT = 1 << 62


class Limit(msgspec.Struct, frozen=True):
    """One limit. *name*: the kernel's; *where*: the cgroup's path, empty for the whole host. Bytes.

    *reclaimable*: pages of files among *used* that a charge can have without loss.
    """

    name: str
    where: str
    limit: int
    used: int
    reclaimable: int = 0

    @property
    def unused(self) -> int:
        """Bytes up to the limit."""
        return max(self.limit - self.used, 0)

    @property
    def headroom(self) -> int:
        """Bytes that may be added before it is refused: the unused, and half of the reclaimable."""
        return self.unused + self.reclaimable // 2


class Zone(msgspec.Struct, frozen=True):
    """A zone of a node with its watermarks, bytes; ``/proc/zoneinfo``."""

    node: int
    name: str
    free: int
    min: int
    low: int
    high: int


class HostMemory(msgspec.Struct, frozen=True):
    """The host's memory. Bytes; *huge_blocks*: free blocks of 2 MiB by node, from ``/proc/buddyinfo`` (those of larger orders counted as
    the 2 MiB in them; blocks that wait in a CPU's list are not seen)."""

    total: int
    available: int
    zones: tuple[Zone, ...]
    huge_blocks: dict[int, int]

    @property
    def free(self) -> int:
        """Free bytes of all zones."""
        return sum(zone.free for zone in self.zones)

    @property
    def low(self) -> int:
        """The low watermarks of all zones together, below which kswapd reclaims."""
        return sum(zone.low for zone in self.zones)

    @property
    def high(self) -> int:
        """The high watermarks of all zones together, at which kswapd sleeps."""
        return sum(zone.high for zone in self.zones)

    def limit(self) -> Limit:
        """As a limit: what is free above the high watermarks is unused, what else is available is reclaimable."""
        unused = max(self.free - self.high, 0)
        reclaimable = max(self.available - unused, 0)
        return Limit("MemAvailable", "", self.total, self.total - min(unused, self.total), reclaimable)


def read_host(proc: Path = PROC) -> HostMemory:
    """The host's memory now.

    :raises MissingDependency: procfs does not show it.
    """
    meminfo = {
        name: int(value) << 10
        for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", _read(proc / "meminfo"), re.M)
    }
    if "MemAvailable" not in meminfo or "MemTotal" not in meminfo:
        raise MissingDependency(
            f"{proc / 'meminfo'}: shows no MemAvailable; how much memory is free is not known"
        )
    return HostMemory(
        meminfo["MemTotal"],
        meminfo["MemAvailable"],
        parse_zoneinfo(_read(proc / "zoneinfo")),
        parse_buddyinfo(_read(proc / "buddyinfo")),
    )


def parse_zoneinfo(text: str) -> tuple[Zone, ...]:
    """The zones of ``/proc/zoneinfo`` that have pages."""
    zones = []
    for part in re.split(r"^(?=Node \d+, zone)", text, flags=re.M):
        head = re.match(r"Node (\d+), zone\s+(\S+)", part)
        sizes = {
            key: int(value) * PAGE_SIZE
            for key, value in re.findall(r"^\s+(?:pages )?(free|min|low|high)\s+(\d+)$", part, re.M)
        }
        if head is not None and len(sizes) == 4:
            zones.append(
                Zone(int(head[1]), head[2], sizes["free"], sizes["min"], sizes["low"], sizes["high"])
            )
    return tuple(zone for zone in zones if zone.free or zone.high)


def parse_buddyinfo(text: str) -> dict[int, int]:
    """Free blocks of 2 MiB by node, of ``/proc/buddyinfo``."""
    free_by_node: dict[int, int] = {}
    for node, counts in re.findall(r"^Node (\d+), zone\s+\S+\s+([\d ]+)$", text, re.M):
        blocks = sum(int(n) << order for order, n in enumerate(counts.split()[PMD_ORDER:]))
        free_by_node[int(node)] = free_by_node.get(int(node), 0) + blocks
    return free_by_node


def stalled(path: Path) -> float | None:
    """Seconds since boot in which *some* task stood still for want of memory, of a file of PSI; None where there is none."""
    try:
        match = re.search(r"^some .*\btotal=(\d+)", path.read_text(encoding="ascii"), re.M)
    except OSError:
        return None  # no PSI (CONFIG_PSI, psi=1), or it is switched off for this group
    return int(match[1]) / 1e6 if match else None


class MemoryCgroup:
    """The memory cgroup of a process, with its ancestors as far as this mount shows them."""

    def __init__(self, folder: Path, root: Path, path: str, version: int) -> None:
        """*folder*: the group's directory, at or below the mount point *root*; *path*: its name as a cgroup; *version*: 1 or 2."""
        self.folder, self.root, self.path, self.version = folder, root, path, version

    @classmethod
    def of(cls, text: str, mountinfo: str | None = None) -> MemoryCgroup | None:
        """The group named by *text*, what ``/proc/PID/cgroup`` says; None where memory is under no controller at all.

        *mountinfo*: of whoever looks, ``/proc/self/mountinfo`` unless given.

        :raises MissingDependency: there is a group, but its files cannot be seen from here.
        """
        mounts = _mounts(_read(PROC / "self/mountinfo") if mountinfo is None else mountinfo)
        lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
        for _, controllers, path in lines:
            if "memory" in controllers.split(","):
                return cls._at(path, 1, [(at, top) for kind, at, top in mounts if kind == "memory"])
        for number, controllers, path in lines:
            if number == "0" and not controllers:
                unified = [(at, top) for kind, at, top in mounts if kind == "unified"]
                if unified and not any(_controls_memory(at) for at, _ in unified):
                    return None
                return cls._at(path, 2, unified)
        return None

    @classmethod
    def _at(cls, path: str, version: int, mounts: list[tuple[Path, str]]) -> MemoryCgroup | None:
        for at, top in mounts:
            inside = path if top == "/" else path[len(top) :] if f"{path}/".startswith(f"{top}/") else None
            if inside is None or "/.." in path:
                continue
            folder = at / inside.lstrip("/")
            if folder.is_dir():
                return cls(folder, at, path, version)
        if path == "/" and first_namespace():
            return None  # the root of all has no limit
        raise MissingDependency(
            f"memory cgroup {path}: its files are not seen from here (another cgroup namespace, or the file system is not mounted)"
        )

    def whole(self) -> bool:
        """Whether every ancestor is seen: the mount shows the hierarchy from its root."""
        return first_namespace() and self.folder == self.root / self.path.lstrip("/")

    def _groups(self) -> list[tuple[Path, str]]:
        """(directory, path) of the group and its ancestors, itself first."""
        groups, folder, path = [], self.folder, self.path
        while True:
            groups.append((folder, path or "/"))
            if folder == self.root or folder.parent == folder:
                return groups
            folder, path = folder.parent, path.rpartition("/")[0]

    def limits(self) -> list[Limit]:
        """Every limit that is set on the group or an ancestor; the group's own first.

        :raises MissingDependency: the group has gone, or may not be read.
        """
        names = (
            (("memory.max", "memory.current"), ("memory.high", "memory.current"))
            if self.version == 2
            else (
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
            )
        )
        limits = []
        for folder, path in self._groups():
            for name, usage in names:
                limit = _number(folder / name)
                if limit is None or limit >= _NO_LIMIT:
                    continue
                used = _number(folder / usage)
                if used is not None:
                    limits.append(Limit(name, path, limit, used, self._inactive_file(folder)))
        if not limits and not self.folder.is_dir():
            raise MissingDependency(f"memory cgroup {self.path}: has gone")
        return limits

    def _inactive_file(self, folder: Path) -> int:
        """Bytes of files' pages on the inactive lists of the group and those below it."""
        name = "inactive_file" if self.version == 2 else "total_inactive_file"
        with contextlib.suppress(OSError):
            match = re.search(rf"^{name} (\d+)$", (folder / "memory.stat").read_text(encoding="ascii"), re.M)
            return int(match[1]) if match else 0
        return 0

    def refusals(self) -> int:
        """How often a charge met the limit of the group or an ancestor so far (``memory.failcnt``, ``max`` of ``memory.events``)."""
        total = 0
        for folder, _ in self._groups():
            if self.version == 1:
                total += sum(
                    _number(folder / name) or 0 for name in ("memory.failcnt", "memory.memsw.failcnt")
                )
                continue
            for name in ("memory.events.local", "memory.events"):
                with contextlib.suppress(OSError):
                    match = re.search(r"^max (\d+)$", (folder / name).read_text(encoding="ascii"), re.M)
                    total += int(match[1]) if match else 0
                    break
        return total

    @property
    def pressure(self) -> Path | None:
        """The group's file of stalls, for :func:`stalled`; None under v1."""
        return self.folder / "memory.pressure" if self.version == 2 else None


def tightest(limits: Iterable[Limit]) -> Limit | None:
    """The limit with the least headroom; None without any."""
    return min(limits, key=lambda each: each.headroom, default=None)


def _mounts(mountinfo: str) -> list[tuple[str, Path, str]]:
    """(``memory`` or ``unified``, mount point, the cgroup at its root) of the mounts that show memory cgroups."""
    mounts = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        top, at = (re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), text) for text in fields[3:5])
        if kind[0] == "cgroup2":
            mounts.append(("unified", Path(at), top))
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            mounts.append(("memory", Path(at), top))
    return mounts


def first_namespace() -> bool:
    """Whether we are in the first cgroup namespace, which sees every group by its real name."""
    try:
        return (PROC / "self/ns/cgroup").stat().st_ino == _INIT_CGROUP_NS
    except OSError:
        return True  # before cgroup namespaces (4.6)


def _controls_memory(root: Path) -> bool:
    try:
        return "memory" in (root / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return False


def _number(path: Path) -> int | None:
    """The number in *path*; None where the file is missing or says ``max``."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:  # the group is being removed
            return None
        raise MissingDependency(
            f"{path}: {error.strerror}; the limit of this memory cgroup is not known"
        ) from None
    return None if text == "max" else int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise MissingDependency(f"{path}: {error.strerror}") from None


__all__ = ["HostMemory", "Limit", "MemoryCgroup", "Zone", "read_host", "stalled", "tightest"]
