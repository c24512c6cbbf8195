"""A verdict on a view foretells what khugepaged answers, and says where something unread could change it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pte as x86
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.mm.observe import of_model
from secondsight.mm.profiles import PROFILES
from support.blocks_by_hand import block, hole, young
from support.model import KERNELS
from support.vm_blocks import everything, prepared


@given(*everything)
@settings(max_examples=60, deadline=None)
def test_a_verdict_foretells_khugepaged(rules, mmu, mglru, s) -> None:
    host, mm, _ = prepared(rules, mmu, mglru, s)
    host.drain()
    foretold = verdict(of_model(mm, [0]), Knobs(), host.rules, mglru=mglru)
    seen = []
    host.khugepaged.on_visit = seen.append
    host.khugepaged.full_scan()
    (visit,) = seen
    assert foretold.known[0] and foretold.code[0] == visit.status
    assert (
        foretold.scan.referenced[0] == visit.scan.referenced[0]
        and foretold.scan.asked[0] == visit.scan.asked[0]
    )
    for isolated in visit.isolates:
        assert foretold.isolate.referenced[0] == isolated.referenced[0]
        assert foretold.isolate.stopped[0] == isolated.stopped[0]


def test_a_page_swapped_in_beside_a_hole_is_a_page_of_its_own_in_the_zap() -> None:
    """Neither has a folio: the zap's marks on others must not make one of the other."""
    view = young(block(kvm=list(range(20, 400))), *range(10, 300))
    view.pte[0, 3] = x86.NONE
    view.pte[0, 9] = x86.swap_pte(np.uint64(5))
    for column in ("flags", "mapcount", "folio_mapcount", "refcount"):
        getattr(view, column)[0, [3, 9]] = 0
    view.folio[0, [3, 9]] = -1
    view.zap_marks[0, 20:400] = 1
    judged = verdict(view, Knobs(), PROFILES["6.1"])
    assert Scan(judged.code[0]) == Scan.SUCCEED and judged.known[0]


@pytest.mark.parametrize("name", KERNELS)
def test_a_verdict_says_when_an_unknown_channel_decides(name) -> None:
    view = block(kvm=[])
    blind = replace(view.secondary[0], known=np.zeros((1, 512), np.bool_))
    judged = verdict(replace(view, secondary=(blind,)), Knobs(), PROFILES[name])
    assert Scan(judged.code[0]) == Scan.LACK_REFERENCED_PAGE
    # Where the zap carries youth over, a yes would have collapsed the block; since 6.13 isolate refuses it either way.
    assert judged.known[0] != PROFILES[name].zap_transfers_accessed
    assert Scan(judged.other[0]) == (Scan.LACK_REFERENCED_PAGE if judged.known[0] else Scan.SUCCEED)
    # One page the CPU used decides, whatever the blind channel would say.
    seen = verdict(replace(young(block(), 7), secondary=(blind,)), Knobs(), PROFILES[name])
    assert seen.known[0] and Scan(seen.code[0]) == Scan.SUCCEED


@given(
    name=st.sampled_from(KERNELS),
    used=st.lists(st.integers(0, 511), max_size=6),
    unread=st.lists(st.integers(0, 511), min_size=1, max_size=300),
    swapped=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_known_verdict_stands_whatever_the_unread_accessed_bits_are(
    name, used, unread, swapped, seed
) -> None:
    view = young(block(), *used)
    hole(view, range(swapped))
    view.folio[0, :swapped] = -1
    view.pte[0, :swapped] = x86.swap_pte(np.arange(1, swapped + 1, dtype=np.uint64))
    some = np.array(sorted({page for page in unread if page >= swapped}), dtype=np.int64)
    view.pte_known[0, some] = False

    def read(bits):
        """The verdict when the accessed bits of the unread pages turn out to be *bits*."""
        seen = replace(view, pte=view.pte.copy(), pte_known=np.ones((1, 512), np.bool_))
        seen.pte[0, some] &= ~x86.ACCESSED
        seen.pte[0, some[bits]] |= x86.ACCESSED
        judged = verdict(seen, Knobs(), PROFILES[name])
        assert judged.known[0] and judged.other[0] == judged.code[0]
        return int(judged.code[0])

    judged = verdict(view, Knobs(), PROFILES[name])
    none, every = np.zeros(len(some), np.bool_), np.ones(len(some), np.bool_)
    assert (read(none), read(every)) == (judged.code[0], judged.other[0])
    assert judged.known[0] == (judged.code[0] == judged.other[0])
    between = read(np.random.default_rng(seed).random(len(some)) < 0.5)
    assert between in (
        {int(judged.code[0])} if judged.known[0] else {int(judged.code[0]), int(judged.other[0])}
    )


def test_isolate_is_asked_of_the_blocks_that_pass_the_scan_alone() -> None:
    view = block()[np.array([0, 0, 0])]
    view.pte[0, 7] |= x86.ACCESSED
    view.pte[2, 7] |= x86.ACCESSED
    view.refcount[2, 3] += 1
    judged = verdict(view, Knobs(), PROFILES["6.12"])
    assert [str(Scan(code)) for code in judged.code] == [
        "succeeded", "lack_referenced_page", "not_suitable_page_count",
    ]  # fmt: skip
    assert judged.scan.passed.tolist() == [True, False, False]
    assert judged.isolate.asked.tolist() == [511, 0, 0]
    assert verdict(view, Knobs(), PROFILES["6.12"], khugepaged=False).code.tolist() == [
        Scan.SUCCEED, Scan.SUCCEED, Scan.PAGE_COUNT,
    ]  # fmt: skip


def test_isolate_is_asked_too_where_the_scan_would_pass_if_what_is_unread_were_young() -> None:
    view = block()[np.array([0, 0])]
    view.pte_known[1, 9] = False
    judged = verdict(view, Knobs(), PROFILES["6.12"])
    assert not judged.scan.passed.any() and judged.known.tolist() == [True, False]
    assert judged.isolate.asked.tolist() == [0, 512]
