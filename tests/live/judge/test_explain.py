"""From a snapshot to verdicts: the stories the kernels told, unknowns kept unknown, files that survive or are refused."""

import dataclasses
import sys

import msgspec
import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.cli import explained
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import PINS
from secondsight.live.read import capture
from secondsight.mm.config import Knobs
from support.snapshots import BLOCK, FACTS_61, FACTS_72, START, columns, snapshot, with_vm


@pytest.mark.parametrize("facts", [FACTS_61, FACTS_72])
def test_what_only_kallsyms_knows_changes_no_verdict(facts):
    """So explain does not ask it (probe.probe, kallsyms=None)."""
    young = np.zeros((4, 512), bool)
    young[1:] = True
    memory = with_vm(columns(4), young)
    memory.flags[2] |= kpf.REFERENCED
    memory.zap_marks[3, ::3] = 2
    answers = []
    for soft in (None, False, True):
        answer = explain(snapshot(memory, facts=msgspec.structs.replace(facts, soft_accessed=soft)))
        answers.append((answer.blocks, answer.totals, answer.rules, answer.open_points, answer.channels))
    assert answers[0] == answers[1] == answers[2]


def test_blocks_that_only_the_guest_uses():
    young = np.zeros((3, 512), bool)
    young[1:] = True
    memory = with_vm(columns(3), young)
    memory.pte[2, 7] |= bits.ACCESSED
    answer = explain(snapshot(memory))
    assert [b.status for b in answer.blocks] == ["lack_referenced_page", "lack_referenced_page", "succeeded"]
    assert [b.wasted for b in answer.blocks] == [False, True, False], (
        "the 6.13+ refusal, and one page that rescues"
    )
    assert [(b.primary, b.referenced, b.secondary) for b in answer.blocks] == [
        (0, 0, 0),
        (0, 0, 512),
        (1, 0, 512),
    ]
    assert answer.blocks[1].guest == 512 << 12 and answer.blocks[1].slot == 0
    old = explain(snapshot(memory, FACTS_61))
    assert [b.status for b in old.blocks] == ["lack_referenced_page", "succeeded", "succeeded"]
    # One reading of 6.1 has the address bug: block 2's base page is young in both, block 1's too.
    assert old.open_points and all(b.known for b in old.blocks)


def test_the_huge_zero_page_is_mapped_by_a_pmd_and_is_no_memory():
    read = columns(3)
    read.pmd[:2] = bits.PRESENT | bits.PSE | bits.USER
    read.pte[:2] = 0
    read.flags[0, 0] = kpf.ZERO_PAGE
    answer = explain(snapshot(read))
    zero, huge, small = answer.blocks
    assert (zero.mapping, zero.populated, zero.status) == ("zero", 0, "page_pmd_mapped")
    assert zero.reason.startswith("the huge zero page is mapped") and huge.mapping == "huge"
    totals = answer.totals
    assert (totals.huge_blocks, totals.resident) == (1, 2 * BLOCK) and totals.coverage == 0.5
    assert totals.sizes["PMD"] == BLOCK and small.mapping == "small"


def test_the_command_tells_the_huge_zero_page_from_huge_memory(capsys, tmp_path):
    read = columns(3)
    read.pmd[:2] = bits.PRESENT | bits.PSE | bits.USER
    read.pte[:2] = 0
    read.flags[0, 0] = kpf.ZERO_PAGE
    assert "2 page_pmd_mapped (1 of them the huge zero page: " in printed(read, capsys, tmp_path)


def printed(memory, capsys, folder, mappings=()):
    """What ``explain`` prints of *memory*, with *mappings* beside its own."""
    taken = snapshot(memory)
    header = msgspec.structs.replace(taken.header, mappings=(*taken.header.mappings, *mappings))
    capture.save(dataclasses.replace(taken, header=header), folder / "snapshot.npz")
    explained.explain(folder / "snapshot.npz")
    return capsys.readouterr().out


def test_the_command_fits_the_terminal(capsys, tmp_path, monkeypatch):
    memory = dataclasses.replace(columns(2, secondary=False), counts_known=False)
    memory.pte[0, 0] |= bits.ACCESSED
    monkeypatch.setenv("COLUMNS", "80")
    whole = printed(memory, capsys, tmp_path)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fitted = printed(memory, capsys, tmp_path)
    assert max(map(len, whole.splitlines())) > 80 >= max(map(len, fitted.splitlines()))
    assert fitted.split() == whole.split()


