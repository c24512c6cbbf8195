"""A kernel in a dictionary: types in BTF and memory in pages, which drgn itself reads as it would a running one's.

kernel = FakeKernel(STRUCTS, {"PG_locked": 0})
mm = kernel.make("mm_struct", pgd=0x1000)         an address; kernel.at("mm_struct", mm) is its drgn object
kernel.global_("khugepaged_scan", scan)           a symbol
"""

import struct

import drgn

from secondsight.live.read import btf, btftypes
from secondsight.live.read.btf import Btf
from secondsight.live.read.kmem import KernelMemory
from support.btf_blob import Blob

VMEMMAP, DIRECT = 0xFFFFEA0000000000, 0xFFFF888000000000
PAGE = 4096
_WHOLE = {"u64": (8, 0), "u32": (4, 0), "int": (4, 1), "u8": (1, 0), "char": (1, 1), "s64": (8, 1)}

#: What several readers take; a member is its type and, if it is not the next, where it lies.
STRUCTS = {
    "list_head": {"next": "list_head*", "prev": "list_head*"},
    "hlist_node": {"next": "hlist_node*", "pprev": "u64"},
    "hlist_head": {"first": "hlist_node*"},
    "mmu_notifier_ops": {"test_young": "u64"},
    "mmu_notifier": {"hlist": "hlist_node", "ops": "mmu_notifier_ops*"},
    "mmu_notifier_subscriptions": {"list": "hlist_head"},
    "vm_area_struct": {
        "vm_start": "u64", "vm_end": "u64", "vm_next": "vm_area_struct*", "vm_flags": "u64", "anon_vma": "u64",
        "vm_pgoff": "u64", "vm_file": "file*",
    },
    "qstr": {"name": "char*"},
    "dentry": {"d_name": "qstr"},
    "path": {"dentry": "dentry*"},
    "inode": {"i_ino": "u64", "i_rdev": "u32"},
    "file": {"f_inode": "inode*", "f_path": "path"},
    "mm_struct": {
        "mmap": "vm_area_struct*", "pgd": "u64", "total_vm": "u64",
        "notifier_subscriptions": "mmu_notifier_subscriptions*", "owner": "task_struct*",
    },
    "task_struct": {"start_boottime": "u64", "mm": "mm_struct*", "comm": "char[16]"},
    "mm_slot": {"mm_node": "list_head", "mm": "mm_struct*"},
    "khugepaged_scan": {"mm_head": "list_head", "mm_slot": "mm_slot*", "address": "u64"},
    "page": {
        "flags": "u64", "compound_head": "u64", "mapping": ("u64", 24), "_mapcount": ("int", 48), "_refcount": ("int", 52),
        "end": ("u64", 56),
    },
    "folio": {"flags": "u64", "_large_mapcount": ("int", 80), "_entire_mapcount": ("int", 84), "_mm_ids": ("u64", 96), "end": ("u64", 120)},
}  # fmt: skip


class Symbols:
    """Names at addresses."""

    def __init__(self):
        self.by_name = {}

    def address(self, name):
        return self.by_name.get(name)

    def name_at(self, address):
        return next((name for name, at in self.by_name.items() if at == address), None)


