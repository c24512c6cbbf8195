"""A configuration under way: each visit as the kernel would answer it, the trace's verbs between wake-ups, and what the channels said."""

import msgspec
import numpy as np

from secondsight.mm.config import Knobs
from secondsight.replay import HOST, Configuration, replay
from secondsight.trace.kinds import Kind, Verb
from support.events import CR, CW, GR, GW, trace, visits


def one(rows, rules="7.2", spaces=("process",), scale=1.0, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, **fields)], time_scale=scale)
    return result, result.configurations[0].total


def test_a_process_by_hand():
    # Block 3: pages 0 and 1 written at 1 s, read 7 times at 12 s; block 9: only read, so only the zero page is mapped.
    rows = [(1, 0, 3, 0, CW), (1, 0, 3, 1, CW), (1, 0, 9, 4, CR), (12, 0, 3, 0, CR, 7), (12, 0, 9, 5, CR, 3)]
    result, total = one(rows)
    assert visits(result) == [
        (10, 0, 3, "succeeded", "succeeded"),
        (10, 0, 9, "exceed_none_pte", None),
        (20, 0, 3, "page_pmd_mapped", None),
        (20, 0, 9, "exceed_none_pte", None),
    ]
    assert (total.blocks, total.collapses, total.huge_at_end) == (2, 1, 1)
    assert (total.accesses, total.accesses_huge) == (13, 7)
    assert total.coverage == 7 / 13
    # Two pages were populated: the other 510 are bloat, and as nobody wrote them they are zero-filled.
    assert (total.bloat, total.zero_filled) == (510 * 4096, 510 * 4096)
    # Pages 0 and 1 of block 3 by writing, 4 and 5 of block 9 by reading; 5 after a page table was there.
    assert total.faults == 4
    assert total.refused == {"exceed_none_pte": 1}
    assert result.configurations[0].series.huge_blocks == [1, 1]
    assert result.configurations[0].series.accesses == [3, 10]
    assert result.data[0].blocks.first_huge.tolist() == [10_000_000_000, -1]
    assert result.data[0].blocks.number.tolist() == [3, 9]


def test_a_guest_alone_before_the_patch_with_it_and_since_the_zap_forgets():
    # The VM's memory was written and aged before; then the guest touches page 1 every 5 s up to 25 s.
    rows = [(s, 0, 0, 1, GR) for s in range(0, 30, 5)]
    source = trace(rows, ["vm"])
    result = replay(source, [Configuration.of(r) for r in ("thp-base", "6.1", "7.2")])
    base, patched, newest = (s.total for s in result.configurations)
    assert base.refused == {"lack_referenced_page": 1}
    assert (base.collapses, base.test_young) == (0, 0)
    assert [v[3:] for v in visits(result, 1)] == [("succeeded", "succeeded")] + [
        ("page_pmd_mapped", None)
    ] * 2
    # Of one populated page one is asked about, once: the zap marks it before isolate looks.
    assert (patched.test_young, patched.wasted, patched.accesses_huge) == (1, 0, 4)
    # The first pass is wasted. The touch at 10 s goes through a fault, which marks the page: isolate finds that at 20 s.
    assert [v[3:] for v in visits(result, 2)] == [
        ("succeeded", "lack_referenced_page"),
        ("succeeded", "succeeded"),
        ("page_pmd_mapped", None),
    ]
    # Each of the two attempts took the page from the guest, whose next touch is a fault.
    assert (newest.wasted, newest.collapses, newest.guest_faults) == (1, 1, 2)
    assert result.configurations[2].notifier_calls == {"invalidate_range_start": 2, "test_young": 2}


def test_refusals_of_isolate_are_counted_apart():
    result, total = one([(0, 0, 0, 1, GR), (11, 0, 1, 1, GR)], "7.2", ["vm"])
    assert visits(result)[0] == (10, 0, 0, "succeeded", "lack_referenced_page")
    assert total.visits["lack_referenced_page@isolate"] == total.wasted


