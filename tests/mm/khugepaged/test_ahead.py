"""The attempts foretold of a view are those that khugepaged makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secondsight.geometry import ALL_ANON_ORDERS, ANON_ORDERS, HPAGE_PMD_NR, kb_of_order
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.khugepaged.ahead import attempts_ahead
from secondsight.mm.madvise import madvise
from secondsight.mm.observe import of_model
from secondsight.mm.page import REFERENCED
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm

some = st.lists(st.integers(0, HPAGE_PMD_NR - 1), max_size=30)
states = st.fixed_dictionaries({
    "orders": st.integers(0, (1 << 10) - 1).map(lambda bits: bits & ALL_ANON_ORDERS),
    "none": st.sampled_from([0, 64, 511]),
    "holes": some,
    "hole_from": st.integers(0, HPAGE_PMD_NR),
    "swapped": st.lists(st.integers(0, HPAGE_PMD_NR - 1), max_size=3),
    "cpu": some,
    "guest": st.sampled_from(["all", "few", "none"]),
    "pinned": st.lists(st.integers(0, HPAGE_PMD_NR - 1), max_size=3),
    "mglru": st.booleans(),
})  # fmt: skip


@given(s=states)
@example(
    s={
        "orders": 12,
        "none": 0,
        "holes": [],
        "hole_from": 32,
        "swapped": [],
        "cpu": [0],
        "guest": "all",
        "pinned": [],
        "mglru": False,
    }
)
@settings(max_examples=25, deadline=None)
def test_what_is_foretold_is_what_happens(s) -> None:
    host = Host("7.2", HostConfig(thp_enabled="never", mglru=s["mglru"]))
    mm = host.mm("mm", 1)
    mm.cpu_access(np.arange(HPAGE_PMD_NR), write=True)
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, HPAGE_PMD_NR)
    host.drain()
    clear_refs(mm)
    host.frames.arrays.flags[[mm.pfn(page) for page in range(HPAGE_PMD_NR)]] &= ~REFERENCED
    if s["guest"] != "none":
        kvm.access(np.arange(0, HPAGE_PMD_NR, 1 if s["guest"] == "all" else 37), write=False)
    host.drain()
    if s["swapped"]:
        swap_out(mm, np.unique(s["swapped"]))
    for page in s["holes"]:
        madvise(mm, page, page + 1, "dontneed")
    if s["hole_from"] < HPAGE_PMD_NR:
        madvise(mm, s["hole_from"], HPAGE_PMD_NR, "dontneed")
    mapped = [page for page in s["cpu"] if mm.pfn(page) >= 0]
    mm.cpu_access(np.array(mapped, np.int64), write=False)
    for page in s["pinned"]:
        if mm.pfn(page) >= 0:
            host.frames.arrays.refcount[mm.pfn(page)] += 1
    switches = {
        f"kb{kb_of_order(order)}": "always" if s["orders"] >> order & 1 else "never" for order in ANON_ORDERS
    }
    knobs = Knobs(max_ptes_none=s["none"])
    host.configure(HostConfig(thp_enabled="always", sizes=Sizes(**switches), mglru=s["mglru"], knobs=knobs))
    if not s["orders"]:
        return
    host.khugepaged.enter_vma(mm, mm.vmas.areas[0])
    host.drain()
    seen = of_model(mm, [0])
    before = {name: getattr(seen, name).copy() for name in ("pte", "flags", "refcount", "zap_marks")}
    result, ahead = attempts_ahead(seen, knobs, host.rules, mglru=s["mglru"])
    for name, column in before.items():
        assert np.array_equal(getattr(seen, name), column), name
    visits = []
    host.khugepaged.on_visit = visits.append
    host.khugepaged.full_scan()
    (visit,) = visits
    assert [tuple(each) for each in ahead] == [(a.order, a.offset, a.status) for a in visit.attempts]
    assert result == visit.status


@pytest.mark.parametrize("kb2048", ["inherit", "never"])
def test_a_guard_is_foretold(kb2048) -> None:
    host = Host("7.3", HostConfig(sizes=Sizes(kb64="always", kb2048=kb2048)))
    mm = host.mm("mm", 1)
    mm.cpu_access(np.arange(HPAGE_PMD_NR), write=True)
    split_huge(mm, 0)
    host.drain()
    assert madvise(mm, 5, 6, "guard_install") is None and madvise(mm, 0, HPAGE_PMD_NR, "hugepage") is None
    view = of_model(mm, [0])
    _, foretold = attempts_ahead(view, host.config.knobs, host.rules)
    visits = []
    host.khugepaged.on_visit = visits.append
    host.khugepaged.full_scan()
    made = [(a.order, a.offset, a.status) for a in visits[0].attempts]
    assert [tuple(each) for each in foretold] == made
    assert str(made[0][2]) == ("exceed_swap_pte" if kb2048 == "never" else "failed")
