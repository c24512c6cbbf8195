"""Fast accesses through a TLB: each of the three loops (the CPU alone, guests alone, both) against a TLB of plain lists."""

import numpy as np
import pytest

from secondsight.policy.registry import make
from secondsight.replay import Configuration, replay
from secondsight.replay.tlb import MISS, TlbConfig
from support.events import CR, CW, GR, GW, trace
from support.tlb import Lists

SMALL = TlbConfig(4, 2, 2, 1, 8, 4)
BLOCKS, ROWS = 5, 400


def drawn(seed, kinds):
    """Every page filled by the first events of its block, then *ROWS* accesses at random, none of which changes a mapping."""
    rng = np.random.default_rng(seed)
    pages = rng.choice(512, 6, replace=False)
    return [
        (0, 0, int(rng.integers(BLOCKS)), int(rng.choice(pages)), kinds[rng.integers(len(kinds))], 1)
        for _ in range(ROWS)
    ]


def walks(rows, space, config, **fields):
    """By row (a block of those touched, in order): the walks that a replay counts."""
    made = Configuration.of("7.2", tlb=config, policy=lambda: make("never"), fill=True, **fields)
    result = replay(trace(rows, (space,)), [made])
    return result.configurations[0].total, result.data[0].blocks.walks.tolist()


def counted(rows, config):
    """The same by lists: a guest's translation of a page and the CPU's are two entries."""
    numbers = sorted({row[2] for row in rows})
    guests = {row[4] in (GR, GW) for row in rows}
    lists, out = Lists(config), [0] * len(numbers)
    for _, _, block, page, kind, _ in rows:
        row = numbers.index(block)
        apart = len(numbers) * 512 if len(guests) == 2 and kind in (GR, GW) else 0
        out[row] += lists.use(row * 512 + page + apart, False, kind in (CW, GW)) == MISS
    return out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "config", [SMALL, TlbConfig(1, 1, 1, 1, 1, 1), TlbConfig()], ids=["small", "one", "usual"]
)
@pytest.mark.parametrize(
    ("space", "kinds"),
    [("process", (CR, CW)), ("vm", (GR, GW)), ("vm", (CR, CW, GR, GW))],
    ids=["cpu", "guests", "both"],
)
def test_who_walks_is_who_misses_in_lists_of_the_latest_used(space, kinds, config, seed):
    rows = drawn(seed, kinds)
    total, by_row = walks(rows, space, config)
    assert by_row == counted(rows, config)
    # Nothing else happened: every page had its own memory before.
    assert (total.faults, total.guest_faults, total.accesses) == (0, 0, ROWS)


@pytest.mark.parametrize("config", [SMALL, TlbConfig()], ids=["small", "usual"])
def test_all_of_a_huge_page_is_one_entry(config):
    rows = [(0, 0, block, 0, CW) for block in range(BLOCKS)] + drawn(7, (CR, CW))
    made = Configuration.of("7.2", tlb=config, policy=lambda: make("always,khugepaged=false"))
    result = replay(trace(rows), [made])
    lists, out = Lists(config), [0] * BLOCKS
    for _, _, block, page, kind, *_ in rows:
        out[block] += lists.use(block * 512 + page, True, kind is CW) == MISS
    total = result.configurations[0].total
    assert result.data[0].blocks.walks.tolist() == out
    assert total.walks == total.walks_huge == sum(out)


def test_stores_through_entries_of_a_huge_page_leave_no_page_zero_filled():
    # All of a block's pages are stored to; the entry is dirty from the first on, and nothing walks any more.
    rows = [(0, 0, 0, page, CW) for page in range(512)]
    made = Configuration.of("7.2", tlb=TlbConfig(), policy=lambda: make("always,khugepaged=false"))
    total = replay(trace(rows), [made]).configurations[0].total
    assert (total.walks, total.bloat, total.zero_filled) == (1, 0, 0)
    total = replay(trace(rows[:500]), [made]).configurations[0].total
    assert total.zero_filled == 12 * 4096


def test_an_aggregated_row_is_one_use_and_many_accesses():
    rows = drawn(3, (CR, CW))
    total, by_row = walks([(*row[:5], 7) for row in rows], "process", SMALL)
    assert by_row == counted(rows, SMALL) and total.accesses == 7 * ROWS
