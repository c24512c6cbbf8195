"""Scenarios that meet a limit of khugepaged's exactly, and go beyond it by one: what small changes of its code are noticed by."""

from __future__ import annotations

from secondsight.mm.config import HostConfig, Knobs, Sizes
from secondsight.scenario import verbs as v
from support.distinguishing import VM, Distinguishing, advise, fill, huge, knobs, old, scan


def _holes(number: int, name: str) -> Distinguishing:
    steps = (fill, v.Madvise("p", f"0:0-{number - 1}", "dontneed"), *scan)
    return Distinguishing(f"{name} empty pages", (), steps, host=knobs(max_ptes_none=50))


def _shared(number: int, name: str) -> Distinguishing:
    steps = (fill, v.Fork("p", "c"), v.CpuWrite("c", f"0:{number}-511"), *scan)
    return Distinguishing(f"{name} shared pages", (), steps, host=knobs(max_ptes_shared=50))


def _swapped(number: int, name: str) -> Distinguishing:
    steps = (fill, v.SwapOut("p", f"0:5-{4 + number}"), *scan)
    return Distinguishing(f"{name} pages in swap", (), steps, host=knobs(max_ptes_swap=5))


_same = v.CpuWrite("p", "0:7,8,300", value=7)
_merged = (fill, _same, v.Madvise("p", "0", "mergeable"), v.KsmMerge())
_PARTS = HostConfig(sizes=Sizes(kb64="madvise", kb256="madvise"), knobs=Knobs(max_ptes_none=0))

LIMITS = (
    *(
        make(number, name)
        for make, most in ((_holes, 50), (_shared, 50), (_swapped, 5))
        for number, name in ((most, "just so many"), (most + 1, "one too many"))
    ),
    Distinguishing(
        "just half used beside swap", (), (*old, v.SwapOut("p", "0:0"), v.CpuRead("p", "0:1-256"), *scan)
    ),
    Distinguishing(
        "first page alone used by a guest", (), (fill, v.GuestRead("p", "0:0"), v.ClearRefs("p"), *scan), VM
    ),
    Distinguishing(
        "second page alone used by a guest", (), (fill, v.GuestRead("p", "0:1"), v.ClearRefs("p"), *scan), VM
    ),
    Distinguishing("last page alone used", (), (*old, v.CpuRead("p", "0:511"), *scan)),
    Distinguishing("one page held", (), (fill, v.Pin("p", "0:200", "held"), *scan)),
    Distinguishing("a page that the block maps three times", (), (*_merged, *scan)),
    Distinguishing(
        "a page that the block maps three times, held", (), (*_merged, v.Pin("p", "0:7", "held"), *scan)
    ),
    Distinguishing(
        "a huge page in pieces, shared in part",
        (),
        (*huge, v.SplitPmd("p", "0"), v.Fork("p", "c"), v.Madvise("c", "0:0-255", "dontneed"), *scan),
        host=knobs(max_ptes_shared=511),
    ),
    Distinguishing(
        "a huge page in pieces, used by a guest",
        (),
        (*huge, v.SplitPmd("p", "0"), v.GuestWrite("p", "0:9"), v.ClearRefs("p"), *scan),
        VM,
    ),
    Distinguishing(
        "parts refused one after another",
        (),
        (fill, v.Madvise("p", "0:40,200", "dontneed"), v.GuestRead("p", "0"), v.ClearRefs("p"), *scan),
        VM,
        _PARTS,
        since=(6, 8),
    ),
    Distinguishing(
        "parts, one of them full",
        (),
        (v.CpuWrite("p", "0:64-127,256-271,300"), v.Drain(), advise, v.Scan(passes=2)),
        host=_PARTS,
        since=(6, 8),
    ),
    Distinguishing(
        "parts, one page held",
        (),
        (fill, v.Pin("p", "0:70", "held"), *scan),
        host=_PARTS,
        since=(6, 8),
    ),
)
