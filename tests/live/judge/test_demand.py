"""All the blocks that may become huge want a huge block and room below the limits: not each for itself."""

import dataclasses

import msgspec
import pytest

from secondsight.bits import pte as bits
from secondsight.live.judge.explain import explain
from support.snapshots import BLOCK, KNOWN, columns, snapshot

MIB = 1 << 20


def answer(memory, **surroundings):
    taken = snapshot(memory)
    header = msgspec.structs.replace(
        taken.header, surroundings=msgspec.structs.replace(KNOWN, **surroundings)
    )
    return explain(dataclasses.replace(taken, header=header))


def sparse(blocks, pages=4):
    """Blocks with some pages in use, and holes."""
    memory = columns(blocks, secondary=False)
    memory.pte[:, 0] |= bits.ACCESSED
    memory.pte[:, pages:] = 0
    return memory


@pytest.mark.parametrize(
    ("headroom", "certain"), [(2 * MIB, False), (5 * MIB, False), (16 * MIB, True), (-1, True)]
)
def test_eight_blocks_that_each_fit_need_not_fit_together(headroom, certain):
    """Of eight with four pages each, under a limit 5.5 MiB away, a running 6.18 made two huge and answered ccgroup_charge_failed of six."""
    explained = answer(sparse(8), headroom=headroom)
    assert {block.status for block in explained.blocks} == {"succeeded"}
    assert {block.known for block in explained.blocks} == {certain}
    assert explained.totals.collapsible == 8 * certain
    if not certain:
        assert all(block.others == ("ccgroup_charge_failed",) for block in explained.blocks)


def test_what_is_replaced_is_given_back():
    whole = columns(8, secondary=False)
    whole.pte[:, 0] |= bits.ACCESSED
    # Nothing is added: 2 MiB for a moment is enough for all of them, one after the other.
    assert answer(whole, headroom=2 * MIB).totals.collapsible == 8
    whole.shared[:, :256] = True
    # But what another maps too stays with it: 1 MiB a block.
    assert answer(whole, headroom=8 * MIB).totals.collapsible == 0
    assert answer(whole, headroom=9 * MIB).totals.collapsible == 8


def test_only_what_may_succeed_takes_part():
    memory = sparse(8)
    memory.pte[2:, 0] &= ~bits.ACCESSED
    assert answer(memory, headroom=4 * MIB).totals.collapsible == 2


@pytest.mark.parametrize(("free", "certain"), [(7, False), (8, True)])
def test_as_many_huge_blocks_as_blocks(free, certain):
    explained = answer(sparse(8), huge_blocks=free)
    assert explained.totals.collapsible == 8 * certain
    if not certain:
        assert all(block.others == ("alloc_huge_page_failed",) for block in explained.blocks)


def test_blocks_of_the_page_cache_are_charged_whole():
    memory = columns(2, secondary=False)
    memory.cached[:] = 512
    taken = snapshot(memory)
    vma = msgspec.structs.replace(
        taken.header.mappings[0], perms="rw-s", device="00:01", inode=7, name="/memfd:ram", kb={"Swap": 0}
    )
    for headroom, certain in ((2 * BLOCK - 4096, False), (2 * BLOCK, True)):
        header = msgspec.structs.replace(
            taken.header,
            mappings=(vma,),
            switches=msgspec.structs.replace(taken.header.switches, shmem_enabled="advise", internal="00:01"),
            surroundings=msgspec.structs.replace(KNOWN, headroom=headroom),
        )
        blocks = explain(dataclasses.replace(taken, header=header)).blocks
        assert {"ccgroup_charge_failed" in block.others for block in blocks} == {not certain}
