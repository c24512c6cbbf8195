"""The control block says what VMRUN asks for, where the processor's manual has it (AMD64 volume 2, tables B-1 and B-2)."""

from __future__ import annotations

import struct

from secondsight.lab.agent import vmcb

ROOT, START = 0xC011_2000, 0xC000_0000


def _at(offset: int, kind: str) -> int:
    return int(struct.unpack_from("<" + kind, vmcb.control_block(ROOT, START), offset)[0])


def test_what_vmrun_refuses_to_go_without_is_there():
    assert len(vmcb.control_block(ROOT, START)) == 4096
    assert _at(0x010, "I") & 1, "VMRUN is intercepted"
    assert _at(0x058, "I") != 0, "ASID 0 is the host's"
    assert _at(0x400 + 0x0D0, "Q") & 1 << 12, "EFER.SVME"
    assert _at(0x400 + 0x158, "Q") & 1, "CR0.PE; paging (31) and long mode are off"
    assert not _at(0x400 + 0x158, "Q") >> 31 and not _at(0x400 + 0x0D0, "Q") & 1 << 8


def test_the_guest_goes_by_nested_pages_and_a_halt_ends_it():
    assert _at(0x090, "Q") == 1 and _at(0x0B0, "Q") == ROOT
    assert _at(0x00C, "I") & 1 << 24, "HLT is intercepted"
    assert _at(0x400 + 0x178, "Q") == START == _at(vmcb.RIP, "Q")


def test_segments_are_flat_and_of_32_bits():
    for name, offset in (("es", 0x00), ("cs", 0x10), ("ss", 0x20), ("ds", 0x30), ("fs", 0x40), ("gs", 0x50)):
        _, kind, limit, base = struct.unpack_from("<HHIQ", vmcb.control_block(ROOT, START), 0x400 + offset)
        # Attributes: type in bits 0 to 3, S 4, DPL 5 and 6, P 7, L 9, D 10, G 11.
        assert (limit, base) == (0xFFFFFFFF, 0), name
        assert kind & 0xEF0 == 0xC90, name
        assert kind & 0xF == (0xB if name == "cs" else 0x3), name
