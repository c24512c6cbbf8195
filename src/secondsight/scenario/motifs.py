"""Steps that belong together: what single steps drawn at random meet too seldom, each with pages of its own.

Each motif is a corner in which kernels part, or a check that a scenario of single steps hardly reaches; ``lab score`` names the rules.
"""

from __future__ import annotations

from collections.abc import Callable

from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR
from secondsight.scenario import verbs as v
from secondsight.scenario.lives import Life, Lives

__all__ = ["motif", "rarely_reached"]


def motif(g: Lives, s: Life) -> bool:
    """Add the steps of one motif that is possible now."""
    large = 0.7 if s.huge else 0.3 if s.alike else 0.0
    chosen = g.rng.choice(_HUGE if g.rng.random() < large else _ANY)
    if s.vm2 and _chance(g, 0.3):
        chosen = _two_vms
    if g.nested and _chance(g, 0.3):
        chosen = _nested_guest
    if s.orders and _chance(g, 0.5):
        chosen = _candidate
    if s.small and not s.swapped and _chance(g, 0.4 if g.parts else 0.1):
        chosen = rarely_reached
    before = len(s.steps)
    chosen(g, s)
    return len(s.steps) > before


def rarely_reached(g: Lives, s: Life) -> None:
    """Add the steps of a motif whose check comes after most others."""
    (chosen,) = g.rng.choices(tuple(_RARELY), tuple(_RARELY.values()))
    (_equal if chosen is _guarded and not g.guards else chosen)(g, s)


def _chance(g: Lives, share: float) -> bool:
    return g.rng.random() < share


def _page(g: Lives, block: str) -> str:
    return f"{block}:{g.rng.randrange(HPAGE_PMD_NR)}"


def _all_but(g: Lives, block: str, kept: int) -> str:
    """The pages of *block* but *kept*."""
    parts = ([f"0-{kept - 1}"] if kept else []) + ([f"{kept + 1}-{BLOCK_MASK}"] if kept < BLOCK_MASK else [])
    return f"{block}:{','.join(parts)}"


def _child(s: Life) -> str:
    return f"c{len(s.steps)}"


# -- of pages of any size ------------------------------------------------------------------------------------------


def _freed_then_used(g: Lives, s: Life) -> None:
    """Lazily freed memory that a guest reads, or somebody stores to, and reclaim comes by."""
    pages = g.some(s)
    if _chance(g, 0.6):
        s.steps.append(v.CpuWrite("vm", pages))
    s.steps.append(v.Madvise("vm", pages, "free"))
    if s.vm and not s.deleted_slot0 and _chance(g, 0.6):
        verb = v.GuestRead if _chance(g, 0.7) else v.GuestWrite
        s.steps.append(verb("vm", pages, **g.through()))
    if _chance(g, 0.5):
        s.swapped = True
        s.steps.append(v.SwapOut("vm", pages))


def _freed_and_held(g: Lives, s: Life) -> None:
    """Reclaim meets lazily freed pages that somebody holds."""
    pages = g.some(s, most=32)
    name = f"p{len(s.steps)}"
    s.pins.append(name)
    s.steps += [v.CpuWrite("vm", pages), v.Madvise("vm", pages, "free"), v.Pin("vm", pages, name)]
    s.swapped = True
    s.steps.append(v.SwapOut("vm", pages))


def _swapped_and_shared(g: Lives, s: Life) -> None:
    """Swap slots that two processes name: read back by one, written by the other."""
    pages, child = g.some(s), _child(s)
    s.swapped = True
    s.steps += [v.CpuWrite("vm", pages), v.ClearRefs("vm"), v.SwapOut("vm", pages), v.Fork("vm", child)]
    s.forked.append(child)
    first, second = (child, "vm") if _chance(g, 0.5) else ("vm", child)
    if _chance(g, 0.8):
        s.steps.append(v.CpuRead(first, pages))
    if _chance(g, 0.5):
        s.steps.append((v.CpuRead if _chance(g, 0.5) else v.CpuWrite)(second, pages))


def _was_shared_then_swapped(g: Lives, s: Life) -> None:
    """A page that fork shared and exit left alone goes to swap, and is read back."""
    pages, child = g.some(s), _child(s)
    s.swapped = True
    s.steps += [v.CpuWrite("vm", pages), v.Fork("vm", child), v.Exit(child), v.ClearRefs("vm")]
    s.steps += [v.SwapOut("vm", pages), v.CpuRead("vm", pages)]


