"""Kernels that collapse parts of a block: what a pass would try, and what it comes to."""

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.errors import UsageError
from secondsight.geometry import ALL_ANON_ORDERS, ANON_ORDERS, HPAGE_PMD_NR, PMD_ORDER, kb_of_order
from secondsight.live.judge import parts_ahead as module
from secondsight.live.judge.answer import AttemptsAhead
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import LRU_BATCH, PARTS
from secondsight.live.judge.parts_ahead import assumed_used, parts_ahead
from secondsight.live.judge.view import to_view
from secondsight.live.read.capture import save
from secondsight.live.read.switches import Switches
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.ahead import attempts_ahead
from secondsight.mm.profiles import for_kernel
from support.snapshots import FACTS_72, START, columns, snapshot, with_vm

RULES = for_kernel("7.2.13")


def switched(memory, sizes=("always",), enabled="always", limits=None, facts=FACTS_72, flags=("hg",)):
    """A snapshot on a kernel whose sizes are switched: *sizes* in KiB."""
    taken = snapshot(memory, facts=facts, enabled=enabled, limits=limits, flags=flags)
    words = {
        kb_of_order(order): "always" if kb_of_order(order) in sizes else "never" for order in ANON_ORDERS
    }
    header = msgspec.structs.replace(
        taken.header,
        switches=Switches(enabled=enabled, enabled_size="inherit", sizes=words | {2048: "inherit"}),
    )
    return dataclasses.replace(taken, header=header)


def guest_alone(blocks=1):
    return with_vm(columns(blocks, False), np.ones((blocks, 512), bool))


@pytest.mark.parametrize(
    ("sizes", "begun"),
    [
        ((2048,), {9: 1}),
        ((2048, 64), {9: 1, 4: 32}),
        (tuple(map(kb_of_order, ANON_ORDERS)), {o: 512 >> o for o in ANON_ORDERS}),
    ],
)
def test_a_block_that_only_the_guest_uses(sizes, begun):
    """One begun and refused collapse with 2 MiB alone, 33 with 64 KiB beside it, 255 with all sizes (as 7.3 was measured)."""
    answer = explain(switched(guest_alone(3), sizes))
    for block in answer.blocks:
        assert (
            {a.order: a.begun for a in block.attempts}
            == begun
            == {a.order: a.refused for a in block.attempts}
        )
        assert block.wasted and block.status in ("lack_referenced_page", "not_suitable_page_count")
    total = 3 * sum(begun.values())
    assert answer.totals.refused_collapses == total and sum(begun.values()) in (1, 33, 255)
    assert answer.mappings[0].orders == tuple(sorted(begun))
    if len(begun) > 1:
        assert f"{sum(begun.values())} collapses are begun in a pass" in answer.blocks[0].reason
        assert LRU_BATCH in answer.blocks[0].unread, "which attempt meets the pages given back is not known"


def test_the_page_and_the_command_say_it(capsys, tmp_path):
    from secondsight.cli import explained
    from secondsight.live.judge.page import render

    taken = switched(guest_alone(2), (2048, 64), limits=Knobs(max_ptes_none=64))
    save(taken, tmp_path / "snapshot")
    explained.explain(tmp_path / "snapshot")
    said = capsys.readouterr().out
    for each in (said, render(explain(taken))):
        assert "66 collapses are begun in a pass, 66 refused: 2048kB 2, 64kB 64" in each
        assert "max_ptes_none is 64" in each
    assert "eligible to 2048kB, 64kB" in said


def test_an_older_kernel_tries_whole_blocks_alone():
    facts = msgspec.structs.replace(FACTS_72, release="6.18.15-test")
    answer = explain(switched(guest_alone(), (2048, 64), facts=facts))
    assert answer.blocks[0].attempts == (AttemptsAhead(9, 1, 1),) and answer.mappings[0].orders == (9,)


def test_a_smaller_size_is_enough():
    """2 MiB is off: a kernel that collapses parts looks at the mapping all the same."""
    memory = guest_alone()
    memory.pte[0, :16] |= bits.ACCESSED
    taken = switched(memory, (64,), enabled="never", limits=Knobs(max_ptes_none=0))
    answer = explain(taken)
    assert answer.mappings[0].orders == (4,) and answer.mappings[0].by == "hugepages-64kB/enabled=always"
    (block,) = answer.blocks
    assert block.status == "succeeded" and block.attempts == (AttemptsAhead(4, 32, 31),)
    assert "parts of it" in block.reason
    old = msgspec.structs.replace(FACTS_72, release="6.18.15-test")
    assert explain(switched(memory, (64,), enabled="never", facts=old)).blocks[0].status == "ineligible"


def test_memory_that_parts_add():
    """Of 512 pages 8 are there: two parts of 16 pages hold 4 each, and each is filled up."""
    memory = columns(1)
    keep = [0, 1, 2, 3, 100, 101, 102, 103]
    rest = np.setdiff1d(np.arange(512), keep)
    memory.pte[0, rest], memory.mapcount[0, rest], memory.folio[0, rest] = 0, 0, -1
    memory.pte[0, keep] |= bits.ACCESSED
    (block,) = explain(switched(memory, (64,), enabled="never")).blocks
    assert block.status == "succeeded" and block.bloat == 2 * 12
    assert block.attempts == (AttemptsAhead(4, 2, 0),)


