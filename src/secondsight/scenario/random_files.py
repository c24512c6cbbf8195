"""Random scenarios of regular files: one file that one or more processes map, read and write, dirty and clean, cached and not.

A process maps the file privately and read-only, or shared and writable, which keeps it
open for writing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Literal

import msgspec

from secondsight.mm.config import HostConfig, Mmu
from secondsight.scenario import verbs as v
from secondsight.scenario.random import Generator
from secondsight.scenario.random_cache import CacheGenerator, Mapped, drawn

__all__ = ["FileGenerator", "file_scenarios"]


@dataclass
class _FileMapped(Mapped):
    """A scenario under way: also whether each space *writes*, by name, as those do that it forks."""

    writes: dict[str, bool] = field(default_factory=dict)

    def add_child(self, name: str, child: str) -> None:
        """*name* has forked *child*, which maps the file as it does."""
        super().add_child(name, child)
        self.writes[child] = self.writes[name]


class FileGenerator(CacheGenerator):
    """Scenarios of regular files from one seed."""

    weights: ClassVar = {
        "access": 30, "read": 13, "write": 13, "sync": 8, "drop": 7, "clear_refs": 6, "age": 4, "pin": 8, "advice": 10, "collapse": 7,
        "fork": 4, "exit": 3, "split": 2,
    }  # fmt: skip

    def __init__(self, seed: int, mmu: Mmu = "npt", *, mglru: bool | None = None) -> None:
        """*mglru* None: either, by group."""
        super().__init__(seed, mmu, mglru=mglru)
        self._of_vms = Random(f"{seed} VMs")

    def host(self) -> HostConfig:
        """One group's host: as for private memory."""
        return msgspec.structs.replace(super().host(), shmem_enabled="never")

    def scenario(self, host: HostConfig) -> v.Scenario:
        """One scenario for *host*."""
        r = self.rng
        blocks = 2 if r.random() < 0.3 else 1
        s = _FileMapped({})
        spaces = [self._space(s, "a", blocks, 0)]
        if r.random() < 0.5:
            first = r.randrange(blocks)
            spaces.append(self._space(s, "b", r.randint(1, blocks - first), first))
        if r.random() < 0.25:
            self._advise(s, 0.7)
        self._fill(s)
        self._several(s, r.randint(0, 5))
        self._advise(s, 0.9)
        self._passes(s)
        return self._with_vm(v.Scenario(spaces=tuple(spaces), steps=tuple(s.steps), host=host))

    def _with_vm(self, made: v.Scenario) -> v.Scenario:
        """*made* with a VM in the first space, two times in five, which makes some of its accesses; drawn apart, so that all else stays."""
        r = self._of_vms
        if r.random() >= 0.4:
            return made
        steps = [self._by_guest(step) if r.random() < 0.5 else step for step in made.steps]
        first = msgspec.structs.replace(made.spaces[0], vm=v.Vm())
        return msgspec.structs.replace(made, spaces=(first, *made.spaces[1:]), steps=tuple(steps))

    def _by_guest(self, step: v.Verb) -> v.Verb:
        if not isinstance(step, v.CpuRead | v.CpuWrite) or step.space != "a":
            return step
        verb = v.GuestWrite if isinstance(step, v.CpuWrite) else v.GuestRead
        return verb(step.space, step.pages, view=self._of_vms.choice([0, 0, 0, 1]))

    def _space(self, s: _FileMapped, name: str, blocks: int, first: int) -> v.SpaceSpec:
        file: Literal["private", "shared"] = "private" if self.rng.random() < 0.6 else "shared"
        s.blocks[name], s.writes[name] = blocks, file == "shared"
        return v.SpaceSpec(name, blocks=blocks, shared=v.Shared("data", block=first, file=file))

    def _advise(self, s: _FileMapped, chance: float) -> None:
        for name in s.blocks:
            if self.rng.random() < chance:
                s.steps.append(v.Madvise(name, self._all(s, name), "hugepage"))

    # -- steps -------------------------------------------------------------------------------------------------

    def _fill(self, s: _FileMapped) -> None:
        """What the page cache has at the beginning: all of the file or parts, read, written or faulted in."""
        r = self.rng
        for name in s.blocks:
            kind = r.random()
            if kind < 0.35:
                verb = v.FileRead if r.random() < 0.65 else v.FileWrite
                s.steps.append(verb(name, self._all(s, name)))
            elif kind < 0.85:
                for _ in range(r.randint(1, 3)):
                    r.choice([self._cache_access, self._cache_read, self._cache_write])(s, name)
            if r.random() < 0.6:
                s.steps.append(v.FileSync(name))

    def _cache_access(self, s: _FileMapped, name: str) -> bool:
        # A store where the mapping is read-only is denied, which is asked too.
        writes = self.rng.random() < (0.5 if s.writes[name] else 0.05)
        s.steps.append((v.CpuWrite if writes else v.CpuRead)(name, self._part(s, name)))
        return True

    def _cache_read(self, s: _FileMapped, name: str) -> bool:
        s.steps.append(v.FileRead(name, self._part(s, name)))
        return True

    def _cache_write(self, s: _FileMapped, name: str) -> bool:
        s.steps.append(v.FileWrite(name, self._part(s, name)))
        return True

    def _cache_sync(self, s: _FileMapped, name: str) -> bool:
        s.steps.append(v.FileSync(name))
        return True

    def _cache_drop(self, s: _FileMapped, name: str) -> bool:
        s.steps.append(v.FileDrop(name, self._part(s, name)))
        return True

    def _cache_split(self, s: _FileMapped, name: str) -> bool:
        s.steps.append(v.SplitPmd(name, str(self.rng.randrange(s.blocks[name]))))
        return True


def file_scenarios(
    count: int, seed: int, mmu: Mmu = "npt", *, mglru: bool | None = None
) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios from *seed*, in groups that share a host; and the generator."""
    return drawn(FileGenerator(seed, mmu, mglru=mglru), count)
