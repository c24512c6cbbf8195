"""Random scenarios of shared memory: one memfd (or MAP_SHARED | MAP_ANONYMOUS) that a VM's process and others map.

A generator of its own beside ``random``'s, so that the scenarios which a seed makes there stay as they are. Each process is one that could
be: fork's child maps what its parent does, a second process a part of the memory, and what only a private area can do is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, kb_of_order
from secondsight.mm.config import HostConfig, Mmu, ShmemEnabled, ShmemSizeEnabled, ShmemSizes
from secondsight.mm.madvise import Advice
from secondsight.scenario import verbs as v
from secondsight.scenario.random import GROUP, PARTS, Generator

__all__ = ["SharedGenerator", "random_pages", "shared_scenarios"]

#: How often each value of shmem_enabled is drawn.
_SWITCHES: dict[ShmemEnabled, int] = {
    "advise": 72, "always": 7, "within_size": 4, "force": 4, "never": 8, "deny": 5,
}  # fmt: skip
_ADVICE: tuple[Advice, ...] = (
    "dontneed", "dontneed", "dontneed", "hugepage", "hugepage", "nohugepage", "free",
)  # fmt: skip


def random_pages(r: Random, most: int) -> str:
    """At most *most* pages of a block, as text: one, some here and there, a run, or every so many."""
    kind = r.random()
    if kind < 0.3:
        return str(r.randrange(HPAGE_PMD_NR))
    if kind < 0.5:
        return ",".join(map(str, sorted(r.sample(range(HPAGE_PMD_NR), r.randint(2, min(24, most))))))
    if kind < 0.85:
        first = r.randrange(HPAGE_PMD_NR)
        return f"{first}-{min(HPAGE_PMD_NR - 1, first + r.randint(1, min(most, 300)) - 1)}"
    step = r.choice([2, 3, 7, 8, 16, 17])
    return ",".join(map(str, list(range(r.randrange(step), HPAGE_PMD_NR, step))[:most]))


@dataclass
class _Sharing:
    """A scenario under way: *blocks* of each space by name; who has a VM, and with which slots; what is pinned."""

    blocks: dict[str, int]
    vm: bool
    steps: list[v.Verb] = field(default_factory=list)
    pins: list[tuple[str, str]] = field(default_factory=list)
    slots: list[v.Slot] = field(default_factory=list)
    deleted_slot0: bool = False


class SharedGenerator(Generator):
    """Scenarios of shared memory from one seed."""

    def host(self) -> HostConfig:
        """One group's host: as for private memory, and a value of shmem_enabled; with sizes, each size's own."""
        chosen = self.rng.choices(list(_SWITCHES), list(_SWITCHES.values()))[0]
        sizes = self.sizes
        # Those of private memory are nothing to shared memory.
        self.sizes = False
        host = msgspec.structs.replace(super().host(), shmem_enabled=chosen)
        self.sizes = sizes
        return msgspec.structs.replace(host, shmem_sizes=self._shmem_sizes(chosen)) if sizes else host

    def _shmem_sizes(self, whole: ShmemEnabled) -> ShmemSizes:
        """Which sizes are on, and how; under force none below 2 MiB may inherit."""
        r = self.rng
        modes: list[ShmemSizeEnabled] = ["always", "within_size", "advise", "advise"]
        if whole != "force":
            modes.append("inherit")
        orders = r.sample(PARTS, r.choice([1, 1, 2, 3, len(PARTS)]))
        chosen: dict[str, ShmemSizeEnabled] = {f"kb{kb_of_order(order)}": r.choice(modes) for order in orders}
        if whole != "force" and r.random() < 0.4:
            own: list[ShmemSizeEnabled] = ["always", "advise", "advise", "never"]
            chosen[f"kb{kb_of_order(PMD_ORDER)}"] = r.choice(own)
        return ShmemSizes(**chosen)

    def scenario(self, host: HostConfig) -> v.Scenario:
        """One scenario for *host*."""
        r = self.rng
        blocks = 2 if r.random() < 0.2 else 1
        memory = "ram" if r.random() < 0.85 else ""
        s = _Sharing({"vm": blocks}, vm=r.random() < 0.7)
        spaces = [v.SpaceSpec("vm", blocks=blocks, vm=v.Vm() if s.vm else None, shared=v.Shared(memory))]
        if memory and r.random() < 0.6:
            first = r.randrange(blocks)
            s.blocks["other"] = r.randint(1, blocks - first)
            spaces.append(
                v.SpaceSpec("other", blocks=s.blocks["other"], shared=v.Shared(memory, block=first))
            )
        self._fill(s)
        for _ in range(r.randint(0, 5)):
            self._live_shared(s)
        for name in list(s.blocks):
            if r.random() < (0.9 if name == "vm" else 0.6):
                # Twice, mostly: once does not make a process known to 6.1 under shmem_enabled=advise.
                s.steps += [v.Madvise(name, self._all(s, name), "hugepage")] * r.choice([1, 2, 2, 2])
        for _ in range(r.choice([0, 0, 1, 2])):
            self._live_shared(s)
        s.steps.append(v.Scan())
        for _ in range(r.choice([0, 1, 1, 2])):
            for _ in range(r.randint(0, 4)):
                self._live_shared(s)
            s.steps.append(v.Scan())
        self.steps += len(s.steps)
        return v.Scenario(spaces=tuple(spaces), steps=tuple(s.steps), host=host)

    # -- pages -------------------------------------------------------------------------------------------------

    def _all(self, s: _Sharing, name: str) -> str:
        return "0" if s.blocks[name] == 1 else f"0-{s.blocks[name] - 1}"

    def _part(self, s: _Sharing, name: str, most: int = HPAGE_PMD_NR) -> str:
        """Some pages of one block of *name*, or all of it."""
        block = self.rng.randrange(s.blocks[name])
        if most == HPAGE_PMD_NR and self.rng.random() < 0.1:
            return str(block)
        return f"{block}:{random_pages(self.rng, most)}"

    def _fill(self, s: _Sharing) -> None:
        r = self.rng
        for name in s.blocks:
            kind = r.random()
            if kind < 0.4:
                s.steps.append(v.CpuWrite(name, self._all(s, name)))
            elif kind < 0.85:
                for _ in range(r.randint(1, 3)):
                    self._access(s, name)

    def _access(self, s: _Sharing, name: str) -> None:
        r = self.rng
        if name == "vm" and s.vm and not s.deleted_slot0 and r.random() < 0.5:
            verb = v.GuestRead if r.random() < 0.4 else v.GuestWrite
            s.steps.append(verb(name, self._part(s, name), view=self.view()))
        elif r.random() < 0.45:
            s.steps.append(v.CpuRead(name, self._part(s, name)))
        else:
            s.steps.append(v.CpuWrite(name, self._part(s, name)))

    # -- life --------------------------------------------------------------------------------------------------

    def _live_shared(self, s: _Sharing) -> None:
        kinds = list(_WEIGHTS)
        for _ in range(20):
            kind = self.rng.choices(kinds, [_WEIGHTS[k] for k in kinds])[0]
            if _DO[kind](self, s, self.rng.choice(list(s.blocks))):
                return

    def _shared_access(self, s: _Sharing, name: str) -> bool:
        self._access(s, name)
        return True

    def _shared_clear_refs(self, s: _Sharing, name: str) -> bool:
        s.steps.append(v.ClearRefs(name))
        return True

    def _shared_age(self, s: _Sharing, name: str) -> bool:
        s.steps.append(v.Age(name, self._part(s, name)))
        return True

    def _shared_pin(self, s: _Sharing, name: str) -> bool:
        if s.pins and self.rng.random() < 0.6:
            owner, pin = s.pins.pop()
            s.steps.append(v.Unpin(owner, pin))
            return True
        pin = f"p{len(s.steps)}"
        s.pins.append((name, pin))
        s.steps.append(v.Pin(name, self._part(s, name, most=32), pin, write=self.rng.random() < 0.4))
        return True

    def _shared_io(self, s: _Sharing, name: str) -> bool:
        verb = v.IoCopied if self.rng.random() < 0.5 else v.IoZeroCopy
        s.steps.append(verb(name, self._part(s, name, most=32), write=self.rng.random() < 0.5))
        return True

    def _shared_advice(self, s: _Sharing, name: str) -> bool:
        s.steps.append(v.Madvise(name, self._part(s, name), self.rng.choice(_ADVICE)))
        return True

    def _shared_collapse(self, s: _Sharing, name: str) -> bool:
        s.steps.append(v.Madvise(name, str(self.rng.randrange(s.blocks[name])), "collapse"))
        return True

    def _shared_swap(self, s: _Sharing, name: str) -> bool:
        s.steps.append(v.SwapOut(name, self._part(s, name)))
        return True

    def _shared_fork(self, s: _Sharing, name: str) -> bool:
        if len(s.blocks) > 3:
            return False
        child = f"c{len(s.steps)}"
        s.blocks[child] = s.blocks[name]
        s.steps.append(v.Fork(name, child))
        return True

    def _shared_exit(self, s: _Sharing, name: str) -> bool:
        if name == "vm":
            return False
        del s.blocks[name]
        s.pins = [pin for pin in s.pins if pin[0] != name]
        s.steps.append(v.Exit(name))
        return True

    def _shared_slot(self, s: _Sharing, name: str) -> bool:
        if not s.vm or s.deleted_slot0:
            return False
        if s.slots and self.rng.random() < 0.5:
            s.steps.append(v.SlotDelete("vm", s.slots.pop().id))
        elif self.rng.random() < 0.2:
            s.deleted_slot0 = True
            s.steps.append(v.SlotDelete("vm", 0))
        elif not s.slots:
            slot = v.Slot(id=1, gfn_block=12, block=self.rng.randrange(s.blocks["vm"]), blocks=1)
            s.slots.append(slot)
            s.steps += [v.SlotAdd("vm", slot), v.GuestWrite("vm", f"{slot.block}:3-40", slot=1)]
        else:
            return False
        return True

    def _shared_split(self, s: _Sharing, name: str) -> bool:
        verb = v.SplitPmd if self.rng.random() < 0.5 else v.SplitHuge
        s.steps.append(verb(name, str(self.rng.randrange(s.blocks[name]))))
        return True


_WEIGHTS = {
    "access": 36, "clear_refs": 6, "age": 4, "pin": 9, "io": 4, "advice": 10, "collapse": 6, "swap": 10, "fork": 4, "exit": 3,
    "slot": 3, "split": 3,
}  # fmt: skip
_DO: dict[str, Callable[[SharedGenerator, _Sharing, str], bool]] = {
    name: getattr(SharedGenerator, f"_shared_{name}") for name in _WEIGHTS
}


def shared_scenarios(
    count: int, seed: int, mmu: Mmu = "npt", *, mglru: bool | None = None, sizes: bool = False
) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios from *seed*, in groups that share a host; and the generator. *sizes*: hugepages-*kB/shmem_enabled are drawn too."""
    generator = SharedGenerator(seed, mmu, mglru=mglru, sizes=sizes)
    out: list[v.Scenario] = []
    while len(out) < count:
        host = generator.host()
        out.extend(generator.scenario(host) for _ in range(min(GROUP // 2, count - len(out))))
    return out, generator