def test_attempts_of_uncertain_verdicts_are_likely_ones(capsys, tmp_path):
    memory = columns(1, secondary=False)
    memory.pte[0, 0] |= bits.ACCESSED
    assert "\n1 collapse is begun in a pass" in printed(memory, capsys, tmp_path)
    unseen = dataclasses.replace(memory, counts_known=False)
    assert "\nmost likely 1 collapse is begun in a pass" in printed(unseen, capsys, tmp_path)


def test_small_mappings_are_listed_where_they_were_advised(capsys, tmp_path):
    small = snapshot(columns(1)).header.mappings[0]
    sizes = [
        msgspec.structs.replace(
            small, start=START + (16 << 21) + at, end=START + (16 << 21) + at + 4096, flags=frozenset(flags)
        )
        for at, flags in ((0, ("hg",)), (8192, ("nh",)))
    ]
    text = printed(columns(1), capsys, tmp_path, sizes)
    assert "MADV_HUGEPAGE skipped: holds no whole aligned 2 MiB" in text and "MADV_NOHUGEPAGE" not in text


def test_a_mapping_that_is_skipped_and_holds_a_huge_page_counts_whole():
    read = columns(3)
    read.pmd[0] = bits.PRESENT | bits.PSE | bits.USER | bits.RW
    read.pte[0] = 0
    advised = explain(snapshot(read))
    skipped = explain(snapshot(read, enabled="never"))
    assert (advised.totals.eligible_blocks, advised.totals.skipped_blocks) == (3, 0)
    assert (skipped.totals.eligible_blocks, skipped.totals.skipped_blocks) == (3, 3)
    assert advised.totals.coverage == skipped.totals.coverage == pytest.approx(1 / 3)
    read.pmd[0], read.pte[0] = read.pmd[1], read.pte[1]
    assert explain(snapshot(read, enabled="never")).totals.coverage is None


def test_limits_pins_and_shares_are_named():
    memory = columns(5)
    memory.pte[:, 0] |= bits.ACCESSED
    memory.pte[0, 100:] = 0
    memory.refcount[1, 5] = 2
    memory.shared[2, :300] = True
    memory.pmd[3] = bits.PRESENT | bits.PSE | bits.RW | bits.USER
    memory.pte[3] = 0
    memory.pte[4, :70] = bits.swap_pte(np.arange(70, dtype=np.uint64))
    answer = explain(snapshot(memory, limits=Knobs(max_ptes_none=64)))
    statuses = [b.status for b in answer.blocks]
    assert statuses == [
        "exceed_none_pte",
        "not_suitable_page_count",
        "exceed_shared_pte",
        "page_pmd_mapped",
        "exceed_swap_pte",
    ]
    assert answer.blocks[0].reason == "412 pages are missing or zero, max_ptes_none is 64"
    assert answer.blocks[1].at == START + BLOCK + 5 * 4096 and answer.blocks[1].pinned == 1
    assert answer.blocks[3].mapping == "huge" and answer.totals.huge_blocks == 1
    assert "70 pages are swapped out, max_ptes_swap is 64" in answer.blocks[4].reason


def test_a_huge_block_is_told_by_its_pmd_and_its_first_page():
    memory = with_vm(columns(3), np.array([[False] * 512, [True] * 512, [False] * 512]))
    memory.pmd[:] = bits.PRESENT | bits.PSE | bits.RW | bits.USER
    memory.pte[:] = 0
    memory.pmd[0] |= bits.ACCESSED
    memory.flags[1, 0] |= kpf.REFERENCED
    blocks = explain(snapshot(memory)).blocks
    assert [(b.primary, b.referenced, b.secondary) for b in blocks] == [(512, 0, 0), (0, 512, 512), (0, 0, 0)]
    memory.pte_known[:] = memory.page_known[:] = False
    unseen = np.zeros((3, 512), bool)
    memory = with_vm(memory, unseen, known=unseen, why="may not look")
    answer = explain(snapshot(memory))
    assert {(b.primary, b.referenced, b.secondary) for b in answer.blocks} == {(None, None, None)}
    assert answer.channels["PRIMARY"].startswith("unknown for 1,536 of 1,536 pages")


def test_unknown_is_never_no():
    memory = columns(3, secondary=False)
    nothing = np.zeros((3, 512), bool)
    memory = with_vm(memory, nothing, known=nothing, why="may not look")
    memory.flags[1, 3] |= kpf.REFERENCED
    memory.pte_known[2] = False
    answer = explain(snapshot(memory))
    idle, marked, dark = answer.blocks
    assert idle.secondary is None and idle.referenced == 0
    assert (idle.status, idle.known, idle.wasted) == ("lack_referenced_page", True, False)
    assert idle.wasted_if and "if only a secondary MMU used it" in idle.reason and dark.wasted_if
    assert not marked.wasted_if and answer.totals.wasted_if == 2
    old = explain(snapshot(memory, FACTS_61))
    assert old.totals.wasted_if == 0, "up to 6.12 the zap carries what a guest used"
    assert marked.status == "succeeded" and marked.known, "PG_referenced alone decides"
    assert dark.primary is None and not dark.known and "succeeded" in dark.others
    assert "unknown" in answer.channels["SECONDARY"] and "may not look" in answer.channels["SECONDARY"]


