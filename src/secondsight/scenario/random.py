"""Scenarios at random, for asking kernels: small ones of one or two blocks, each a life of some memory before khugepaged comes.

    populate (CPU writes, zero pages, holes; sometimes a huge page, whole or in pieces)
      --> live (guest and CPU accesses, pins, ageing, advice, fork, swap, KSM, slots, protection ...)
      --> madvise(hugepage) --> pass --> live a little --> pass (--> pass)

Everything comes from one seed. What is left out, and the kernel text that makes it unpredictable, is in ``EXCLUSIONS``, counted where
it would have been made.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from secondsight.geometry import (
    ANON_ORDERS,
    BLOCK_MASK,
    HPAGE_PMD_NR,
    KHUGEPAGED_MAX_PTES_LIMIT,
    PMD_ORDER,
    kb_of_order,
)
from secondsight.mm.config import HostConfig, Knobs, Mmu, SizeEnabled, Sizes
from secondsight.mm.madvise import Advice
from secondsight.scenario import verbs as v

__all__ = ["EXCLUSIONS", "GROUP", "Generator", "mmu_of", "scenarios"]

#: Scenarios that share one host (its knobs and MGLRU), so that one pass serves them all.
GROUP = 64
#: The orders below the PMD's, and the values that a switch of theirs is given.
PARTS = ANON_ORDERS[:-1]
_SWITCHES: tuple[SizeEnabled, ...] = ("always", "always", "madvise", "inherit")

#: What is never generated, and why no model can predict it.
EXCLUSIONS: dict[str, str] = {
    "ksm_merge where a huge page was, or what mlock faulted in": (
        "hundreds of zero-filled pages exceed max_page_sharing, and which copies share which page follows the moments "
        "at which ksmd's chains are pruned (mm/ksm.c stable_node_dup)"
    ),
}
(_MANY_EQUAL,) = EXCLUSIONS


@dataclass
class _State:
    """What the generator remembers of a scenario under way, to keep its steps possible."""

    blocks: int
    vm: bool
    mmu: str
    steps: list[v.Verb] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    slots: list[v.Slot] = field(default_factory=list)
    deleted_slot0: bool = False
    locked: bool = False
    forked: list[str] = field(default_factory=list)
    swapped: bool = False
    alike: bool = False
    merged: bool = False
    protected: bool = False
    guarded: bool = False


class Generator:
    """Scenarios from one seed; ``excluded`` counts what was left out by name."""

    def __init__(
        self,
        seed: int,
        mmu: Mmu = "npt",
        *,
        mglru: bool | None = None,
        sizes: bool = False,
        guards: bool = False,
        parts: bool = False,
    ) -> None:
        """*mglru* None: either, by group. *sizes*: hugepages-*kB/enabled are drawn too, by group. *guards*: the kernel has
        guard regions. *parts*: its khugepaged runs for smaller sizes alone too, and collapses parts of a block."""
        self.rng = random.Random(seed)
        self.mmu: Mmu = mmu
        self.mglru = mglru
        self.sizes = sizes
        self.guards = guards
        self.parts = parts
        self.excluded: Counter[str] = Counter()
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
            else r.sample(PARTS, r.randint(2, 5))
            if kind < 0.8
            else list(PARTS)
        )
        how: dict[str, SizeEnabled] = {f"kb{kb_of_order(order)}": r.choice(_SWITCHES) for order in orders}
        of_pmd = r.random()
        if of_pmd < 0.15:
            how[f"kb{kb_of_order(PMD_ORDER)}"] = r.choice(["always", "madvise"])
        elif of_pmd < 0.4 and self.parts:
            how[f"kb{kb_of_order(PMD_ORDER)}"] = "never"
        return Sizes(**how)

    def scenario(self, host: HostConfig) -> v.Scenario:
        """One scenario for *host*."""
        r = self.rng
        s = _State(blocks=2 if r.random() < 0.15 else 1, vm=r.random() < 0.75, mmu=self.mmu)
        # A large folio's pages that nobody stored to are all equal.
        s.alike = host.sizes.parts
        self._populate(s)
        for _ in range(r.randint(0, 6)):
            self._live(s)
        block = "0" if s.blocks == 1 else "0-1"
        s.steps.append(v.Madvise("vm", block, "hugepage"))
        for _ in range(r.choice([0, 0, 1, 2])):
            self._live(s)
        s.steps.append(v.Scan())
        for _ in range(r.choice([0, 1, 1, 2])):
            for _ in range(r.randint(0, 3)):
                self._live(s)
            s.steps.append(v.Scan())
        self.steps += len(s.steps)
        space = v.SpaceSpec("vm", blocks=s.blocks, vm=v.Vm() if s.vm else None)
        return v.Scenario(spaces=(space,), steps=tuple(s.steps), host=host)

    # -- pages -------------------------------------------------------------------------------------------------

    def _some(self, s: _State, most: int = HPAGE_PMD_NR) -> str:
        """Some pages of one block, as text: one, a few, a run, a stride, or all."""
        r = self.rng
        block = r.randrange(s.blocks)
        kind = r.random()
        if kind < 0.3:
            return f"{block}:{r.randrange(HPAGE_PMD_NR)}"
        if kind < 0.5:
            chosen = sorted(r.sample(range(HPAGE_PMD_NR), r.randint(2, min(24, most))))
            return f"{block}:{','.join(map(str, chosen))}"
        if kind < 0.75:
            first = r.randrange(HPAGE_PMD_NR)
            last = min(BLOCK_MASK, first + r.randint(1, min(most, 300)) - 1)
            return f"{block}:{first}-{last}"
        if kind < 0.85:
            step = r.choice([2, 3, 7, 8, 16])
            return f"{block}:{','.join(map(str, list(range(r.randrange(step), HPAGE_PMD_NR, step))[:most]))}"
        return str(block) if most >= HPAGE_PMD_NR else f"{block}:0-{most - 1}"

    def _write(self, s: _State, pages: str) -> None:
        s.steps.append(v.CpuWrite("vm", pages))

    def _populate(self, s: _State) -> None:
        r = self.rng
        every = "0" if s.blocks == 1 else "0-1"
        kind = r.random()
        if kind < 0.12:
            # A huge page from the start, whole or in pieces.
            s.alike = True
            s.steps += [v.Madvise("vm", every, "hugepage"), v.CpuWrite("vm", "0:7")]
            how = r.random()
            if how < 0.4:
                s.steps.append(v.SplitPmd("vm", "0"))
            elif how < 0.75:
                s.steps.append(v.SplitHuge("vm", "0"))
            s.steps.append(v.Madvise("vm", every, "nohugepage"))
        elif kind < 0.55:
            self._write(s, every)
        elif kind < 0.8:
            for _ in range(r.randint(1, 4)):
                self._write(s, self._some(s))
        elif kind < 0.9 and s.vm:
            s.steps.append(v.GuestWrite("vm", self._some(s), view=self._view()))
            if r.random() < 0.5:
                self._write(s, self._some(s))
        else:
            self._write(s, self._some(s))
            s.steps.append(v.CpuRead("vm", self._some(s)))
        if r.random() < 0.3:
            s.steps.append(v.CpuRead("vm", self._some(s)))

    def _view(self) -> int:
        return self.rng.choice([0, 0, 0, 1, 2]) if self.mmu == "shadow" else self.rng.choice([0, 0, 0, 0, 1])

    # -- life ----------------------------------------------------------------------------------------------------

    def _live(self, s: _State) -> None:
        r = self.rng
        kinds = list(_WEIGHTS)
        for _ in range(20):
            kind = r.choices(kinds, [_WEIGHTS[k] for k in kinds])[0]
            if _DO[kind](self, s):
                return

    def _do_guest(self, s: _State) -> bool:
        if not s.vm:
            return False
        verb = v.GuestRead if self.rng.random() < 0.5 else v.GuestWrite
        choices = list(s.slots)
        if s.deleted_slot0 and not choices:
            return False
        if choices and (s.deleted_slot0 or self.rng.random() < 0.5):
            slot = self.rng.choice(choices)
            pages = self._some(s)
            if int(pages.split(":")[0]) != slot.block:
                return False
            s.steps.append(verb("vm", pages, view=self._view(), slot=slot.id))
            return True
        s.steps.append(verb("vm", self._some(s), view=self._view()))
        return True

    def _do_cpu(self, s: _State) -> bool:
        if self.rng.random() < 0.5:
            s.steps.append(v.CpuRead("vm", self._some(s)))
        else:
            self._write(s, self._some(s))
        return True

    def _do_clear_refs(self, s: _State) -> bool:
        s.steps.append(v.ClearRefs("vm"))
        return True

    def _do_age(self, s: _State) -> bool:
        s.steps.append(v.Age("vm", self._some(s)))
        return True

    def _do_pin(self, s: _State) -> bool:
        if s.pins and self.rng.random() < 0.6:
            s.steps.append(v.Unpin("vm", s.pins.pop()))
            return True
        if len(s.pins) > 1:
            return False
        name = f"p{len(s.steps)}"
        s.pins.append(name)
        # Registering a buffer with io_uring is all or nothing: not where something may be denied.
        write = not s.protected and not s.guarded and self.rng.random() < 0.4
        s.steps.append(v.Pin("vm", self._some(s, most=32), name, write=write))
        return True

    def _do_io(self, s: _State) -> bool:
        verb = v.IoCopied if self.rng.random() < 0.5 else v.IoZeroCopy
        s.steps.append(verb("vm", self._some(s, most=32), write=self.rng.random() < 0.5))
        return True

    def _do_advice(self, s: _State) -> bool:
        advice: Advice = self.rng.choice(
            ["cold", "cold", "free", "free", "dontneed", "nohugepage", "hugepage"]
        )
        s.steps.append(v.Madvise("vm", self._some(s), advice))
        return True

    def _do_collapse(self, s: _State) -> bool:
        s.alike = True
        s.steps.append(v.Madvise("vm", str(self.rng.randrange(s.blocks)), "collapse"))
        return True

    def _do_protect(self, s: _State) -> bool:
        if s.protected:
            s.protected = False
            s.steps.append(v.Mprotect("vm", "0" if s.blocks == 1 else "0-1", "rw"))
        else:
            s.protected = True
            pages = self._some(s) if self.rng.random() < 0.5 else str(self.rng.randrange(s.blocks))
            s.steps.append(v.Mprotect("vm", pages, self.rng.choice(["r", "r", "none"])))
        return True

    def _do_lock(self, s: _State) -> bool:
        if s.locked:
            s.locked = False
            s.steps.append(v.Munlock("vm", "0" if s.blocks == 1 else "0-1"))
        else:
            s.locked = True
            s.alike = True
            s.steps.append(v.Mlock("vm", self._some(s)))
        return True

    def _do_swap(self, s: _State) -> bool:
        s.swapped = True
        s.steps.append(v.SwapOut("vm", self._some(s)))
        return True

    def _do_fork(self, s: _State) -> bool:
        if s.forked:
            child = s.forked.pop()
            if self.rng.random() < 0.5:
                s.steps.append(v.Exit(child))
            else:
                s.steps.append(v.CpuWrite(child, self._some(s)))
                s.forked.append(child)
            return True
        child = f"c{len(s.steps)}"
        s.forked.append(child)
        s.steps.append(v.Fork("vm", child))
        return True

    def _do_slot(self, s: _State) -> bool:
        if not s.vm:
            return False
        if s.slots and self.rng.random() < 0.5:
            slot = s.slots.pop()
            s.steps.append(v.SlotDelete("vm", slot.id))
        elif not s.deleted_slot0 and self.rng.random() < 0.25:
            s.deleted_slot0 = True
            s.steps.append(v.SlotDelete("vm", 0))
        elif len(s.slots) < 2:
            used = {x.id for x in s.slots}
            number = next(i for i in range(1, 4) if i not in used)
            slot = v.Slot(id=number, gfn_block=8 + 4 * number, block=self.rng.randrange(s.blocks), blocks=1)
            s.slots.append(slot)
            s.steps.append(v.SlotAdd("vm", slot))
        else:
            return False
        return True

    def _do_ksm(self, s: _State) -> bool:
        if s.merged:
            return False
        if s.alike or s.swapped or any(isinstance(step, v.Scan) for step in s.steps):
            self.excluded[_MANY_EQUAL] += 1
            return False
        s.merged = True
        block = str(self.rng.randrange(s.blocks))
        chosen = sorted(self.rng.sample(range(HPAGE_PMD_NR), self.rng.randint(2, 12)))
        pages = f"{block}:{','.join(map(str, chosen))}"
        s.steps += [
            v.CpuWrite("vm", pages, value=self.rng.choice([1, 2, 77])),
            v.Madvise("vm", block, "mergeable"),
            v.KsmMerge(),
        ]
        return True

    def _do_guard(self, s: _State) -> bool:
        if not self.guards:
            return False
        install = not s.guarded or self.rng.random() < 0.4
        s.guarded = True
        s.steps.append(
            v.Madvise("vm", self._some(s, most=64), "guard_install" if install else "guard_remove")
        )
        return True

    def _do_split(self, s: _State) -> bool:
        verb = v.SplitPmd if self.rng.random() < 0.5 else v.SplitHuge
        s.steps.append(verb("vm", str(self.rng.randrange(s.blocks))))
        return True


_WEIGHTS = {
    "guest": 30, "cpu": 16, "clear_refs": 14, "age": 6, "pin": 5, "io": 5, "advice": 8, "collapse": 1, "protect": 4,
    "lock": 3, "swap": 4, "fork": 4, "slot": 5, "ksm": 1, "split": 1,
    "guard": 3,
}  # fmt: skip
_DO: dict[str, Callable[[Generator, _State], bool]] = {
    name: getattr(Generator, f"_do_{name}") for name in _WEIGHTS
}


def mmu_of(machine: str) -> Mmu:
    """The table format of a lab machine's name; machines beyond the four are asked with NPT's scenarios."""
    known: tuple[Mmu, ...] = ("npt", "shadow", "ept", "ept-noad")
    return next((m for m in known if m == machine), "npt")


def scenarios(
    count: int,
    seed: int,
    mmu: Mmu = "npt",
    *,
    mglru: bool | None = None,
    sizes: bool = False,
    guards: bool = False,
    parts: bool = False,
) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios from *seed*, in groups that share a host; and the generator, for what it left out."""
    generator = Generator(seed, mmu, mglru=mglru, sizes=sizes, guards=guards, parts=parts)
    out: list[v.Scenario] = []
    while len(out) < count:
        host = generator.host()
        # Sizes multiply the hosts there are: half as many scenarios on each.
        group = GROUP // 2 if sizes else GROUP
        out.extend(generator.scenario(host) for _ in range(min(group, count - len(out))))
    return out, generator