def _protected_and_back(g: Lives, s: Life) -> None:
    """Write permission that comes back: to dirty pages, to clean ones."""
    pages = g.some(s)
    if _chance(g, 0.5):
        s.steps.append(v.Madvise("vm", pages, "free"))
    block = pages.split(":")[0]
    s.steps += [v.Mprotect("vm", block, "r"), v.Mprotect("vm", block, "rw")]


def _locked_as_it_comes(g: Lives, s: Life) -> None:
    """mlock2(MLOCK_ONFAULT): holes are locked when they are filled, and what is protected is not populated."""
    if not g.may_lock(s):
        return
    pages = g.some(s)
    s.locked = True
    s.alike = True
    s.steps += [
        v.Madvise("vm", pages, "dontneed"),
        v.Mlock("vm", pages, onfault=True),
        v.CpuWrite("vm", g.some(s)),
    ]
    if _chance(g, 0.4):
        s.steps += [v.Mprotect("vm", pages, "r"), v.Mprotect("vm", pages, "rw")]
    if _chance(g, 0.3):
        s.steps.append(v.Mlock("vm", pages))


def _two_vms(g: Lives, s: Life) -> None:
    """What each of two VMs was the last to use: the notifiers are asked one after the other, and not about what the first calls young."""
    if not s.vm2 or s.deleted_slot0:
        return
    if _chance(g, 0.6):
        s.steps.append(v.ClearRefs("vm"))
    for vm in g.rng.sample((0, 1), 2):
        verb = v.GuestRead if _chance(g, 0.6) else v.GuestWrite
        s.steps.append(verb("vm", g.some(s), **g.through(), vm=vm))
    if _chance(g, 0.4):
        s.steps.append(v.Age("vm", g.some(s)))


def _nested_guest(g: Lives, s: Life) -> None:
    """What the guest used, what its own guest did: the rmap's entries and the TDP MMU's, each asked, aged and unmapped by itself."""
    if not s.vm or s.deleted_slot0:
        return
    pages = g.some(s)
    if _chance(g, 0.6):
        s.steps.append(v.CpuWrite("vm", pages))
    steps: list[v.Verb] = [
        (v.GuestRead if _chance(g, 0.6) else v.GuestWrite)("vm", pages, nested=nested)
        for nested in g.rng.sample((0, 1, 2), g.rng.randint(1, 3))
    ]
    aged: v.Verb = v.ClearRefs("vm") if _chance(g, 0.6) else v.Age("vm", g.some(s))
    steps.insert(g.rng.randint(0, len(steps)), aged)
    s.steps += steps
    if _chance(g, 0.3):
        s.steps.append(v.Madvise("vm", g.some(s), g.rng.choice(["cold", "free", "dontneed"])))


def _at_a_limit(g: Lives, s: Life) -> None:
    """Just as many empty pages as max_ptes_none allows, or shared ones as max_ptes_shared does, or one more; just half the pages in use
    beside one in swap, or one less."""
    block, over = str(g.rng.randrange(s.blocks)), g.rng.randrange(2)
    s.alike = True
    kind = g.rng.random()
    if kind < 0.4:
        first = min(s.knobs.max_ptes_none + over, BLOCK_MASK)
        s.steps += [
            v.CpuWrite("vm", block),
            *([v.Madvise("vm", f"{block}:0-{first - 1}", "dontneed")] if first else []),
        ]
    elif kind < 0.7:
        s.swapped = True
        s.steps += [v.CpuWrite("vm", block), v.SwapOut("vm", _page(g, block)), v.ClearRefs("vm")]
        first = g.rng.randrange(8)
        s.steps.append(v.CpuRead("vm", f"{block}:{first}-{first + HPAGE_PMD_NR // 2 - 1 - over}"))
    else:
        child, shared = _child(s), s.knobs.max_ptes_shared + over
        s.steps += [v.CpuWrite("vm", block), v.Fork("vm", child)]
        s.forked.append(child)
        if 0 < shared < HPAGE_PMD_NR:
            s.steps.append(v.CpuWrite(child, f"{block}:{shared}-{BLOCK_MASK}"))


def _first_pages_alone(g: Lives, s: Life) -> None:
    """Old memory of which the guest uses the block's first page alone, or the second, or all but the first."""
    if not s.vm or s.deleted_slot0:
        return
    block = str(g.rng.randrange(s.blocks))
    pages = g.rng.choice([f"{block}:0", f"{block}:1", f"{block}:1-{BLOCK_MASK}"])
    s.steps += [v.CpuWrite("vm", block), v.ClearRefs("vm"), v.GuestRead("vm", pages, **g.through())]
    if _chance(g, 0.5):
        s.steps.append(v.ClearRefs("vm"))


