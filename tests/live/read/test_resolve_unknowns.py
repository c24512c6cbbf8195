"""The accessed bits that the sums of smaps leave no choice for."""

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.read.resolve_unknowns import resolve_accessed
from secondsight.live.read.vma import Vma
from support.snapshots import BLOCK, START, columns


def test_smaps_settles_primary_only_where_one_answer_is_left():
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
    assert every.pte_known.all() and bits.pte_young(every.pte).all()
    uncounted = fresh()
    resolve_accessed(uncounted, mapping(("ht",), Referenced=0, Rss=0))
    assert not uncounted.pte_known.any()
    for kb, young in ((0, False), (4096, True)):
        huge = fresh()
        huge.pmd[1], huge.pte[1] = bits.PRESENT | bits.PSE, 0
        resolve_accessed(huge, mapping(Referenced=kb, Rss=4096))
        assert huge.pte_known[1, 0] and bits.pte_young(huge.pmd)[1] == young
