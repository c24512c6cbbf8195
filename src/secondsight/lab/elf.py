"""Make ELF files small for the guest: keep what is loaded, drop the rest.

    before                                        after
    header, program headers                       header, program headers (offsets mended)
    segment 1  | zeros up to 2 MiB | segment 2    segment 1 | at most a page of zeros | segment 2
    symbols, debug sections, section headers      (gone)

A loader maps a PT_LOAD segment from ``p_offset`` to ``p_vaddr``; all it asks is that both agree modulo the
page size (ELF-64 object file format, "Program header"). Many wheels align segments to 2 MiB, so most of their
file is zeros, and an initramfs pays for each of them. Addresses do not change, so no code and no relocation
has to.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable

from secondsight.geometry import PAGE_SIZE

__all__ = ["compact", "needed", "stub", "symbols"]

PAGE = PAGE_SIZE
PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
DT_NULL, DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 0, 1, 4, 5, 6, 10, 11, 14
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")  # type flags offset vaddr paddr filesz memsz align
DYNAMIC = struct.Struct("<qQ")
SECTION = struct.Struct("<IIQQQQIIQQ")  # name type flags addr offset size link info addralign entsize
SYMBOL = struct.Struct("<IBBHQQ")  # name info other shndx value size
SHT_DYNSYM = 11


def compact(data: bytes) -> bytes:
    """The executable or shared object *data* without what is not loaded; data of another kind unchanged.

    A file that this cannot make smaller, or whose segments overlap in the file, comes back as it is.
    """
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < HEADER.size:
        return data
    head = list(HEADER.unpack_from(data))
    kind, table, size, count = head[1], head[5], head[9], head[10]
    if kind not in (2, 3) or size != PROGRAM.size or table + size * count > len(data):
        return data
    programs = [list(PROGRAM.unpack_from(data, table + size * i)) for i in range(count)]
    loads = sorted((p for p in programs if p[0] == PT_LOAD), key=lambda p: p[2])
    if not loads or loads[0][2] != 0 or any(a[2] + a[5] > b[2] for a, b in itertools.pairwise(loads)):
        return data
    out = bytearray()
    moved: list[tuple[int, int, int]] = []  # (old offset, bytes, new offset)
    for load in loads:
        old, vaddr, filesz = load[2], load[3], load[5]
        out += bytes((vaddr - len(out)) % PAGE)
        moved.append((old, filesz, len(out)))
        out += data[old : old + filesz]
    for program in programs:
        for old, filesz, new in moved:
            if old <= program[2] < old + filesz or program[2] == old:
                program[2] += new - old
                break
        else:
            program[5] = (
                0 if program[0] != PT_LOAD else program[5]
            )  # a segment that is not loaded is not kept
        program[7] = min(program[7], PAGE)
    head[6], head[12], head[13] = 0, 0, 0  # no section headers
    HEADER.pack_into(out, 0, *head)
    if table + size * count > moved[0][1]:
        return data
    for i, program in enumerate(programs):
        PROGRAM.pack_into(out, table + size * i, *program)
    return bytes(out) if len(out) < len(data) else data


def needed(data: bytes) -> list[str]:
    """The names of the shared libraries that the ELF file *data* asks for (``DT_NEEDED``); none for other data."""
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < HEADER.size:
        return []
    head = HEADER.unpack_from(data)
    programs = [PROGRAM.unpack_from(data, head[5] + PROGRAM.size * i) for i in range(head[10])]
    names: list[int] = []
    strings = 0
    for program in programs:
        if program[0] != PT_DYNAMIC:
            continue
        for at in range(program[2], program[2] + program[5], DYNAMIC.size):
            tag, value = DYNAMIC.unpack_from(data, at)
            if tag == DT_NULL:
                break
            if tag == DT_NEEDED:
                names.append(value)
            elif tag == DT_STRTAB:
                strings = value
    for program in programs:  # DT_STRTAB is an address: find it in the file
        if program[0] == PT_LOAD and program[3] <= strings < program[3] + program[5]:
            start = strings - program[3] + program[2]
            return [data[start + n : data.index(b"\0", start + n)].decode() for n in names]
    return []


def symbols(data: bytes) -> tuple[set[str], set[str]]:
    """(defined, undefined) names in the dynamic symbol table of the ELF file *data*, found by its section headers."""
    defined: set[str] = set()
    undefined: set[str] = set()
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < HEADER.size:
        return defined, undefined
    head = HEADER.unpack_from(data)
    sections = [SECTION.unpack_from(data, head[6] + SECTION.size * i) for i in range(head[12])]
    for section in sections:
        if section[1] != SHT_DYNSYM:
            continue
        strings = sections[section[6]][4]
        for at in range(section[4] + SYMBOL.size, section[4] + section[5], SYMBOL.size):
            name, _, _, where, _, _ = SYMBOL.unpack_from(data, at)
            text = data[strings + name : data.index(b"\0", strings + name)].decode()
            (defined if where else undefined).add(text)
    return defined, undefined


def stub(soname: str, functions: Iterable[str]) -> bytes:
    """A shared object called *soname* whose *functions* all stop the program (``ud2``) when they are called."""
    names = sorted(functions)
    text = b"\0" + soname.encode() + b"\0"
    code = HEADER.size + 3 * PROGRAM.size
    dynamic = code + 16
    strings = dynamic + 7 * DYNAMIC.size
    table = SYMBOL.pack(0, 0, 0, 0, 0, 0)
    buckets, chains = [0] * max(1, len(names)), [0]
    for number, name in enumerate(names, 1):
        table += SYMBOL.pack(len(text), 0x12, 0, 1, code, 2)  # global, a function, in some section
        text += name.encode() + b"\0"
        slot = _hash(name) % len(buckets)
        chains.append(buckets[slot])
        buckets[slot] = number
    text += bytes(-len(text) % 8)
    hashes = struct.pack(f"<{2 + len(buckets) + len(chains)}I", len(buckets), len(chains), *buckets, *chains)
    entries = [
        (DT_SONAME, 1), (DT_HASH, strings + len(text) + len(table)), (DT_STRTAB, strings),
        (DT_SYMTAB, strings + len(text)), (DT_STRSZ, len(text)), (DT_SYMENT, SYMBOL.size), (DT_NULL, 0),
    ]  # fmt: skip
    size = strings + len(text) + len(table) + len(hashes)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    return b"".join([
        HEADER.pack(ident, 3, 62, 1, 0, HEADER.size, 0, 0, HEADER.size, PROGRAM.size, 3, 0, 0, 0),
        PROGRAM.pack(PT_LOAD, 7, 0, 0, 0, size, size, PAGE),
        PROGRAM.pack(PT_DYNAMIC, 6, dynamic, dynamic, dynamic, 7 * DYNAMIC.size, 7 * DYNAMIC.size, 8),
        # A library without one asks for an executable stack, which glibc refuses to a running program since 2.41.
        PROGRAM.pack(PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16),
        b"\x0f\x0b".ljust(16, b"\xcc"), *(DYNAMIC.pack(*entry) for entry in entries), text, table, hashes,
    ])  # fmt: skip


def _hash(name: str) -> int:
    """The System V ABI's hash of a symbol's name."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
    return value
