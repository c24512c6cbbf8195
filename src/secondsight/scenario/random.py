"""Scenarios at random, for asking kernels: small ones of one or two blocks, each a life of some memory before khugepaged comes.

    populate (CPU writes, zero pages, holes; sometimes a huge page, whole or in pieces; sometimes over areas that differ)
      --> live (guest and CPU accesses, pins, ageing, advice, fork, swap, KSM, slots, protection ...; ``lives``, ``motifs``)
      --> madvise(hugepage) --> pass --> live a little --> pass (--> pass)

Everything comes from one seed. What is left out, and the kernel text that makes it unpredictable, is in ``EXCLUSIONS``, counted where
it would have been made.
"""

from __future__ import annotations

from typing import TypedDict, Unpack

import msgspec

from secondsight.geometry import (
    ANON_ORDERS,
    BLOCK_MASK,
    HPAGE_PMD_NR,
    KHUGEPAGED_MAX_PTES_LIMIT,
    PMD_ORDER,
    kb_of_order,
)
from secondsight.mm.config import HostConfig, Knobs, Mmu, SizeEnabled, Sizes
from secondsight.scenario import verbs as v
from secondsight.scenario.lives import EXCLUSIONS, Life, Lives
from secondsight.scenario.motifs import rarely_reached

__all__ = ["EXCLUSIONS", "GROUP", "Generator", "scenarios"]

#: Scenarios that share one host (its knobs and MGLRU), so that one pass serves them all.
GROUP = 64
#: The orders below the PMD's, and the values that a switch of theirs is given.
PARTS = ANON_ORDERS[:-1]
#: How many of the spaces with a VM have a second one.
_TWO_VMS = 0.25
#: How many scenarios end with a wake-up that leaves khugepaged's list unfinished: each has a pass of its own.
_UNFINISHED = 0.015
#: How many go straight for a check that others hardly reach.
_RARE = 0.2
#: Pages that leave no per-CPU LRU batch half full, of 15 or of 31 (the rule ``lru_batch``).
_WHOLE_BATCHES = 15 * 31
#: How many of the spaces are droppable, where the kernel has that.
_DROPPABLE = 0.12
_SWITCHES: tuple[SizeEnabled, ...] = ("always", "always", "madvise", "inherit")


class Drawn(TypedDict, total=False):
    """What is drawn beside the rest; without a name it is not.

    *mglru* None: either, by group. *sizes*: hugepages-*kB/enabled too, by group. *guards*: the kernel has guard regions. *parts*: its
    khugepaged runs for smaller sizes alone too, and collapses parts of a block. *droppables*: it has droppable mappings. *nested*: every
    space has a VM whose guests run guests of their own. *numa*: NUMA balancing comes by among the other steps. *mlocks*: the kernel counts
    who has mlocked a page (5.18). *guest_only*: every third space is used by a guest alone before a pass.
    """

    mglru: bool | None
    sizes: bool
    guards: bool
    parts: bool
    droppables: bool
    nested: bool
    numa: bool
    mlocks: bool
    guest_only: bool


