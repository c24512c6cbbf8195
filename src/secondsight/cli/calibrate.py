"""``secondsight calibrate``: what a page walk, a fault and a collapse cost this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.cli.options import Progress

if TYPE_CHECKING:
    from secondsight.predict.calibration import Calibration

app = typer.Typer(add_completion=False)


@app.command()
def calibrate(
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write. Default: this user's calibration, which compare uses."),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option("--nested", help="What is measured must be a guest's, whose walks are nested ones."),
    ] = False,
    show: Annotated[
        Path | None, typer.Option(help="Measure nothing: print what this calibration says, and whose it is.")
    ] = None,
) -> None:
    """Measure what page walks, faults and collapses cost here, in at most five minutes; compare predicts run times with it.

    Nothing is kept if it is interrupted, or if the machine is too noisy.
    """
    from secondsight import atomicfile
    from secondsight.predict import calibration as file

    if show is not None:
        _print(file.read(show))
        return
    path = out or file.own_path()
    if out is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    # This user's own is written anew whatever it holds: one of an earlier version, most likely.
    atomicfile.check_writable(
        path, kind=atomicfile.starting("calibration", b"{") if out is not None else None
    )
    from secondsight.predict.calibrate import calibrate as measure

    with Progress("measured") as progress:
        calibration = measure(nested=nested, progress=progress)
    # Minutes of measuring are told even where the file takes nothing.
    _print(calibration)
    file.save(calibration, path)
    print(f"kept in {path}")


def _print(calibration: Calibration) -> None:
    from secondsight.predict.patterns import FOOTPRINTS
    from secondsight.report.metrics import text

    model, prices = calibration.model, calibration.prices
    machine = f"{calibration.machine.title}, {calibration.machine.memory / 2**30:.1f} GiB"
    print(f"{machine}; measured {calibration.made} in {calibration.seconds:.0f} s")
    for waits, nanoseconds in (("waits for each", 2000.0), ("overlaps some", 200.0), ("overlaps many", 20.0)):
        costs = (model.cost(nanoseconds * 1e-9, 1, mib) for mib in FOOTPRINTS)
        walk_prices = ", ".join(f"{1e9 * cost:.1f}" for cost in costs)
        over = ", ".join(f"{mib:,}" for mib in FOOTPRINTS)
        print(
            f"  a walk where the program {waits} ({nanoseconds:.0f} ns a walk): {walk_prices} ns over {over} MiB"
        )
    print(
        f"  predicted times of patterns left out: off by {model.error:.1%} (median), {model.worst:.1%} (worst); "
        f"no change would be off by {model.still:.1%}, {model.still_worst:.1%}"
    )
    print(
        f"  a saving is right to {model.floor:.1%} of the time and {model.relative:.0%} of itself, nine times of ten, in the suite"
    )
    for title, price in (
        ("fault of a page", prices.fault), ("fault of a huge page", prices.fault_huge),
        ("the same, of memory long free", prices.fault_huge_cold), ("clearing 4 KiB", prices.zero),
        ("clearing 2 MiB", prices.zero_huge), ("collapse, one page populated", prices.collapse),
        ("collapse, all populated", prices.collapse_full),
        ("copy of a page after a fork", prices.copy),
        (f"first store to a huge page after a fork ({prices.copy_huge_is})", prices.copy_huge),
    ):  # fmt: skip
        print(f"  {title}: {text(price.seconds, 'seconds')}, at the longest {text(price.longest, 'seconds')}")
    for note in calibration.notes:
        print(f"note: {note}")
