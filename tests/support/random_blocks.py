"""Processes of many random blocks: every kind of mapping and every way a page is used, then one pass of khugepaged.

Larger spaces than ``scenario.random`` makes, and no model follows them: what counts is what their pages look like in the end.
"""

import random

from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.scenario import verbs as v

LIMITS = (
    {}, {"max_ptes_none": 0}, {"max_ptes_none": 255, "max_ptes_swap": 8}, {"max_ptes_swap": 0, "max_ptes_shared": 0},
    {"max_ptes_none": 510, "max_ptes_shared": 8, "max_ptes_swap": 511},
)  # fmt: skip
#: how often each is drawn: what shared memory needs, and whether khugepaged comes to know a process (``backings.lay_out``)
SHMEM = {"advise": 70, "always": 10, "within_size": 5, "force": 3, "never": 8, "deny": 4}
HOWS = {"known": 65, "limited": 10, "unknown": 11, "disabled": 7, "spared": 7}
#: sizes below 2 MiB that are allowed where memory is advised, where a kernel has them
SIZES = ((), (), (), (64,), (16, 32, 64, 128, 256, 512, 1024))


def scenario(
    seed: int, mmu: str, blocks: int, spaces: int, mglru: bool, *, age: bool = True, sizes: bool = False
) -> v.Scenario:
    """*spaces* processes, all but the last with a VM, of *blocks* blocks together, and one pass over them."""
    r = random.Random(seed)
    limits = Knobs(pages_to_scan=1_000_000, **r.choice(LIMITS))
    each = blocks // spaces
    steps: list[v.Verb] = []
    made = []
    for i in range(spaces):
        space = v.SpaceSpec(f"s{i}", each, v.Vm() if i < spaces - 1 or spaces == 1 else None)
        made.append(space)
        steps += _Life(r, space, mmu, age).steps()
    for verb in [s for s in steps if isinstance(s, v.KsmMerge)][1:]:
        steps.remove(verb)
    steps.append(v.Scan())
    # Drawn apart, so that all else of a seed stays.
    apart = random.Random(f"{seed} switches")
    host = HostConfig(
        mmu=mmu, mglru=mglru, knobs=limits, shmem_enabled=apart.choices(list(SHMEM), list(SHMEM.values()))[0],
        sizes=Sizes(**{f"kb{kb}": "madvise" for kb in apart.choice(SIZES)}) if sizes else Sizes(),
    )  # fmt: skip
    return v.Scenario(tuple(made), tuple(steps), host=host)


def beside(seed: int, blocks: int) -> list[tuple[str, int, int, str]]:
    """The processes of ``backings`` that run beside a scenario, of *blocks* blocks each: (group, seed, blocks, how)."""
    r = random.Random(f"{seed} beside")
    hows = r.choices(list(HOWS), list(HOWS.values()), k=4)
    groups = ("anonymous", "anonymous", "cached", "cached")
    return [(group, r.getrandbits(40), blocks, how) for group, how in zip(groups, hows, strict=True)]


