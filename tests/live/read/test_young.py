"""Pages that turned young since the last look, in tables laid out by hand: by whom, in which space, and what of it is unseen."""

import pytest

pytest.importorskip("drgn")

import numpy as np

from secondsight.bits import pte as bits
from secondsight.errors import TargetGone
from secondsight.live.read import kmem, young
from secondsight.live.read.kmem import Torn
from secondsight.live.read.kvm import Memslot, Sptes
from secondsight.live.read.notifiers import Notifier
from secondsight.live.read.young import YoungLooker
from secondsight.trace.kinds import Kind
from support.fake_process import BLOCK, START, FakeProcess

READ, WRITE, GUEST = Kind.CPU_READ, Kind.CPU_WRITE, Kind.GUEST_READ
FIRST = START >> 12


class Intake:
    """The spaces that a looker adds."""

    def __init__(self):
        self.spaces = []

    def add_space(self, name, type="process", parent=None):
        self.spaces.append((name, type))
        return len(self.spaces) - 1


class Vm:
    """A VM over the first block, whose guest used *pages* at the last read."""

    identity, mmu = 99, "npt"

    def __init__(self, slots=None):
        self.pages = []
        self.given = [Memslot(0, 0, 0x5000, 512, START, ())] if slots is None else slots

    def slots(self):
        return self.given

    def read_blocks(self, blocks, slots=None):
        page = np.array(self.pages, np.int64)
        known = np.ones(512 * len(blocks), np.bool_)
        return Sptes(
            page, page.astype(np.uint64), np.ones(len(page), np.uint8), np.ones(len(page), np.bool_), known
        )


@pytest.fixture
def process(monkeypatch):
    made = FakeProcess({0: "full", 1: "full", 2: "huge"})
    monkeypatch.setattr(kmem, "find_task", lambda program, pid: made.task)
    return made


def looker(process, monkeypatch, *notifiers, **options):
    monkeypatch.setattr(young, "registered", lambda kernel, mm: list(notifiers))
    made = YoungLooker(process.kernel, process, **options)
    intake = Intake()
    made.begin(intake)
    return made, intake


def rows(sightings):
    """{(space, page from the first one): kind} of everything that was seen."""
    return {
        (each.space, int(page) - (FIRST if each.space == 0 else 0)): Kind(int(kind))
        for each in sightings
        for page, kind in zip(each.pages, each.kinds, strict=True)
    }


def test_the_first_look_takes_stock_and_the_next_tell_what_turned_young(process, monkeypatch):
    process.touch(0, 3)
    made, intake = looker(process, monkeypatch)
    assert rows(made.look()) == {} and intake.spaces == [("program", "process")]
    process.touch(0, 4)
    process.touch(1, 9)
    process.touch(1, 9, bit=bits.DIRTY)
    assert rows(made.look()) == {(0, 4): READ, (0, 512 + 9): WRITE}
    # Young before, and nobody cleared: nothing is known of it.
    process.touch(0, 3)
    assert rows(made.look()) == {}


def test_a_bit_that_was_cleared_meanwhile_tells_again(process, monkeypatch):
    made, _ = looker(process, monkeypatch)
    rows(made.look())
    process.touch(0, 5)
    assert rows(made.look()) == {(0, 5): READ}
    process.clear(0, 5)
    assert rows(made.look()) == {}
    process.touch(0, 5)
    assert rows(made.look()) == {(0, 5): READ}


def test_a_huge_mapping_is_its_512_pages(process, monkeypatch):
    made, _ = looker(process, monkeypatch)
    rows(made.look())
    process.touch(2, bit=bits.ACCESSED)
    assert rows(made.look()) == {(0, 1024 + i): READ for i in range(512)}


def test_a_guests_use_lies_in_a_space_of_its_own_by_guest_frame(process, monkeypatch):
    vm = Vm()
    made, intake = looker(process, monkeypatch, Notifier("kvm", True, vm))
    assert rows(made.look()) == {} and intake.spaces == [("program", "process"), ("program: VM 0", "vm")]
    vm.pages = [7]
    process.touch(0, 8)  # qemu's own use of the guest's memory
    process.touch(1, 2)
    assert rows(made.look()) == {(1, 0x5000 + 7): GUEST, (1, 0x5000 + 8): READ, (0, 512 + 2): READ}


def test_slots_that_will_not_hold_still_are_those_of_the_last_look(process, monkeypatch):
    vm = Vm()
    made, _ = looker(process, monkeypatch, Notifier("kvm", True, vm))
    rows(made.look())

    def torn():
        raise Torn("they move")

    vm.slots, vm.pages = torn, [1]
    assert rows(made.look()) == {(1, 0x5000 + 1): GUEST}


def test_what_is_seen_and_what_is_not(process, monkeypatch):
    plain, _ = looker(process, monkeypatch)
    assert len(plain.seen()) == 2 and not any("KVM" in each for each in plain.seen())
    assert any("--clear or ageing" in each for each in plain.unseen())
    both, _ = looker(
        process, monkeypatch, Notifier("kvm", True, Vm()), Notifier("other", True, None), clear=True
    )
    assert any("1 KVM VM's tables (npt; SECONDARY)" in each for each in both.seen())
    unseen = "\n".join(both.unseen())
    for part in (
        "what other did",
        "clear_refs does not age KVM's tables",
        "a read or a write",
        "the TLB kept",
    ):
        assert part in unseen
    # A notifier that never answers hides nothing.
    assert "gru" not in "\n".join(looker(process, monkeypatch, Notifier("gru", False, None))[0].unseen())


def test_pages_within_a_range_are_those_that_were_young_or_marked(process, monkeypatch):
    process.touch(0, 3)
    process.mark(1, 6, "PG_referenced")
    process.mark(1, 7, "PG_young")
    made, _ = looker(process, monkeypatch)
    rows(made.look())
    assert rows(made.within(FIRST, FIRST + 1024)) == {(0, 3): READ, (0, 518): READ, (0, 519): READ}
    assert rows(made.within(FIRST + 512, FIRST + 519)) == {(0, 518): READ}
    assert rows(made.within(FIRST + 4 * BLOCK // 4096, FIRST + 5 * BLOCK // 4096)) == {}


def test_another_program_in_the_process_ends_it(process, monkeypatch):
    made, _ = looker(process, monkeypatch)
    rows(made.look())
    process.execs()
    with pytest.raises(TargetGone, match="called exec"):
        rows(made.look())