def _candidate(g: Lives, s: Life) -> None:
    """Small pages that are just a candidate of one order, and what is said of it: taken, unused, used by the guest alone, pinned, shared
    or in swap."""
    order = max(s.orders) if _chance(g, 0.45) else g.rng.choice(s.orders)
    block = g.rng.randrange(s.blocks)
    first = g.rng.randrange(HPAGE_PMD_NR >> order) << order
    pages = f"{block}:{first}-{first + (1 << order) - 1}"
    one = f"{block}:{first + g.rng.randrange(1 << order)}"
    s.alike = True
    s.steps += [
        v.Madvise("vm", s.every, "nohugepage"),
        v.Madvise("vm", str(block) if _chance(g, 0.6) else pages, "dontneed"),
        v.CpuWrite("vm", pages),
    ]
    kind = g.rng.random()
    if 0.08 <= kind < 0.2:
        s.steps += [v.ClearRefs("vm"), v.CpuRead("vm", g.some(s))]
    elif 0.2 <= kind < 0.42 and s.vm and not s.deleted_slot0:
        s.steps += [v.ClearRefs("vm"), v.GuestRead("vm", one, **g.through())]
    elif 0.42 <= kind < 0.45:
        s.pins.append(f"p{len(s.steps)}")
        s.steps.append(v.Pin("vm", one, s.pins[-1]))
    elif 0.45 <= kind < 0.65:
        s.forked.append(_child(s))
        s.steps += [v.Fork("vm", s.forked[-1]), v.CpuWrite("vm", g.some(s))]
    elif kind >= 0.65:
        # With a page in swap, half of the block must be in use.
        s.swapped = True
        s.steps += [v.CpuWrite("vm", str(block)), v.SwapOut("vm", one)]
    s.steps.append(v.Madvise("vm", s.every, "hugepage"))


def _write_protected(g: Lives, s: Life) -> None:
    """Pages that are there, of which a userfaultfd that nobody handles is told before they are written."""
    if s.droppable:
        return  # vma_can_userfault refuses, since 7.1
    s.armed = True
    block = str(g.rng.randrange(s.blocks))
    # Of a part of a block it makes an area of its own, and khugepaged leaves the block out.
    s.steps += [v.CpuWrite("vm", block), v.Uffd("vm", block if _chance(g, 0.6) else g.some(s), "wp")]


def _equal(g: Lives, s: Life) -> None:
    """Equal pages of one block become one, which khugepaged finds locked by itself at the second."""
    block = str(g.rng.randrange(s.blocks))
    s.steps.append(v.CpuWrite("vm", block))
    g.merge(s, block)
    s.steps.append(v.CpuRead("vm", block))


