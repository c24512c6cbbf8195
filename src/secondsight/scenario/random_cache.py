"""What random scenarios of the page cache have in common, be it shared memory (``random_shared``) or regular files (``random_files``).

Generators of their own beside ``random``'s, so that the scenarios which a seed makes there stay as they are. Each process is one that could
be: what only a private area can do is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.madvise import Advice
from secondsight.scenario import verbs as v
from secondsight.scenario.random import GROUP, Generator

__all__ = ["CacheGenerator", "Mapped", "drawn", "random_pages"]

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
class Mapped:
    """A scenario under way: *blocks* of each space by name; its *steps*; what is pinned, as (space, pin)."""

    blocks: dict[str, int]
    steps: list[v.Verb] = field(default_factory=list)
    pins: list[tuple[str, str]] = field(default_factory=list)

    def add_child(self, name: str, child: str) -> None:
        """*name* has forked *child*."""
        self.blocks[child] = self.blocks[name]


class CacheGenerator(Generator):
    """Scenarios of one memory or file that several processes map. A kind of step is a method ``_cache_KIND(scenario, space)``, which says
    whether there was a step to take; *weights*: how often each is drawn."""

    weights: ClassVar[Mapping[str, int]]
    #: The share of pins that are pins for writing.
    writing_pins: ClassVar[float] = 0.0

    # -- pages -------------------------------------------------------------------------------------------------

    def _all(self, s: Mapped, name: str) -> str:
        return "0" if s.blocks[name] == 1 else f"0-{s.blocks[name] - 1}"

    def _part(self, s: Mapped, name: str, most: int = HPAGE_PMD_NR) -> str:
        """Some pages of one block of *name*, or all of it."""
        block = self.rng.randrange(s.blocks[name])
        if most == HPAGE_PMD_NR and self.rng.random() < 0.1:
            return str(block)
        return f"{block}:{random_pages(self.rng, most)}"

    # -- steps -------------------------------------------------------------------------------------------------

    def _several(self, s: Mapped, number: int) -> None:
        """*number* steps, each of some space."""
        kinds = list(self.weights)
        for _ in range(number):
            for _ in range(20):
                kind = self.rng.choices(kinds, [self.weights[k] for k in kinds])[0]
                if getattr(self, f"_cache_{kind}")(s, self.rng.choice(list(s.blocks))):
                    break

    def _passes(self, s: Mapped) -> None:
        """What comes between advice and the first pass, and passes with what comes between them."""
        self._several(s, self.rng.choice([0, 0, 1, 2]))
        s.steps.append(v.Scan())
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            self._several(s, self.rng.randint(0, 4))
            s.steps.append(v.Scan())
        self.steps += len(s.steps)

    def _cache_clear_refs(self, s: Mapped, name: str) -> bool:
        s.steps.append(v.ClearRefs(name))
        return True

    def _cache_age(self, s: Mapped, name: str) -> bool:
        s.steps.append(v.Age(name, self._part(s, name)))
        return True

    def _cache_pin(self, s: Mapped, name: str) -> bool:
        if s.pins and self.rng.random() < 0.6:
            owner, pin = s.pins.pop()
            s.steps.append(v.Unpin(owner, pin))
            return True
        pin = f"p{len(s.steps)}"
        s.pins.append((name, pin))
        pages = self._part(s, name, most=32)
        write = self.writing_pins > 0 and self.rng.random() < self.writing_pins
        s.steps.append(v.Pin(name, pages, pin, write=write))
        return True

    def _cache_advice(self, s: Mapped, name: str) -> bool:
        s.steps.append(v.Madvise(name, self._part(s, name), self.rng.choice(_ADVICE)))
        return True

    def _cache_collapse(self, s: Mapped, name: str) -> bool:
        s.steps.append(v.Madvise(name, str(self.rng.randrange(s.blocks[name])), "collapse"))
        return True

    def _cache_fork(self, s: Mapped, name: str) -> bool:
        if len(s.blocks) > 3:
            return False
        child = f"c{len(s.steps)}"
        s.add_child(name, child)
        s.steps.append(v.Fork(name, child))
        return True

    def _cache_exit(self, s: Mapped, name: str) -> bool:
        if len(s.blocks) < 2:
            return False
        del s.blocks[name]
        s.pins = [pin for pin in s.pins if pin[0] != name]
        s.steps.append(v.Exit(name))
        return True


def drawn(generator: CacheGenerator, count: int) -> tuple[list[v.Scenario], Generator]:
    """*count* scenarios of *generator*, in groups that share a host; and it."""
    out: list[v.Scenario] = []
    while len(out) < count:
        host = generator.host()
        out.extend(generator.scenario(host) for _ in range(min(GROUP // 2, count - len(out))))
    return out, generator
