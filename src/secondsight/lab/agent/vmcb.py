"""What the VM runs a guest of its own by, on AMD: the control block that VMRUN takes (AMD64 Programmer's Manual 2, appendix B).

::

    0x000  control   intercepts (HLT: back to the VM; VMRUN: must be set), ASID, nested paging and its root
    0x400  save      the nested guest's state: 32 bits, flat segments, no paging of its own, so that its addresses are the nested page
                     tables' to translate

Field offsets are those of ``struct vmcb_control_area`` and ``struct vmcb_save_area`` (arch/x86/include/asm/svm.h).
"""

from __future__ import annotations

import struct

from secondsight.geometry import PAGE_SIZE

__all__ = ["EFER_SVME", "EXIT_CODE", "MSR_VM_HSAVE_PA", "NESTED_CR3", "RIP", "SIZE", "control_block"]

EFER_SVME = 1 << 12
MSR_VM_HSAVE_PA = 0xC001_0117
SIZE = PAGE_SIZE
EXIT_CODE, NESTED_CR3 = 0x070, 0x0B0

_MISC1, _MISC2, _ASID, _NESTED_CTL = 0x00C, 0x010, 0x058, 0x090
_HLT, _SHUTDOWN, _VMRUN = 1 << 24, 1 << 31, 1 << 0
_SAVE = 0x400
_ES, _CS, _GDTR, _LDTR, _TR = 0x00, 0x10, 0x60, 0x70, 0x90
_EFER, _CR0, _DR7, _PAT = 0x0D0, 0x158, 0x160, 0x268
RIP = _SAVE + 0x178
"""Where the guest goes on (``save.rip``); DR7, DR6 and RFLAGS are before it."""
# Type, S, P; and for code and data D and G.
_CODE, _DATA, _LDT, _TSS = 0xC9B, 0xC93, 0x082, 0x08B


def control_block(root: int, rip: int) -> bytes:
    """A control block whose guest begins at *rip* under the nested page tables at *root* (guest-physical both); SIZE bytes."""
    block = bytearray(SIZE)

    def put(kind: str, offset: int, *values: int) -> None:
        struct.pack_into("<" + kind, block, offset, *values)

    put("I", _MISC1, _HLT | _SHUTDOWN)
    put("I", _MISC2, _VMRUN)
    put("I", _ASID, 1)
    put("Q", _NESTED_CTL, 1)
    put("Q", NESTED_CR3, root)

    def segment(offset: int, selector: int, kind: int, limit: int = 0xFFFFFFFF) -> None:
        put("HHIQ", _SAVE + offset, selector, kind, limit, 0)

    for offset in range(_ES, _GDTR, 0x10):
        segment(offset, 16, _DATA)
    segment(_CS, 8, _CODE)
    segment(_LDTR, 0, _LDT, 0xFFFF)
    segment(_TR, 0, _TSS, 0xFFFF)
    put("Q", _SAVE + _EFER, EFER_SVME)  # nested_vmcb_check_save wants it
    put("Q", _SAVE + _CR0, 0x11)  # PE, ET
    put("QQQQ", _SAVE + _DR7, 0x400, 0xFFFF0FF0, 2, rip)
    put("Q", _SAVE + _PAT, 0x0007_0406_0007_0406)
    return bytes(block)
