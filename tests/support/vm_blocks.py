"""A VM's block in states drawn at random."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from secondsight.mm.madvise import madvise
from secondsight.mm.page import ACTIVE, REFERENCED
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
#: A profile, a table format of KVM, whether MGLRU is on, and a state.
everything = (st.sampled_from(KERNELS), st.sampled_from(MMUS), st.booleans(), states)


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
