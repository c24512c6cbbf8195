"""A process of another kernel, laid out by hand: its mappings, the kernel's switches and limits, and a snapshot of it all."""

import pytest

pytest.importorskip("drgn")

import numpy as np

from secondsight.bits import pte as bits
from secondsight.errors import InputError, MissingDependency, TargetGone
from secondsight.live.judge.explain import explain
from secondsight.live.read import kmem, outside
from secondsight.mm.config import Knobs
from support.fake_kernel import DIRECT, VMEMMAP, FakeKernel

TABLE = int(bits.PRESENT | bits.RW | bits.USER)
START = 0x7F0000000000
BLOCK = 1 << 21
CONSTANTS = {
    "TRANSPARENT_HUGEPAGE_FLAG": 1, "TRANSPARENT_HUGEPAGE_REQ_MADV_FLAG": 2,
    "PG_locked": 0, "PG_referenced": 1, "PG_uptodate": 2, "PG_lru": 4, "PG_active": 5, "PG_swapbacked": 6, "PG_head": 7,
    "memory_cgrp_id": 4,
}  # fmt: skip


def word(kernel, name, value):
    kernel.global_(name, kernel.words_at(value))


def with_khugepaged(kernel, flags=1 << 1, **orders):
    """*kernel* with khugepaged's limits and the switches *flags*."""
    word(kernel, "transparent_hugepage_flags", flags)
    for name, value in orders.items():
        word(kernel, f"huge_anon_orders_{name}", value)
    for number, name in enumerate(Knobs.__struct_fields__):
        # Words of four bytes: what lies behind is another variable.
        word(kernel, f"khugepaged_{name}", 0xDEAD << 32 | 100 + number)
    return kernel


@pytest.mark.parametrize(
    ("flags", "orders", "enabled", "sizes"),
    [
        (1 << 1, {}, "always", {}),
        (1 << 2, {}, "madvise", {}),
        (0, {}, "never", {}),
        (
            1 << 2,
            {"always": 1 << 4, "madvise": 0, "inherit": 1 << 9},
            "madvise",
            {64: "always", 2048: "inherit"},
        ),
        (1 << 1, {"always": 0, "madvise": 1 << 9, "inherit": 0}, "madvise", {2048: "madvise"}),
        (1 << 1, {"always": 0, "madvise": 0, "inherit": 0}, "never", {}),
    ],
)
def test_switches_read_as_sysfs_shows_them(flags, orders, enabled, sizes):
    kernel = with_khugepaged(FakeKernel(constants=CONSTANTS), flags, **orders)
    assert outside.enabled(kernel) == enabled
    made = outside.switches(kernel)
    assert {kb: what for kb, what in made.sizes.items() if what != "never"} == sizes
    assert (made.enabled_size == "") == (not orders)


def test_limits_are_the_variables_lower_halves():
    limits = outside.limits(with_khugepaged(FakeKernel()))
    assert [getattr(limits, name) for name in Knobs.__struct_fields__] == list(
        range(100, 100 + len(Knobs.__struct_fields__))
    )


def test_a_kernel_without_khugepaged_is_told_by_the_symbol():
    with pytest.raises(
        MissingDependency, match=r"transparent_hugepage_flags: not found; .* without khugepaged"
    ):
        outside.enabled(FakeKernel())
    with pytest.raises(MissingDependency, match="khugepaged_pages_to_scan"):
        outside.limits(FakeKernel())


def area(kernel, start, end, flags, following=0, file=0, **members):
    return kernel.make(
        "vm_area_struct",
        vm_start=start,
        vm_end=end,
        vm_flags=flags,
        vm_next=following,
        vm_file=file,
        **members,
    )


def a_file(kernel, name, inode, device=0):
    text = kernel.put(name + b"\0")
    dentry = kernel.make("dentry")
    kernel.change("qstr", kernel.member("dentry", dentry, "d_name"), name=text)
    file = kernel.make("file", f_inode=kernel.make("inode", i_ino=inode, i_rdev=device))
    kernel.change("path", kernel.member("file", file, "f_path"), dentry=dentry)
    return file


