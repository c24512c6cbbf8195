"""Blocks of a process from kernel memory laid out by hand: every channel known, each secondary MMU by what it can answer."""

import pytest

pytest.importorskip("drgn")

import numpy as np

from secondsight.bits import pte as bits
from secondsight.errors import TargetGone
from secondsight.live.read import kernel_reader, kmem
from secondsight.live.read.kernel_reader import KernelReader
from secondsight.live.read.kmem import Torn
from secondsight.live.read.kvm import Memslot, RunningVm, Sptes
from secondsight.live.read.notifiers import Notifier
from support.fake_process import BLOCK, FRAMES, START, FakeProcess

BLOCKS = np.array([START, START + BLOCK, START + 2 * BLOCK], np.uint64)


class Vm(RunningVm):
    """A VM whose tables are a list: *sptes* of (page, level, young); *known* but for *torn* pages."""

    mmu = "npt"

    def __init__(self, slots=(), sptes=(), torn=()):
        self.given, self.sptes, self.torn = list(slots), sptes, torn

    def slots(self):
        if self.given == [None]:
            raise Torn("they move")
        return self.given

    def read_blocks(self, blocks, slots=None):
        known = np.ones(len(blocks) * 512, np.bool_)
        known[list(self.torn)] = False
        page, level, young = (np.array([each[i] for each in self.sptes]) for i in range(3))
        return Sptes(
            page.astype(np.int64),
            page.astype(np.uint64),
            level.astype(np.uint8),
            young.astype(np.bool_),
            known,
        )


@pytest.fixture
def process(monkeypatch):
    made = FakeProcess({0: "full", 1: "huge"})
    monkeypatch.setattr(kmem, "find_task", lambda program, pid: made.task)
    return made


def read(process, monkeypatch, *notifiers):
    def registered(kernel, mm):
        if notifiers == (None,):
            raise Torn("it moves")
        return list(notifiers)

    monkeypatch.setattr(kernel_reader, "registered", registered)
    return KernelReader(process.kernel, process).read_blocks(BLOCKS)


def test_small_pages_huge_pages_and_what_is_not_there(process, monkeypatch):
    columns = read(process, monkeypatch)
    assert bits.pmd_trans_huge(columns.pmd).tolist() == [False, True, False]
    assert bits.pte_present(columns.pte[0]).all() and not columns.pte[1:].any()
    assert (columns.folio[0] == np.arange(FRAMES, FRAMES + 512)).all() and (columns.refcount[0] == 1).all()
    assert columns.sizes[:, 0].tolist() == [512, 0, 0] and columns.sizes[:, 9].tolist() == [0, 512, 0]
    assert columns.page_known.all() and columns.pte_known.all() and columns.secondary == ()


def test_the_zero_page_is_frame_nought_and_no_memory(process, monkeypatch):
    process.kernel.global_("zero_pfn", process.kernel.words_at(FRAMES + 3))
    columns = read(process, monkeypatch)
    assert bits.pte_pfn(columns.pte[0])[[2, 3, 4]].tolist() == [FRAMES + 2, 0, FRAMES + 4]
    assert columns.folio[0, 3] == -1 and columns.sizes[0, 0] == 511


def test_a_notifier_that_cannot_test_answers_no_and_one_that_cannot_be_read_is_unknown(process, monkeypatch):
    gru, other = read(
        process, monkeypatch, Notifier("gru_mmuops", False, None), Notifier("other", True, None)
    ).secondary
    assert gru.known.all() and not gru.young.any()
    assert not other.known.any() and "cannot look" in other.why


def test_kvm_answers_page_by_page(process, monkeypatch):
    slot = Memslot(0, 3, 0x1000, 600, START, ())
    vm = Vm([slot], [(5, 1, True), (6, 1, False), (600, 2, True)])
    columns = read(process, monkeypatch, Notifier("kvm", True, vm))
    (answer,) = columns.secondary
    assert (
        answer.name == "kvm (npt)"
        and np.flatnonzero(answer.young).tolist() == [5, 600]
        and answer.known.all()
    )
    assert np.flatnonzero(columns.zap_marks).tolist() == [5, 600]
    # Guest frames where a slot begins the block; the level at which KVM maps it.
    assert columns.gfn.tolist() == [0x1000, 0x1200, -1] and columns.slot.tolist() == [3, 3, -1]
    assert columns.spte_level.tolist() == [1, 2, 0]


def test_two_vms_are_two_answers_and_their_marks_add_up(process, monkeypatch):
    first, second = (Vm([], [(5, level, True)]) for level in (2, 1))
    columns = read(process, monkeypatch, Notifier("kvm", True, first), Notifier("kvm", True, second))
    assert len(columns.secondary) == 2 and columns.zap_marks[0, 5] == 2 and columns.spte_level[0] == 1


def test_what_would_not_hold_still_is_unknown_never_no(process, monkeypatch):
    (answer,) = read(
        process, monkeypatch, Notifier("kvm", True, Vm([], [(5, 1, True), (6, 1, True)], torn=[6]))
    ).secondary
    assert answer.young[0, 5] and not answer.young[0, 6] and not answer.known[0, 6] and answer.known[0, 5]
    assert "would not hold still" in answer.why
    (answer,) = read(process, monkeypatch, Notifier("kvm", True, Vm([None]))).secondary
    assert not answer.known.any() and "memslots" in answer.why
    (answer,) = read(process, monkeypatch, None).secondary
    assert answer.name == "notifiers" and not answer.known.any() and "list of notifiers" in answer.why


def test_another_address_space_at_the_end_is_another_program(process, monkeypatch):
    reader = KernelReader(process.kernel, process)
    assert reader.mm == process.mm
    monkeypatch.setattr(kernel_reader, "registered", lambda kernel, mm: process.execs() or [])
    with pytest.raises(TargetGone, match=r"process 7 \(program\) called exec while it was read"):
        reader.read_blocks(BLOCKS)
