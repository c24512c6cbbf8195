"""One configuration of a replay: a kernel's rules on a host, who decides which blocks become huge, and what is
behind the trace's spaces.

trace's space ──process──▶ Mm                       CPU (and GUEST) accesses go through the primary page table
              ──vm───────▶ Mm + Kvm, slot 0 over all of it: GUEST accesses are the guest's, CPU accesses qemu's own;
                           a program's space replayed as a VM: every access is the guest's, GPA = VA compacted by block
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.bits.spte import SpteLayout, layout
from secondsight.mm import pgtable
from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.mm_struct import Mm
from secondsight.mm.profiles import profile
from secondsight.mm.rules import Rules
from secondsight.mm.task_mmu import clear_refs
from secondsight.mmu.kvm import Kvm
from secondsight.mmu.spt import TDP, GuestTables, Resumed, SpteArrays
from secondsight.policy.protocol import UNLIMITED, Faults, Policy
from secondsight.replay.clock import configured
from secondsight.replay.layout import HPAGE, Layout
from secondsight.replay.tlb import TlbConfig
from secondsight.replay.touch import H_CPU_READ, H_GUEST_READ, access_runs
from secondsight.trace.kinds import Access, Kind, Origin

Backing = Literal["trace", "process", "vm"]

#: Every area may be huge; what a first touch maps is the configuration's ``faults``.
HOST = HostConfig(thp_enabled="always")

# Of an mm's numbers those that are counted from the trace's first event on.
_COUNTED = [
    pgtable.HUGE_FAULTS,
    pgtable.FAULTS,
    pgtable.GUEST_FAULTS,
    pgtable.COPIED,
    pgtable.COPIED_HUGE,
    pgtable.COPY_SPLITS,
]

# How a kind of access is made, beside the H_ codes of ``touch``.
H_DEVICE, H_PIN = 4, 6


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one column of the comparison is.

    name: as results call it; rules: a profile's name or a value; config: the host; policy: makes the policy that decides (anew for each
    run), None: khugepaged alone; backing: what stands behind the spaces, ``trace``: what the trace says they are; fill: whether every
    page that the trace touches has been written and aged before the trace begins, None: in VMs only; faults: what the first touch
    of a block maps (a policy's own wish comes first); budget: how many blocks may become huge in the run; tlb: model a TLB, so that
    accessed bits are set on its misses only.
    """

    name: str
    rules: Rules
    config: HostConfig = HOST
    policy: Callable[[], Policy] | None = None
    backing: Backing = "trace"
    fill: bool | None = None
    faults: Faults = "small"
    budget: int = UNLIMITED
    tlb: TlbConfig | None = None

    @classmethod
    def of(cls, rules: str | Rules, **fields: object) -> Configuration:
        """A configuration named after its *rules* (a profile, ``profile+field=value``, or a value)."""
        value = profile(rules) if isinstance(rules, str) else rules
        return cls(**{"name": value.name, "rules": value, **fields})  # type: ignore[arg-type]


@dataclass(slots=True)
class ReplayedSpace:
    """One of the trace's spaces in a configuration."""

    index: int
    mm: Mm
    kvm: Kvm | None
    lay: SpteLayout
    table: SpteArrays
    mode: int
    first_row: int
    as_cpu: int
    as_guest: int
    alone: bool
    access_mode: npt.NDArray[np.uint8]

    @property
    def rows(self) -> slice:
        """Its rows among those of all spaces."""
        return slice(self.first_row, self.first_row + self.mm.blocks)

    @property
    def guest(self) -> GuestTables:
        """What its guest's accesses go through."""
        return GuestTables(self.lay, self.table, self.mode)

    def access(self, pages: npt.NDArray[np.int64], access_mode: npt.NDArray[np.uint8]) -> None:
        """The accesses *access_mode* (H_ codes of ``touch``) to *pages* (of this space), in order, through the model's verbs."""

        def step(start: int, notified: bool) -> int:
            return self._run(pages, access_mode, start, notified)

        self.mm.run_faults(pages, step, "the guest" if self.kvm else "the process")

    def steady(self, pages: npt.NDArray[np.int64], access_mode: npt.NDArray[np.uint8]) -> None:
        """:meth:`access`, of touches that are fast here."""
        done = self._run(pages, access_mode, 0, False)
        assert done == len(pages)

    def _run(
        self, pages: npt.NDArray[np.int64], access_mode: npt.NDArray[np.uint8], start: int, notified: bool
    ) -> int:
        host = self.mm.host
        return int(
            access_runs(
                host.frames.arrays, host.r, self.mm.arrays, self.guest, pages, access_mode,
                Resumed(start, notified, bool(self.mm.notifiers)),
            )
        )  # fmt: skip


