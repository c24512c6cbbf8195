"""Random scenarios of regular files: one file that one or more processes map, read and write, dirty and clean, cached and not.

A generator of its own, as ``random_shared`` is. A process maps the file privately and read-only, or shared and writable, which keeps it
open for writing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import msgspec

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.config import HostConfig, Mmu
from secondsight.mm.madvise import Advice
from secondsight.scenario import verbs as v
from secondsight.scenario.random import GROUP, Generator
from secondsight.scenario.random_shared import random_pages

__all__ = ["FileGenerator", "file_scenarios"]

_ADVICE: tuple[Advice, ...] = ("dontneed", "dontneed", "dontneed", "hugepage", "hugepage", "nohugepage", "free")  # fmt: skip


@dataclass
class _Mapped:
    """A scenario under way: *blocks* and whether it *writes*, of each space by name; what is pinned."""

    blocks: dict[str, int]
    writes: dict[str, bool]
    steps: list[v.Verb] = field(default_factory=list)
    pins: list[tuple[str, str]] = field(default_factory=list)


class FileGenerator(Generator):
    """Scenarios of regular files from one seed."""

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
        s = _Mapped({}, {})
        spaces = [self._space(s, "a", blocks, 0)]
        if r.random() < 0.5:
            first = r.randrange(blocks)
            spaces.append(self._space(s, "b", r.randint(1, blocks - first), first))
        if r.random() < 0.25:
            self._advise(s, 0.7)
        self._fill(s)
        for _ in range(r.randint(0, 5)):
            self._live(s)
        self._advise(s, 0.9)
        for _ in range(r.choice([0, 0, 1, 2])):
            self._live(s)
        s.steps.append(v.Scan())
        for _ in range(r.choice([0, 1, 1, 2])):
            for _ in range(r.randint(0, 4)):
                self._live(s)
            s.steps.append(v.Scan())
        self.steps += len(s.steps)
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

    def _space(self, s: _Mapped, name: str, blocks: int, first: int) -> v.SpaceSpec:
        file: Literal["private", "shared"] = "private" if self.rng.random() < 0.6 else "shared"
        s.blocks[name], s.writes[name] = blocks, file == "shared"
        return v.SpaceSpec(name, blocks=blocks, shared=v.Shared("data", block=first, file=file))

    def _advise(self, s: _Mapped, chance: float) -> None:
        for name in s.blocks:
            if self.rng.random() < chance:
                s.steps.append(v.Madvise(name, self._all(s, name), "hugepage"))

    # -- pages -------------------------------------------------------------------------------------------------

    def _all(self, s: _Mapped, name: str) -> str:
        return "0" if s.blocks[name] == 1 else f"0-{s.blocks[name] - 1}"

    def _part(self, s: _Mapped, name: str, most: int = HPAGE_PMD_NR) -> str:
        """Some pages of one block of *name*, or all of it."""
        block = self.rng.randrange(s.blocks[name])
        if most == HPAGE_PMD_NR and self.rng.random() < 0.1:
            return str(block)
        return f"{block}:{random_pages(self.rng, most)}"

    def _fill(self, s: _Mapped) -> None:
        """What the page cache has at the beginning: all of the file or parts, read, written or faulted in."""
        r = self.rng
        for name in s.blocks:
            kind = r.random()
            if kind < 0.35:
                verb = v.FileRead if r.random() < 0.65 else v.FileWrite
                s.steps.append(verb(name, self._all(s, name)))
            elif kind < 0.85:
                for _ in range(r.randint(1, 3)):
                    r.choice([self._file_access, self._file_read, self._file_write])(s, name)
            if r.random() < 0.6:
                s.steps.append(v.FileSync(name))

    # -- life --------------------------------------------------------------------------------------------------

    def _live(self, s: _Mapped) -> None:
        kinds = list(_WEIGHTS)
        for _ in range(20):
            kind = self.rng.choices(kinds, [_WEIGHTS[k] for k in kinds])[0]
            if _DO[kind](self, s, self.rng.choice(list(s.blocks))):
                return

    def _file_access(self, s: _Mapped, name: str) -> bool:
        # A store where the mapping is read-only is denied, which is asked too.
        writes = self.rng.random() < (0.5 if s.writes[name] else 0.05)
        s.steps.append((v.CpuWrite if writes else v.CpuRead)(name, self._part(s, name)))
        return True

    def _file_read(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.FileRead(name, self._part(s, name)))
        return True

    def _file_write(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.FileWrite(name, self._part(s, name)))
        return True

    def _file_sync(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.FileSync(name))
        return True

    def _file_drop(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.FileDrop(name, self._part(s, name)))
        return True

    def _file_clear_refs(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.ClearRefs(name))
        return True

    def _file_age(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.Age(name, self._part(s, name)))
        return True

    def _file_pin(self, s: _Mapped, name: str) -> bool:
        if s.pins and self.rng.random() < 0.6:
            owner, pin = s.pins.pop()
            s.steps.append(v.Unpin(owner, pin))
            return True
        pin = f"p{len(s.steps)}"
        s.pins.append((name, pin))
        s.steps.append(v.Pin(name, self._part(s, name, most=32), pin))
        return True

    def _file_advice(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.Madvise(name, self._part(s, name), self.rng.choice(_ADVICE)))
        return True

    def _file_collapse(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.Madvise(name, str(self.rng.randrange(s.blocks[name])), "collapse"))
        return True

    def _file_fork(self, s: _Mapped, name: str) -> bool:
        if len(s.blocks) > 3:
            return False
        child = f"c{len(s.steps)}"
        s.blocks[child], s.writes[child] = s.blocks[name], s.writes[name]
        s.steps.append(v.Fork(name, child))
        return True

    def _file_exit(self, s: _Mapped, name: str) -> bool:
        if len(s.blocks) < 2:
            return False
        del s.blocks[name]
        s.pins = [pin for pin in s.pins if pin[0] != name]
        s.steps.append(v.Exit(name))
        return True

    def _file_split(self, s: _Mapped, name: str) -> bool:
        s.steps.append(v.SplitPmd(name, str(self.rng.randrange(s.blocks[name]))))
        return True


_WEIGHTS = {
    "access": 30, "read": 13, "write": 13, "sync": 8, "drop": 7, "clear_refs": 6, "age": 4, "pin": 8, "advice": 10, "collapse": 7,
    "fork": 4, "exit": 3, "split": 2,
}  # fmt: skip
_DO: dict[str, Callable[[FileGenerator, _Mapped, str], bool]] = {
    name: getattr(FileGenerator, f"_file_{name}") for name in _WEIGHTS
}


def file_scenarios(
    count: int, seed: int, mmu: Mmu = "npt", *, mglru: bool | None = None
) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios from *seed*, in groups that share a host; and the generator."""
    generator = FileGenerator(seed, mmu, mglru=mglru)
    out: list[v.Scenario] = []
    while len(out) < count:
        host = generator.host()
        out.extend(generator.scenario(host) for _ in range(min(GROUP // 2, count - len(out))))
    return out, generator
