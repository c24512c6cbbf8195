"""The policies that kernels and their users have today: never, always, khugepaged, MADV_COLLAPSE, DAMON's ethp, the THP shrinker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from secondsight.geometry import HPAGE_PMD_NR, KHUGEPAGED_MAX_PTES_LIMIT
from secondsight.policy.history import History
from secondsight.policy.protocol import Decision, Faults, Look, Need, Policy
from secondsight.policy.ranges import AtMost, HostCount, HostMaxPtes, MaxPtes, Seconds, Share, Within

SECOND = 1_000_000_000


@dataclass(eq=False)
class Never(Policy):
    """Nothing becomes huge: ``transparent_hugepage/enabled`` is ``never``. The floor every other row is measured from."""

    name: ClassVar[str] = "never"
    passive: ClassVar[bool] = True

    def wake(self, look: Look) -> Decision:
        """Nothing, ever."""
        return Decision()


@dataclass(eq=False)
class Always(Policy):
    """``transparent_hugepage/enabled`` is ``always``: the first touch of a block maps a huge page (mm/huge_memory.c
    do_huge_pmd_anonymous_page), and khugepaged takes what that left.

    Simplified: no allocation fails, so fragmentation costs nothing. ``khugepaged=false`` leaves the daemon out.
    """

    name: ClassVar[str] = "always"
    passive: ClassVar[bool] = True
    khugepaged: bool = True
    faults: ClassVar[Faults] = "huge"  # type: ignore[misc]  # fixed here, an option elsewhere

    def wake(self, look: Look) -> Decision:
        """Faults and the daemon do it all."""
        return Decision()


@dataclass(eq=False)
class Khugepaged(Policy):
    """The kernel's own daemon under the run's rules (mm/khugepaged.c); the host runs it, nothing is approximated here.

    Options are its sysfs files; -1 leaves the host's value.
    """

    name: ClassVar[str] = "khugepaged"
    passive: ClassVar[bool] = True
    khugepaged: ClassVar[bool] = True  # type: ignore[misc]  # fixed here, an option elsewhere
    pages_to_scan: HostCount = -1
    scan_sleep_millisecs: HostCount = -1
    max_ptes_none: HostMaxPtes = -1
    max_ptes_swap: HostMaxPtes = -1
    max_ptes_shared: HostMaxPtes = -1

    @property
    def knobs(self) -> Mapping[str, int]:
        """The options that were given."""
        names = ("pages_to_scan", "scan_sleep_millisecs", "max_ptes_none", "max_ptes_swap", "max_ptes_shared")
        return {name: value for name in names if (value := getattr(self, name)) >= 0}

    def wake(self, look: Look) -> Decision:
        """The daemon decides."""
        return Decision()


@dataclass(eq=False)
class MadvCollapse(Policy):
    """A sweep of MADV_COLLAPSE over everything, in address order, every *every* seconds (mm/khugepaged.c madvise_collapse).

    It asks for no reference and knows no ``max_ptes_*``: a block with one page populated becomes huge. *min_populated* is what a careful
    caller would add (KubeVirt enhancement #383 proposes the call for VMs); *at_most* blocks a sweep (0: no limit). Simplified: what the
    kernel would refuse (pinned or locked pages) is found out by the host when it carries the decision out.
    """

    name: ClassVar[str] = "madv_collapse"
    every: Seconds = 10.0
    min_populated: Annotated[int, Within(1, HPAGE_PMD_NR)] = 1
    at_most: AtMost = 0

    def wake(self, look: Look) -> Decision:
        """Every small block that holds enough pages."""
        rows = np.flatnonzero(~look.huge & (look.populated >= self.min_populated))
        return Decision(promote=rows[: self.at_most] if self.at_most else rows)


@dataclass(eq=False)
class DamonEthp(Policy):
    """DAMON's "ethp" schemes (damo's and the kernel's documentation, Documentation/mm/damon): an access frequency of at least *hot*
    (5 %) makes a region of 2 MiB huge; one not accessed for *cold* seconds (7) must not be.

    Simplified: the frequency of a block is the share of its populated pages that were young since the last wake-up, where DAMON samples
    one page of a region each 5 ms; regions are single blocks. The kernel's ``nohugepage`` action is MADV_NOHUGEPAGE, which keeps
    a block from becoming huge but splits none: so does this, unless ``split=true``.
    """

    name: ClassVar[str] = "damon_ethp"
    needs: ClassVar[frozenset[Need]] = frozenset({"clear_young"})
    hot: Share = 0.05
    cold: Annotated[float, Within(0, 4_294_967)] = 7.0
    every: Seconds = 1.0
    split: bool = False
    _idle: History = field(default_factory=History, init=False, repr=False)

    def wake(self, look: Look) -> Decision:
        """Hot blocks, hottest first; cold ones if asked to."""
        # A huge page is young as a whole: its accessed bit stands for all 512.
        frequency = look.young / np.maximum(np.where(look.huge, HPAGE_PMD_NR, look.populated), 1)
        idle = self._idle.align(look)
        idle[:] = np.where(look.young > 0, 0.0, idle + (look.now - look.since) / SECOND)
        hot = np.flatnonzero(~look.huge & (look.populated > 0) & (frequency >= self.hot))
        hot = hot[np.argsort(-frequency[hot], kind="stable")]
        cold = np.flatnonzero(look.huge & (idle >= self.cold)) if self.split else hot[:0]
        return Decision(promote=hot, split=cold)


@dataclass(eq=False)
class ThpShrinker(Policy):
    """The shrinker for underused THPs (6.12: mm/huge_memory.c thp_underused, deferred_split_scan): under reclaim a huge page with more than
    *max_ptes_none* zero-filled pages is split, and the zero-filled ones are given back.

    *faults* and *khugepaged* say what makes pages huge in the first place. As in the kernel, ``max_ptes_none=511`` turns it off, and
    so does never reclaiming: *free_below* is the share of free memory under which the host reclaims (1: always). Simplified: every huge
    page is on the deferred split list, and each is looked at in every wake-up, where the kernel takes a page off the list after one look.
    """

    name: ClassVar[str] = "thp_shrinker"
    max_ptes_none: MaxPtes = 409
    every: Seconds = 10.0
    faults: Faults = "huge"
    khugepaged: bool = True
    free_below: Share = 1.0

    @property
    def knobs(self) -> Mapping[str, int]:
        """The shrinker's threshold is khugepaged's ``max_ptes_none``: one file rules both."""
        return {"max_ptes_none": self.max_ptes_none}

    def wake(self, look: Look) -> Decision:
        """Split what is underused."""
        if self.max_ptes_none == KHUGEPAGED_MAX_PTES_LIMIT or look.free >= self.free_below:
            return Decision()
        return Decision(split=np.flatnonzero(look.huge & (look.zero_filled > self.max_ptes_none)))