def test_what_pg_young_may_be_is_not_called_unused_from_procfs():
    """On a 6.18 smaps called every page of an idle sqlite referenced, and PG_referenced was on none of them."""
    memory = dataclasses.replace(columns(2, secondary=False), counts_known=False)
    memory.pte_known[:] = False
    memory.flags[1] |= kpf.REFERENCED
    answer = explain(snapshot(memory))
    assert [block.referenced for block in answer.blocks] == [None, 512]
    assert answer.channels["REFERENCED"].startswith(
        "unknown for 512 of 1,024 pages: PG_referenced is not set"
    )
    assert all("page flags" not in block.unread for block in answer.blocks), "they were read"
    memory.page_known[:] = False
    memory.pte_known[:] = True
    answer = explain(snapshot(memory))
    assert [block.referenced for block in answer.blocks] == [0, 0], "smaps' sum leaves none of the three"
    assert answer.channels["REFERENCED"] == "known" and "page flags" in answer.blocks[0].unread


def test_an_unknown_secondary_leaves_the_verdict_open_on_old_kernels():
    nothing = np.zeros((1, 512), bool)
    memory = with_vm(columns(1, secondary=False), nothing, known=nothing)
    (block,) = explain(snapshot(memory, FACTS_61)).blocks
    assert not block.known


def test_pins_are_unknown_from_procfs():
    memory = dataclasses.replace(columns(1, secondary=False), counts_known=False)
    memory.pte[0, 0] |= bits.ACCESSED
    (block,) = explain(snapshot(memory)).blocks
    assert block.status == "succeeded" and not block.known and "not_suitable_page_count" in block.others


def test_a_pin_ends_the_scan_before_a_limit_that_a_later_page_exceeds():
    """hpage_collapse_scan_pmd asks page by page: on a running 6.18 a page held by vmsplice was the answer in each of these."""

    def answer(change, **limits):
        memory = dataclasses.replace(columns(1, secondary=False), counts_known=False)
        memory.pte[0, 0] |= bits.ACCESSED
        change(memory)
        (block,) = explain(snapshot(memory, limits=Knobs(**limits))).blocks
        return block.status, "not_suitable_page_count" in block.others, PINS in block.unread

    def idle(memory):
        memory.pte[0, 0] &= ~bits.ACCESSED

    def shared(memory):
        memory.shared[0, 1:], memory.mapcount[0, 1:] = True, 2

    def hole_behind(memory):
        memory.pte[0, 511] = 0

    def hole_before(memory):
        memory.pte[0, :511], memory.pte[0, 511] = 0, memory.pte[0, 511] | bits.ACCESSED

    def swapped(memory):
        memory.pte[0, 400:465] = bits.swap_pte(np.arange(65, dtype=np.uint64))

    def guarded(memory):
        memory.pte[0] |= bits.ACCESSED  # with entries that are not present half of the pages must be in use
        memory.pte[0, 9] = swap.swp_entry(*np.array([swap.MARKER_TYPE, swap.MARKER_GUARD], np.uint64))

    assert answer(idle) == ("lack_referenced_page", True, True)
    assert answer(shared) == ("exceed_shared_pte", True, True)
    assert answer(swapped) == ("exceed_swap_pte", True, True)
    assert answer(guarded) == ("failed", True, True)
    assert answer(hole_behind, max_ptes_none=0) == ("exceed_none_pte", True, True)
    assert answer(hole_before, max_ptes_none=0) == ("exceed_none_pte", False, False), "no page before it"


def test_one_page_mapped_twice_in_a_block_is_no_io():
    """KSM, on a running 6.18: page_locked in every pass."""
    memory = columns(1, secondary=False)
    memory.pte[0] |= bits.ACCESSED
    memory.pte[0, 9], memory.folio[0, 9] = memory.pte[0, 8], memory.folio[0, 8]
    memory.mapcount[0, 8:10] = memory.folio_mapcount[0, 8:10] = memory.refcount[0, 8:10] = 2
    memory.flags[0, 8:10] |= kpf.KSM
    (block,) = explain(snapshot(memory)).blocks
    assert (block.status, block.known) == ("page_locked", True) and "KSM" in block.reason
    memory.flags[0, 3] |= kpf.LOCKED
    (block,) = explain(snapshot(memory)).blocks
    assert block.status == "page_locked" and "KSM" not in block.reason
    # Without page flags and frames pagemap says that several map each, not that it is the same page.
    memory = dataclasses.replace(columns(1, secondary=False), counts_known=False)
    memory.pte[0] |= bits.ACCESSED
    memory.page_known[:] = False
    memory.shared[0, :2] = True
    for flags, may in ((("hg",), False), (("hg", "mg"), True)):
        (block,) = explain(snapshot(memory, flags=flags)).blocks
        assert ("page_locked" in block.others) == may


