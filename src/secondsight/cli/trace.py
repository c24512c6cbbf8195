"""``secondsight trace``: look into a trace, cut it, merge several, recover a torn one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.cli.options import Progress
from secondsight.plural import pluralize
from secondsight.terminal import markup, printable

if TYPE_CHECKING:
    from secondsight.trace.provenance import Provenance
    from secondsight.trace.summary import Summary

app = typer.Typer(no_args_is_help=True)

Output = Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")]


@app.command()
def info(
    trace: Annotated[Path, typer.Argument(help="The trace.")],
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check the checksum of each page too.")] = False,
) -> None:
    """Spaces, span, accesses, pages, blocks, kinds, clock and provenance."""
    import msgspec

    from secondsight.trace import Trace
    from secondsight.trace.samples import Samples, is_samples
    from secondsight.trace.summary import summarise

    if is_samples(trace):
        from secondsight.cli.sampled import print_summary
        from secondsight.trace.sample_summary import summarise_samples

        sample_summary = summarise_samples(Samples.open(trace, verify=verify))
        if json:
            print(msgspec.json.format(msgspec.json.encode(sample_summary), indent=2).decode())
        else:
            print_summary(sample_summary)
        return
    with Progress("counted") as progress:
        summary = summarise(Trace.open(trace, verify=verify), progress)
    if json:
        print(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode())
    else:
        _print(summary)


def _print(summary: Summary) -> None:
    """The summary for a person."""
    from rich.console import Console

    from secondsight.trace.provenance import PAGE_WALKS

    console = Console(highlight=False, soft_wrap=True)
    origin = summary.provenance
    span = (summary.last_time - summary.first_time) / 1e9
    console.print(
        f"[bold]{markup(summary.path)}[/]: {pluralize(summary.accesses, 'access', 'accesses')} in {pluralize(summary.rows, 'row')}, "
        f"{span:,.6f} s of its clock"
    )
    console.print(f"clock    one ns = {markup(origin.clock.meaning)}")
    console.print(
        f"source   {markup(origin.source)} by {markup(origin.tool)}"
        + (f": {markup(' '.join(origin.command))}" if origin.command else "")
    )
    console.print(
        "rows     " + (f"aggregated over {origin.quantum:,} ns" if origin.quantum else "every access")
    )
    console.print("kinds    " + (markup(", ".join(f"{n:,} {k}" for k, n in summary.kinds.items())) or "none"))
    if summary.verbs:
        console.print("verbs    " + ", ".join(f"{n:,} {k}" for k, n in summary.verbs.items()))
    console.print("walks    " + _walks(origin))
    if unseen := [each for each in origin.unseen if each != PAGE_WALKS]:
        console.print("unseen   " + markup("; ".join(unseen)))
    for reason, number in origin.dropped.items():
        console.print(f"left out {number:,} {markup(reason)}")
    if origin.clock_held:
        console.print(
            f"clock    ran backwards in {pluralize(origin.clock_held, 'row')}, held at the latest time"
        )
    for note in origin.notes:
        console.print(f"note     {markup(note)}")
    for space in summary.spaces:
        what = (
            f"{pluralize(space.accesses, 'access', 'accesses')} to {pluralize(space.pages, 'page')} in {pluralize(space.blocks, 'block')} "
            f"of 2 MiB, 0x{space.lowest:x}..0x{space.highest:x}"
        )
        console.print(
            f"space    {space.id} {markup(space.name)} ({markup(space.type)}): {what if space.accesses else 'no accesses'}"
        )


def _walks(origin: Provenance) -> str:
    """What is known of page walks, or how it would be."""
    if origin.walks:
        counted, accesses = (
            sum(getattr(each, name) for each in origin.walks) for name in ("counted", "accesses")
        )
        return f"counted by the recorder's TLB in {counted:,} of {pluralize(accesses, 'access', 'accesses')} to data"
    if origin.source in ("record-pid", "damo"):
        return "not counted: the trace holds samples, which have no order"
    if origin.quantum:
        return (
            "not counted: rows are aggregated, and have no order (record run counts them from a program's 16,385th access to data on; "
            "a part that was cut out has none)"
        )
    return "not counted; every access is here in order, so that a replay counts them (--tlb)"


def _range(text: str | None, name: str, last: int) -> tuple[int, int] | None:
    """``A..B`` (either may be missing; decimal, 0x…, or with ns, us, ms, s) as a range, the end excluded."""
    from secondsight.errors import UsageError

    if text is None:
        return None
    units = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9} if name == "time" else {}

    def number(part: str, missing: int) -> int:
        if not part:
            return missing
        for unit in sorted(units, key=len, reverse=True):
            if part.endswith(unit):
                return round(float(part.removesuffix(unit)) * units[unit])
        return int(part, 0)

    try:
        first, dots, end = text.partition("..")
        if not dots:
            raise ValueError
        return number(first, 0), number(end, last)
    except (ValueError, OverflowError):
        raise UsageError(f"--{name} {text}: expected FIRST..END, like 1.5s..2s or 0x7f00..0x8000") from None


@app.command()
def cut(
    trace: Annotated[Path, typer.Argument(help="The trace to cut.")],
    output: Output,
    time: Annotated[
        str | None, typer.Option(help="FIRST..END on the trace's clock; ns, or with us, ms, s.")
    ] = None,
    space: Annotated[list[int] | None, typer.Option(help="A space to keep; may be repeated.")] = None,
    address: Annotated[
        str | None, typer.Option(help="FIRST..END of the addresses to keep; 0x… for hex.")
    ] = None,
) -> None:
    """Write the part of a trace inside a time, a space and a range of addresses."""
    from secondsight import atomicfile as output_file
    from secondsight.trace import Trace
    from secondsight.trace.cut import cut as run

    output_file.check_writable(output, trace)
    opened = Trace.open(trace)
    with Progress("cut") as progress:
        run(
            opened,
            output,
            time=_range(time, "time", (1 << 64) - 1),
            spaces=space,
            address=_range(address, "address", 1 << 64),
            progress=progress,
        )
    print(f"{printable(output)}: {Trace.open(output).rows:,} of {pluralize(opened.rows, 'row')}")


@app.command()
def merge(
    traces: Annotated[list[Path], typer.Argument(help="The traces, recorded side by side on one clock.")],
    output: Output,
) -> None:
    """Write several traces as one: each one's processes or VMs become spaces of one host, in the order of time."""
    from secondsight import atomicfile as output_file
    from secondsight.trace import Trace
    from secondsight.trace.merge import merge as run

    for each in traces:
        output_file.check_writable(output, each)
    opened = [Trace.open(each) for each in traces]
    with Progress("merged") as progress:
        spaces = len(run(opened, output, progress=progress).spaces)
    rows = sum(each.rows for each in opened)
    print(f"{printable(output)}: {pluralize(rows, 'row')} of {pluralize(spaces, 'space')}")


@app.command()
def recover(
    torn: Annotated[Path, typer.Argument(help="A .recording that a kill left behind, or a damaged trace.")],
    output: Output,
) -> None:
    """Make a trace of what is intact: of a recording up to its tear, of a damaged trace its intact row groups."""
    from secondsight import atomicfile as output_file
    from secondsight.trace import Trace
    from secondsight.trace import recover as from_recording
    from secondsight.trace.cut import salvage
    from secondsight.trace.samples import Samples, is_samples
    from secondsight.wholefile import open_input

    with open_input(torn, "a recording") as file:
        output_file.check_writable(output, torn)
        is_parquet = file.read(4) == b"PAR1"
    lost: list[str] = []
    with Progress("read") as progress:
        if is_parquet:
            lost = salvage(str(torn), output, progress=progress)[1]
        else:
            from_recording(torn, output, progress=progress)
    for each in lost:
        print(f"left out: {printable(each)}")
    rows = Samples.open(output).rows if is_samples(output) else Trace.open(output).rows
    print(f"{printable(output)}: {pluralize(rows, 'row')} recovered")