class FakeKernel(KernelMemory):
    """A :class:`KernelMemory` of what a test put into it. *before(address)* runs at each read; *reads* counts them."""

    def __init__(
        self,
        structs=STRUCTS,
        constants=None,
        *,
        info=b"OSRELEASE=6.12.1-test\nNUMBER(pgtable_l5_enabled)=0\n",
    ):
        self.memory, self.reads, self.before = {}, 0, lambda address: None
        self.structs, self._sizes, self._next = structs, {}, 0xFFFF9000_0000_0000
        program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
        program.add_memory_segment(0, (1 << 64) - 1, self._read)
        blob = self._types(constants or {})
        btftypes.attach(program, "vmlinux", Btf(blob))
        kind = program.array_type(program.int_type("char", 1, True), len(info))

        def vmcoreinfo(program_, name, flags, filename):
            return drgn.Object(program_, kind, address=where) if name == "VMCOREINFO" else None

        program.register_object_finder("vmcoreinfo", vmcoreinfo, enable_index=0)
        where = self.put(info + b"\0")
        symbols = Symbols()
        symbols.by_name |= {"page_offset_base": self.words_at(DIRECT), "vmemmap_base": self.words_at(VMEMMAP)}
        super().__init__(program, symbols, {"vmlinux": Btf(blob)})

    # -- types ---------------------------------------------------------------------------------------------------

    def _types(self, constants):
        blob, numbers = Blob(), {}
        for name, (size, signed) in _WHOLE.items():
            numbers[name] = blob.add(name, btf.INT, size, extra=struct.pack("<I", signed << 24 | 8 * size))
            self._sizes[name] = size
        self.offsets = {}

        def number(kind):
            if kind in numbers:
                return numbers[kind]
            if kind.endswith("]"):
                of, _, length = kind[:-1].rpartition("[")
                self._sizes[kind] = self._sizes_of(of) * int(length)
                extra = struct.pack("<III", number(of), numbers["u32"], int(length))
                numbers[kind] = blob.add("", btf.ARRAY, 0, extra=extra)
            elif kind.endswith("*"):
                below = numbers.get(kind[:-1]) or blob.add(kind[:-1], btf.FWD, 0)
                numbers[kind] = blob.add("", btf.PTR, below)
                self._sizes[kind] = 8
            return numbers[kind]

        for name, members in self.structs.items():
            at, rows, self.offsets[name] = 0, [], {}
            for member, kind in members.items():
                kind, at = kind if isinstance(kind, tuple) else (kind, at)
                each = number(kind)
                at += -at % min(8, self._sizes_of(kind))
                rows.append((member, each, 8 * at))
                self.offsets[name][member] = (at, kind)
                at += self._sizes_of(kind)
            self._sizes[name] = at + -at % 8
            numbers[name] = blob.add(name, btf.STRUCT, self._sizes[name], rows)
        if constants:
            names = [(blob.text(name), value) for name, value in constants.items()]
            blob.types += struct.pack(
                "<III", blob.text("constants"), 1 << 31 | btf.ENUM << 24 | len(names), 4
            )
            blob.types += b"".join(struct.pack("<Ii", *each) for each in names)
            blob.next += 1
        return blob.done()

    def _sizes_of(self, kind):
        return 8 if kind.endswith("*") else self._sizes[kind]

    # -- memory --------------------------------------------------------------------------------------------------

    def _read(self, address, count, offset, physical):
        self.reads += 1
        self.before(address)
        out = bytearray()
        while count:
            page = self.memory.get(address // PAGE)
            if page is None:
                raise drgn.FaultError("nothing there", address)
            part = min(count, PAGE - address % PAGE)
            out += page[address % PAGE : address % PAGE + part]
            address, count = address + part, count - part
        return bytes(out)

    def write(self, address, data):
        """Put *data* at *address*, whose pages are made."""
        for at in range(len(data)):
            page = self.memory.setdefault((address + at) // PAGE, bytearray(PAGE))
            page[(address + at) % PAGE] = data[at]

    def put(self, data):
        """*data* somewhere, aligned to 64; its address."""
        at, self._next = self._next, self._next + len(data) + -len(data) % 64 + 64
        self.write(at, data)
        return at

    def words_at(self, *values):
        """The address of these words of 8 bytes."""
        return self.put(struct.pack(f"<{len(values)}Q", *values))

    def global_(self, name, address):
        """The symbol *name* is at *address*."""
        self.symbols.by_name[name] = address
        return address

    def make(self, kind, /, at=None, **members):
        """A ``struct`` *kind*, all zero but *members*; its address."""
        address = self.put(bytes(self._sizes[kind])) if at is None else at
        if at is not None:
            self.write(at, bytes(self._sizes[kind]))
        self.change(kind, address, **members)
        return address

    def change(self, kind, address, /, **members):
        """Write *members* of the ``struct`` *kind* at *address*."""
        for name, value in members.items():
            at, of = self.offsets[kind][name]
            size = self._sizes_of(of)
            self.write(address + at, (int(value) % (1 << 8 * size)).to_bytes(size, "little"))

    def member(self, kind, address, name):
        """Where member *name* of the ``struct`` *kind* at *address* lies."""
        return address + self.offsets[kind][name][0]

    def at(self, kind, address):
        """``struct kind *`` to *address*."""
        return drgn.Object(self.program, f"struct {kind} *", value=address)

    def ring(self, head, *nodes):
        """Link ``struct list_head`` *nodes* behind *head*, in a ring."""
        every = [head, *nodes]
        for here, following in zip(every, [*nodes, head], strict=True):
            self.change("list_head", here, next=following)
