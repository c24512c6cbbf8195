"""What ``secondsight collapse`` chose and did, in lines and in JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from secondsight.geometry import PAGE_SIZE
from secondsight.plural import pluralize
from secondsight.terminal import printable, say

if TYPE_CHECKING:
    from secondsight.live.act.candidates import Selection
    from secondsight.live.act.collapse import Round
    from secondsight.live.act.guard import Guard

_LISTED = 40


def mib(size: float, digits: int = 1) -> str:
    """Bytes as MiB."""
    return f"{size / 2**20:,.{digits}f} MiB"


def percent(share: float | None) -> str:
    """A share of 1; ``-`` for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def print_choices(selection: Selection, guard: Guard, json: bool) -> int:
    """What would be collapsed, and why the rest would be left alone; bytes that it would add."""
    import msgspec

    from secondsight.live.act.guard import mib as amount

    fits = guard.within(choice.added * PAGE_SIZE for choice in selection.chosen)
    chosen = [choice for choice, within in zip(selection.chosen, fits, strict=True) if within]
    overridden = dict(Counter(choice.against for choice in chosen if choice.against))
    left = dict(selection.left)
    if len(chosen) < len(selection.chosen):
        left[guard.no_room()] = len(selection.chosen) - len(chosen)
    added = sum(choice.added for choice in chosen) * PAGE_SIZE
    if json:
        document = {
            "order": selection.order, "considered": selection.considered, "chosen": chosen, "left": left,
            "overridden": overridden, "allowance": guard.allowance, "limit": guard.source(),
        }  # fmt: skip
        print(msgspec.json.encode(document).decode())
        return added
    say(printable(selection.order))
    say(
        f"would collapse {pluralize(len(chosen), 'block')} ({len(chosen) * 2} MiB), adding {mib(added)} of memory; nothing was changed"
    )
    say(f"  at most {amount(guard.allowance)} may be added: {printable(guard.source())}")
    free = guard.free_huge_blocks()
    if free is not None and free < len(chosen):
        say(
            f"  {pluralize(free, 'free huge block')}: the kernel would have to compact memory for the rest (--compact)"
        )
    _print_overridden(overridden)
    _print_left(left, selection.considered)
    for choice in chosen[:_LISTED]:
        used = "?" if choice.used is None else choice.used
        heat = "" if choice.heat is None else f", heat {choice.heat:,}"
        where = " in the page cache" if choice.shared else " present"
        say(
            f"  {choice.address:#014x} {pluralize(choice.populated, 'page')}{where}, {used} marked as used{heat}, "
            f"{choice.added} would be added"
        )
    if len(chosen) > _LISTED:
        say(f"  … {len(chosen) - _LISTED} more; --json lists all")
    return added


def print_round(done: Round, json: bool) -> None:
    """What a round did."""
    import msgspec

    if json:
        print(msgspec.json.encode(done).decode(), flush=True)
        return
    cost = (
        f"; {done.spent / done.collapsed * 1e6:.0f} us a block, longest call {done.stall * 1e3:.2f} ms"
        if done.collapsed
        else ""
    )
    if done.order:
        say(printable(done.order))
    say(
        f"{pluralize(done.considered, 'block')} looked at, {done.chosen} chosen, {done.collapsed} collapsed "
        f"({'unknown' if done.confirmed is None else done.confirmed} confirmed by the page table), {mib(done.added)} added{cost}"
    )
    _print_overridden(done.overridden)
    for cause, count in done.refused.items():
        say(f"  {count:6,} refused: {printable(cause)}")
    _print_left(done.left, done.considered)
    before, after = done.before, done.after
    if after is None:
        say(f"  huge: {mib(before.huge, 0)} before, unknown after")
    else:
        say(
            f"  huge: {mib(before.huge, 0)} before, {mib(after.huge, 0)} after: {percent(after.coverage)} of the "
            f"{mib(after.eligible, 0)} of eligible memory, {percent(after.share)} of the {mib(after.resident, 0)} resident"
        )
    if done.stopped:
        say(f"  stopped: {printable(done.stopped)}", flush=True)


def _print_overridden(overridden: dict[str, int]) -> None:
    for cause, count in overridden.items():
        say(f"  {count:6,} against the administrator (--override): {printable(cause)}")


def _print_left(left: dict[str, int], considered: int) -> None:
    if not considered:
        say("  no whole aligned 2 MiB that holds memory lies there")
    for cause, count in left.items():
        say(f"  {count:6,} left alone: {printable(cause)}")
