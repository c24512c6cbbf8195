"""No sequence of verbs breaks an invariant: frames, references, mappings and secondary MMUs are recounted after each."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secondsight.errors import UsageError
from secondsight.mm import ksm, rmap, vmscan
from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_block_pmd, split_huge
from secondsight.mm.madvise import madvise
from secondsight.mm.mempolicy import change_prot_numa
from secondsight.mm.mlock import mlock, munlock
from secondsight.mm.mprotect import mprotect
from secondsight.mm.profiles import PROFILES
from secondsight.mm.task_mmu import clear_refs
from secondsight.mmu.gru import GruContext
from secondsight.mmu.kvm import Kvm
from support.model import ALL, MMUS, holds

BLOCKS = 3
starts = st.sampled_from([0, 1, 7, 300, 511, 512, 513, 1000, 1024, 1535])
lengths = st.sampled_from([1, 2, 16, 33, 200, 512, 700, 1536])
ranges = st.builds(lambda a, n: (a, min(a + n, BLOCKS * 512)), starts, lengths)
which = st.integers(0, 3)
SIZES = [
    Sizes(),
    Sizes(kb64="always"),
    Sizes(kb16="always", kb256="madvise"),
    Sizes(**{f"kb{kb}": "always" for kb in (16, 32, 64, 128, 256, 512, 1024)}, kb2048="never"),
]


class Machine(RuleBasedStateMachine):
    @initialize(
        rules=st.sampled_from(ALL),
        mmu=st.sampled_from(MMUS),
        mglru=st.booleans(),
        enabled=st.sampled_from(["always", "madvise"]),
        gru=st.sampled_from([None, "contract", "driver"]),
        alias=st.booleans(),
        prepared=st.booleans(),
        sizes=st.sampled_from(SIZES),
    )
    def boot(self, rules, mmu, mglru, enabled, gru, alias, prepared, sizes):
        sizes = sizes if PROFILES[rules].has_sizes else Sizes()
        self.host = Host(rules, HostConfig(mmu=mmu, mglru=mglru, thp_enabled=enabled, sizes=sizes))
        mm = self.host.mm("vm", BLOCKS)
        self.kvm = Kvm(mm)
        self.kvm.slot_add(0, 0, 0, BLOCKS * 512)
        if alias:
            self.kvm.slot_add(1, 4096, 512, 512)
        self.gru = None if gru is None else GruContext(mm, gru)
        self.forks = 0
        if prepared:
            madvise(mm, 0, BLOCKS * 512, "nohugepage")
            mm.cpu_access(np.arange(BLOCKS * 512), write=True)
            madvise(mm, 0, BLOCKS * 512, "hugepage")

    def mm(self, index):
        spaces = list(self.host.mms.values())
        return spaces[index % len(spaces)] if spaces else None

    @property
    def lives(self):
        return "vm" in self.host.mms

    def attempt(self, verb, *args, **kwargs):
        """Areas may forbid an access: that is an answer, after which everything must still hold."""
        try:
            return verb(*args, **kwargs)
        except UsageError as error:
            assert "may not access" in str(error) or "no mapping" in str(error), error

    @precondition(lambda self: self.host.mms)
    @rule(who=which, r=ranges, write=st.booleans(), value=st.sampled_from([None, 0, 7]))
    def cpu(self, who, r, write, value):
        self.attempt(self.mm(who).cpu_access, np.arange(*r), write=write, value=value if write else None)

    @precondition(lambda self: self.lives)
    @rule(r=ranges, write=st.booleans(), view=st.sampled_from([0, 0, 1, 2, -1]))
    def guest(self, r, write, view):
        self.attempt(self.kvm.access, np.arange(*r), write=write, view=view)

    @precondition(lambda self: self.lives and 1 in self.kvm.slots)
    @rule(index=st.integers(0, 511), write=st.booleans())
    def guest_through_alias(self, index, write):
        self.attempt(self.kvm.access, np.array([512 + index]), write=write, slot=1)

    @precondition(lambda self: self.lives and 1 in self.kvm.slots)
    @rule()
    def slot_delete(self):
        self.kvm.slot_delete(1)

    @precondition(lambda self: self.lives and self.gru)
    @rule(r=ranges, write=st.booleans())
    def device(self, r, write):
        self.attempt(self.gru.access, np.arange(r[0], min(r[1], r[0] + 40)), write=write)

    @precondition(lambda self: self.host.mms)
    @rule(who=which, page=starts, write=st.booleans(), name=st.sampled_from("ab"))
    def pin(self, who, page, write, name):
        self.attempt(self.mm(who).pin, np.array([page, page]), name, write=write)

    @precondition(lambda self: any(m.pins for m in self.host.mms.values()))
    @rule()
    def unpin(self):
        mm = next(m for m in self.host.mms.values() if m.pins)
        mm.unpin(next(iter(mm.pins)))

    @precondition(lambda self: self.host.mms)
    @rule(who=which)
    def clear_refs(self, who):
        clear_refs(self.mm(who))

    @precondition(lambda self: self.host.mms)
    @rule(
        who=which, r=ranges,
        advice=st.sampled_from(
            ["hugepage", "nohugepage", "dontneed", "free", "cold", "mergeable", "unmergeable", "guard_install", "guard_remove", "collapse"]
        ),
    )  # fmt: skip
    def madvise(self, who, r, advice):
        self.attempt(madvise, self.mm(who), *r, advice)

    @precondition(lambda self: self.host.mms)
    @rule(who=which, r=ranges, prot=st.sampled_from(["none", "r", "rw", "rw"]))
    def mprotect(self, who, r, prot):
        mprotect(self.mm(who), *r, prot)

    @precondition(lambda self: self.host.mms and self.host.rules.has_numa_balancing)
    @rule(who=which)
    def numa_scan(self, who):
        change_prot_numa(self.mm(who))

    @precondition(lambda self: self.host.mms)
    @rule(who=which, r=ranges, lock=st.booleans())
    def mlock(self, who, r, lock):
        self.attempt(mlock if lock else munlock, self.mm(who), *r)

    @precondition(lambda self: self.host.mms)
    @rule(who=which, r=ranges, age=st.booleans())
    def reclaim(self, who, r, age):
        if age:
            rmap.age(self.mm(who), np.arange(*r))
        else:
            vmscan.swap_out(self.mm(who), np.arange(*r))

    @precondition(lambda self: self.host.mms and self.forks < 3)
    @rule(who=which)
    def fork(self, who):
        self.forks += 1
        fork(self.mm(who), f"child{self.forks}")

    @precondition(lambda self: len(self.host.mms) > 1)
    @rule(who=which)
    def exit(self, who):
        exit_mm(self.mm(who))

    @rule()
    def ksm(self):
        ksm.merge(self.host)

    @precondition(lambda self: self.host.mms)
    @rule(who=which, block=st.integers(0, BLOCKS - 1), folio=st.booleans())
    def split(self, who, block, folio):
        if folio:
            split_huge(self.mm(who), block)
        else:
            split_block_pmd(self.mm(who), block)

    @rule(
        knobs=st.sampled_from([Knobs(), Knobs(max_ptes_none=0), Knobs(pages_to_scan=512, max_ptes_swap=511)])
    )
    def khugepaged(self, knobs):
        self.host.configure(HostConfig(**{**_fields(self.host.config), "knobs": knobs}))
        self.host.khugepaged.do_scan()

    @rule()
    def drain(self):
        self.host.drain()

    @invariant()
    def everything_holds(self):
        if hasattr(self, "host"):
            holds(self.host)


def _fields(config):
    return {name: getattr(config, name) for name in config.__struct_fields__}


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