class _Life:
    def __init__(self, r: random.Random, space: v.SpaceSpec, mmu: str, age: bool) -> None:
        self.r, self.space, self.mmu, self.age = r, space, mmu, age
        self.name = space.name
        self.slots: set[int] = set()

    def some(self, block: int, most: int = 512) -> str:
        """One page, a few, a run, a stride or all of *block*."""
        r, kind = self.r, self.r.random()
        if kind < 0.25:
            return f"{block}:{r.randrange(512)}"
        if kind < 0.5:
            return f"{block}:{','.join(map(str, sorted(r.sample(range(512), r.randint(2, min(40, most))))))}"
        if kind < 0.75:
            first = r.randrange(512)
            return f"{block}:{first}-{min(511, first + r.randrange(min(most, 400)))}"
        if kind < 0.85:
            step = r.choice([2, 3, 8, 16])
            return f"{block}:{','.join(map(str, list(range(r.randrange(step), 512, step))[:most]))}"
        return str(block) if most >= 512 else f"{block}:0-{most - 1}"

    def steps(self) -> list[v.Verb]:
        r, out = self.r, []
        order = list(range(self.space.blocks))
        for block in order:
            out += self.populate(block)
        out += self.lives(2)
        if r.random() < 0.8:
            out.append(v.ClearRefs(self.name))
        if r.random() < 0.5:
            child = f"{self.name}c"
            out += [
                v.Fork(self.name, child),
                *(v.CpuWrite(child, self.some(b)) for b in r.sample(order, len(order) // 3)),
            ]
            if r.random() < 0.3:
                out.append(v.Exit(child))
        out += self.lives(1)
        advised = [b for b in order if r.random() < 0.93]
        out.append(v.Madvise(self.name, " ".join(map(str, advised)), "hugepage"))
        out += self.lives(0.5)
        return out

    def populate(self, block: int) -> list[v.Verb]:
        r, name, kind = self.r, self.name, self.r.random()
        if kind < 0.12:
            out: list[v.Verb] = [v.Madvise(name, str(block), "hugepage"), v.CpuWrite(name, f"{block}:7")]
            how = r.random()
            if how < 0.75:
                out.append((v.SplitPmd if how < 0.4 else v.SplitHuge)(name, str(block)))
            return out
        if kind < 0.55:
            return [v.CpuWrite(name, str(block))]
        if kind < 0.8:
            return [v.CpuWrite(name, self.some(block)) for _ in range(r.randint(1, 3))]
        if kind < 0.92 and self.space.vm:
            return [v.GuestWrite(name, self.some(block), view=self.view())]
        if kind < 0.97:
            return [v.CpuRead(name, self.some(block)), v.CpuWrite(name, self.some(block))]
        return [v.CpuRead(name, self.some(block))] if kind < 0.985 else []

    def view(self) -> int:
        return self.r.choice([0, 0, 0, 1, 2] if self.mmu == "shadow" else [0, 0, 0, 0, 1])

    def lives(self, each: float) -> list[v.Verb]:
        """About *each* events for each block, in random order."""
        out: list[v.Verb] = []
        for _ in range(int(self.space.blocks * each)):
            out += self.live(self.r.randrange(self.space.blocks))
        return out

    def live(self, block: int) -> list[v.Verb]:
        r, name = self.r, self.name
        kind = r.choices(
            ("guest", "cpu", "pin", "io", "advice", "protect", "lock", "swap", "slot", "ksm", "split", "age"),
            (30, 16, 4, 5, 9, 3, 3, 6, 2, 1.5, 1, 0.4 if self.age else 0),
        )[0]
        if kind == "guest" and self.space.vm:
            return [
                (v.GuestRead if r.random() < 0.5 else v.GuestWrite)(name, self.some(block), view=self.view())
            ]
        if kind in ("guest", "cpu"):
            return [(v.CpuRead if r.random() < 0.5 else v.CpuWrite)(name, self.some(block))]
        if kind == "pin":
            held = f"p{r.getrandbits(40):x}"
            pin = v.Pin(name, self.some(block, most=16), held, write=r.random() < 0.4)
            return [pin, v.Unpin(name, held)] if r.random() < 0.3 else [pin]
        if kind == "io":
            verb = v.IoCopied if r.random() < 0.5 else v.IoZeroCopy
            return [verb(name, self.some(block, most=32), write=r.random() < 0.5)]
        if kind == "advice":
            advice = r.choice(["cold", "cold", "free", "free", "dontneed", "dontneed", "nohugepage"])
            return [v.Madvise(name, str(block) if advice == "nohugepage" else self.some(block), advice)]
        if kind == "protect":
            # A part cuts the area there: only of a whole block does khugepaged see the entries.
            pages = str(block) if r.random() < 0.7 else self.some(block)
            return [v.Mprotect(name, pages, r.choice(["r", "none"]))]
        if kind == "lock":
            return [v.Mlock(name, self.some(block))]
        if kind == "swap":
            return [v.SwapOut(name, self.some(block))]
        if kind == "slot" and self.space.vm:
            number = r.randint(1, 3)
            slot = v.Slot(number, 100 + 4 * number, block, 1)
            if number in self.slots:
                self.slots.remove(number)
                return [v.SlotDelete(name, number)]
            self.slots.add(number)
            return [v.SlotAdd(name, slot), v.GuestRead(name, self.some(block), slot=number, view=self.view())]
        if kind == "ksm":
            pages = f"{block}:{','.join(map(str, sorted(r.sample(range(512), r.randint(2, 12)))))}"
            return [
                v.CpuWrite(name, pages, value=r.choice([1, 2, 77])),
                v.Madvise(name, str(block), "mergeable"),
                v.KsmMerge(),
            ]
        if kind == "split":
            return [(v.SplitPmd if r.random() < 0.5 else v.SplitHuge)(name, str(block))]
        return [v.Age(name, self.some(block))] if kind == "age" else []
