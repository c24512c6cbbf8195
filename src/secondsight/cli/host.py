"""``secondsight host``: the host's own side of huge pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from secondsight.host.supply import Supply
    from secondsight.live.read.splits import Splitter

#: who is listed
_MOST = 15

app = typer.Typer()


@app.command()
def host(
    interval: Annotated[
        float,
        typer.Option(help="Seconds between the two readings that rates are made of.", min=0.0, max=86400.0),
    ] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Free huge blocks and what compaction could make, the THP counters as rates, khugepaged's pace, who splits huge pages, the switches in
    force; read-only.

    Who splits is traced for the interval, in a private instance that ends with it: root, and a kernel that is not locked down.
    """
    import msgspec

    from secondsight.host.supply import read_counters, read_supply
    from secondsight.terminal import say

    before = read_counters()
    splits, untold = _splits(interval)
    supply = read_supply()
    rates = supply.counters.rates(before)
    if json:
        document = msgspec.to_builtins(supply, str_keys=True) | {
            "rates": rates,
            "interval": supply.counters.at - before.at,
            "splits": None if splits is None else msgspec.to_builtins(splits),
        }
        document["missing"] |= {"splits": untold} if untold else {}
        print(msgspec.json.encode(document).decode())
        return
    say(
        "\n".join(
            [
                *_supply(supply),
                "",
                *describe_pace(supply, rates),
                "",
                *_switches(supply),
                "",
                *_rates(rates),
                "",
                *_split(splits, untold),
            ]
        )
    )


def _splits(interval: float) -> tuple[list[Splitter] | None, str]:
    """(who split huge pages in the next *interval* seconds, None where that is not told; why not)."""
    import time

    from secondsight.errors import MissingDependency
    from secondsight.live.read.splits import Splits

    try:
        counting = Splits.open()
    except MissingDependency as missing:
        time.sleep(interval)
        return None, str(missing)
    with counting:
        end = time.monotonic() + interval
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))
            counting.read()
        counting.read()
        lost = f"who splits huge pages: {counting.lost:,} events were too many" if counting.lost else ""
        return counting.splitters(), lost


def _split(splits: list[Splitter] | None, untold: str) -> list[str]:
    from secondsight.terminal import printable

    lines = [f"  not known: {printable(untold)}"] if untold else []
    if splits == []:
        lines.append("  nobody, in the interval")
    for each in (splits or [])[:_MOST]:
        what = "a mapping" if each.kind == "mapping" else "the page"
        why = f": {each.occasion}" if each.occasion else ""
        lines.append(
            f"  {each.count:6,} {printable(each.task)} ({each.pid}) {what}, {printable(each.caller)}{why}"
        )
    if splits and len(splits) > _MOST:
        lines.append(f"  … {len(splits) - _MOST} more; --json lists all")
    return [
        "who splits huge pages (a mapping: its PMD becomes PTEs; the page: it becomes small ones)",
        *lines,
    ]


def _supply(supply: Supply) -> list[str]:
    from secondsight.geometry import PMD_SIZE
    from secondsight.host.columns import size

    lines = ["supply"]
    memory, huge = supply.memory, supply.free_huge_bytes
    if memory is not None:
        nodes = ", ".join(f"node {node} {size(free)}" for node, free in sorted(supply.free_huge.items()))
        lines += [
            f"  free                  {size(memory.free)}, available {size(memory.available)} of {size(memory.total)}",
            f"  in huge blocks        {size(huge)} ({huge // PMD_SIZE:,} of 2 MiB): {nodes}",
        ]
    if supply.types is not None:
        stuck = supply.types.free_small.get("Unmovable", 0)
        blocks = ", ".join(
            f"{count:,} {kind.lower()}" for kind, count in supply.types.blocks.items() if count
        )
        gathered = size(supply.could_compact or 0)
        lines += [
            f"  compaction, at best   {gathered} more: free in small pieces of movable and reclaimable pageblocks",
            f"  out of its reach      {size(stuck)}: free in small pieces of unmovable pageblocks",
            f"  pageblocks            {blocks}",
        ]
    if supply.stalled is not None:
        lines.append(f"  stalled for memory    {supply.stalled:.1f} s since boot (PSI, some)")
    return [*lines, *(f"  not read: {why}" for why in supply.missing.values())]


def describe_pace(supply: Supply, rates: dict[str, float]) -> list[str]:
    """Lines about khugepaged's pace and who splits huge pages; *rates*: vmstat's counters, events a second."""
    from secondsight.geometry import PAGE_SIZE
    from secondsight.host.columns import size

    if supply.limits is None:
        return ["khugepaged: not here"]
    pace = supply.pages_a_second() or 0.0
    speed = (
        "without rest"
        if pace == float("inf")
        else f"{pace:,.0f} pages a second at most ({size(pace * PAGE_SIZE)}/s)"
    )
    limits = supply.limits
    counted = supply.counters
    return [
        "khugepaged",
        f"  pace                  {limits.pages_to_scan:,} pages every {limits.scan_sleep_millisecs:,} ms: {speed}",
        f"  full scans            {counted.full_scans}, {rates.get('full_scans', 0):.2f} a second; collapsed {counted.pages_collapsed}",
        f"  splits a second       {rates.get('thp_split_page', 0):.1f} of huge pages, {rates.get('thp_underused_split_page', 0):.1f} by "
        f"the shrinker, being underused; {rates.get('thp_deferred_split_page', 0):.1f} more queued for it",
        f"  limits                max_ptes_none {limits.max_ptes_none}, swap {limits.max_ptes_swap}, shared {limits.max_ptes_shared}",
    ]


def _switches(supply: Supply) -> list[str]:
    """Every switch; sizes and mounts that say never together on a line."""
    import os

    from secondsight.live.read import switches

    here = switches.read(os.getpid())
    lines = ["switches in force", *(f"  {name:<29} {word}" for name, word in supply.switches.items())]
    never = [kb for kb, word in here.sizes.items() if word == "never"]
    if never:
        lines.append(f"  {'sizes with enabled=never':<29} {', '.join(map(str, never))} kB")
    words = [word for word in here.mounts.values() if word != "never"]
    if here.mounts:
        mounts = ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words)))
        quiet = len(here.mounts) - len(words)
        lines.append(
            f"  {'huge= of tmpfs mounts':<29} {', '.join(filter(None, (mounts, f'{quiet} never' if quiet else '')))}"
        )
    return lines


def _rates(rates: dict[str, float]) -> list[str]:
    moved = {name: rate for name, rate in rates.items() if rate and name.startswith(("thp_", "compact_"))}
    if not moved:
        return ["counters: none of thp_* and compact_* moved in the interval"]
    return [
        "counters, a second",
        *(f"  {name:<29} {rate:,.1f}" for name, rate in sorted(moved.items(), key=lambda item: -item[1])),
    ]
