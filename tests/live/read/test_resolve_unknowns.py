"""The accessed bits that the sums of smaps leave no choice for."""

import msgspec

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import ACCESSED
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.resolve_unknowns import resolve_accessed
from secondsight.live.read.vma import Vma
from support.snapshots import BLOCK, START, columns, snapshot


def test_smaps_settles_only_what_one_answer_is_left_for():
    def mapping(flags=(), **kb):
        return [Vma(START, START + 2 * BLOCK, "rw-p", 0, "00:00", 0, "", frozenset(flags), kb)]

    def fresh():
        made = columns(2, secondary=False)
        made.pte_known[:] = False
        made.flags[0, :6] |= kpf.REFERENCED
        return made

    none, marked, some, every = fresh(), fresh(), fresh(), fresh()
    resolve_accessed(none, mapping(Referenced=0, Rss=4096))
    resolve_accessed(marked, mapping(Referenced=24, Rss=4096))
    resolve_accessed(some, mapping(Referenced=28, Rss=4096))
    resolve_accessed(every, mapping(Referenced=4096, Rss=4096))
    assert none.pte_known[0, 6:].all() and not bits.pte_young(none.pte).any()
    assert marked.pte_known[1].all() and not marked.pte_known[0, :6].any()
    assert not some.pte_known.any(), "one more page was used, and nobody knows which"
    assert every.either.all(), "each page is counted, by its accessed bit, PG_young or PG_referenced"
    assert not every.pte_known.any() and not bits.pte_young(every.pte).any(), "by which of them nobody knows"
    assert not any(each.either.any() for each in (none, marked, some))
    for flag in ("ht", "pf", "mm", "io"):
        uncounted = fresh()
        resolve_accessed(uncounted, mapping((flag,), Referenced=0, Rss=0))
        assert not uncounted.pte_known.any()
    for kb in (0, 4096):
        huge = fresh()
        huge.pmd[1], huge.pte[1] = bits.PRESENT | bits.PSE, 0
        resolve_accessed(huge, mapping(Referenced=kb, Rss=4096))
        assert huge.pte_known[1, 0] == (kb == 0) and huge.either[1, 0] == (kb != 0)
        assert not bits.pte_young(huge.pmd)[1]


def test_a_page_that_one_of_the_bits_is_known_of_is_judged_as_used_though_no_channel_is_known():
    def seen(referenced, page_known):
        made = columns(1, secondary=False)
        made.pte_known[:], made.page_known[:] = False, page_known
        sums = {"Referenced": referenced, "Rss": 2048, "Anonymous": 2048}
        held = snapshot(made)
        vma = msgspec.structs.replace(held.header.mappings[0], kb=sums)
        resolve_accessed(made, [vma])
        return Snapshot(msgspec.structs.replace(held.header, mappings=(vma,)), made)

    every, some = seen(2048, page_known=True), seen(4, page_known=True)
    answer = explain(every)
    (block,) = answer.blocks
    assert (block.primary, block.referenced) == (None, 0)
    assert (block.status, block.known) == ("succeeded", True), (
        "that one of them is set is all khugepaged asks"
    )
    assert answer.channels["PRIMARY"].startswith("unknown for 512 of 512 pages")
    assert "512 used or referenced" in answer.channels["PRIMARY"]
    assert PageCounts(every).used().tolist() == [512]
    (unsure,) = explain(some).blocks
    assert not unsure.known and ACCESSED in unsure.unread
    (unread,) = explain(seen(2048, page_known=False)).blocks
    assert (unread.primary, unread.referenced) == (None, None)
    assert ACCESSED not in unread.unread
