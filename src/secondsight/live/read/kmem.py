"""Kernel memory through drgn, with types from BTF and symbols from kallsyms; no debug package.

Three kernels can be read: the running one (``/proc/kcore``), a crash dump, and a guest from outside over QMP.
Reading goes a table or a range at a time: a drgn object a page costs 50 µs, a 4 KiB read of a page table 5 µs.

Nothing here writes. What is read may change or be freed meanwhile: a fault on garbage is :class:`Torn`, and
the walkers above read again or answer *unknown*.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import drgn
import numpy as np
import numpy.typing as npt
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.pid import find_task

from secondsight.errors import InputError, MissingDependency, TargetGone
from secondsight.geometry import PAGE_SIZE, PTRS_PER_PTE
from secondsight.live.read import btftypes
from secondsight.live.read.btf import Btf
from secondsight.live.read.qmpsocket import READ_TIMEOUT, greeted, receive_timeout
from secondsight.live.read.symbols import BTF_FOLDER, Kallsyms, Symbols, kcore_problem
from secondsight.wholefile import check_input

U64 = npt.NDArray[np.uint64]

_MODULES = ("kvm",)
#: types of the variables that the walkers and drgn's helpers ask for (BTF names functions' types, not variables')
_GLOBALS = {
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "init_mm": "struct mm_struct",
    "page_offset_base": "unsigned long",
    "vmemmap_base": "unsigned long",
    "btf_modules": "struct list_head",
}


class Torn(Exception):
    """What was being read changed or was freed underneath; read again or call it unknown."""


class DumpSymbols:
    """Symbols of a kernel that is not the running one: drgn decompresses its own kallsyms (6.0 on: VMCOREINFO leads to them)."""

    def __init__(self, program: Any) -> None:
        from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

        program.register_symbol_finder("kallsyms:vmlinux", load_vmlinux_kallsyms(program), enable_index=0)
        program.register_object_finder("globals", _variables(self), enable_index=0)
        self._program = program

    def add(self, name: str, module: Any) -> None:
        """Take in the symbols of *module*, a ``struct module *``; its types must be there already."""
        from drgn.helpers.linux.kallsyms import module_kallsyms

        index = drgn.SymbolIndex(module_kallsyms(module))
        self._program.register_symbol_finder(f"kallsyms:{name}", index, enable_index=1)

    def address(self, name: str) -> int | None:
        """Address of *name*."""
        try:
            return int(self._program.symbol(name).address)
        except LookupError:
            return None

    def name_at(self, address: int) -> str | None:
        """Name of the symbol that holds *address*."""
        try:
            return str(self._program.symbol(address).name)
        except LookupError:
            return None


def _find_module(program: Any, name: str) -> tuple[Any, bytes] | None:
    """``struct module *`` called *name* and its BTF, None if it is not loaded; kernel/bpf/btf.c keeps the list."""
    for entry in list_for_each_entry("struct btf_module", program["btf_modules"].address_of_(), "list"):
        if entry.module.name.string_() == name.encode():
            return entry.module.read_(), program.read(entry.btf.data.value_(), entry.btf.data_size.value_())
    return None


def _variables(symbols: Symbols) -> Any:
    def find(program: Any, name: str, flags: Any, filename: str | None) -> Any:
        if flags & drgn.FindObjectFlags.VARIABLE and name in _GLOBALS:
            address = symbols.address(name)
            return None if address is None else drgn.Object(program, _GLOBALS[name], address=address)
        if flags & drgn.FindObjectFlags.CONSTANT and name == "vmemmap":  # a macro: *vmemmap_base
            base = symbols.address("vmemmap_base")
            return None if base is None else drgn.Object(program, "struct page *", program.read_u64(base))
        return None

    return find


class KernelMemory:
    """A kernel whose memory can be read; make one with :meth:`live`, :meth:`dump` or :meth:`qmp`."""

    def __init__(
        self, program: Any, symbols: Symbols, types: dict[str, Btf], source: str = "kernel memory"
    ) -> None:
        self.program = program
        self.symbols = symbols
        #: BTF of ``vmlinux``, and of ``kvm`` where that is a module
        self.types = types
        self.source = source
        self._direct_map = self._global_word("page_offset_base")
        self.vmemmap = self._global_word("vmemmap_base")
        info = program["VMCOREINFO"].string_()
        #: 4 or 5
        self.page_table_levels = 5 if b"NUMBER(pgtable_l5_enabled)=1" in info else 4
        match = re.search(rb"OSRELEASE=(\S+)", info)
        self.release = match[1].decode("ascii", "replace") if match else "unknown"
        #: bits of an address in a page-table entry; memory encryption takes some (sme_me_mask)
        self.pfn_mask = np.uint64(((1 << 52) - 1) & ~(PAGE_SIZE - 1) & ~self._optional_word("sme_me_mask"))

    @classmethod
    def live(cls, btf_folder: Path = BTF_FOLDER) -> KernelMemory:
        """The running kernel.

        :raises MissingDependency: no permission, no ``/proc/kcore``, no BTF, or hidden symbols; says which.
        """
        problem = kcore_problem()
        if problem:
            raise MissingDependency(problem)
        program = drgn.Program()
        try:
            program.set_kernel()
        except (OSError, ValueError, drgn.FaultError) as error:
            raise MissingDependency(f"/proc/kcore: {error}") from None
        types = btftypes.load(btf_folder, _MODULES)
        for name, blob in types.items():
            btftypes.attach(program, name, blob)
        symbols = Kallsyms(Path("/proc/kallsyms").read_bytes())
        program.register_object_finder("globals", _variables(symbols), enable_index=0)
        return cls(program, symbols, types)

    @classmethod
    def dump(cls, path: Path) -> KernelMemory:
        """The kernel of a crash dump (kdump, ``virsh dump --memory-only``, ``dump-guest-memory``); types come from its own memory.

        :raises InputError: not a dump that drgn reads.
        :raises MissingDependency: a kernel without BTF or VMCOREINFO.
        """
        check_input(path, "a crash dump")
        program = drgn.Program()
        try:
            program.set_core_dump(path)
        except (OSError, ValueError, drgn.FaultError) as error:
            raise InputError(str(path), "", f"not a crash dump that can be read: {error}") from None
        return cls._foreign(program, str(path), "a crash dump")

    @classmethod
    def qmp(cls, socket: Path) -> KernelMemory:
        """The kernel of a running guest, from outside, over QEMU's QMP *socket*; nothing in it is stopped.

        The guest needs QEMU's ``-device vmcoreinfo`` and its own driver for it (qemu_fw_cfg).

        :raises MissingDependency: no such socket, one that does not answer in time, a drgn without QMP,
            or a guest without vmcoreinfo or BTF.
        """
        program = drgn.Program()
        if not hasattr(program, "set_qemu_qmp"):
            raise MissingDependency("drgn: this version cannot read over QMP; 0.3.0 can")
        try:
            with greeted(socket) as connection, connection.dup() as kept:
                program.set_qemu_qmp(connection.detach())  # drgn closes it
                receive_timeout(kept, READ_TIMEOUT)
        except (BlockingIOError, TimeoutError):
            raise MissingDependency(
                f"{socket}: does not answer (QEMU serves one QMP client at a time)"
            ) from None
        except (OSError, ValueError, drgn.FaultError) as error:
            why = getattr(error, "strerror", None) or error
            raise MissingDependency(
                f"{socket}: {why}; QEMU listens with -qmp unix:PATH,server=on,wait=off"
            ) from None
        return cls._foreign(program, str(socket), "a guest's memory over QMP")

    @classmethod
    def _foreign(cls, program: Any, where: str, source: str) -> KernelMemory:
        """Take symbols and types from the kernel's own memory."""
        if not program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
            raise MissingDependency(
                f"{where}: is not known to be a Linux kernel (a guest: -device vmcoreinfo, and its qemu_fw_cfg loaded)"
            )
        try:
            symbols = DumpSymbols(program)
            first, last = symbols.address("__start_BTF"), symbols.address("__stop_BTF")
            if first is None or last is None:
                raise MissingDependency(f"{where}: the kernel was built without BTF (CONFIG_DEBUG_INFO_BTF)")
            types = {"vmlinux": Btf(program.read(first, last - first), None, f"{where}: vmlinux")}
            btftypes.attach(program, "vmlinux", types["vmlinux"])
            for name in _MODULES:
                module_and_btf = _find_module(program, name)
                if module_and_btf is not None:
                    module, data = module_and_btf
                    types[name] = Btf(data, types["vmlinux"], f"{where}: {name}")
                    btftypes.attach(program, name, types[name])
                    symbols.add(name, module)
            return cls(program, symbols, types, source)
        except (drgn.FaultError, LookupError, AttributeError, ValueError) as error:
            raise MissingDependency(f"{where}: this kernel cannot be read ({error})") from None

    def _global_word(self, name: str) -> int:
        address = self.symbols.address(name)
        if address is None:
            raise MissingDependency(
                f"kernel symbol {name}: not found; only x86-64 kernels with kallsyms can be read"
            )
        return int(self.program.read_u64(address))

    def _optional_word(self, name: str) -> int:
        address = self.symbols.address(name)
        return 0 if address is None else int(self.program.read_u64(address))

    def variable(self, name: str) -> int | None:
        """The 8 bytes of a global variable, None if the kernel has none of that name."""
        return None if self.symbols.address(name) is None else self._optional_word(name)

    def flag(self, name: str) -> bool | None:
        """A global ``bool``, None if the kernel has none of that name."""
        address = self.symbols.address(name)
        return None if address is None else bool(self.program.read_u8(address))

    def read(self, address: int, size: int) -> bytes:
        """*size* bytes at a kernel virtual address.

        :raises Torn: nothing is mapped there (any more).
        """
        try:
            return bytes(self.program.read(address, size))
        except (drgn.FaultError, OSError, OverflowError, ValueError) as error:
            raise Torn(str(error)) from None

    def words(self, address: int, count: int) -> U64:
        """*count* 8-byte words at a kernel virtual address; uint64[count].

        :raises Torn: as :meth:`read`.
        """
        return np.frombuffer(self.read(address, 8 * count), "<u8")

    def direct(self, physical: int) -> int:
        """Kernel virtual address of a physical one."""
        return self._direct_map + physical

    def table(self, physical: int) -> U64:
        """The 512 entries of the page table at a physical address, through the direct map; uint64[512].

        :raises Torn: as :meth:`read`.
        """
        return self.words(self._direct_map + physical, PTRS_PER_PTE)

    def gather(self, addresses: U64) -> U64:
        """The word at each kernel virtual address, aligned to 8 (uint64[N]); read a 4 KiB page at a time; uint64[N].

        :raises Torn: as :meth:`read`.
        """
        pages, which = np.unique(addresses & ~np.uint64(PAGE_SIZE - 1), return_inverse=True)
        held = np.empty((len(pages), PTRS_PER_PTE), np.uint64)
        for row, page in enumerate(pages.tolist()):
            held[row] = self.words(page, PTRS_PER_PTE)
        return held[
            which.reshape(-1), ((addresses & np.uint64(PAGE_SIZE - 1)) >> np.uint64(3)).astype(np.int64)
        ]

    def constant(self, name: str) -> int | None:
        """An enumerator's value, None if the kernel has none of that name (``PG_young`` …)."""
        try:
            return int(self.program.constant(name).value_())
        except LookupError:
            return None

    def offset(self, type_name: str, *members: str) -> int | None:
        """Byte offset in *type_name* of the first of *members* that it has; None if it has none of them."""
        try:
            kind = self.program.type(type_name)
        except LookupError:
            return None
        for member in members:
            try:
                return int(drgn.offsetof(kind, member))
            except LookupError:
                continue
        return None

    def find_mm(self, pid: int, start_time: int | None = None) -> Any:
        """``struct mm_struct *`` of process *pid* of the initial PID namespace.

        *start_time* (clock ticks since boot, ``Process.start_time``) makes sure that it is the same process.

        :raises TargetGone: no such process, or it has no memory any more.
        :raises MissingDependency: the number means another process there (we run in a PID namespace of our own).
        """
        try:
            task = find_task(self.program, pid)
            if not task:
                raise TargetGone(f"process {pid}: not known to the kernel")
            if start_time is not None:
                began = int(task.member_("start_boottime").value_()) // 10_000_000
                if abs(began - start_time) > 1:
                    raise MissingDependency(
                        f"process {pid}: another process in the kernel's own numbering; run outside the container"
                    )
            mm = task.mm.read_()
        except (drgn.FaultError, drgn.ObjectAbsentError) as error:
            raise TargetGone(f"process {pid}: went away while it was looked up ({error})") from None
        if not mm:
            raise TargetGone(f"process {pid}: has no memory (exited, or a kernel thread)")
        return mm