def test_the_verbs_of_a_trace():
    rows = [
        (0, 0, 0, 0, CW), (0, 0, 1, 0, CW), (0, 0, 2, 0, CW), (0, 0, 3, 0, CW), (0, 0, 3, 1, CW),
        (1, 0, 0, 0, Verb.MADV_NOHUGEPAGE, 512), (1, 0, 1, 0, Verb.MADV_DONTNEED, 512),
        (1, 0, 2, 0, Kind.PIN_WRITE), (1, 0, 3, 1, Verb.SWAP_OUT, 1),
        (15, 0, 2, 0, Verb.UNPIN, 1),
        (25, 0, 2, 0, Verb.MUNMAP, 512),
    ]  # fmt: skip
    result, total = one(rows, "6.1")
    assert visits(result)[:3] == [
        # 6.1's MADV_DONTNEED leaves an empty page table.
        (10, 0, 1, "exceed_none_pte", None),
        (10, 0, 2, "not_suitable_page_count", None),
        # Swapped out in part, and fewer than 256 young.
        (10, 0, 3, "lack_referenced_page", None),
    ]
    assert (20, 0, 2, "succeeded", "succeeded") in visits(result)
    assert result.data[0].blocks.huge.tolist() == [False] * 4
    assert total.unvisited == 1


def test_clear_refs_and_exit():
    rows = [
        (0, 0, 0, 0, CW),
        (5, 0, 0, 0, Verb.CLEAR_REFS, 0),
        (12, 0, 0, 0, CR),
        (25, 0, 0, 0, Verb.EXIT, 0),
    ]
    result, _ = one(rows, "6.1")
    assert [v[3] for v in visits(result)] == ["lack_referenced_page", "succeeded"]
    # What stood before the exit: the block that khugepaged had made huge.
    assert result.data[0].blocks.populated.tolist() == [512]
    assert result.data[0].blocks.huge.tolist() == [True]


def test_khugepageds_knobs():
    # pages_to_scan 512: one block a wake-up under rules that count blocks.

    config = msgspec.structs.replace(HOST, knobs=Knobs(pages_to_scan=512, scan_sleep_millisecs=1000))
    result, _ = one([(0, 0, b, 0, CW) for b in range(3)] + [(4, 0, 0, 0, CR)], "6.1", config=config)
    assert [v[:3] for v in visits(result)][:3] == [(1, 0, 0), (2, 0, 1), (3, 0, 2)]


def test_what_the_channels_said():
    rows = [(0, 0, 0, 0, GW), (0, 0, 0, 1, GW), (12, 0, 0, 0, GR)]
    result = replay(trace(rows, ["vm"]), [Configuration.of("7.2")], channels=True)
    kept = result.data[0].channels
    at = {
        name: np.array(getattr(kept, name))[:, 0].tolist() for name in ("primary", "referenced", "secondary")
    }
    # Before the first look the guest's two pages; the wasted pass takes their SPTEs; one comes back.
    assert at["primary"] == [0, 0]
    assert at["secondary"] == [2, 1]
    assert kept.time == [10_000_000_000, 20_000_000_000]


def test_a_host_without_notifiers_does_not_know():

    config = msgspec.structs.replace(HOST, mmu_notifier=False)
    result = replay(
        trace([(0, 0, 0, 0, GW)], ["vm"]), [Configuration.of("7.2", config=config)], channels=True
    )
    assert result.data[0].channels.secondary[0].tolist() == [-1]
    assert result.configurations[0].total.test_young == 0


def test_pages_are_scanned_up_to_where_a_scan_stopped_and_none_of_what_is_huge():
    # Both blocks are collapsed at 10 s, their 512 pages seen; what is mapped by a PMD afterwards costs nothing.
    rows = [(0, 0, 0, 0, CW), (0, 0, 1, 0, CW), (35, 0, 0, 0, CR)]
    result, total = one(rows, "6.1")
    assert [v[3] for v in visits(result)].count("page_pmd_mapped") == 6
    assert (total.collapses, total.pages_scanned) == (2, 2 * 512)
    # The pinned page of a block ends its scan: pages 0 to 4 were looked at, at each of four wake-ups.
    result, total = one([(0, 0, 0, 2, CW), (0, 0, 0, 4, Kind.PIN_WRITE), (35, 0, 0, 2, CR)], "6.1")
    assert (total.collapses, total.pages_scanned) == (0, 4 * 5)