def test_mappings_are_as_smaps_would_show_them():
    kernel = FakeKernel()
    everyones = area(kernel, 0x9000, 0xA000, 0x3 | 0x80, file=a_file(kernel, b"zero", 5, 1 << 20 | 5))
    zero = area(kernel, 0x7000, 0x8000, 0x3, everyones, a_file(kernel, b"zero", 5, 1 << 20 | 5))
    shared = area(kernel, 0x5000, 0x6000, 0x3 | 0x8 | 0x80, zero, a_file(kernel, b"memfd:ram", 0), vm_pgoff=3)
    heap = area(kernel, 0x1000, 0x4000, 0x1 | 0x2 | 1 << 29, shared)
    first, second, third, last = outside.mappings(
        kernel, kernel.at("mm_struct", kernel.make("mm_struct", mmap=heap))
    )
    assert (first.start, first.end, first.perms, first.inode) == (0x1000, 0x4000, "rw-p", 0)
    assert first.flags == {"rd", "wr", "hg"} and first.eligible is None and not first.zero_device
    # A file of the kernel's own, without a number of its own, is a file all the same.
    assert (second.perms, second.offset, second.name, second.inode) == ("rw-s", 0x3000, "memfd:ram", 1)
    assert (third.name, third.zero_device, third.perms) == ("zero", True, "rw-p")
    # Shared, it is shared memory.
    assert (last.name, last.zero_device, last.perms) == ("zero", False, "rw-s")


def test_mappings_that_would_not_hold_still_are_a_process_that_went():
    kernel = FakeKernel()
    gone = area(kernel, 0x1000, 0x2000, 1, 0xFFFF_A000_0000_0000)
    with pytest.raises(TargetGone, match="would not hold still"):
        outside.mappings(kernel, kernel.at("mm_struct", kernel.make("mm_struct", mmap=gone)))


def a_process(monkeypatch, blocks=2):
    """A kernel with process 7: *blocks* blocks at START, the first full of pages, the others empty tables."""
    kernel = with_khugepaged(FakeKernel(constants=CONSTANTS), 1 << 1)
    tables, frames = 0x10000, 0x40000

    def table(at, entries):
        kernel.write(DIRECT + at, np.asarray(entries, np.uint64).tobytes())

    leaf = [frames + i << 12 | TABLE | int(bits.ACCESSED | bits.DIRTY) for i in range(512)]
    table(tables + 0x3000, leaf)
    table(tables + 0x4000, [0] * 512)
    pmds = [0] * 512
    pmds[0] = tables + 0x3000 | TABLE
    for i in range(1, blocks):
        pmds[i] = tables + 0x4000 | TABLE
    table(tables + 0x2000, pmds)
    puds, pgds = [0] * 512, [0] * 512
    puds[START >> 30 & 511] = tables + 0x2000 | TABLE
    pgds[START >> 39 & 511] = tables + 0x1000 | TABLE
    table(tables + 0x1000, puds)
    table(tables, pgds)
    for i in range(512):
        kernel.make(
            "page",
            at=VMEMMAP + 64 * (frames + i),
            flags=1 << 4 | 1 << 6 | 1 << 2,
            mapping=0xFFFF_9000_0000_0001,
            _refcount=1,
        )
    mapping = area(kernel, START, START + blocks * BLOCK, 0x3 | 1 << 29, anon_vma=1)
    mm = kernel.make("mm_struct", mmap=mapping, pgd=DIRECT + tables)
    task = kernel.make("task_struct", mm=mm)
    kernel.write(kernel.member("task_struct", task, "comm"), b"guest-program\0")
    for module in (kmem, outside):
        monkeypatch.setattr(
            module, "find_task", lambda program, pid: kernel.at("task_struct", task if pid == 7 else 0)
        )
    return kernel


def test_a_snapshot_of_a_process_is_judged_as_one_that_was_taken_at_home(monkeypatch):
    taken = outside.take(a_process(monkeypatch), 7)
    header = taken.header
    assert (header.pid, header.name, header.enabled, header.source) == (
        7,
        "guest-program",
        "always",
        "kernel memory",
    )
    assert header.facts.release == "6.12.1-test" and header.counts_known
    # A table that hangs there empty is no block.
    assert taken.columns.address.tolist() == [START]
    assert bits.pte_young(taken.columns.pte).all() and (taken.columns.refcount == 1).all()
    (block,) = explain(taken).blocks
    assert (block.populated, block.primary, block.secondary) == (512, 512, 0)


def test_a_snapshot_is_of_the_addresses_that_are_asked_for(monkeypatch):
    kernel = a_process(monkeypatch)
    assert outside.take(kernel, 7, (START + BLOCK, START + 2 * BLOCK)).columns.address.tolist() == []
    with pytest.raises(TargetGone, match="process 8"):
        outside.take(kernel, 8)


def test_a_dump_that_is_none_is_refused(tmp_path):
    (tmp_path / "core").write_bytes(b"no dump")
    with pytest.raises(InputError):
        outside.open_kernel(tmp_path / "core", None)
    with pytest.raises(MissingDependency):
        outside.open_kernel(None, tmp_path / "none")