@pytest.mark.parametrize(("sizes", "status"), [((2048, 64), "failed"), ((64,), "succeeded")])
def test_entries_that_cannot_be_swapped_in_stop_the_whole_block_alone(sizes, status):
    """A guard marker in one part: 2 MiB is swapped in and fails; parts without one go through."""
    memory = columns(1)
    memory.pte[0] |= bits.ACCESSED
    memory.pte[0, 500] = swap.swp_entry(
        np.array([swap.MARKER_TYPE], np.uint64), np.array([swap.MARKER_GUARD], np.uint64)
    )[0]
    memory.mapcount[0, 500], memory.folio[0, 500] = 0, -1
    enabled = "always" if 2048 in sizes else "never"
    (block,) = explain(switched(memory, sizes, enabled=enabled)).blocks
    assert block.status == status
    if status == "failed":
        assert block.attempts == (AttemptsAhead(9, 1, 1),)


def test_a_limit_that_smaller_sizes_read_otherwise_is_told():
    answer = explain(switched(guest_alone(), (2048, 64), limits=Knobs(max_ptes_none=64)))
    assert len(answer.notes) == 1 and "max_ptes_none is 64" in answer.notes[0]
    for none, sizes in ((64, (2048,)), (0, (2048, 64)), (511, (2048, 64))):
        assert explain(switched(guest_alone(), sizes, limits=Knobs(max_ptes_none=none))).notes == ()


def test_sizes_that_are_supposed():
    taken = switched(guest_alone(), (2048,))
    answer = explain(taken, ["hugepages-64kB/enabled=always"])
    assert answer.totals.refused_collapses == 33
    assert explain(taken, ["hugepages-64kB/enabled=inherit", "enabled=never"]).totals.refused_collapses == 0
    for wrong, message in (
        ("hugepages-48kB/enabled=always", "no size of 48 kB"),
        ("hugepages-8kB/enabled=always", "no size of 8 kB"),
        ("hugepages-4096kB/enabled=always", "no size of 4096 kB"),
        ("hugepages-64kB/enabled=sometimes", "is one of always"),
    ):
        with pytest.raises(UsageError, match=message):
            explain(taken, [wrong])
    with pytest.raises(UsageError, match="no switches by size"):
        explain(snapshot(guest_alone()), ["hugepages-64kB/enabled=always"])


def test_blocks_beyond_what_is_walked_are_open(monkeypatch):
    memory = guest_alone(4)
    for row in range(4):
        memory.pte[row, row] |= bits.ACCESSED
    view = to_view(memory, list(snapshot(memory).header.mappings), "always")
    view = dataclasses.replace(view, orders=np.full(4, ALL_ANON_ORDERS, np.uint16))
    parts = parts_ahead(view, Knobs(), RULES, mglru=False, most=2)
    assert parts.known.tolist() == [True, True, False, False]
    monkeypatch.setattr(
        "secondsight.live.judge.judge_snapshot.parts_ahead", lambda *a, **k: parts_ahead(*a, **k, most=2)
    )
    blocks = explain(switched(memory, (2048, 64))).blocks
    assert [PARTS in block.unread for block in blocks] == [False, False, True, True]
    assert not blocks[3].known and {"succeeded"} <= {*blocks[3].others, blocks[3].status}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_blocks_that_are_alike_go_alike(seed):
    """Judging one of each kind is judging each: against a walk over every block, frames drawn anew."""
    luck = np.random.default_rng(seed)
    memory = guest_alone(4)
    used = luck.random((2, 512)) < luck.choice([0.0, 0.01, 0.3])
    order = int(luck.choice([0, 2, 4]))
    for row in range(4):
        memory.pte[row][used[row % 2]] |= bits.ACCESSED
        frames = (luck.integers(1 << 10, 1 << 12) << 9) + np.arange(512)
        memory.pte[row] = (memory.pte[row] & ~bits.PFN_MASK) | (frames.astype(np.uint64) << bits.PFN_SHIFT)
        memory.folio[row] = frames >> order << order
        memory.order[row] = order
        memory.folio_mapcount[row] = memory.refcount[row] = 1 << order
        memory.flags[row] |= (
            0 if not order else np.where(frames % (1 << order) == 0, kpf.COMPOUND_HEAD, kpf.COMPOUND_TAIL)
        )
    if luck.random() < 0.5:
        hole = slice(int(luck.integers(0, 400)), 450)
        memory.pte[::2, hole], memory.folio[::2, hole], memory.order[::2, hole] = 0, -1, 0
    view = to_view(memory, list(snapshot(memory).header.mappings), "always")
    orders = int(luck.integers(0, 1 << (PMD_ORDER + 1))) & ALL_ANON_ORDERS or 1 << PMD_ORDER
    view = dataclasses.replace(view, orders=np.full(4, orders, np.uint16))
    parts = parts_ahead(view, Knobs(), RULES, mglru=False)
    for row in range(4):
        status, attempts = attempts_ahead(view[row : row + 1], Knobs(), RULES)
        assert parts.code[row] == status
        for order in ANON_ORDERS:
            assert parts.begun[row, order] == sum(a.order == order for a in attempts)
    assert len(set(module.block_kinds(view).tolist())) <= 2


def test_what_is_unknown_can_be_taken_for_used():
    memory = with_vm(
        columns(1, False), np.zeros((1, 512), bool), known=np.zeros((1, 512), bool), why="procfs"
    )
    memory.pte_known[:] = False
    view = assumed_used(to_view(memory, list(snapshot(memory).header.mappings), "always"))
    assert (view.pte & bits.ACCESSED).all() and view.pte_known.all()
    assert view.secondary[0].young.all() and not view.uncertain().any()
    assert len(view.pte[0]) == HPAGE_PMD_NR and view.address[0] == START
