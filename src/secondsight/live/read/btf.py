"""BTF, the kernel's own description of its types, read without a debug package.

Layout of a blob (``Documentation/bpf/btf.rst``)::

    header   magic 0xEB9F, version, flags, hdr_len, type_off, type_len, str_off, str_len
    types    one record after the other, numbered from 1; a module's ("split") go on where vmlinux's end:
             word 0: name offset   word 1: flag(31) kind(28..24) members(15..0)   word 2: size, or a type's number
             then words of its own, by kind and number of members
    strings  NUL-terminated; a module's offsets go on where vmlinux's end

Records have no index, so their starts are found once by a jump table: the length of a record *if* it started at
each word is computed for all words at once, and the chain from word 0 is followed. That keeps opening
the 6 MB of vmlinux to a fraction of a second, also where the machine is emulated.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from secondsight.errors import InputError, MissingDependency

(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT) = range(1, 12)
(FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(12, 20)

# Words after the three of the header: a fixed number, and a number for each member.
_FIXED = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
_MAGIC = 0xEB9F
_PART = 1 << 14  # words worked on at a time: arrays of them stay in a core's cache


class Record(NamedTuple):
    """A type's record: its header taken apart, and where its own words start (*words* is the blob's array)."""

    words: npt.NDArray[np.uint32]
    at: int
    name: int
    kind: int
    members: int
    flag: bool
    size_or_type: int


class Blob:
    """One blob, not indexed: its names. A module's names vmlinux's as *base*."""

    def __init__(self, data: bytes | mmap.mmap, base: Blob | None = None, source: str = "BTF") -> None:
        """Take *data* apart.

        :raises InputError: not little-endian BTF, or torn.
        """
        if len(data) < 24:
            raise InputError(source, "byte 0", "too short for BTF")
        magic, _, _, header, type_at, type_len, str_at, str_len = struct.unpack_from("<HBBIIIII", data)
        if magic != _MAGIC:
            raise InputError(source, "byte 0", f"not little-endian BTF (magic {magic:#06x})")
        if header + max(type_at + type_len, str_at + str_len) > len(data) or type_len % 4:
            raise InputError(source, "byte 0", "torn BTF: sections reach beyond the end")
        self.source = source
        self.words = np.frombuffer(data, "<u4", type_len // 4, header + type_at)
        self._data, self._text_at, self._text_end = data, header + str_at, header + str_at + str_len
        self._named = base
        self.first_string: int = base.end_string if base else 0
        self.end_string: int = self.first_string + str_len

    @classmethod
    def load(cls, path: Path, base: Self | None = None) -> Self:
        """Read a file of ``/sys/kernel/btf``.

        :raises MissingDependency: the kernel has no such file (CONFIG_DEBUG_INFO_BTF off), or no permission.
        :raises InputError: not BTF.
        """
        try:
            with path.open("rb") as stream:
                data: bytes | mmap.mmap
                try:
                    # vmlinux's since 6.16; one that writes or is shared is refused (btf_sysfs_vmlinux_mmap).
                    data = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
                except (OSError, ValueError):
                    data = stream.read()
                return cls(data, base, str(path))
        except OSError as error:
            raise MissingDependency(
                f"{path}: {error.strerror}; kernel memory needs a kernel built with BTF"
            ) from None

    def has_function(self, name: str) -> bool:
        """Whether the blob, or what it is based on, has a function *name*; ``Btf.find`` says the same and needs the index.

        A function's header is its name and 0x0C00000L, L its linkage. No number of a name or a type is as high (they stay below
        the blob's size): what else stands so could only be the value of an enumerator of that name, or a bitfield of 12 bits whose
        type has the number of the name.
        """
        base = self._named
        offset = self._string_offset(name)
        if offset is None and base is not None:
            # A module's function may take its name from vmlinux's strings.
            offset = base._string_offset(name)
        if offset is None:
            return False
        at = np.flatnonzero(self.words[:-1] == offset)
        if (self.words[at + 1] >> np.uint32(2) == FUNC << 22).any():
            return True
        return base is not None and base.has_function(name)

    def _string_offset(self, name: str) -> int | None:
        at = self._data.find(b"\0" + name.encode() + b"\0", self._text_at, self._text_end)
        return at + 1 - self._text_at + self.first_string if at >= 0 else None


class Btf(Blob):
    """A blob with its types found; a module's go on where those of *base* end."""

    def __init__(self, data: bytes | mmap.mmap, base: Btf | None = None, source: str = "BTF") -> None:
        """Index *data*.

        :raises InputError: not little-endian BTF, or torn.
        """
        super().__init__(data, base, source)
        self.base = base
        self.first: int = base.end if base else 1
        self.starts = self._starts()
        self.end: int = self.first + len(self.starts)
        heads = self.words[self.starts + 1] if len(self.starts) else np.empty(0, np.uint32)
        self._kinds = (heads >> 24 & 31).astype(np.uint8)
        self._names = self.words[self.starts] if len(self.starts) else np.empty(0, np.uint32)
        # What was looked for, found or not: a search reads megabytes of strings.
        self._type_numbers: dict[tuple[str, frozenset[int]], int | None] = {}
        self._enumerators: dict[str, tuple[int, int] | None] = {}

    def _starts(self) -> npt.NDArray[np.int64]:
        words = self.words
        total = len(words)
        if total < 3:
            return np.empty(0, np.int64)
        # By a header's highest byte, which holds the kind in its low five bits.
        fixed, each = np.full(256, 3, np.int32), np.zeros(256, np.int32)
        for kind, extra in _FIXED.items():
            fixed[kind::32] += extra
        for kind, extra in _EACH.items():
            each[kind::32] = extra
        length = np.empty(total, np.int32)
        length[-1] = 3  # no record is shorter: one that starts at the last word is torn
        for at in range(0, total - 1, _PART):
            info = words[at + 1 : at + 1 + _PART]
            highest = (info >> np.uint32(24)).astype(np.uint8)
            members = (info & np.uint32(0xFFFF)).view(np.int32)
            length[at : at + len(info)] = fixed.take(highest) + each.take(highest) * members
        # Python's own numbers, and only those asked for.
        seen, jump, at = bytearray(total), length.data, 0
        while at < total:
            seen[at] = 1
            at += jump[at]
        starts = np.flatnonzero(np.frombuffer(seen, np.bool_))
        if at != total:
            raise InputError(
                self.source,
                f"type {self.first + len(starts) - 1}",
                "torn BTF: a record reaches beyond the end",
            )
        return starts

    def text(self, offset: int) -> str:
        """The string at *offset*."""
        if offset < self.first_string:
            return self.base.text(offset) if self.base else ""
        at = self._text_at + offset - self.first_string
        end = self._data.find(b"\0", at, self._text_end)
        return self._data[at : end if end >= 0 else self._text_end].decode("utf-8", "replace")

    def record(self, number: int) -> Record:
        """The record of type *number*.

        :raises InputError: no such type.
        """
        if number < self.first:
            if self.base is None or number < 1:
                raise InputError(self.source, f"type {number}", "no such type")
            return self.base.record(number)
        if number >= self.end:
            raise InputError(self.source, f"type {number}", "no such type")
        at = int(self.starts[number - self.first])
        name, info, size = self.words[at : at + 3].tolist()
        return Record(self.words, at + 3, name, info >> 24 & 31, info & 0xFFFF, bool(info >> 31), size)

    def find(self, name: str, kinds: frozenset[int]) -> int | None:
        """Number of the type called *name* whose kind is one of *kinds*; a module's own before vmlinux's."""
        if (name, kinds) not in self._type_numbers:
            self._type_numbers[name, kinds] = self._find(name, kinds)
        return self._type_numbers[name, kinds]

    def _find(self, name: str, kinds: frozenset[int]) -> int | None:
        owner: Btf | None = self
        while owner is not None:
            strings: Btf | None = owner
            while strings is not None:
                # A module's type may take its name from vmlinux's strings.
                offset = strings._string_offset(name)
                if offset is not None:
                    for index in np.flatnonzero(owner._names == offset).tolist():
                        if int(owner._kinds[index]) in kinds:
                            return owner.first + int(index)
                strings = strings.base
            owner = owner.base
        return None

    def enumerators(self, record: Record) -> list[tuple[str, int]]:
        """Names and values of an ENUM or ENUM64 record."""
        step = 2 if record.kind == ENUM else 3
        rows = record.words[record.at : record.at + step * record.members].reshape(-1, step).tolist()
        enumerators = []
        for row in rows:
            value = row[1] if step == 2 else row[1] | row[2] << 32
            bits = 32 * (step - 1)
            if record.flag and value >> (bits - 1):
                value -= 1 << bits
            enumerators.append((self.text(row[0]), value))
        return enumerators

    def find_enumerator(self, name: str) -> tuple[int, int] | None:
        """The enumeration's number and the value of the enumerator *name*, or None."""
        if name not in self._enumerators:
            self._enumerators[name] = self._find_enumerator(name)
        return self._enumerators[name]

    def _find_enumerator(self, name: str) -> tuple[int, int] | None:
        offset = self._string_offset(name)
        if offset is not None and len(self.starts):
            # Any word may hold that number: keep the one that lies in an enumeration, at an enumerator's name.
            for at in np.flatnonzero(self.words == offset).tolist():
                index = int(np.searchsorted(self.starts, at, side="right")) - 1
                kind = int(self._kinds[index])
                step = {ENUM: 2, ENUM64: 3}.get(kind)
                inside = at - int(self.starts[index]) - 3
                if step and inside >= 0 and inside % step == 0:
                    number = self.first + index
                    return number, dict(self.enumerators(self.record(number)))[name]
        return self.base.find_enumerator(name) if self.base else None
