"""What ``rule_scenarios`` is made of: a short scenario that tells the values of some rules apart, and what many of them begin with."""

from __future__ import annotations

from dataclasses import dataclass

from secondsight.mm.config import HostConfig, Knobs
from secondsight.scenario import verbs as v


@dataclass(frozen=True)
class Distinguishing:
    """*steps* in *spaces* on *host*, whose answer depends on each of *rules* (none: on no one rule) under the profile *profile*; only
    kernels *since* that version can be asked (of what older ones do not know)."""

    name: str
    rules: tuple[str, ...]
    steps: tuple[v.Verb, ...]
    spaces: tuple[v.SpaceSpec, ...] = (v.SpaceSpec("p"),)
    host: HostConfig = HostConfig()
    profile: str = "6.12"
    since: tuple[int, int] = (5, 10)
    until: tuple[int, int] = (99, 0)

    def scenario(self) -> v.Scenario:
        """The steps, and a look at the end, unless a pass that is left unfinished has to be the last."""
        title = f"{', '.join(self.rules)}: {self.name}" if self.rules else self.name
        end = () if isinstance(self.steps[-1], v.Scan) else (v.Observe(),)
        return v.Scenario(
            spaces=self.spaces,
            steps=(*self.steps, *end),
            title=title,
            host=self.host,
        )


#: Whose memory it is.
VM = (v.SpaceSpec("p", vm=v.Vm()),)
SHARED = (v.SpaceSpec("s", shared=v.Shared("m")),)
SHARED_BY_TWO = (v.SpaceSpec("s", shared=v.Shared("m")), v.SpaceSpec("o", shared=v.Shared("m")))

fill = v.CpuWrite("p", "0")
advise = v.Madvise("p", "0", "hugepage")
huge = (advise, fill)
scan = (advise, v.Scan())
#: A block that nobody has used of late.
old = (fill, v.Drain(), v.ClearRefs("p"))


def equal(pages: str) -> tuple[v.Verb, ...]:
    """One page at these addresses of a block."""
    return (fill, v.CpuWrite("p", pages, value=7), v.Madvise("p", "0", "mergeable"), v.KsmMerge())


merged = equal("0:7,8,300")
#: A look in between.
look = (v.Observe(), v.Drain())


def knobs(**limits: int) -> HostConfig:
    """A host on which khugepaged has these limits."""
    return HostConfig(knobs=Knobs(**limits))
