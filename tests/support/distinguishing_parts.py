"""Scenarios of parts of a block, which khugepaged collapses since 7.2, each as a folio below 2 MiB; see ``rule_scenarios``."""

from __future__ import annotations

from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.scenario import verbs as v
from support.distinguishing import VM, Distinguishing, advise, fill, scan

_FULL = HostConfig(sizes=Sizes(kb64="madvise", kb256="madvise"), knobs=Knobs(max_ptes_none=0))
#: Parts alone, the whole block never.
_ALONE = Sizes(kb64="madvise", kb256="madvise", kb2048="never")
_FULL_ALONE = HostConfig(sizes=_ALONE, knobs=Knobs(max_ptes_none=0))
_ANY_ALONE = HostConfig(sizes=_ALONE)


def _part(
    name: str,
    steps: tuple[v.Verb, ...],
    host: HostConfig = _FULL,
    spaces: tuple[v.SpaceSpec, ...] = (v.SpaceSpec("p"),),
) -> Distinguishing:
    return Distinguishing(name, (), steps, spaces, host, since=(6, 8))


PARTS = (
    _part(
        "parts refused one after another",
        (fill, v.Madvise("p", "0:40,200", "dontneed"), v.GuestRead("p", "0"), v.ClearRefs("p"), *scan),
        spaces=VM,
    ),
    _part(
        "parts, one of them full",
        (v.CpuWrite("p", "0:64-127,256-271,300"), v.Drain(), advise, v.Scan(passes=2)),
    ),
    _part("parts, one page held", (fill, v.Pin("p", "0:70", "held"), *scan)),
    _part(
        "parts, one with a zero page",
        (v.CpuRead("p", "0:20"), v.CpuWrite("p", "0:16-19,21-31,64-79"), *scan),
        _FULL_ALONE,
    ),
    _part("parts, one with a page in swap", (fill, v.SwapOut("p", "0:70"), *scan), _FULL_ALONE),
    _part(
        "parts that may be empty, the first page in swap", (fill, v.SwapOut("p", "0:0"), *scan), _ANY_ALONE
    ),
    _part("parts that may be empty", (v.CpuWrite("p", "0:3,100-110,300-511"), *scan), _ANY_ALONE),
    _part(
        "parts that may be empty, one with a protected zero page",
        (v.CpuRead("p", "0:20"), v.Uffd("p", "0", "wp"), v.CpuWrite("p", "0:16-19,21-31"), *scan),
        _ANY_ALONE,
    ),
    _part(
        "parts, one of them as large already",
        (v.CpuWrite("p", "0:16-31"), v.CpuWrite("p", "0:64-79"), *scan, v.Observe()),
        HostConfig(sizes=Sizes(kb64="always", kb2048="never"), knobs=Knobs(max_ptes_none=0)),
    ),
    _part(
        "parts of two small sizes, one as large already",
        (v.Madvise("p", "0", "hugepage"), v.CpuWrite("p", "0:16-31"), v.CpuWrite("p", "0:64-127"), v.Scan()),
        HostConfig(
            sizes=Sizes(kb64="madvise", kb128="madvise", kb2048="never"), knobs=Knobs(max_ptes_none=0)
        ),
    ),
    _part(
        "parts under MGLRU",
        (v.CpuWrite("p", "0:16-31,70"), v.Drain(), *scan),
        HostConfig(sizes=_ALONE, knobs=Knobs(max_ptes_none=0), mglru=True),
    ),
    _part(
        "parts that cannot be read",
        (v.CpuWrite("p", "0:16-31"), v.Drain(), v.Mprotect("p", "0", "none"), *scan),
        _FULL_ALONE,
    ),
    _part(
        "parts, two pages are one, another in swap",
        (
            fill,
            v.CpuWrite("p", "0:7-8", value=7),
            v.Madvise("p", "0", "mergeable"),
            v.KsmMerge(),
            v.SwapOut("p", "0:300"),
            *scan,
        ),
        HostConfig(sizes=Sizes(kb64="madvise", kb256="madvise")),
    ),
)
