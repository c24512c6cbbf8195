"""The judgement on a view is the model's own future: ``zap`` against the real invalidation, and looking changes nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits.pte import ACCESSED
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.verdict import verdict
from secondsight.mm.khugepaged.zap import zap
from secondsight.mm.madvise import madvise
from secondsight.mm.observe import of_model
from secondsight.mm.page import ACTIVE, BATCH_ACTIVATE, DIRTY, N_ACTIVATE, REFERENCED
from secondsight.mm.task_mmu import clear_refs
from support.model import KERNELS, MMUS, pages, vm

some = st.lists(st.integers(0, 511), max_size=40)
states = st.fixed_dictionaries({
    "guest": some,
    "guest_again": some,
    "other_window": some,
    "cpu": some,
    "referenced": some,
    "active": some,
    "whole": st.booleans(),
    "clear": st.booleans(),
    "drain": st.booleans(),
})  # fmt: skip


def prepared(rules: str, mmu: str, mglru: bool, s: dict):
    """A VM's block in a state that *s* describes, small pages all written."""
    host, mm, kvm = vm(rules, 1, mmu=mmu, mglru=mglru)
    madvise(mm, 0, 512, "nohugepage")
    mm.cpu_access(pages(0), write=True)
    host.drain()
    kvm.access(np.array(s["guest"], dtype=np.int64), write=True)
    kvm.access(np.array(s["other_window"], dtype=np.int64), write=False, view=1)
    if s["whole"]:
        kvm.access(pages(0), write=False)
    if s["clear"]:
        clear_refs(mm)
    kvm.access(np.array(s["guest_again"], dtype=np.int64), write=False)
    mm.cpu_access(np.array(s["cpu"], dtype=np.int64), write=False)
    host.drain()
    f = host.frames.arrays
    for page in s["referenced"]:
        f.flags[mm.pfn(page)] |= REFERENCED
    for page in s["active"]:
        f.flags[mm.pfn(page)] |= ACTIVE
    if not s["drain"]:
        # Leave a few activations waiting in the batch.
        kvm.access(np.array(s["guest"][:3], dtype=np.int64), write=False, view=2)
    madvise(mm, 0, 512, "hugepage")
    return host, mm, kvm


everything = (st.sampled_from(KERNELS), st.sampled_from(MMUS), st.booleans(), states)


@given(*everything)
@settings(max_examples=60, deadline=None)
def test_zap_is_what_the_models_invalidation_does(rules, mmu, mglru, s) -> None:
    host, mm, _ = prepared(rules, mmu, mglru, s)
    seen = of_model(mm, [0])
    zapped = zap(seen, host.rules, mglru=mglru)
    f = host.frames.arrays
    waiting = np.isin([mm.pfn(p) for p in range(512)], f.batch[BATCH_ACTIVATE, : f.n[N_ACTIVATE]])
    mm.notifiers.invalidate_range(0, 512)
    real = of_model(mm, [0])
    assert not any(c.young.any() for c in real.secondary), "nothing is left to be young"
    # PG_dirty, which a zap carries over too, is nothing that the judgement asks about.
    off = (zapped.flags ^ real.flags) & ~DIRTY
    # Nor does a view tell which pages wait in the batch: the zap may have filled it, so that they are active and without its reference.
    off[0, waiting] &= ~ACTIVE
    assert not off.any(), (
        f"{np.argwhere(off)[:3].tolist()}: {zapped.flags[off != 0][:3]} {real.flags[off != 0][:3]}"
    )
    assert np.array_equal(zapped.pte, real.pte)
    assert np.array_equal(zapped.refcount[0, ~waiting], real.refcount[0, ~waiting])
    assert not zapped.zap_marks.any() and not zapped.merged().any()


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
