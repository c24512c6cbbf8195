"""Pages by the size of their folio: against a plain count by hand, and on this machine."""

import os
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.geometry import PMD_SIZE as BLOCK
from secondsight.live.judge.explain import explain
from secondsight.live.read.folio_sizes import COLUMNS, PART, folio_sizes, orders_of_runs, sizes_by_order
from secondsight.live.read.process import Process
from secondsight.live.read.procfs_reader import ProcfsReader
from support.area import area
from support.snapshots import columns, snapshot


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1 << 32))
def test_against_a_plain_count(seed):
    """Folios of random orders in memory; address space of two blocks, each page mapped or not, some folios in part or out of order."""
    luck = random.Random(seed)
    order_of, head_of, frame = {}, {}, 1 << 12
    while frame < (1 << 12) + 3000:
        order = luck.choice([0, 0, 2, 3, 4, 6, 9])
        frame = (frame + (1 << order) - 1) >> order << order
        for each in range(frame, frame + (1 << order)):
            order_of[each], head_of[each] = order, frame
        frame += 1 << order
    frames, mapped = np.zeros(1024, np.uint64), np.zeros(1024, bool)
    at = 0
    known = sorted(order_of)
    while at < 1024:
        start = luck.choice(known)
        length = luck.choice([1, 4, 16, 64, 512, 7])
        for place in range(length):
            if at < 1024 and start + place in order_of and luck.random() < 0.98:
                frames[at], mapped[at] = start + place, True
            at += 1
    flags = np.zeros(1024, np.uint32)
    for page in np.flatnonzero(mapped).tolist():
        each = int(frames[page])
        if order_of[each]:
            flags[page] = kpf.COMPOUND_HEAD if head_of[each] == each else kpf.COMPOUND_TAIL
    expected = np.zeros((2, COLUMNS), int)
    page = 0
    while page < 1024:
        each = int(frames[page])
        size = 1 << order_of.get(each, 0)
        if not mapped[page]:
            page += 1
        elif size == 1:
            expected[page // 512, 0] += 1
            page += 1
        elif (
            head_of[each] == each
            and page + size <= 1024
            and all(mapped[page + i] and int(frames[page + i]) == each + i for i in range(size))
        ):
            expected[page // 512, size.bit_length() - 1] += size
            page += size
        else:
            begun, last = page, page
            page += 1
            while (
                page < 1024 and mapped[page] and int(frames[page]) == int(frames[last]) + 1
                and head_of[int(frames[page])] == head_of[each]
            ):  # fmt: skip
                last, page = page, page + 1
            expected[begun // 512, PART] += page - begun

    def flags_of(some):
        heads = np.array([head_of.get(int(f), int(f)) == int(f) for f in some], bool)
        large = np.array([order_of.get(int(f), 0) > 0 for f in some], bool)
        return np.where(large, np.where(heads, kpf.COMPOUND_HEAD, kpf.COMPOUND_TAIL), 0).astype(np.uint32)

    blocks = np.array([BLOCK, 2 * BLOCK], np.uint64)
    there = mapped.reshape(2, 512)
    counted = folio_sizes(blocks, frames.reshape(2, 512), flags.reshape(2, 512), there, flags_of)
    assert counted.pages.tolist() == expected.tolist()
    assert counted.pages.sum() == mapped.sum()
    truth = np.array([order_of[int(f)] if m else 0 for f, m in zip(frames, mapped, strict=True)], np.uint8)
    assert counted.order.reshape(-1).tolist() == truth.tolist() and not counted.torn.any()
    # Where the orders are known, the same counts.
    known = sizes_by_order(
        blocks, frames.reshape(2, 512), flags.reshape(2, 512), there, truth.reshape(2, 512)
    )
    assert known.tolist() == expected.tolist()
    # Of an older snapshot: a folio that lies whole is what it is, or two halves of a larger one; any other may be a huge page's.
    runs = orders_of_runs(blocks, frames.reshape(2, 512), flags.reshape(2, 512), there).reshape(-1)
    assert ((runs == 0) == (truth == 0)).all()


def test_frames_that_change_while_they_are_read_have_no_order():
    """Three tails behind a head, and the fourth page is small by now."""
    frames = np.zeros((1, 512), np.uint64)
    flags, mapped = np.zeros((1, 512), np.uint32), np.zeros((1, 512), bool)
    frames[0, :3], mapped[0, :3] = (4097, 4098, 4099), True
    flags[0, :3] = kpf.COMPOUND_TAIL

    def flags_of(some):
        place = some.astype(int) % 512
        return np.where(place == 0, kpf.COMPOUND_HEAD, np.where(place < 6, kpf.COMPOUND_TAIL, 0)).astype(
            np.uint32
        )

    counted = folio_sizes(np.array([BLOCK], np.uint64), frames, flags, mapped, flags_of)
    assert counted.torn[0, :3].all() and not counted.torn[0, 3:].any() and counted.pages[0, PART] == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="page flags are shown to root")
def test_the_sizes_of_our_own_memory_hold_all_of_its_pages():
    memory, block = area(range(100))
    with Process.open(os.getpid()) as own, ProcfsReader(own) as reader:
        ours = reader.read_blocks(np.array([block], np.uint64))
    # What a kernel with sizes switched on gives is larger, never more.
    assert ours.sizes.sum() >= 100 and ours.sizes.shape == (1, COLUMNS)
    del memory


def test_what_was_not_read_has_no_size():
    memory = columns(1)
    assert explain(snapshot(memory)).totals.sizes == {"unread": 2 << 20}
    memory.sizes[0, 0], memory.sizes[0, 4], memory.sizes[0, PART] = 400, 64, 48
    sizes = explain(snapshot(memory)).totals.sizes
    assert sizes == {"4kB": 400 * 4096, "64kB": 64 * 4096, "part": 48 * 4096}
