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

__all__ = ["compact"]

PAGE = 4096
PT_LOAD = 1
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")  # type flags offset vaddr paddr filesz memsz align


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
