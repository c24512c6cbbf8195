"""Scenarios that meet a limit of khugepaged's exactly, and go beyond it by one, or fail two of its checks at once.

They are what small changes of its code are noticed by. Those of parts of a block stand in ``distinguishing_parts``."""

from __future__ import annotations

from secondsight.mm.config import HostConfig
from secondsight.scenario import verbs as v
from support.distinguishing import VM, Distinguishing, advise, equal, fill, huge, knobs, merged, old, scan
from support.distinguishing_parts import PARTS


def _holes(number: int, name: str) -> Distinguishing:
    steps = (fill, v.Madvise("p", f"0:0-{number - 1}", "dontneed"), *scan)
    return Distinguishing(f"{name} empty pages", (), steps, host=knobs(max_ptes_none=50))


def _zeros(number: int, name: str) -> Distinguishing:
    steps = (v.CpuRead("p", f"0:0-{number - 1}"), v.CpuWrite("p", f"0:{number}-511"), *scan)
    return Distinguishing(f"{name} zero pages", (), steps, host=knobs(max_ptes_none=50))


def _shared(number: int, name: str) -> Distinguishing:
    steps = (fill, v.Fork("p", "c"), v.CpuWrite("c", f"0:{number}-511"), *scan)
    return Distinguishing(f"{name} shared pages", (), steps, host=knobs(max_ptes_shared=50))


def _swapped(number: int, name: str) -> Distinguishing:
    steps = (fill, v.SwapOut("p", f"0:5-{4 + number}"), *scan)
    return Distinguishing(f"{name} pages in swap", (), steps, host=knobs(max_ptes_swap=5))


_MGLRU = HostConfig(mglru=True)
_pieces = (*huge, v.SplitPmd("p", "0"))

LIMITS = (
    *(
        make(number, name)
        for make, most in ((_holes, 50), (_zeros, 50), (_shared, 50), (_swapped, 5))
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
    Distinguishing("a page that the block maps three times", (), (*merged, *scan)),
    Distinguishing(
        "a page that the block maps three times, held", (), (*merged, v.Pin("p", "0:7", "held"), *scan)
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
        "a huge page in pieces, used by a guest, twice under MGLRU",
        (),
        (*_pieces, v.GuestWrite("p", "0:9"), v.ClearRefs("p"), advise, v.Scan(passes=2)),
        VM,
        _MGLRU,
    ),
    Distinguishing(
        "a huge page in pieces, each of which a guest uses",
        (),
        (*_pieces, v.GuestWrite("p", "0"), v.Drain(), v.ClearRefs("p"), *scan),
        VM,
    ),
    Distinguishing(
        "a huge page in pieces, a child's too",
        (),
        (*_pieces, v.Fork("p", "c"), v.CpuWrite("p", "0:0-3"), advise, v.Scan(passes=2)),
        host=knobs(max_ptes_shared=511),
    ),
    *(
        Distinguishing(
            f"a protected page in swap, of which {name}",
            (),
            (
                v.CpuWrite("p", "0:3"),
                v.Uffd("p", "0", "wp"),
                v.SwapOut("p", "0:3"),
                v.CpuWrite("p", "0:0-2,4-511"),
                *scan,
            ),
            host=knobs(max_ptes_swap=most),
        )
        for most, name in ((0, "none may be"), (8, "eight may be"))
    ),
    Distinguishing(
        "a protected zero page",
        (),
        (v.CpuRead("p", "0:3"), v.Uffd("p", "0", "wp"), v.CpuWrite("p", "0:0-2,4-511"), *scan),
    ),
    Distinguishing(
        "whole, where userfaultfd is armed", (), (fill, advise, v.Uffd("p", "0", "missing"), v.Scan())
    ),
    Distinguishing("the first two pages are one", (), (*equal("0:0-1"), *scan)),
    *(
        Distinguishing(
            f"one page at 7 and {other}, where a guest reads it",
            (),
            (
                *equal(f"0:7,{other}"),
                v.ClearRefs("p"),
                v.GuestRead("p", f"0:{other}"),
                v.ClearRefs("p"),
                # The neighbour counts by itself: a mark that went to it would be missed.
                v.CpuRead("p", f"0:{young}"),
                *scan,
            ),
            VM,
        )
        for other, young in ((8, 6), (9, 8))
    ),
    Distinguishing(
        "one page at two addresses, under MGLRU",
        (),
        (*equal("0:7-8"), v.ClearRefs("p"), v.CpuRead("p", "0:0-400"), *scan),
        host=_MGLRU,
    ),
    Distinguishing(
        "read through two slots",
        (),
        (
            *old,
            v.GuestRead("p", "0:3"),
            v.GuestRead("p", "0:3", slot=1),
            v.Madvise("p", "0:3", "cold"),
            v.Drain(),
            v.CpuRead("p", "0"),
            *scan,
        ),
        (v.SpaceSpec("p", vm=v.Vm(slots=(v.Slot(1, 8, 0, 1),))),),
    ),
    *(
        Distinguishing(
            f"activated by the zap: {name}",
            (),
            (
                *old,
                v.GuestRead("p", pages),
                v.Madvise("p", pages, "cold"),
                v.IoZeroCopy("p", pages, write=False),
                v.Drain(),
                v.CpuRead("p", "0"),
                *scan,
            ),
            VM,
        )
        for pages, name in (
            ("0", "every page"),
            ("0:0-3,511", "the last page among them"),
            ("0:511", "the last page"),
        )
    ),
    # In the model the two frames are 1024 apart: a hash table of that size finds one where it looks for the other.
    Distinguishing(
        "two pages that were made far apart",
        (),
        (
            v.CpuWrite("p", "0:0"),
            v.CpuWrite("p", "1-2:0-510"),
            v.CpuWrite("p", "1:511"),
            v.CpuWrite("p", "0:1-511"),
            v.Fork("p", "c"),
            v.CpuWrite("p", "0:500-511"),
            v.GuestRead("p", "0:3"),
            v.Madvise("p", "0", "hugepage"),
            v.Scan(),
        ),
        (v.SpaceSpec("p", 3, vm=v.Vm()),),
        knobs(max_ptes_shared=511),
    ),
    Distinguishing(
        "collapsed over holes, and split",
        (),
        (v.CpuWrite("p", "0:0-255"), v.CpuWrite("p", "0:7", value=0), *scan, v.SplitHuge("p", "0")),
    ),
    Distinguishing(
        "collapsed, let go of, made anew in part",
        (),
        (
            fill,
            *scan,
            v.Madvise("p", "0", "nohugepage"),
            v.Madvise("p", "0", "dontneed"),
            v.CpuWrite("p", "0:9"),
            *scan,
        ),
    ),
    Distinguishing(
        "equal pages, collapsed, split, merged",
        (),
        (
            fill,
            v.CpuWrite("p", "0:7,8,300", value=7),
            *scan,
            v.SplitHuge("p", "0"),
            v.Madvise("p", "0", "mergeable"),
            v.KsmMerge(),
        ),
    ),
    Distinguishing("collapse under MGLRU", (), (fill, v.Drain(), *scan, v.Observe()), host=_MGLRU),
    Distinguishing(
        "a guard among the pages",
        (),
        (fill, v.Madvise("p", "0:5", "guard_install"), *scan),
        since=(6, 13),
    ),
    *PARTS,
)
