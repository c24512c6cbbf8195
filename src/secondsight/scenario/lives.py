"""What happens to the memory of a random scenario before and between passes: one step, or a few that belong together (``motifs``).

A third of the steps takes the pages of an earlier one again: what two verbs do to the same page is where kernels part.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR
from secondsight.mm.config import Knobs, Mmu
from secondsight.mm.madvise import Advice
from secondsight.scenario import verbs as v

__all__ = ["EXCLUSIONS", "Life", "Lives"]

#: What is never generated, and why the model does not predict it.
EXCLUSIONS: dict[str, str] = {
    "ksm_merge where a huge page was, or what mlock faulted in": (
        "hundreds of zero-filled pages exceed max_page_sharing, and which copies share which page follows the moments "
        "at which ksmd's chains are pruned (mm/ksm.c stable_node_dup)"
    ),
    "mlock where ksm_merge was, up to 5.17": (
        "when one entry of a page that KSM made one leaves a locked area, the rmap is walked for another that locks it (mm/mlock.c "
        "try_to_munlock), which the model does not; since 5.18 each counts (mlock_count)"
    ),
}
_MANY_EQUAL, _LOCKED_EQUAL = EXCLUSIONS
#: How many of a guest's accesses are a nested guest's, where there are such.
_NESTED = 0.5


@dataclass
class Life:
    """What the generator remembers of a scenario under way, to keep its steps possible.

    *knobs*: khugepaged's limits; *orders*: those below the PMD's that it tries; *alike*: hundreds of its pages may be equal; *huge*: it
    began with a huge page; *armed*: a userfaultfd that nobody handles is registered, so that nothing may fault any more; *vm2*: there is a
    second VM, whose slot 0 stays; *used*: the pages that earlier steps named.
    """

    blocks: int
    vm: bool
    mmu: str
    vm2: bool = False
    droppable: bool = False
    knobs: Knobs = field(default_factory=Knobs)
    orders: tuple[int, ...] = ()
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
    huge: bool = False
    armed: bool = False
    used: list[str] = field(default_factory=list)

    @property
    def every(self) -> str:
        """All its pages, as text."""
        return "0" if self.blocks == 1 else "0-1"

    @property
    def small(self) -> bool:
        """Can no huge page have come about yet: nothing was advised, collapsed or visited?"""
        return not self.alike and not any(
            isinstance(step, v.Scan) or (isinstance(step, v.Madvise) and step.advice == "hugepage")
            for step in self.steps
        )


class Lives:
    """Steps from one seed; ``excluded`` counts what was left out by name."""

    def __init__(
        self,
        seed: int,
        mmu: Mmu,
        *,
        guards: bool,
        parts: bool = False,
        nested: bool = False,
        numa: bool = False,
        mlocks: bool = False,
    ) -> None:
        """*guards*: the kernel has guard regions. *parts*: its khugepaged collapses parts of a block. *nested*: guests run guests of their
        own. *numa*: NUMA balancing comes by. *mlocks*: the kernel counts who has mlocked a page."""
        self.rng = random.Random(seed)
        self.mmu: Mmu = mmu
        self.guards = guards
        self.parts = parts
        self.nested = nested
        self.mlocks = mlocks
        self._chances = {**_WEIGHTS, **_NUMA} if numa else _WEIGHTS
        self.excluded: Counter[str] = Counter()

    # -- pages -------------------------------------------------------------------------------------------------

    def some(self, s: Life, most: int = HPAGE_PMD_NR) -> str:
        """Some pages of one block, as text: those of an earlier step, one, a few, a run, a stride, or all."""
        if most >= HPAGE_PMD_NR and s.used and self.rng.random() < 0.3:
            return self.rng.choice(s.used)
        pages = self._fresh(s, most)
        s.used.append(pages)
        return pages

    def _fresh(self, s: Life, most: int) -> str:
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

    def view(self) -> int:
        """A guest-virtual window."""
        return self.rng.choice([0, 0, 0, 1, 2]) if self.mmu == "shadow" else self.rng.choice([0, 0, 0, 0, 1])

    def through(self) -> dict[str, int]:
        """How a guest comes to a page: itself, by a window of its own or none; or a guest that it runs."""
        if self.nested and self.rng.random() < _NESTED:
            return {"nested": self.rng.choice([1, 1, 2])}
        return {"view": self.view()}

    def _block(self, s: Life) -> str:
        return str(self.rng.randrange(s.blocks))

    # -- steps ---------------------------------------------------------------------------------------------------

    def live(self, s: Life) -> None:
        """One step that is possible now, or some that belong together."""
        weights = _ARMED if s.armed else self._chances
        kinds = list(weights)
        for _ in range(20):
            kind = self.rng.choices(kinds, [weights[k] for k in kinds])[0]
            if _DO[kind](self, s):
                return

    def _do_guest(self, s: Life) -> bool:
        if not s.vm:
            return False
        verb = v.GuestRead if self.rng.random() < 0.5 else v.GuestWrite
        if s.vm2 and self.rng.random() < 0.5:
            s.steps.append(verb("vm", self.some(s), **self.through(), vm=1))
            return True
        choices = list(s.slots)
        if s.deleted_slot0 and not choices:
            return False
        if choices and (s.deleted_slot0 or self.rng.random() < 0.5):
            slot = self.rng.choice(choices)
            pages = self.some(s)
            if int(pages.split(":")[0]) != slot.block:
                return False
            s.steps.append(verb("vm", pages, **self.through(), slot=slot.id))
            return True
        s.steps.append(verb("vm", self.some(s), **self.through()))
        return True

    def _do_cpu(self, s: Life) -> bool:
        verb = v.CpuRead if self.rng.random() < 0.5 else v.CpuWrite
        s.steps.append(verb("vm", self.some(s)))
        return True

    def _do_clear_refs(self, s: Life) -> bool:
        s.steps.append(v.ClearRefs("vm"))
        return True

    def _do_age(self, s: Life) -> bool:
        s.steps.append(v.Age("vm", self.some(s)))
        return True

    def _do_pin(self, s: Life) -> bool:
        if s.pins and self.rng.random() < 0.6:
            s.steps.append(v.Unpin("vm", s.pins.pop()))
            return True
        if len(s.pins) > 1:
            return False
        name = f"p{len(s.steps)}"
        s.pins.append(name)
        # Registering a buffer with io_uring is all or nothing: not where something may be denied.
        write = not s.protected and not s.guarded and self.rng.random() < 0.4
        s.steps.append(v.Pin("vm", self.some(s, most=32), name, write=write))
        return True

    def _do_io(self, s: Life) -> bool:
        verb = v.IoCopied if self.rng.random() < 0.5 else v.IoZeroCopy
        s.steps.append(verb("vm", self.some(s, most=32), write=self.rng.random() < 0.5))
        return True

    def _do_advice(self, s: Life) -> bool:
        advice: Advice = self.rng.choice(
            ["cold", "cold", "free", "free", "dontneed", "nohugepage", "hugepage"]
        )
        s.steps.append(v.Madvise("vm", self.some(s), advice))
        return True

    def _do_collapse(self, s: Life) -> bool:
        s.alike = True
        kind = self.rng.random()
        pages = self._block(s)
        if kind < 0.2:
            pages = self.some(s)
        elif kind < 0.4 and s.blocks > 1:
            # Across a boundary, and no whole block in it.
            pages = (
                f"0:{self.rng.randrange(1, HPAGE_PMD_NR)}-{BLOCK_MASK} 1:0-{self.rng.randrange(BLOCK_MASK)}"
            )
        s.steps.append(v.Madvise("vm", pages, "collapse"))
        return True

    def _do_protect(self, s: Life) -> bool:
        if s.protected:
            s.protected = False
            s.steps.append(v.Mprotect("vm", s.every, "rw"))
        else:
            s.protected = True
            pages = self.some(s) if self.rng.random() < 0.5 else self._block(s)
            s.steps.append(v.Mprotect("vm", pages, self.rng.choice(["r", "r", "none"])))
        return True

    def _do_mremap(self, s: Life) -> bool:
        s.steps.append(v.Mremap("vm", self.some(s) if self.rng.random() < 0.7 else self._block(s)))
        return True

    def may_lock(self, s: Life) -> bool:
        """Whether pages may be locked: where KSM has made some one, only if the kernel counts who has."""
        may = self.mlocks or not s.merged
        if not may:
            self.excluded[_LOCKED_EQUAL] += 1
        return may

    def _do_lock(self, s: Life) -> bool:
        if s.locked and self.rng.random() < 0.7:
            s.locked = False
            s.steps.append(v.Munlock("vm", s.every))
        elif not self.may_lock(s):
            return False
        else:
            s.locked = True
            s.alike = True
            s.steps.append(v.Mlock("vm", self.some(s), onfault=self.rng.random() < 0.4))
        return True

    def _do_swap(self, s: Life) -> bool:
        s.swapped = True
        s.steps.append(v.SwapOut("vm", self.some(s)))
        return True

    def _do_fork(self, s: Life) -> bool:
        if s.forked:
            child = s.forked.pop()
            if self.rng.random() < 0.3:
                s.steps.append(v.Exit(child))
            else:
                s.steps.append(self._of_child(s, child))
                s.forked.append(child)
            return True
        child = f"c{len(s.steps)}"
        s.forked.append(child)
        s.steps.append(v.Fork("vm", child))
        return True

    def _of_child(self, s: Life, child: str) -> v.Verb:
        pages = self.some(s)
        kind = self.rng.random()
        if kind < 0.35:
            return v.CpuWrite(child, pages)
        if kind < 0.5:
            return v.CpuRead(child, pages)
        if kind < 0.75:
            return v.Madvise(child, pages, self.rng.choice(["dontneed", "dontneed", "free", "cold"]))
        if kind < 0.9:
            s.swapped = True
            return v.SwapOut(child, pages)
        return v.ClearRefs(child) if kind < 0.95 else v.Age(child, pages)

    def _do_slot(self, s: Life) -> bool:
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

    def _do_ksm(self, s: Life) -> bool:
        return self.merge(s, self._block(s))

    def merge(self, s: Life, block: str) -> bool:
        """Pages of *block* become equal and one, and perhaps apart again; if they can."""
        if s.merged:
            s.steps.append(v.Madvise("vm", s.every, "unmergeable"))
            return True
        if s.alike or s.swapped or any(isinstance(step, v.Scan) for step in s.steps):
            self.excluded[_MANY_EQUAL] += 1
            return False
        if s.locked and not self.mlocks:
            self.excluded[_LOCKED_EQUAL] += 1
            return False
        s.merged = True
        chosen = sorted(self.rng.sample(range(HPAGE_PMD_NR), self.rng.randint(2, 12)))
        pages = f"{block}:{','.join(map(str, chosen))}"
        s.steps += [
            v.CpuWrite("vm", pages, value=self.rng.choice([1, 2, 77])),
            v.Madvise("vm", block, "mergeable"),
            v.KsmMerge(),
        ]
        s.used.append(pages)
        if self.rng.random() < 0.3:
            s.steps.append(v.Madvise("vm", block, "unmergeable"))
        return True

    def _do_guard(self, s: Life) -> bool:
        if not self.guards:
            return False
        install = not s.guarded or self.rng.random() < 0.4
        s.guarded = True
        s.steps.append(v.Madvise("vm", self.some(s, most=64), "guard_install" if install else "guard_remove"))
        return True

    def _do_split(self, s: Life) -> bool:
        verb = v.SplitPmd if self.rng.random() < 0.5 else v.SplitHuge
        s.steps.append(verb("vm", self._block(s)))
        return True

    def _do_numa(self, s: Life) -> bool:
        s.steps.append(v.NumaScan("vm"))
        return True

    def _do_uffd(self, s: Life) -> bool:
        """Nobody handles a fault: from now on nothing of the space faults. Write protection is modelled for small pages alone."""
        if s.droppable:
            return False  # vma_can_userfault refuses, since 7.1
        s.armed = True
        wp = s.small and self.rng.random() < 0.6
        s.steps.append(v.Uffd("vm", self.some(s), "wp" if wp else "missing"))
        return True

    def _do_motif(self, s: Life) -> bool:
        return self.motif(s)

    def motif(self, s: Life) -> bool:
        """Some steps that belong together, if those drawn are possible now."""
        from secondsight.scenario.motifs import motif

        return motif(self, s)


_WEIGHTS = {
    "guest": 30, "cpu": 16, "clear_refs": 14, "age": 6, "pin": 5, "io": 5, "advice": 8, "collapse": 2, "protect": 4,
    "lock": 4, "swap": 4, "fork": 6, "slot": 5, "ksm": 1, "split": 2, "guard": 3, "uffd": 2, "mremap": 3, "motif": 20,
}  # fmt: skip
_NUMA = {"numa": 20}
#: What faults nothing of the space.
_ARMED = {"clear_refs": 4, "age": 3, "advice": 4, "collapse": 2, "swap": 2, "fork": 3, "slot": 1}
_DO: dict[str, Callable[[Lives, Life], bool]] = {
    name: getattr(Lives, f"_do_{name}") for name in (*_WEIGHTS, *_NUMA)
}
