"""A KVM VM for one space, of which it may have two: slot 0 maps the area from guest-physical 0, a private slot holds code and page tables.

Two vCPUs, because a vCPU that changes its paging mode drops its roots, and on 6.1 the last reference to a root zaps it
(kvm_tdp_mmu_put_root): vCPU 0 never turns paging on (view 0), vCPU 1 is always in long mode and is made when first needed.

    private slot, from guest-physical PRIVATE         long mode, guest-virtual
    0x00000  code, 32 bit                             0               PRIVATE: itself, one 2 MiB page
    0x00800  code, 64 bit                             k << 39 | gpa   window k: guest-physical 0 to 1 GiB, PTEs of its own
    0x01000  PML4                                                     for each window
    0x02000  PDPT and PD of the private page
    0x10000  mailbox
    0x20000  page tables of the windows, taken as needed

Every guest entry has its accessed and dirty bits set beforehand, so that the walker writes nothing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct

from secondsight.geometry import HPAGE_PMD_NR, PTRS_PER_PTE
from secondsight.lab.agent import code, libc
from secondsight.lab.agent.routines import Routines

__all__ = ["AreaVm"]

_KVM_CREATE_VM, _KVM_VCPU_MMAP_SIZE, _KVM_CREATE_VCPU, _KVM_RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
_KVM_SET_TSS_ADDR, _KVM_SET_MEMORY, _KVM_SET_IDENTITY_MAP = 0xAE47, 0x4020AE46, 0x4008AE48
_KVM_GET_REGS, _KVM_SET_REGS, _KVM_GET_SREGS, _KVM_SET_SREGS = 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
_KVM_GET_SUPPORTED_CPUID, _KVM_SET_CPUID2 = 0xC008AE05, 0x4008AE90
_EXIT_HLT = 5

_SIZE = libc.BLOCK_BYTES
_CODE32, _CODE64, _PML4, _PDPT0, _PD0, _MAILBOX, _TABLES = 0, 0x800, 0x1000, 0x2000, 0x3000, 0x10000, 0x20000
_ENTRIES = (_TABLES - _MAILBOX) // 16 - 1
_TABLE, _LEAF, _LARGE = 0x27, 0x67, 0xE7  # P W U A; plus D; plus PS
_PRIVATE_SLOT = 400
_WINDOW_BLOCKS = PTRS_PER_PTE
_CPUID_ENTRIES = 128


def _segment(kind: int, selector: int, long: bool) -> bytes:
    """struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable."""
    return struct.pack(
        "<QIHBBBBBBBBBB", 0, 0xFFFFFFFF, selector, kind, 1, 0, 0 if long else 1, 1, int(long), 1, 0, 0, 0
    )


class _Vcpu:
    def __init__(self, vm: int, index: int, size: int, cpuid: bytearray) -> None:
        self.fd = fcntl.ioctl(vm, _KVM_CREATE_VCPU, index)
        if index == 1:
            # Newer kernels refuse EFER.LMA to a vCPU that was never told of long mode (kvm_valid_efer).
            fcntl.ioctl(self.fd, _KVM_SET_CPUID2, cpuid)
        self.run = mmap.mmap(self.fd, size)
        long = index == 1
        s = bytearray(fcntl.ioctl(self.fd, _KVM_GET_SREGS, bytes(312)))
        s[0:24] = _segment(11, 8, long)
        for j in range(1, 6):
            s[24 * j : 24 * j + 24] = _segment(3, 16, False)
        (cr0,) = struct.unpack_from("<Q", s, 224)
        struct.pack_into("<Q", s, 224, cr0 | 1 | (1 << 31 if long else 0))
        if long:
            struct.pack_into("<Q", s, 240, code.PRIVATE + _PML4)  # cr3
            struct.pack_into("<Q", s, 248, 1 << 5)  # cr4.PAE
            struct.pack_into("<Q", s, 264, 0x500)  # efer: LME, LMA
        fcntl.ioctl(self.fd, _KVM_SET_SREGS, bytes(s))
        self.start = code.PRIVATE + (_CODE64 if long else _CODE32)
        self.next = self.start + (code.NEXT64 if long else code.NEXT32)
        regs = bytearray(fcntl.ioctl(self.fd, _KVM_GET_REGS, bytes(144)))
        struct.pack_into("<QQ", regs, 128, self.start, 2)  # rip; no flag set
        fcntl.ioctl(self.fd, _KVM_SET_REGS, bytes(regs))

    def go(self, routines: Routines) -> dict[str, int]:
        """Run to the halt; how many accesses the host denied, by errno (ENXIO: no memslot there)."""
        denied = routines.run(self.fd, self.run, self.next)
        (reason,) = struct.unpack_from("<I", self.run, 8)
        if reason != _EXIT_HLT:
            raise libc.SysError(errno.EIO, f"the VM stopped with KVM_EXIT {reason}")
        return denied


class AreaVm:
    """One VM over the area of *blocks* blocks at :data:`libc.AREA`; *number*: which of the process's."""

    def __init__(self, routines: Routines, blocks: int, number: int = 0) -> None:
        self._routines = routines
        # Apart by more than a page table, so that one's memory never shares a table with the other's.
        base = libc.mmap_fixed(libc.PRIVATE_AREA + number * (1 << 30), _SIZE)
        libc.madvise(base, _SIZE, "nohugepage")
        # A fork would write-protect it and fill the trace with faults of ours.
        libc.madvise(base, _SIZE, "dontfork")
        self._memory = (ctypes.c_char * _SIZE).from_address(base)
        self._put(_CODE32, code.GUEST32)
        self._put(_CODE64, code.GUEST64)
        self._put(_PML4, struct.pack("<Q", code.PRIVATE + _PDPT0 | _TABLE))
        self._put(_PDPT0 + 8 * (code.PRIVATE >> 30), struct.pack("<Q", code.PRIVATE + _PD0 | _TABLE))
        self._put(_PD0, struct.pack("<Q", code.PRIVATE | _LARGE))
        self._free = _TABLES
        self._tables: dict[tuple[int, int], int] = {}
        self.slots: dict[int, tuple[int, int, int]] = {}
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self._fd = fcntl.ioctl(kvm, _KVM_CREATE_VM, 0)
        fcntl.ioctl(self._fd, _KVM_SET_TSS_ADDR, 0x7FFB_D000)
        fcntl.ioctl(self._fd, _KVM_SET_IDENTITY_MAP, struct.pack("<Q", 0x7FFB_C000))
        self._size = fcntl.ioctl(kvm, _KVM_VCPU_MMAP_SIZE, 0)
        cpuid = bytearray(struct.pack("<II", _CPUID_ENTRIES, 0) + bytes(40 * _CPUID_ENTRIES))
        fcntl.ioctl(kvm, _KVM_GET_SUPPORTED_CPUID, cpuid)
        self._cpuid = cpuid
        os.close(kvm)
        self._slot(_PRIVATE_SLOT, code.PRIVATE, _SIZE, base)
        self.add(0, 0, 0, blocks)
        self._cpu = {0: _Vcpu(self._fd, 0, self._size, self._cpuid)}

    def _put(self, offset: int, data: bytes) -> None:
        ctypes.memmove(ctypes.addressof(self._memory) + offset, data, len(data))

    def _slot(self, slot: int, gpa: int, size: int, address: int) -> None:
        fcntl.ioctl(self._fd, _KVM_SET_MEMORY, struct.pack("<IIQQQ", slot, 0, gpa, size, address))

    def add(self, slot: int, gfn_block: int, block: int, blocks: int) -> None:
        """KVM_SET_USER_MEMORY_REGION: *blocks* blocks of the area from *block* on, at guest-physical block *gfn_block*."""
        b = libc.BLOCK_BYTES
        self._slot(slot, gfn_block * b, blocks * b, libc.AREA + block * b)
        self.slots[slot] = (gfn_block, block, blocks)

    def delete(self, slot: int) -> None:
        """The same with size 0. Where an access through the slot would land is remembered: it is answered with ENXIO."""
        self._slot(slot, 0, 0, 0)

    def _table(self) -> int:
        if self._free >= _SIZE:
            raise libc.SysError(errno.ENOMEM, "the VM's private memory is full of page tables")
        self._free += libc.PAGE
        return self._free - libc.PAGE

    def _window(self, view: int, gfn_block: int) -> None:
        """Map guest-physical block *gfn_block* in window *view*, tables filled before they are linked."""
        if (view, gfn_block) in self._tables:
            return
        if gfn_block >= _WINDOW_BLOCKS:
            raise libc.SysError(
                errno.EINVAL, f"guest-physical block {gfn_block} is beyond the windows' 1 GiB"
            )
        if (view, -1) not in self._tables:
            pdpt, pd = self._table(), self._table()
            self._put(pdpt, struct.pack("<Q", code.PRIVATE + pd | _TABLE))
            self._put(_PML4 + 8 * view, struct.pack("<Q", code.PRIVATE + pdpt | _TABLE))
            self._tables[view, -1] = pd
        table = self._tables[view, gfn_block] = self._table()
        gpa = gfn_block * libc.BLOCK_BYTES
        self._put(
            table,
            struct.pack(f"<{PTRS_PER_PTE}Q", *(gpa + i * libc.PAGE | _LEAF for i in range(PTRS_PER_PTE))),
        )
        self._put(self._tables[view, -1] + 8 * gfn_block, struct.pack("<Q", code.PRIVATE + table | _TABLE))

    def _list(self, addresses: list[int], values: list[int], write: bool) -> None:
        """What the code in the guest is to do next."""
        words = [len(addresses), int(write), 0, 0]
        for address, value in zip(addresses, values, strict=False):
            words += (address & 0xFFFFFFFF, address >> 32, value, 0)
        self._put(_MAILBOX, struct.pack(f"<{len(words)}I", *words))

    def touch(self, pages: list[int], *, slot: int, view: int, stamp: int | None) -> str | None:
        """Load from (*stamp* None) or store to each of the area's *pages*; the errno that denied some of them, or None."""
        gfn_block, block, _ = self.slots[slot]
        shift = (gfn_block - block) * HPAGE_PMD_NR
        if view:
            for g in sorted({(p + shift) // HPAGE_PMD_NR for p in pages}):
                self._window(view, g)
            if 1 not in self._cpu:
                self._cpu[1] = _Vcpu(self._fd, 1, self._size, self._cpuid)
        cpu = self._cpu[1 if view else 0]
        top = view << 39
        denied = {"EFAULT": 0, "ENXIO": 0}
        ours = range(code.PRIVATE, code.PRIVATE + self._free, libc.PAGE)
        for at in range(0, len(pages), _ENTRIES):
            part = [top + (p + shift) * libc.PAGE for p in pages[at : at + _ENTRIES]]
            values = [(stamp or 0) | p for p in pages[at : at + _ENTRIES]]
            # First the private slot's pages, by a list as long: what KVM maps of those is in none of the LRU batches when the area's
            # turn comes, nor does the list then take a page that the guest has only read as zero.
            rehearsal = [ours[i % len(ours)] for i in range(max(len(part), len(ours)))]
            self._list(rehearsal[:_ENTRIES], [0] * _ENTRIES, False)
            cpu.go(self._routines)
            self._list(part, values, stamp is not None)
            for name, count in cpu.go(self._routines).items():
                denied[name] += count
        return next((name for name, count in denied.items() if count), None)

    def close_inherited(self) -> None:
        """In a forked child: let go of the parent's VM, which must live and die with the parent."""
        for cpu in self._cpu.values():
            cpu.run.close()
            os.close(cpu.fd)
        os.close(self._fd)
