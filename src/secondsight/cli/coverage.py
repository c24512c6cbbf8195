"""What `lab compare` prints of how often a kernel gave each answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secondsight.lab.coverage import Seen

__all__ = ["show"]


def show(covered: Sequence[Seen], rare: Sequence[Seen]) -> None:
    """A row for each answer of each tracepoint, a column for each order; below it what was seen too seldom."""
    from rich.console import Console
    from rich.table import Table

    from secondsight.lab.coverage import FEW, NOT_MADE

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    orders = sorted({each.order for each in covered})
    table = Table(title="what the kernel answered, by order", title_justify="left", box=None, pad_edge=False)
    table.add_column("tracepoint", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for order in orders:
        table.add_column("block" if order < 0 else str(order), justify="right", no_wrap=True)
    counts = {(each.function, each.result, each.order): each.count for each in covered}
    last = ""
    for function, result in dict.fromkeys((each.function, each.result) for each in covered):
        row = [str(counts.get((function, result, order), "")) for order in orders]
        table.add_row("" if function == last else function, result, *row)
        last = function
    console.print(table)
    if rare:
        console.print(f"can be reached, and was seen fewer than {FEW} times:")
        for function in dict.fromkeys(each.function for each in rare):
            named: dict[str, list[str]] = {}
            for each in rare:
                if each.function == function:
                    where = "" if each.order < 0 else f"{each.order}: "
                    named.setdefault(each.result, []).append(f"{where}{each.count}")
            console.print(f"  {function}  " + "; ".join(f"{k} ({', '.join(v)})" for k, v in named.items()))
    console.print("cannot be made here: " + "; ".join(f"{k} ({why})" for k, why in NOT_MADE.items()))