@pytest.mark.parametrize(("flags", "enabled", "why"), [
    (("nh",), "always", "MADV_NOHUGEPAGE"), ((), "madvise", "not advised"), (("hg",), "never", "switched off"),
    (("hg", "io"), "always", "device"), (("de", "ht"), "always", "hugetlb"),
])  # fmt: skip
def test_mappings_that_are_skipped(flags, enabled, why):
    answer = explain(snapshot(columns(1), flags=flags, enabled=enabled))
    assert answer.blocks[0].status == "ineligible" and why in answer.blocks[0].reason
    assert answer.totals.eligible_blocks == 0 and answer.totals.coverage is None


@pytest.mark.parametrize(
    ("flags", "enabled", "counts"),
    [(("hg",), "never", True), (("nh",), "always", True), (("ht",), "always", False)],
)
def test_what_is_huge_already_counts_as_huge_whatever_the_switches_say(flags, enabled, counts):
    """As after ``collapse --override``, or a switch that was turned; but hugetlb is no transparent huge page."""
    memory = columns(2)
    memory.pmd[0] = bits.PRESENT | bits.PSE | bits.RW | bits.USER
    memory.pte[0] = 0
    memory.pmd[1], memory.pte[1] = memory.pmd[0], 0
    answer = explain(snapshot(memory, flags=flags, enabled=enabled))
    statuses = [block.status for block in answer.blocks]
    if not counts:
        assert statuses == ["ineligible"] * 2 and answer.totals.coverage is None
        return
    assert statuses == ["page_pmd_mapped"] * 2 and answer.totals.coverage == 1
    assert "would skip the mapping" in answer.blocks[0].reason and answer.mappings[0].refused
    memory.pmd[1] = bits.TABLE
    memory.pte[1] = columns(1).pte[0]
    answer = explain(snapshot(memory, flags=flags, enabled=enabled))
    assert [block.status for block in answer.blocks] == ["page_pmd_mapped", "ineligible"]
    # What is small in the same mapping counts beside it: else the share would be 100 % wherever a mapping is skipped.
    assert (
        answer.totals.coverage == 0.5 and answer.totals.eligible_blocks == answer.totals.skipped_blocks == 2
    )


def test_swapped_pages_come_back_before_the_second_look():
    memory = columns(2, secondary=False)
    memory.pte[:, :8] = bits.swap_pte(np.arange(16, dtype=np.uint64)).reshape(2, 8)
    memory.pte[0, 8:] |= bits.ACCESSED
    memory.pte[1, 8:200] |= bits.ACCESSED
    for facts in (FACTS_61, FACTS_72):
        swapped, idle = explain(snapshot(memory, facts)).blocks
        assert (swapped.status, swapped.known, swapped.bloat) == ("succeeded", True, 0)
        assert idle.status == "lack_referenced_page" and "256 are needed" in idle.reason


@pytest.mark.parametrize(
    ("marked", "rescued", "said"),
    [
        (1, 0, {"not_suitable_page_count", "lack_referenced_page"}),
        (15, 0, {"not_suitable_page_count", "lack_referenced_page"}),
        (40, 1, {"not_suitable_page_count", "succeeded"}),
        (0, 1, {"succeeded"}),
    ],
)
def test_what_hangs_on_the_lru_batch_is_said_to(marked, rescued, said):
    """6.1 without MGLRU: pages inactive, PG_referenced and used by the guest wait in a batch that holds a reference, unless it fills."""
    young = np.zeros((1, 512), bool)
    young[0, :marked] = True
    memory = with_vm(columns(1), young)
    memory.flags[0, :marked] |= kpf.REFERENCED
    memory.pte[0, 500 : 500 + rescued] |= bits.ACCESSED
    (block,) = explain(snapshot(memory, FACTS_61)).blocks
    assert {block.status, *block.others} == said
    assert block.known == (len(said) == 1)
    assert ("LRU batch by then" in block.reason) == (len(said) == 2)
    with_mglru = msgspec.structs.replace(FACTS_61, mglru=True)
    assert explain(snapshot(memory, with_mglru)).blocks[0].status == "succeeded"