def _in_swap(g: Lives, s: Life) -> None:
    """A block in use of which some pages are in swap, as many as max_ptes_swap allows or one more."""
    s.swapped = True
    block, most = str(g.rng.randrange(s.blocks)), s.knobs.max_ptes_swap
    pages = _page(g, block)
    if most < HPAGE_PMD_NR // 2 and _chance(g, 0.5):
        first, count = g.rng.randrange(HPAGE_PMD_NR // 2), most + g.rng.randrange(2)
        pages = f"{block}:{first}-{first + max(count, 1) - 1}"
    s.steps += [v.CpuWrite("vm", block), v.SwapOut("vm", pages)]


def _guarded(g: Lives, s: Life) -> None:
    """A block in use with a guard in it, which swap-in meets."""
    s.guarded = True
    block = str(g.rng.randrange(s.blocks))
    s.steps += [v.CpuWrite("vm", block), v.Madvise("vm", _page(g, block), "guard_install")]


# -- of huge pages -------------------------------------------------------------------------------------------------


def _huge_freed(g: Lives, s: Life) -> None:
    """A lazily freed huge page, by its PMD or by PTEs, clean or with a dirty page, before reclaim."""
    block = str(g.rng.randrange(s.blocks))
    if _chance(g, 0.5):
        s.steps.append(v.SplitPmd("vm", block))
    s.steps.append(v.Madvise("vm", block, "free"))
    if _chance(g, 0.6):
        s.steps.append(v.CpuWrite("vm", _page(g, block)))
    s.swapped = True
    s.steps.append(v.SwapOut("vm", block))


def _huge_locked(g: Lives, s: Life) -> None:
    """A locked huge page whose PMD is split, and what is locked of it afterwards."""
    if not g.may_lock(s):
        return
    block = str(g.rng.randrange(s.blocks))
    s.locked = True
    s.steps += [v.Mlock("vm", block, onfault=_chance(g, 0.4)), v.SplitPmd("vm", block)]
    if _chance(g, 0.3):
        s.steps.append(v.Madvise("vm", block, "nohugepage"))


def _huge_shared_in_part(g: Lives, s: Life) -> None:
    """A huge page that PTEs map, of which another process has some pages still."""
    block, child = str(g.rng.randrange(s.blocks)), _child(s)
    if _chance(g, 0.8):
        s.steps.append(v.SplitPmd("vm", block))
    s.steps.append(v.Fork("vm", child))
    s.forked.append(child)
    half = g.rng.randrange(1, HPAGE_PMD_NR)
    s.steps.append(v.Madvise(child, f"{block}:{half}-{BLOCK_MASK}", "dontneed"))
    if _chance(g, 0.6):
        s.steps.append(v.Madvise("vm", f"{block}:0-{half - 1}", "dontneed"))
    if _chance(g, 0.5):
        pages = g.some(s)
        s.steps.append(v.Madvise("vm", pages, g.rng.choice(["cold", "free"])))


def _huge_left_alone(g: Lives, s: Life) -> None:
    """A huge page that fork shared and exit left to one process, all of it or its last page, is written."""
    block, child = str(g.rng.randrange(s.blocks)), _child(s)
    if _chance(g, 0.8):
        s.steps.append(v.SplitPmd("vm", block))
    s.steps += [v.Fork("vm", child), v.Exit(child)]
    kept = g.rng.randrange(HPAGE_PMD_NR)
    if _chance(g, 0.5):
        s.steps += [
            v.Madvise("vm", _all_but(g, block, kept), "dontneed"),
            v.CpuWrite("vm", f"{block}:{kept}"),
        ]
    else:
        s.steps.append(v.CpuWrite("vm", block if _chance(g, 0.5) else g.some(s)))


def _huge_protected(g: Lives, s: Life) -> None:
    """mprotect of a huge PMD, or of PTEs of which some are young or dirty."""
    block = str(g.rng.randrange(s.blocks))
    if _chance(g, 0.5):
        s.steps += [v.SplitPmd("vm", block), v.ClearRefs("vm"), v.CpuRead("vm", _page(g, block))]
    s.steps.append(v.Mprotect("vm", block, "r"))
    if _chance(g, 0.7):
        s.steps.append(v.Mprotect("vm", block, "rw"))
    else:
        s.protected = True


def _huge_pinned(g: Lives, s: Life) -> None:
    """A clean, old huge PMD that gup follows."""
    block = str(g.rng.randrange(s.blocks))
    s.steps.append(v.ClearRefs("vm"))
    s.steps.append(v.IoZeroCopy("vm", _page(g, block), write=_chance(g, 0.3)))


def _table_freed(g: Lives, s: Life) -> None:
    """MADV_DONTNEED of a whole block, and the first access after it."""
    block = str(g.rng.randrange(s.blocks))
    s.steps += [v.Madvise("vm", block, "hugepage"), v.Madvise("vm", block, "dontneed")]
    s.alike = True
    s.steps.append((v.CpuRead if _chance(g, 0.7) else v.CpuWrite)("vm", _page(g, block)))
    if _chance(g, 0.5):
        s.steps.append(v.CpuWrite("vm", _page(g, block)))
    elif _chance(g, 0.5):
        s.steps.append(v.ClearRefs("vm"))


#: Those of checks that come after most others, and how often each.
_RARELY: dict[Callable[[Lives, Life], None], int] = {
    _write_protected: 25,
    _equal: 35,
    _in_swap: 25,
    _guarded: 15,
}
_ANY: tuple[Callable[[Lives, Life], None], ...] = (
    _freed_then_used, _freed_then_used, _freed_and_held, _swapped_and_shared, _was_shared_then_swapped, _protected_and_back,
    _locked_as_it_comes, _table_freed, _two_vms, _at_a_limit, _at_a_limit, _first_pages_alone,
)  # fmt: skip
_HUGE: tuple[Callable[[Lives, Life], None], ...] = (
    _huge_freed, _huge_locked, _huge_shared_in_part, _huge_left_alone, _huge_protected, _huge_pinned, _table_freed,
)  # fmt: skip
