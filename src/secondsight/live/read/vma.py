"""The mappings of a process, from ``/proc/PID/maps`` and ``/proc/PID/smaps``.

A line of maps, and what smaps adds below it::

    7f5c40000000-7f5c40200000 rw-p 00000000 00:00 0          [heap]
    start        end          perms offset  dev   inode      name (rest of the line)
    Rss:                  88 kB
    VmFlags: rd wr mr mw me ac sd hg

Source: ``fs/proc/task_mmu.c`` (``show_map_vma``, ``show_smap``, ``show_smap_vma_flags``).
"""

from __future__ import annotations

import msgspec

from secondsight.errors import InputError
from secondsight.geometry import PMD_SIZE

#: fields of smaps that are kept, all in kB
SIZES = (
    "Rss",
    "Referenced",
    "Anonymous",
    "AnonHugePages",
    "ShmemPmdMapped",
    "FilePmdMapped",
    "Swap",
    "Locked",
)

#: VmFlags of __VM_UFFD_FLAGS: missing, write-protect, minor, read-write-protect (7.3)
_UFFD = frozenset({"um", "uw", "ui", "ur"})


class Vma(msgspec.Struct, frozen=True):
    """One mapping. ``flags`` (two-letter VmFlags) and ``kb`` are empty when read from maps alone."""

    start: int
    end: int
    perms: str
    offset: int
    device: str
    inode: int
    name: str
    flags: frozenset[str] = frozenset()
    #: sizes in kB by smaps name, for the names in ``SIZES``
    kb: dict[str, int] = {}
    #: ``THPeligible``, None where the kernel does not print it or maps alone was read
    eligible: bool | None = None
    #: a private mapping of /dev/zero, which the kernel makes anonymous memory that keeps its file
    zero_device: bool = False
    #: only a part of the mapping is meant (``clip``): *kb* is of the whole
    part: bool = False
    #: bytes of its file that the page cache holds before and behind the whole 2 MiB blocks; None: not asked
    cached_beside: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def first_block(self) -> int:
        """Address of the first whole 2 MiB block inside; not below ``end`` if there is none."""
        return (self.start + PMD_SIZE - 1) & ~(PMD_SIZE - 1)

    @property
    def block_end(self) -> int:
        """End of the last whole 2 MiB block inside."""
        return self.end & ~(PMD_SIZE - 1)

    @property
    def of_file(self) -> bool:
        """Whether a file is behind it, one of the kernel's own included. The first System V segment's inode number is 0, its id."""
        return self.inode != 0 or self.device != "00:00"

    @property
    def anonymous(self) -> bool:
        """Private memory without a file behind it: what khugepaged's anonymous scan can collapse."""
        return (
            (not self.of_file or self.zero_device)
            and self.perms[3:4] == "p"
            and self.name not in ("[vdso]", "[vvar]", "[vsyscall]", "[vvar_vclock]")
        )

    @property
    def resident(self) -> int | None:
        """Bytes that are mapped, to the page; None where smaps was not read, or does not count it (hugetlb), or counts more of it."""
        if self.part or "ht" in self.flags or "Rss" not in self.kb:
            return None
        return self.kb["Rss"] << 10

    @property
    def uffd_armed(self) -> bool:
        """Registered with userfaultfd in any mode (userfaultfd_armed): khugepaged tolerates no hole then."""
        return not self.flags.isdisjoint(_UFFD)


def clip(vmas: list[Vma], within: tuple[int, int] | None) -> list[Vma]:
    """The parts of *vmas* inside the addresses *within*, each with the offset into its file where it begins; their sizes in kB stay
    those of the whole."""
    if within is None:
        return vmas
    low, high = within
    return [
        vma if low <= vma.start and vma.end <= high else _part(vma, max(vma.start, low), min(vma.end, high))
        for vma in vmas
        if vma.start < high and low < vma.end
    ]


def _part(vma: Vma, start: int, end: int) -> Vma:
    # Whether a PMD can map it is asked of address and offset: the first does not move alone.
    offset = vma.offset + (start - vma.start if vma.of_file else 0)
    return msgspec.structs.replace(vma, start=start, end=end, offset=offset, part=True)


def parse_maps(text: bytes, source: str = "maps") -> list[Vma]:
    """Mappings in the order of the file.

    :raises InputError: a line that is not one of maps (names *source* and the line).
    """
    return [_vma(line, source, number) for number, line in enumerate(text.splitlines(), 1) if line]


def parse_smaps(text: bytes, source: str = "smaps") -> list[Vma]:
    """Mappings with their sizes and VmFlags; a file cut off in the middle keeps what it has.

    :raises InputError: the text does not begin with a mapping, or holds a line of neither kind.
    """
    vmas: list[Vma] = []
    header: Vma | None = None
    sizes: dict[str, int] = {}
    flags: frozenset[str] = frozenset()
    eligible: bool | None = None

    def finish() -> None:
        if header is not None:
            vmas.append(msgspec.structs.replace(header, kb=sizes, flags=flags, eligible=eligible))

    wanted = {name.encode(): name for name in SIZES}
    for number, line in enumerate(text.splitlines(), 1):
        # A field is "Name:  value"; a mapping's first word is "start-end" and ends in no colon.
        word = line.split(None, 1)[0] if line.strip() else b""
        if not word.endswith(b":"):
            finish()
            header, sizes, flags, eligible = _vma(line, source, number), {}, frozenset(), None
            continue
        if header is None:
            raise InputError(source, f"line {number}", "a field before any mapping")
        name = wanted.get(word[:-1])
        try:
            if name is not None:
                sizes[name] = int(line.split()[1])
            elif word == b"VmFlags:":
                flags = frozenset(line.decode("ascii", "replace").split()[1:])
            elif word == b"THPeligible:":
                eligible = int(line.split()[1]) != 0
        except (IndexError, ValueError):
            raise InputError(source, f"line {number}", f"not a field of smaps: {line[:60]!r}") from None
    finish()
    return vmas


def _vma(line: bytes, source: str, number: int) -> Vma:
    parts = line.split(None, 5)
    try:
        start, end = (int(part, 16) for part in parts[0].split(b"-"))
        if not start < end or len(parts[1]) != 4:
            raise ValueError
        return Vma(
            start=start,
            end=end,
            perms=parts[1].decode("ascii"),
            offset=int(parts[2], 16),
            device=parts[3].decode("ascii"),
            inode=int(parts[4]),
            name=parts[5].decode("utf-8", "backslashreplace").strip() if len(parts) > 5 else "",
        )
    except (ValueError, IndexError):
        raise InputError(source, f"line {number}", f"not a mapping: {line[:60]!r}") from None