class Generator(Lives):
    """Scenarios from one seed; ``excluded`` counts what was left out by name."""

    def __init__(self, seed: int, mmu: Mmu = "npt", **drawn: Unpack[Drawn]) -> None:
        """What is *drawn*: :class:`Drawn`, by name."""
        super().__init__(
            seed,
            mmu,
            guards=drawn.get("guards", False),
            parts=drawn.get("parts", False),
            nested=drawn.get("nested", False),
            numa=drawn.get("numa", False),
            mlocks=drawn.get("mlocks", False),
        )
        self.mglru = drawn.get("mglru")
        self.sizes = drawn.get("sizes", False)
        self.droppables = drawn.get("droppables", False)
        self.guest_only = drawn.get("guest_only", False)
        self.steps = 0

    def host(self) -> HostConfig:
        """One group's host: mostly default limits, sometimes tight ones."""
        r = self.rng
        knobs = Knobs(pages_to_scan=1_000_000)
        if r.random() < 0.5:
            knobs = Knobs(
                pages_to_scan=1_000_000,
                max_ptes_none=r.choice(
                    [0, 1, 3, 64, 255, 256, KHUGEPAGED_MAX_PTES_LIMIT - 1, KHUGEPAGED_MAX_PTES_LIMIT]
                ),
                max_ptes_swap=r.choice([0, 1, 8, 64, 256, KHUGEPAGED_MAX_PTES_LIMIT]),
                max_ptes_shared=r.choice([0, 1, 8, 256, KHUGEPAGED_MAX_PTES_LIMIT]),
            )
        mglru = r.random() < 0.5 if self.mglru is None else self.mglru
        sizes = self._sizes() if self.sizes else Sizes()
        if self.parts and sizes.parts:
            # A candidate of the PMD's order takes whatever is there before smaller ones are tried, where it may; and one that has a page in
            # swap is tried only where pages may be missing.
            whole = sizes.of(PMD_ORDER) != "never"
            if r.random() < (0.3 if whole else 0.8):
                few = 0 if whole or r.random() < 0.4 else KHUGEPAGED_MAX_PTES_LIMIT
                knobs = msgspec.structs.replace(knobs, max_ptes_none=few)
        return HostConfig(mmu=self.mmu, mglru=mglru, knobs=knobs, sizes=sizes)

    def _sizes(self) -> Sizes:
        """Which sizes a group's host has on: off, one, several or all, by their own switches and by the global one."""
        r = self.rng
        kind = r.random()
        if kind < 0.25:
            return Sizes()
        orders = (
            [r.choice(PARTS)]
            if kind < 0.5
            else r.sample(PARTS, r.randint(3, 6) if self.parts else r.randint(2, 5))
            if kind < 0.8
            else list(PARTS)
        )
        how: dict[str, SizeEnabled] = {f"kb{kb_of_order(order)}": r.choice(_SWITCHES) for order in orders}
        of_pmd = r.random()
        if of_pmd < 0.15:
            how[f"kb{kb_of_order(PMD_ORDER)}"] = r.choice(["always", "madvise"])
        elif of_pmd < 0.55 and self.parts:
            how[f"kb{kb_of_order(PMD_ORDER)}"] = "never"
        return Sizes(**how)

    def scenario(self, host: HostConfig) -> v.Scenario:
        """One scenario for *host*."""
        r = self.rng
        if r.random() < _UNFINISHED:
            return self._unfinished(host)
        if r.random() < _RARE:
            return self._rarely_reached(host)
        s = Life(blocks=2 if r.random() < 0.15 else 1, vm=r.random() < 0.75, mmu=self.mmu, knobs=host.knobs)
        if self.parts:
            s.orders = tuple(order for order in PARTS if host.orders(advised=True) >> order & 1)
        alone = self.guest_only and r.random() < 0.5
        s.vm = s.vm or self.nested or alone
        s.vm2 = s.vm and r.random() < _TWO_VMS
        # Under MGLRU their generation is a file's, which the model does not follow.
        s.droppable = self.droppables and not host.mglru and r.random() < _DROPPABLE
        # A large folio's pages that nobody stored to are all equal.
        s.alike = host.sizes.parts
        self._populate(s)
        if r.random() < (0.6 if s.huge or s.vm2 or s.orders else 0.3):
            self.motif(s)
        for _ in range(r.randint(0, 6)):
            self.live(s)
        if r.random() < 0.95:
            # Else nobody advises: where nobody else has registered the process, no pass comes by.
            s.steps.append(v.Madvise("vm", s.every, "hugepage"))
        for _ in range(r.choice([0, 0, 1, 2])):
            self.live(s)
        if alone:
            self._used_by_the_guest_alone(s)
        s.steps.append(v.Scan())
        for _ in range(r.choice([0, 1, 1, 2])):
            for _ in range(r.randint(0, 3)):
                self.live(s)
            if alone and r.random() < 0.5:
                self._used_by_the_guest_alone(s)
            s.steps.append(v.Scan())
        self.steps += len(s.steps)
        space = v.SpaceSpec(
            "vm",
            blocks=s.blocks,
            vm=v.Vm() if s.vm else None,
            vm2=v.Vm() if s.vm2 else None,
            droppable=s.droppable,
        )
        return v.Scenario(spaces=(space,), steps=tuple(s.steps), host=host)

    def _used_by_the_guest_alone(self, s: Life) -> None:
        """What the process has used is forgotten; then the guest uses some of it. Without a slot that leads there, nobody does;
        nor where a userfaultfd is registered, for whose handler the guest would wait."""
        if s.deleted_slot0 or s.armed:
            return
        s.steps += [v.Drain(), v.ClearRefs("vm")]
        s.steps.append((v.GuestRead if self.rng.random() < 0.6 else v.GuestWrite)("vm", self.some(s)))

    def _rarely_reached(self, host: HostConfig) -> v.Scenario:
        """A block of small pages that is all there, for a check that comes after most others, and few other steps.

        Or what the guest alone uses: where parts are collapsed, the smaller candidates meet what the larger left in LRU batches.
        """
        r = self.rng
        s = Life(blocks=1, vm=self.nested or r.random() < 0.75, mmu=self.mmu, knobs=host.knobs)
        s.steps.append(v.Madvise("vm", s.every, "nohugepage"))
        if s.vm and r.random() < (0.35 if self.parts else 0.6):
            s.steps.append(v.CpuWrite("vm", s.every))
            if self.parts:
                self._used_by_the_guest_alone(s)
            else:
                self._marked_twice(s)
        else:
            rarely_reached(self, s)
            if r.random() < 0.3:
                self.live(s)
        s.steps += [v.Madvise("vm", s.every, "hugepage"), v.Scan(), v.Scan()]
        self.steps += len(s.steps)
        space = v.SpaceSpec("vm", blocks=1, vm=v.Vm() if s.vm else None)
        return v.Scenario(spaces=(space,), steps=tuple(s.steps), host=host)

    def _marked_twice(self, s: Life) -> None:
        """What the guest has used is told to be cold, and gup marks it: where a zap marks it for the second time (up to 6.12), it is
        referenced no more. One page or another waits in an LRU batch then; or none does."""
        count = _WHOLE_BATCHES if self.rng.random() < 0.5 else self.rng.randint(1, HPAGE_PMD_NR)
        first = self.rng.randint(0, HPAGE_PMD_NR - count)
        pages = f"0:{first}-{first + count - 1}"
        s.steps += [v.Drain(), v.ClearRefs("vm"), v.GuestRead("vm", pages)]
        s.steps += [v.Madvise("vm", s.every, "cold"), v.Drain(), v.IoZeroCopy("vm", pages, write=False)]

    def _unfinished(self, host: HostConfig) -> v.Scenario:
        """Blocks that cost a wake-up much or little, as kernels count, and a wake-up that is good for some of them.

        Between two blocks' costs there is room for the areas that a process has beside its own.
        """
        r = self.rng
        blocks = r.randint(4, 8)
        steps: list[v.Verb] = []
        for block in range(blocks):
            first = 0 if r.random() < 0.4 else r.randrange(300, HPAGE_PMD_NR)
            if r.random() < 0.8:
                steps.append(v.CpuWrite("vm", f"{block}:{first}-{BLOCK_MASK}"))
        knobs = msgspec.structs.replace(host.knobs, max_ptes_none=r.choice([0, 0, 3]))
        steps += [v.ClearRefs("vm"), v.Madvise("vm", f"0-{blocks - 1}", "hugepage")]
        steps.append(v.Scan(pages=HPAGE_PMD_NR * r.randint(1, blocks - 1) + 440))
        self.steps += len(steps)
        space = v.SpaceSpec("vm", blocks=blocks)
        # Without sizes all that is not there ends a scan.
        return v.Scenario(
            (space,), tuple(steps), host=msgspec.structs.replace(host, knobs=knobs, sizes=Sizes())
        )

    def _populate(self, s: Life) -> None:
        r = self.rng
        kind = r.random()
        if kind < 0.2:
            # A huge page from the start, whole or in pieces; or the huge zero page.
            s.alike = s.huge = True
            s.steps.append(v.Madvise("vm", s.every, "hugepage"))
            s.steps.append((v.CpuWrite if r.random() < 0.9 else v.CpuRead)("vm", "0:7"))
            how = r.random()
            if how < 0.25:
                s.steps.append(v.SplitPmd("vm", "0"))
            elif how < 0.45:
                s.steps.append(v.SplitHuge("vm", "0"))
            if r.random() < 0.7:
                s.steps.append(v.Madvise("vm", s.every, "nohugepage"))
        elif kind < 0.26:
            # Areas that part before they have pages, and may become one again.
            pages = self.some(s)
            s.steps += [v.Madvise("vm", pages, "nohugepage"), v.CpuWrite("vm", self.some(s))]
        elif kind < 0.6:
            s.steps.append(v.CpuWrite("vm", s.every))
        elif kind < 0.82:
            for _ in range(r.randint(1, 4)):
                s.steps.append(v.CpuWrite("vm", self.some(s)))
        elif kind < 0.91 and s.vm:
            s.steps.append(v.GuestWrite("vm", self.some(s), **self.through()))
            if r.random() < 0.5:
                s.steps.append(v.CpuWrite("vm", self.some(s)))
        else:
            s.steps.append(v.CpuWrite("vm", self.some(s)))
            s.steps.append(v.CpuRead("vm", self.some(s)))
        if r.random() < 0.3:
            s.steps.append(v.CpuRead("vm", self.some(s)))


def scenarios(
    count: int, seed: int, mmu: Mmu = "npt", **drawn: Unpack[Drawn]
) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios from *seed*, in groups that share a host; and the generator, for what it left out. *drawn*: by name."""
    generator = Generator(seed, mmu, **drawn)
    out: list[v.Scenario] = []
    while len(out) < count:
        host = generator.host()
        # Sizes multiply the hosts there are: half as many scenarios on each.
        group = GROUP // 2 if generator.sizes else GROUP
        out.extend(generator.scenario(host) for _ in range(min(group, count - len(out))))
    return out, generator
