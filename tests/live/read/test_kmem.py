"""Kernel memory: words, tables, variables and types of a kernel made by hand; what is not there is torn, or None."""

import pytest

pytest.importorskip("drgn")

import drgn
import numpy as np

from secondsight.errors import InputError, MissingDependency, TargetGone
from secondsight.live.read import kmem
from secondsight.live.read.kmem import KernelMemory, Torn
from support.fake_kernel import DIRECT, VMEMMAP, FakeKernel


def test_what_a_kernel_says_of_itself():
    kernel = FakeKernel()
    assert (kernel.release, kernel.page_table_levels, kernel.vmemmap) == ("6.12.1-test", 4, VMEMMAP)
    assert kernel.direct(0x5000) == DIRECT + 0x5000 and int(kernel.pfn_mask) == ((1 << 52) - 1) & ~0xFFF
    five = FakeKernel(info=b"NUMBER(pgtable_l5_enabled)=1\n")
    assert (five.release, five.page_table_levels) == ("unknown", 5)


def test_memory_encryption_takes_a_bit_of_every_frames_number():
    plain = FakeKernel()
    at = plain.words_at(1 << 47)
    symbols = plain.symbols
    symbols.by_name["sme_me_mask"] = at
    again = KernelMemory(plain.program, symbols, plain.types)
    assert int(again.pfn_mask) == int(plain.pfn_mask) & ~(1 << 47)


@pytest.mark.parametrize("name", ["page_offset_base", "vmemmap_base"])
def test_a_kernel_without_its_bases_cannot_be_read(name):
    kernel = FakeKernel()
    del kernel.symbols.by_name[name]
    with pytest.raises(MissingDependency, match=f"kernel symbol {name}: not found"):
        KernelMemory(kernel.program, kernel.symbols, kernel.types)


def test_words_and_tables_are_read_whole_and_what_is_not_there_is_torn():
    kernel = FakeKernel()
    at = kernel.words_at(*range(600))
    assert kernel.words(at, 600).tolist() == list(range(600))
    kernel.write(DIRECT + 0x7000, np.arange(512, dtype=np.uint64).tobytes())
    assert kernel.table(0x7000).tolist() == list(range(512))
    for read in (
        lambda: kernel.words(0xFFFF_A000_0000_0000, 1),
        lambda: kernel.table(0x9000),
        lambda: kernel.read(1 << 70, 8),
    ):
        with pytest.raises(Torn):
            read()


def test_words_far_apart_are_gathered_a_page_at_a_time():
    kernel = FakeKernel()
    base = 0xFFFF_9100_0000_0000
    kernel.write(base, np.arange(1024, dtype=np.uint64).tobytes())
    before = kernel.reads
    addresses = np.array([base + 8 * word for word in (5, 1000, 6, 5, 513)], np.uint64)
    assert kernel.gather(addresses).tolist() == [5, 1000, 6, 5, 513]
    assert kernel.reads - before == 2
    with pytest.raises(Torn):
        kernel.gather(np.array([base + (1 << 30)], np.uint64))


def test_variables_flags_constants_and_offsets_are_none_where_there_are_none():
    kernel = FakeKernel(constants={"PG_young": 23})
    kernel.global_("zero_pfn", kernel.words_at(77))
    kernel.global_("tdp_enabled", kernel.put(b"\1"))
    assert (kernel.variable("zero_pfn"), kernel.variable("nothing")) == (77, None)
    assert (kernel.flag("tdp_enabled"), kernel.flag("nothing")) == (True, None)
    assert (kernel.constant("PG_young"), kernel.constant("PG_old")) == (23, None)
    assert kernel.offset("struct page", "compound_info", "compound_head") == 8
    assert kernel.offset("struct page", "none") is kernel.offset("struct none", "flags") is None


def test_a_process_is_found_by_its_number_and_its_birth(monkeypatch):
    kernel = FakeKernel()
    mm = kernel.make("mm_struct")
    task = kernel.make("task_struct", start_boottime=1234 * 10_000_000, mm=mm)
    tasks = {7: task, 8: 0, 9: kernel.make("task_struct"), 10: 0xFFFF_A000_0000_0000}
    monkeypatch.setattr(kmem, "find_task", lambda program, pid: kernel.at("task_struct", tasks[pid]))
    assert kernel.find_mm(7).value_() == kernel.find_mm(7, 1234).value_() == mm
    with pytest.raises(MissingDependency, match="another process in the kernel's own numbering"):
        kernel.find_mm(7, 1300)
    for pid, said in (
        (8, "not known to the kernel"),
        (9, "has no memory"),
        (10, "went away while it was looked up"),
    ):
        with pytest.raises(TargetGone, match=f"process {pid}: {said}"):
            kernel.find_mm(pid)


def test_what_is_no_dump_is_refused(tmp_path):
    (tmp_path / "core").write_bytes(b"KDUMP not at all")
    with pytest.raises(InputError, match="not a crash dump that can be read"):
        KernelMemory.dump(tmp_path / "core")


def test_a_socket_that_is_not_there_says_how_to_have_one(tmp_path):
    if not hasattr(drgn.Program(), "set_qemu_qmp"):
        pytest.skip("this drgn cannot read over QMP")
    with pytest.raises(MissingDependency, match="QEMU listens with -qmp unix:PATH"):
        KernelMemory.qmp(tmp_path / "none")
