"""What can be seen of a space's pages: counts by channel, the record of them, and a process laid out by hand in kernel memory."""

import pytest

pytest.importorskip("drgn")

import numpy as np

from secondsight.bits import pageflags, pte
from secondsight.lab.agent import libc, state
from secondsight.lab.agent.events import TraceError
from secondsight.lab.agent.state import Eyes, View, ksm_pages
from secondsight.live.read import frame_table, kmem
from support.fake_process import FakeProcess

P, A = int(pte.PRESENT), int(pte.ACCESSED)


def view(blocks=2):
    """Pages 0 to 3 of block 0 are there; 0 young, 1 referenced, 2 PG_young, 3 used by a guest; block 1 is empty."""
    table = np.zeros((blocks, 512), np.uint64)
    table[0, :4] = [P | A, P, P, P]
    flags, secondary = np.zeros(512 * blocks, np.uint32), np.zeros(512 * blocks, np.bool_)
    flags[1], flags[2], flags[9] = pageflags.REFERENCED, pageflags.YOUNG, pageflags.REFERENCED
    secondary[3] = secondary[10] = True
    sptes = {"kvm": [""] * 3 + ["PWY"] + [""] * (512 * blocks - 4)}
    return View(np.zeros(blocks, np.uint64), table, flags, np.ones(512 * blocks, np.int32), secondary, sptes)


def test_young_pages_are_counted_by_channel_where_there_is_a_page():
    assert view().young() == [(1, 2, 1), (0, 0, 0)]


def test_all_of_a_huge_page_is_as_young_as_its_entry():
    made = view(1)
    made.pmd[0] = P | A | int(pte.PSE)
    assert made.young() == [(512, 3, 2)]


def test_the_record_is_of_its_moment():
    record = view().write_down(5, "vm", "before", 2)
    assert (record.step, record.space, record.at, record.pass_) == (5, "vm", "before", 2)
    assert record.pte[:2] == [(1, "PA"), (3, "P")] and record.spte["kvm"][:2] == [(3, ""), (1, "PWY")]


@pytest.fixture
def eyes(monkeypatch):
    process = FakeProcess({0: "full", 1: "huge"}, start=libc.AREA)
    monkeypatch.setattr(kmem, "find_task", lambda program, pid: process.task)
    monkeypatch.setattr(kmem.KernelMemory, "live", classmethod(lambda cls: process.kernel))
    return process, Eyes()


def test_a_process_is_read_page_by_page(eyes):
    process, looks = eyes
    process.touch(0, 3)
    process.mark(0, 4, "PG_referenced")
    seen = looks.look(7, 3)
    assert seen.young() == [(1, 1, 0), (0, 0, 0), (0, 0, 0)] and seen.sptes == {}
    assert pte.pmd_trans_huge(seen.pmd).tolist() == [False, True, False]
    assert (seen.mapcount[:1024] == 1).all() and not seen.mapcount[1024:].any()
    assert seen.flags[4] & pageflags.REFERENCED and not seen.flags[5] & pageflags.REFERENCED


def test_a_table_that_would_not_hold_still_is_an_error_and_no_answer(eyes):
    process, looks = eyes
    process.entry(process.pmd, 0, 0x7777_0000 | P | int(pte.RW))  # leads to nothing
    with pytest.raises(TraceError, match="page table of process 7 would not hold still"):
        looks.look(7, 2)


def test_pages_that_ksm_made_one_are_named(monkeypatch):
    entries = np.zeros(1024, np.uint64)
    entries[[3, 4, 600]] = np.array([11, 12, 13], np.uint64) | np.uint64(1 << 63)

    class Table:
        def read(self, frames):
            return np.where(np.isin(frames, (11, 13)), np.uint64(pageflags.KSM), np.uint64(pageflags.ANON))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(state, "pagemap", lambda pid, blocks: entries)
    monkeypatch.setattr(frame_table, "FrameTable", Table)
    assert ksm_pages(7, 2) == "0:3 1:88"
    entries[:] = 0
    assert ksm_pages(7, 2) == ""
