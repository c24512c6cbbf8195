"""The page tables of a process in kernel memory: right entries, torn walks read again, then unknown."""

import pytest

pytest.importorskip("drgn")

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.bits import pte as bits
from secondsight.live.read.pagetable import PageTable
from support.kernel_pages import TABLE, Memory, tree

BLOCK = 1 << 21


@pytest.mark.parametrize("levels", [4, 5])
def test_primary_entries(levels):
    memory = Memory()
    memory.page_table_levels = levels
    entries = np.arange(512, dtype=np.uint64) << np.uint64(12) | np.uint64(0x27)
    top, leaf = tree(memory, levels, entries)
    tables = PageTable(memory, top).read_blocks(np.array([0, BLOCK], np.uint64))
    assert tables.known.all()
    assert np.array_equal(tables.pte[0], entries)
    assert int(tables.pmd[0]) == leaf | TABLE
    assert tables.pmd[1] == 0 and not tables.pte[1].any()


def test_huge_leaves():
    memory = Memory()
    top, _ = tree(memory, 4, np.zeros(512))
    pud = int(memory.pages[top][0]) & ~0xFFF
    pmd = int(memory.pages[pud][0]) & ~0xFFF
    memory.pages[pmd][1] = (5 << 21) | 0xE7
    tables = PageTable(memory, top).read_blocks(np.array([BLOCK], np.uint64))
    assert bits.pmd_trans_huge(tables.pmd).all() and not tables.pte.any()
    memory.pages[pud][0] = (1 << 30) | 0xE7
    tables = PageTable(memory, top).read_blocks(np.array([3 * BLOCK], np.uint64))
    assert bits.pmd_trans_huge(tables.pmd).all(), "a 1 GiB leaf covers its blocks"


def test_a_table_that_moves_is_read_again_then_unknown():
    memory = Memory()
    top, leaf = tree(memory, 4, np.full(512, 0x27))
    pud = int(memory.pages[top][0]) & ~0xFFF
    pmd = int(memory.pages[pud][0]) & ~0xFFF
    other = memory.new(np.full(512, 0x47))
    moves = []

    def once(address):
        if address == leaf and not moves:
            moves.append(1)
            memory.pages[pmd][0] = other | TABLE

    memory.before = once
    tables = PageTable(memory, top).read_blocks(np.array([0], np.uint64))
    assert tables.known.all() and (tables.pte == 0x47).all()

    def always(address):
        if address in (leaf, other):
            memory.pages[pmd][0] ^= np.uint64(leaf ^ other)

    memory.before = always
    tables = PageTable(memory, top).read_blocks(np.array([0], np.uint64))
    assert not tables.known.any() and not tables.pte.any(), "unknown, never a guess"


def test_an_accessed_bit_set_by_the_walk_is_no_move():
    memory = Memory()
    top, leaf = tree(memory, 4, np.full(512, 0x27))
    pud = int(memory.pages[top][0]) & ~0xFFF
    pmd = int(memory.pages[pud][0]) & ~0xFFF

    def touch(address):
        if address == leaf:
            memory.pages[pmd][0] |= bits.ACCESSED

    memory.before = touch
    reads = memory.reads
    assert PageTable(memory, top).read_blocks(np.array([0], np.uint64)).known.all()
    assert memory.reads - reads < 10


@given(st.integers(0, 2**64 - 1))
def test_garbage_never_crashes(word):
    memory = Memory()
    top, leaf = tree(memory, 4, np.full(512, 0x27))
    for page in list(memory.pages):
        if page != leaf:
            memory.pages[page][:] = np.uint64(word)
    tables = PageTable(memory, top).read_blocks(np.array([0, 5 * BLOCK], np.uint64))
    assert tables.pte.shape == (2, 512)