class ConfigurationHost:
    """The host of one configuration, with the trace's spaces on it."""

    def __init__(self, configuration: Configuration, trace_layout: Layout) -> None:
        """Nothing is mapped yet; :meth:`fill` is the caller's to call."""
        self.configuration = configuration
        self.policy = configuration.policy() if configuration.policy else None
        self.host = Host(configuration.rules, configured(self.policy, configuration.config))
        self.daemon = self.policy.khugepaged if self.policy else True
        self.faults: Faults = self.policy.faults if self.policy else configuration.faults
        self.budget = configuration.budget
        self.layout = trace_layout
        touched = np.flatnonzero(np.diff(trace_layout.first)).tolist()
        self.spaces = [self._space(i) for i in touched]
        self.at = {space.index: space for space in self.spaces}

    def _space(self, index: int) -> ReplayedSpace:
        trace_layout, configuration = self.layout, self.configuration
        traced_space = trace_layout.spaces[index]
        blocks = int(trace_layout.first[index + 1] - trace_layout.first[index])
        vm = configuration.backing == "vm" or (configuration.backing == "trace" and traced_space.type == "vm")
        # A VM's memory is one area of its process, whatever the guest leaves untouched.
        numbers = None if vm else trace_layout.numbers[trace_layout.part(index)]
        mm = self.host.mm(f"{index}:{traced_space.name}", blocks, numbers=numbers)
        mm.fault_huge = np.full(mm.blocks, self.faults == "huge" and self.budget > 0)
        mm.refresh()
        kvm, mode = None, TDP
        lay = layout(self.host.config.mmu, self.host.rules.spte_era)
        table = SpteArrays(np.zeros(0, np.uint64), np.zeros(0, np.uint64), 0)
        if vm:
            kvm = Kvm(mm)
            kvm.slot_add(0, 0, 0, mm.npages)
            # A guest with paging on: under shadow paging its first way of addressing the slot.
            table, mode = kvm._table(kvm.slots[0], 1 if kvm.mmu == "shadow" else 0)
        origins = trace_layout.origins[index]
        guest = 1 if vm else 0
        cpu = guest if traced_space.type == "process" else 0
        as_cpu = cpu if origins & (1 << Origin.CPU) else -1
        as_guest = guest if origins & (1 << Origin.GUEST) else -1
        others = origins & (1 << Origin.DEVICE | 1 << Origin.PIN)
        ways = {w for w in (as_cpu, as_guest) if w >= 0}
        return ReplayedSpace(
            index, mm, kvm, lay, table, mode, int(trace_layout.first[index]), as_cpu, as_guest,
            not others and len(ways) < 2, _how(cpu, guest),
        )  # fmt: skip

    def fills(self, space: ReplayedSpace) -> bool:
        """Is *space* filled before the trace begins? A process that begins by a fork has what its parent has then."""
        if space.kvm is None and space.index in self.layout.born:
            return False
        return space.kvm is not None if self.configuration.fill is None else self.configuration.fill

    def fill(self) -> None:
        """What was before the trace: every page it touches written once, then aged; PTEs and SPTEs are there, and old."""
        for space in self.spaces:
            if not self.fills(space):
                continue
            touched = int(np.count_nonzero(self.layout.touched & 1))
            # And a little for what is collapsed later, before all must be copied to make room.
            self.host.frames.reserve(touched + touched // 16)
            code = (H_GUEST_READ if space.kvm else H_CPU_READ) + 1
            for row in range(space.rows.start, space.rows.stop, 128):
                pages = (
                    self.layout.touched_pages(row, min(row + 128, space.rows.stop)) - space.first_row * HPAGE
                )
                space.access(pages, np.full(len(pages), code, np.uint8))
        self.host.drain()
        for space in self.spaces:
            if self.fills(space):
                self.age(space)
                # What is counted begins with the trace.
                space.mm.notifiers.calls.clear()
                space.mm.arrays.n[_COUNTED] = 0

    def filling(self) -> Hashable:
        """What :meth:`fill` depends on: machines of which it is equal are filled alike."""
        huge = self.faults == "huge" and self.budget > 0
        config = msgspec.structs.replace(self.host.config, knobs=HOST.knobs)
        return self.configuration.rules, config, huge, self.configuration.backing, self.configuration.fill

    def fill_like(self, other: ConfigurationHost) -> None:
        """:meth:`fill`, by copying what it made in *other*, which has done nothing since."""
        self.host.frames.take(other.host.frames)
        twins = {id(space.mm): mine.mm for space, mine in zip(other.spaces, self.spaces, strict=True)}
        for space, mine in zip(other.spaces, self.spaces, strict=True):
            mine.mm.take(space.mm)
            mine.table.spte[:], mine.table.smd[:] = space.table.spte, space.table.smd
        self.host.khugepaged.slots = [twins[id(mm)] for mm in other.host.khugepaged.slots]

    def age(self, space: ReplayedSpace) -> None:
        """Every accessed bit cleared, PG_young and PG_referenced too: what reclaim's ageing, or a monitor that resets, leaves behind."""
        clear_refs(space.mm)
        space.mm.notifiers.clear_young(0, space.mm.npages)

    # -- a population that is there at the start -----------------------------------------------------------------------

    def begin_huge(self, blocks: Mapping[int, npt.NDArray[np.int64]]) -> None:
        """What is touched before the trace becomes huge where it is of *blocks* (numbers, by space), and small elsewhere."""
        self.budget = UNLIMITED
        for space in self.spaces:
            assert space.mm.fault_huge is not None
            mine = self.layout.numbers[self.layout.part(space.index)]
            space.mm.fault_huge[:] = np.isin(mine, blocks.get(space.index, mine[:0]))
            space.mm.refresh()

    def begin(self) -> None:
        """Behind the population: the budget is whole, and first touches map what they do in the run; nothing was counted."""
        self.budget = self.configuration.budget
        for space in self.spaces:
            assert space.mm.fault_huge is not None
            space.mm.fault_huge[:] = self.faults == "huge" and self.budget > 0
            space.mm.refresh()
            space.mm.notifiers.calls.clear()
            space.mm.arrays.n[_COUNTED] = 0

    # -- huge pages at a first touch -------------------------------------------------------------------------------

    def promise(self, space: ReplayedSpace, rows: npt.NDArray[np.int64]) -> None:
        """The first touch of *rows* (of the space, nothing populated) maps a huge page."""
        assert space.mm.fault_huge is not None
        space.mm.fault_huge[rows] = True
        space.mm.refresh()

    def spend(self) -> None:
        """A block became huge by a fault: it comes off the budget; an empty one ends such faults."""
        self.budget -= 1
        if self.budget <= 0:
            for other in self.spaces:
                if other.mm.fault_huge is not None and other.mm.fault_huge.any():
                    other.mm.fault_huge[:] = False
                    other.mm.refresh()


def _how(cpu: int, guest: int) -> npt.NDArray[np.uint8]:
    """uint8[256]: how each kind of access is made, where the trace's CPU accesses are *cpu* and its guest's *guest* (0 CPU, 1 guest)."""
    out = np.zeros(256, np.uint8)
    for kind in Kind:
        write = int(kind.access is Access.WRITE)
        base = {
            Origin.CPU: 2 * cpu,
            Origin.GUEST: 2 * guest,
            Origin.DEVICE: H_DEVICE,
            Origin.PIN: H_PIN,
        }[kind.origin]
        out[kind] = base + write
    return out
