"""Where frames are mapped: a frame is an address only as long as the page table agrees. Processes and their pagemaps are made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency, TargetGone
from secondsight.live.read import places
from secondsight.live.read.places import Places

BLOCK, PAGE = 1 << 21, 4096
START = 8 * BLOCK


class Machine:
    """Processes by number; *frames* {page address: frame} of each is what its pagemap shows."""

    def __init__(self, monkeypatch):
        self.frames, self.gone, self.closed = {}, set(), []
        machine = self

        class Pagemap:
            def __init__(self, process):
                self.pid = process.pid
                if self.pid in machine.gone:
                    raise TargetGone(f"process {self.pid} has ended")

            def populated_blocks(self, start, end):
                blocks = {page // BLOCK * BLOCK for page in machine.frames[self.pid] if start <= page < end}
                return np.array(sorted(blocks), np.uint64)

            def read(self, address, pages):
                if self.pid in machine.gone:
                    raise TargetGone(f"process {self.pid} has ended")
                frames = [machine.frames[self.pid].get(address + i * PAGE) for i in range(pages)]
                return np.array([0 if f is None else int(pm.PRESENT) | f for f in frames], np.uint64)

            def read_blocks(self, blocks):
                return np.array([self.read(int(block), 512) for block in blocks], np.uint64).reshape(-1, 512)

            def word(self, address):
                return int(self.read(address, 1)[0])

            def close(self):
                machine.closed.append(self.pid)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        monkeypatch.setattr(places, "Pagemap", Pagemap)

    def process(self, pid, blocks=2, **frames):
        """Process *pid* with *blocks* blocks of anonymous memory from START, of which pages have frames."""
        self.frames[pid] = {START + int(page[1:]) * PAGE: frame for page, frame in frames.items()}
        maps = f"{START:x}-{START + blocks * BLOCK:x} rw-p 00000000 00:00 0 \n".encode()
        return SimpleNamespace(pid=pid, read_file=lambda name: maps)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def test_a_frame_is_found_in_its_process_and_block(machine):
    one, two = machine.process(1, p0=77, p513=90), machine.process(2, p600=91)
    with Places([one, two]) as looked:
        assert looked.find(77, False) == (1, START)
        assert looked.find(90, False) == (1, START + BLOCK) and looked.find(91, False) == (2, START + BLOCK)
        assert looked.find(78, False) is None and looked.unread == {}
    assert sorted(machine.closed) == [1, 2]


def test_a_frame_that_two_share_is_the_first_ones_that_still_has_it(machine):
    one, two = machine.process(1, p0=77), machine.process(2, p5=77)
    looked = Places([one, two])
    assert looked.find(77, False) == (1, START)
    machine.frames[1][START] = 88
    assert looked.find(77, False) == (2, START), "the first one's page has moved"
    machine.frames[2][START + 5 * PAGE] = 88
    assert looked.find(77, False) is None
    looked.refresh()
    assert looked.find(88, False) == (1, START)


def test_after_a_collapse_the_block_must_be_one_aligned_run_of_frames(machine):
    process = machine.process(1, p3=77)
    looked = Places([process])
    assert looked.find(77, True) is None, "it is small still"
    for first, huge in ((512 * 9, True), (512 * 9 + 1, False), (0, False)):
        machine.frames[1] = {START + i * PAGE: first + i for i in range(512)}
        assert looked.find(77, True) == ((1, START) if huge else None), first
    machine.frames[1][START + 9 * PAGE] = 5
    assert looked.find(77, True) is None


def test_a_process_that_ended_has_no_places(machine):
    one, two = machine.process(1, p0=77), machine.process(2, p0=78)
    looked = Places([one, two])
    assert looked.find(77, False) == (1, START)
    machine.gone.add(1)
    assert looked.find(77, False) is None and machine.closed == [1], "what was opened is closed"
    looked.refresh()
    assert looked.find(78, False) == (2, START) and looked.unread == {}


def test_one_whose_frames_may_not_be_seen_is_told_with_why(machine):
    process = machine.process(7, p0=0, p1=0)
    looked = Places([process])
    assert set(looked.unread) == {7} and "CAP_SYS_ADMIN" in looked.unread[7]
    assert looked.find(0, False) is None


def test_no_more_is_kept_than_was_asked_for(machine):
    one, two = machine.process(1, p0=77), machine.process(2, p0=78)
    looked = Places([one, two], max_pages=512)
    assert looked.find(77, False) == (1, START)
    assert looked.find(78, False) is None, "a block of it may hold 512 pages, and 511 are left"


def test_a_process_that_cannot_be_read_does_not_keep_the_others_waiting(machine):
    def refused(name):
        raise MissingDependency("permission denied")

    looked = Places([SimpleNamespace(pid=9, read_file=refused), machine.process(1, p0=77)])
    assert looked.unread == {9: "permission denied"} and looked.find(77, False) == (1, START)
