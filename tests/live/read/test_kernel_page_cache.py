"""The page cache from kernel memory: an XArray laid out by hand, and what each page of it is."""

import struct

import numpy as np
import pytest

pytest.importorskip("drgn")

from secondsight.bits import pageflags as kpf
from secondsight.live.read.columns import CachePage
from secondsight.live.read.frames import FrameColumns
from secondsight.live.read.kernel_page_cache import KernelPageCache
from secondsight.live.read.kmem import Torn

VMEMMAP, SIZE = 0xFFFFEA0000000000, 64
SHIFT_AT, SLOTS_AT = 0, 40
HEAD = 0xFFFF888000000100


class Memory:
    """Kernel memory of nodes, each at its address, and ``struct page`` by frame."""

    vmemmap = VMEMMAP

    def __init__(self):
        self.bytes = {}

    def node(self, at, shift, slots):
        words = [slots.get(i, 0) for i in range(64)]
        self.bytes |= {at + SHIFT_AT: bytes([shift]), at + SLOTS_AT: struct.pack("<64Q", *words)}
        return at | 2

    def head(self, entry):
        self.bytes[HEAD] = struct.pack("<Q", entry)

    def offset(self, _type, name):
        return {"shift": SHIFT_AT, "slots": SLOTS_AT}[name]

    def read(self, address, size):
        if address not in self.bytes:
            raise Torn("nothing there")
        return self.bytes[address][:size]

    def words(self, address, count):
        return np.frombuffer(self.read(address, 8 * count), "<u8")


class Frames:
    """Frames that are small pages of a clean file, but for those told otherwise: {frame: changed fields}."""

    size = SIZE

    def __init__(self, **_):
        self.other = {}

    def read(self, pfns):
        rows = []
        for pfn in pfns.tolist():
            plain = {
                "flags": int(kpf.LRU),
                "mapcount": 0,
                "folio_mapcount": 0,
                "refcount": 1,
                "order": 0,
                "shared": False,
                "folio": pfn,
                "known": True,
            }
            rows.append(plain | self.other.get(pfn, {}))
        kinds = dict.fromkeys(("mapcount", "folio_mapcount", "refcount"), np.int32)
        kinds |= {
            "flags": np.uint32,
            "order": np.uint8,
            "shared": np.bool_,
            "folio": np.int64,
            "known": np.bool_,
        }
        return FrameColumns(
            **{name: np.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
        )


def page(pfn):
    return VMEMMAP + pfn * SIZE


@pytest.fixture
def made():
    memory, frames = Memory(), Frames()
    return memory, frames, KernelPageCache(memory, frames)


def states(cache, start=0):
    entries, good = cache.walk(HEAD, [start])
    assert good.all()
    return cache.states_of(entries)[0]


def test_leaves_holes_values_and_siblings(made):
    memory, frames, cache = made
    leaf = memory.node(
        0xFFFF888000001000,
        0,
        {0: page(7), 1: page(8), 3: 0x51, 4: page(16), 5: 4 << 2 | 2, 6: 4 << 2 | 2, 7: 4 << 2 | 2},
    )
    frames.other[16] = {"order": 2, "refcount": 4}
    memory.head(memory.node(0xFFFF888000002000, 6, {2: leaf}))
    entries = states(cache)
    expected = np.zeros(512, np.uint8)
    expected[[128, 129, 132, 133, 134, 135]] = CachePage.PRESENT
    expected[131] = CachePage.SWAPPED
    assert entries.tolist() == expected.tolist()
    assert not states(cache, 512).any()


def test_a_huge_page_is_a_slot_with_siblings_of_the_node_above(made):
    memory, frames, cache = made
    slots = {8: page(512)} | dict.fromkeys(range(9, 16), 8 << 2 | 2)
    memory.head(memory.node(0xFFFF888000002000, 6, slots))
    frames.other[512] = {"order": 9, "refcount": 512}
    assert not states(cache).any()
    assert (states(cache, 512) == CachePage.PRESENT | CachePage.HUGE).all()


def test_an_array_no_longer_than_a_node(made):
    memory, _, cache = made
    memory.head(memory.node(0xFFFF888000001000, 0, {0: page(9), 63: page(10)}))
    assert np.flatnonzero(states(cache)).tolist() == [0, 63] and not states(cache, 512).any()


def test_a_deep_array_and_a_file_of_one_page(made):
    memory, _, cache = made
    leaf = memory.node(0xFFFF888000001000, 0, {63: page(9)})
    middle = memory.node(0xFFFF888000002000, 6, {15: leaf})
    memory.head(memory.node(0xFFFF888000003000, 12, {5: middle}))
    start = 5 * 4096 + 8 * 64
    assert np.flatnonzero(states(cache, start)).tolist() == [511]
    memory.head(page(9))
    assert np.flatnonzero(states(cache)).tolist() == [0] and not states(cache, 512).any()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"refcount": 2}, CachePage.HELD),
        ({"refcount": 2, "flags": int(kpf.LRU | kpf.PRIVATE)}, 0),
        ({"refcount": 3, "folio_mapcount": 2}, 0),
        ({"flags": 0}, CachePage.OFF_LRU),
        ({"flags": int(kpf.LRU | kpf.DIRTY)}, CachePage.DIRTY),
        ({"flags": int(kpf.LRU | kpf.WRITEBACK)}, CachePage.DIRTY),
        ({"flags": int(kpf.LRU | kpf.LOCKED)}, CachePage.LOCKED),
        ({"known": False}, CachePage.UNREAD),
    ],
)
def test_what_the_scan_asks_of_a_page(made, changes, state):
    memory, frames, cache = made
    frames.other[9] = changes
    memory.head(memory.node(0xFFFF888000002000, 6, {0: memory.node(0xFFFF888000001000, 0, {0: page(9)})}))
    assert states(cache)[0] == CachePage.PRESENT | state


def test_a_node_that_is_gone_leaves_the_block_unread(made):
    memory, _, cache = made
    memory.head(memory.node(0xFFFF888000002000, 6, {0: 0xFFFF888000009000 | 2}))
    _, good = cache.walk(HEAD, [0, 512])
    assert good.tolist() == [False, True]


def test_an_entry_to_be_read_again_is_torn(made):
    memory, _, cache = made
    retry = 256 << 2 | 2
    memory.head(memory.node(0xFFFF888000002000, 6, {0: memory.node(0xFFFF888000001000, 0, {0: retry})}))
    assert cache.walk(HEAD, [0])[1].tolist() == [False]
