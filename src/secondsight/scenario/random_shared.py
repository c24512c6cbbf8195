"""Random scenarios of shared memory: one memfd (or MAP_SHARED | MAP_ANONYMOUS) that a VM's process and others map.

Fork's child maps what its parent does, a second process a part of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from secondsight.geometry import PMD_ORDER, kb_of_order
from secondsight.mm.config import HostConfig, Mmu, ShmemEnabled, ShmemSizeEnabled, ShmemSizes
from secondsight.scenario import verbs as v
from secondsight.scenario.random import PARTS, Generator
from secondsight.scenario.random_cache import CacheGenerator, Mapped, drawn

__all__ = ["SharedGenerator", "shared_scenarios"]

#: How often each value of shmem_enabled is drawn.
_SWITCHES: dict[ShmemEnabled, int] = {
    "advise": 72, "always": 7, "within_size": 4, "force": 4, "never": 8, "deny": 5,
}  # fmt: skip


@dataclass
class _Sharing(Mapped):
    """A scenario under way: whether the first space has a *vm*, and with which slots."""

    vm: bool = False
    slots: list[v.Slot] = field(default_factory=list)
    deleted_slot0: bool = False


class SharedGenerator(CacheGenerator):
    """Scenarios of shared memory from one seed."""

    weights: ClassVar = {
        "access": 36, "clear_refs": 6, "age": 4, "pin": 9, "io": 4, "advice": 10, "collapse": 6, "swap": 10, "fork": 4, "exit": 3,
        "slot": 3, "split": 3,
    }  # fmt: skip
    writing_pins = 0.4

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
        self._several(s, r.randint(0, 5))
        for name in list(s.blocks):
            if r.random() < (0.9 if name == "vm" else 0.6):
                # Twice, mostly: once does not make a process known to 6.1 under shmem_enabled=advise.
                s.steps += [v.Madvise(name, self._all(s, name), "hugepage")] * r.choice([1, 2, 2, 2])
        self._passes(s)
        return v.Scenario(spaces=tuple(spaces), steps=tuple(s.steps), host=host)

    # -- steps -------------------------------------------------------------------------------------------------

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
            s.steps.append(verb(name, self._part(s, name), **self.through()))
        elif r.random() < 0.45:
            s.steps.append(v.CpuRead(name, self._part(s, name)))
        else:
            s.steps.append(v.CpuWrite(name, self._part(s, name)))

    def _cache_access(self, s: _Sharing, name: str) -> bool:
        self._access(s, name)
        return True

    def _cache_io(self, s: _Sharing, name: str) -> bool:
        verb = v.IoCopied if self.rng.random() < 0.5 else v.IoZeroCopy
        s.steps.append(verb(name, self._part(s, name, most=32), write=self.rng.random() < 0.5))
        return True

    def _cache_swap(self, s: _Sharing, name: str) -> bool:
        s.steps.append(v.SwapOut(name, self._part(s, name)))
        return True

    def _cache_exit(self, s: Mapped, name: str) -> bool:
        return name != "vm" and super()._cache_exit(s, name)

    def _cache_slot(self, s: _Sharing, name: str) -> bool:
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

    def _cache_split(self, s: _Sharing, name: str) -> bool:
        verb = v.SplitPmd if self.rng.random() < 0.5 else v.SplitHuge
        s.steps.append(verb(name, str(self.rng.randrange(s.blocks[name]))))
        return True


def shared_scenarios(
    count: int, seed: int, mmu: Mmu = "npt", *, mglru: bool | None = None, sizes: bool = False
) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios from *seed*, in groups that share a host; and the generator. *sizes*: hugepages-*kB/shmem_enabled are drawn too."""
    return drawn(SharedGenerator(seed, mmu, mglru=mglru, sizes=sizes), count)
