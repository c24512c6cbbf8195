"""A view is of its blocks and of nothing else: looking changes nothing, channels stay apart, and a part of a view is a view."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from secondsight.bits.pte import ACCESSED
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.mm.observe import of_model
from secondsight.mm.page import REFERENCED
from secondsight.mm.task_mmu import clear_refs
from support.model import pages, vm
from support.vm_blocks import everything, prepared


def _everything_of(host, mm, kvm):
    out = [mm.arrays.pmd, mm.arrays.pte, mm.arrays.swap, *host.frames.arrays]
    for slot in kvm.slots.values():
        for table in slot.tables.values():
            out += [table.spte, table.smd]
    return [a.copy() for a in out]


@given(*everything)
@settings(max_examples=40, deadline=None)
def test_looking_changes_nothing(rules, mmu, mglru, s) -> None:
    host, mm, kvm = prepared(rules, mmu, mglru, s)
    before = _everything_of(host, mm, kvm)
    seen = of_model(mm, [0])
    verdict(seen, Knobs(), host.rules, mglru=mglru)
    mm.notifiers.test_young(0, 512, np.ones(512, np.bool_))
    for old, new in zip(before, _everything_of(host, mm, kvm), strict=True):
        assert np.array_equal(old, new)


def test_channels_stay_apart() -> None:
    host, mm, kvm = vm("6.1", 1)
    mm.cpu_access(pages(0), write=True)
    host.drain()
    clear_refs(mm)
    kvm.access(pages(0, 1), write=False)
    clear_refs(mm)
    mm.cpu_access(pages(0, 2), write=False)
    mm.pin(pages(0, 3), "io")
    seen = of_model(mm, [0])
    assert np.flatnonzero(seen.pte[0] & ACCESSED).tolist() == [2]
    assert np.flatnonzero(seen.flags[0] & REFERENCED).tolist() == [3]
    assert [np.flatnonzero(c.young[0]).tolist() for c in seen.secondary] == [[1]]
