"""A KVM VM for one space, of which it may have two: slot 0 maps the area from guest-physical 0, a private slot holds code and page tables.

Three vCPUs, because a vCPU that changes its paging mode drops its roots, and on 6.1 the last reference to a root zaps it
(kvm_tdp_mmu_put_root): vCPU 0 never turns paging on (view 0), vCPU 1 is always in long mode, vCPU 2 too, to run guests of its own by VMRUN
(``vmcb``). The last two are made when first needed.

    private slot, from guest-physical PRIVATE         long mode, guest-virtual
    0x000000  code, 32 bit, the nested guests' too    0               PRIVATE: itself, one 2 MiB page
    0x000800  code, 64 bit; at 0xc00 that for VMRUN   k << 39 | gpa   window k: guest-physical 0 to 1 GiB, PTEs of its own
    0x001000  PML4                                                    for each window
    0x002000  PDPT and PD of the private page
    0x010000  mailbox                                 nested guest k: an identity map of the same kind, with a PML4 of its own
    0x020000  page tables of the windows, as needed
    0x100000  control block, host save area
    0x110000  nested page tables, taken as needed

Every guest entry has its accessed and dirty bits set beforehand, so that the walker writes nothing. Nobody but KVM touches the nested
page tables: their shadows stay in step, and are not looked through again at each VMRUN (which would age what they map, FNAME(sync_page)).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct

from secondsight.geometry import HPAGE_PMD_NR, PTRS_PER_PTE
from secondsight.lab.agent import code, libc, vmcb
from secondsight.lab.agent.routines import Routines

__all__ = ["AreaVm"]

_KVM_CREATE_VM, _KVM_VCPU_MMAP_SIZE, _KVM_CREATE_VCPU, _KVM_RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
_KVM_SET_TSS_ADDR, _KVM_SET_MEMORY, _KVM_SET_IDENTITY_MAP = 0xAE47, 0x4020AE46, 0x4008AE48
_KVM_GET_REGS, _KVM_SET_REGS, _KVM_GET_SREGS, _KVM_SET_SREGS = 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
_KVM_GET_SUPPORTED_CPUID, _KVM_SET_CPUID2, _KVM_SET_MSRS = 0xC008AE05, 0x4008AE90, 0x4008AE89
_EXIT_HLT = 5

_SIZE = libc.BLOCK_BYTES
_CODE32, _CODE64, _NESTING, _PML4, _PDPT0, _PD0 = 0, 0x800, 0xC00, 0x1000, 0x2000, 0x3000
_MAILBOX, _TABLES, _VMCB, _NESTED_TABLES = 0x10000, 0x20000, code.VMCB - code.PRIVATE, 0x110000
_ENTRIES = (_TABLES - _MAILBOX) // 16 - 1
_TABLE, _LEAF, _LARGE = 0x27, 0x67, 0xE7  # P W U A; plus D; plus PS
_PRIVATE_SLOT = 400
_WINDOW_BLOCKS = PTRS_PER_PTE
_CPUID_ENTRIES = 128
#: The vCPU that runs nested guests.
_NESTER = 2


def _entries(cpuid: bytearray) -> int:
    """How many entries a ``struct kvm_cpuid2`` has."""
    return int(struct.unpack_from("<I", cpuid)[0])


def _segment(kind: int, selector: int, long: bool) -> bytes:
    """struct kvm_segment: base, limit, selector, type, present, dpl, db, s, l, g, avl, unusable."""
    return struct.pack(
        "<QIHBBBBBBBBBB", 0, 0xFFFFFFFF, selector, kind, 1, 0, 0 if long else 1, 1, int(long), 1, 0, 0, 0
    )


class _Vcpu:
    def __init__(self, vm: int, index: int, size: int, cpuid: bytearray) -> None:
        self.fd = fcntl.ioctl(vm, _KVM_CREATE_VCPU, index)
        if index:
            # Newer kernels refuse EFER.LMA to a vCPU that was never told of long mode (kvm_valid_efer).
            fcntl.ioctl(self.fd, _KVM_SET_CPUID2, cpuid)
        self.run = mmap.mmap(self.fd, size)
        long = index > 0
        s = bytearray(fcntl.ioctl(self.fd, _KVM_GET_SREGS, bytes(312)))
        s[0:24] = _segment(11, 8, long)
        for j in range(1, 6):
            s[24 * j : 24 * j + 24] = _segment(3, 16, False)
        (cr0,) = struct.unpack_from("<Q", s, 224)
        struct.pack_into("<Q", s, 224, cr0 | 1 | (1 << 31 if long else 0))
        if long:
            struct.pack_into("<Q", s, 240, code.PRIVATE + _PML4)  # cr3
            struct.pack_into("<Q", s, 248, 1 << 5)  # cr4.PAE
            struct.pack_into(
                "<Q", s, 264, 0x500 | (vmcb.EFER_SVME if index == _NESTER else 0)
            )  # efer: LME, LMA
        fcntl.ioctl(self.fd, _KVM_SET_SREGS, bytes(s))
        if index == _NESTER:
            self.start, self.next = code.PRIVATE + _NESTING, code.PRIVATE + _CODE32 + code.NEXT32
            msr = bytearray(struct.pack("<IIIIQ", 1, 0, vmcb.MSR_VM_HSAVE_PA, 0, code.VMCB + vmcb.SIZE))
            if fcntl.ioctl(self.fd, _KVM_SET_MSRS, msr) != 1:
                raise libc.SysError(errno.EINVAL, "KVM lets this VM have no guests of its own")
        elif long:
            self.start, self.next = code.PRIVATE + _CODE64, code.PRIVATE + _CODE64 + code.NEXT64
        else:
            self.start, self.next = code.PRIVATE + _CODE32, code.PRIVATE + _CODE32 + code.NEXT32
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
        self._put(_NESTING, code.NESTING)
        self._private(_PDPT0, _PD0)
        self._taken = {False: _TABLES, True: _NESTED_TABLES}
        self._tables: dict[tuple[int, int], int] = {}
        self._roots: dict[int, int] = {}
        self.slots: dict[int, tuple[int, int, int]] = {}
        kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self._fd = fcntl.ioctl(kvm, _KVM_CREATE_VM, 0)
        fcntl.ioctl(self._fd, _KVM_SET_TSS_ADDR, 0x7FFB_D000)
        fcntl.ioctl(self._fd, _KVM_SET_IDENTITY_MAP, struct.pack("<Q", 0x7FFB_C000))
        self._size = fcntl.ioctl(kvm, _KVM_VCPU_MMAP_SIZE, 0)
        cpuid = bytearray(struct.pack("<II", _CPUID_ENTRIES, 0) + bytes(40 * _CPUID_ENTRIES))
        fcntl.ioctl(kvm, _KVM_GET_SUPPORTED_CPUID, cpuid)
        self._cpuid = cpuid
        # struct kvm_cpuid_entry2: function, index, flags, eax, ebx, ecx, edx; AMD's 0x8000000a: edx bit 0 is nested paging.
        self._nests = any(
            function == 0x8000_000A and edx & 1
            for function, *_, edx in struct.iter_unpack("<7I12x", cpuid[8 : 8 + 40 * _entries(cpuid)])
        )
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

    def _table(self, nested: bool = False) -> int:
        """The offset of a page for one more table, of a nested guest's or of a window's."""
        taken = self._taken
        if taken[nested] >= (_SIZE if nested else _VMCB):
            raise libc.SysError(errno.ENOMEM, "the VM's private memory is full of page tables")
        taken[nested] += libc.PAGE
        return taken[nested] - libc.PAGE

    def _map(self, window: int, gfn_block: int) -> None:
        """Map guest-physical block *gfn_block* in *window* (negative: in a nested guest's tables), tables filled before they are linked."""
        if (window, gfn_block) in self._tables:
            return
        if gfn_block >= _WINDOW_BLOCKS:
            raise libc.SysError(
                errno.EINVAL, f"guest-physical block {gfn_block} is beyond the windows' 1 GiB"
            )
        nested = window < 0
        if (window, -1) not in self._tables:
            pdpt, pd = self._table(nested), self._table(nested)
            self._put(pdpt, struct.pack("<Q", code.PRIVATE + pd | _TABLE))
            if nested:
                self._private(pdpt, self._table(nested))
                self._roots[window] = self._table(nested)
                self._put(self._roots[window], struct.pack("<Q", code.PRIVATE + pdpt | _TABLE))
            else:
                self._put(_PML4 + 8 * window, struct.pack("<Q", code.PRIVATE + pdpt | _TABLE))
            self._tables[window, -1] = pd
        table = self._tables[window, gfn_block] = self._table(nested)
        gpa = gfn_block * libc.BLOCK_BYTES
        self._put(
            table,
            struct.pack(f"<{PTRS_PER_PTE}Q", *(gpa + i * libc.PAGE | _LEAF for i in range(PTRS_PER_PTE))),
        )
        self._put(self._tables[window, -1] + 8 * gfn_block, struct.pack("<Q", code.PRIVATE + table | _TABLE))

    def _private(self, pdpt: int, pd: int) -> None:
        """The private page in a PDPT and a PD of it, at its own address."""
        self._put(pd, struct.pack("<Q", code.PRIVATE | _LARGE))
        self._put(pdpt + 8 * (code.PRIVATE >> 30), struct.pack("<Q", code.PRIVATE + pd | _TABLE))

    def _vcpu(self, index: int) -> _Vcpu:
        """vCPU *index*, made when first needed."""
        if index not in self._cpu:
            self._cpu[index] = _Vcpu(self._fd, index, self._size, self._cpuid)
        return self._cpu[index]

    def _nester(self, nested: int) -> _Vcpu:
        """The vCPU that runs nested guests, about to run the one under the tables of window -*nested*."""
        if not self._nests:
            raise libc.SysError(
                errno.EOPNOTSUPP,
                "nested guests run on npt: this machine's KVM lets a VM have no nested paging",
            )
        root = code.PRIVATE + self._roots[-nested]
        if _NESTER not in self._cpu:
            self._put(_VMCB, vmcb.control_block(root, code.PRIVATE + _CODE32))
            # What VMRUN has KVM take of the private pages by itself is in its place in the LRU after a few of them.
            for _ in range(3):
                self._list([], [], False)
                self._vcpu(_NESTER).go(self._routines)
        self._put(_VMCB + vmcb.NESTED_CR3, struct.pack("<Q", root))
        return self._cpu[_NESTER]

    def _list(self, addresses: list[int], values: list[int], write: bool) -> None:
        """What the code in the guest is to do next."""
        words = [len(addresses), int(write), 0, 0]
        for address, value in zip(addresses, values, strict=False):
            words += (address & 0xFFFFFFFF, address >> 32, value, 0)
        self._put(_MAILBOX, struct.pack(f"<{len(words)}I", *words))

    def touch(self, pages: list[int], *, slot: int, view: int, nested: int, stamp: int | None) -> str | None:
        """Load from (*stamp* None) or store to each of the area's *pages*; the errno that denied some of them, or None."""
        gfn_block, block, _ = self.slots[slot]
        shift = (gfn_block - block) * HPAGE_PMD_NR
        if view or nested:
            for g in sorted({(p + shift) // HPAGE_PMD_NR for p in pages}):
                self._map(view or -nested, g)
        cpu = self._nester(nested) if nested else self._vcpu(1 if view else 0)
        top = view << 39
        denied = {"EFAULT": 0, "ENXIO": 0}
        ours = range(code.PRIVATE, code.PRIVATE + self._taken[False], libc.PAGE)
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
