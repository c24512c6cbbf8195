"""Samples for a person: what they hold, and what looking cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secondsight.geometry import PMD_SIZE
from secondsight.plural import pluralize
from secondsight.terminal import markup

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from secondsight.report.heatmap import Panel
    from secondsight.trace.sample_summary import SampleSummary
    from secondsight.trace.sampled import SamplingCost
    from secondsight.trace.samples import Samples
    from secondsight.whatif.sampled import SampledComparison, Span

#: The column of blocks that stay small.
_REFUSED = "left small, by khugepaged's last answer"
#: Ranges of addresses that are printed.
_LISTED = 8


def print_cost(cost: SamplingCost, console: Console) -> None:
    """One line on us, one on the process."""
    looks = max(cost.looks, 1)
    console.print(
        f"cost     ours: {cost.own_cpu / looks * 1e3:.1f} ms of CPU a look, {cost.looking / looks * 1e3:.1f} ms by the clock "
        f"({cost.own_cpu / max(cost.seconds, 1e-9):.2%} of one CPU); longest call under the process's mmap lock "
        f"{cost.longest_call * 1e3:.1f} ms",
        highlight=False,
        soft_wrap=True,
    )
    if cost.target_cpu is not None and cost.target_system is not None and cost.target_faults is not None:
        console.print(
            f"cost     the process meanwhile: {cost.target_cpu:.2f} s of CPU, {cost.target_system:.2f} s of it in the kernel, "
            f"{pluralize(cost.target_faults, 'minor fault')} ({cost.target_faults / looks:,.0f} a look)",
            highlight=False,
            soft_wrap=True,
        )


def print_summary(summary: SampleSummary) -> None:
    """``trace info`` of samples."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    origin = summary.provenance
    console.print(
        f"[bold]{markup(summary.path)}[/]: samples, {pluralize(summary.looks, 'look')} in "
        f"{(summary.last_time - summary.first_time) / 1e9:,.3f} s, {pluralize(summary.rows, 'row')} (a block at a look)"
    )
    console.print(
        f"source   {markup(origin.source)} by {markup(origin.tool)}, through {markup(origin.memory)}"
    )
    console.print(
        f"interval {origin.interval / 1e9:g} s"
        + (
            f"; clear_refs written after each look: {markup(', '.join(origin.cleared))}"
            if origin.cleared
            else ""
        )
    )
    for channel in origin.channels:
        uses = summary.channels.get(channel.name)
        counts = ""
        if uses is not None and channel.seen:
            counts = f"{uses.used:,} page-looks used, {uses.unused:,} unused, {uses.unknown:,} unknown; "
        console.print(
            f"channel  {markup(channel.name)}: {'' if channel.seen else 'not seen: '}{counts}{markup(channel.why)}"
        )
    if origin.unseen:
        console.print("unseen   " + markup("; ".join(origin.unseen)))
    for note in origin.notes:
        console.print(f"note     {markup(note)}")
    if origin.cost.looks:
        print_cost(origin.cost, console)
    for space in summary.spaces:
        console.print(
            f"space    {space.id} {markup(space.name)} ({markup(space.type)}): {pluralize(space.blocks, 'block')} of 2 MiB; at the last "
            f"look {space.huge:,} huge, {pluralize(space.present, 'page')} present"
        )


def refuse(given: dict[str, object], command: str) -> None:
    """Options that mean nothing for samples.

    :raises UsageError: one of *given*, by name, was used.
    """
    from secondsight.errors import UsageError

    reasons = {
        "--tlb": "samples tell how many pages were used and not in what order: no TLB can be modelled",
        "--cpu-time": "run times are predicted from page walks, which samples do not hold",
        "--today": "run times are predicted from page walks, which samples do not hold",
        "--calibration": "run times are predicted from page walks, which samples do not hold",
    }
    for name, value in given.items():
        if value:
            raise UsageError(f"{name}: {reasons.get(name, f'`{command}` over samples does without it')}")


def print_comparison(
    samples: Samples, comparison: SampledComparison, shown: bool, picture: Path | None
) -> None:
    """The table, the map where *shown*, what a reader should know; the picture, if any, as SVG or HTML."""
    from rich.console import Console
    from rich.table import Table

    terminal = Console()
    # A pipe has no width of its own: lines are not folded there.
    console = terminal if terminal.is_terminal else Console(width=200)
    console.print(f"[bold]{markup(comparison.samples)}[/]", highlight=False)
    clock = comparison.seconds * comparison.time_scale
    console.print(
        f"samples of {pluralize(len(comparison.blocks), 'block')} of 2 MiB over {comparison.seconds:,.1f} s ({clock:,.0f} s of "
        f"khugepaged's time), through {markup(comparison.provenance.memory)}; uses (a page in an interval): "
        f"{_range(comparison.uses, '{:,.0f}')}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_hot(comparison), highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy under profile", no_wrap=True)
    for name in ("known", "huge", "coverage", "bloat MiB", "collapses", "wasted", _REFUSED):
        table.add_column(name, justify="left" if name == _REFUSED else "right")
    for row in comparison.rows:
        least, most = row.refused["least"], row.refused["most"]
        reasons = "; ".join(
            f"{code} {_range(type(row.huge).of(least.get(code, 0), most.get(code, 0)), '{:,.0f}')}"
            for code in dict.fromkeys([*least, *most])
        )
        if row.unvisited.high:
            reasons += f"{'; ' * bool(reasons)}never visited {_range(row.unvisited, '{:,.0f}')}"
        table.add_row(
            markup(row.label), f"{row.known:,} of {row.blocks:,}", _range(row.huge, "{:,.0f}"),
            "unknown" if row.coverage is None else _range(row.coverage, "{:.1%}"),
            _range(row.bloat, "{:,.1f}", 2**-20), _range(row.collapses, "{:,.0f}"),
            "-" if row.wasted is None else _range(row.wasted, "{:,.0f}"), reasons or "-",
        )  # fmt: skip
    console.print()
    console.print(table)
    if shown:
        _map(samples, comparison, console)
    if picture is not None:
        _draw(samples, comparison, picture)
    for note in comparison.notes:
        console.print(f"note: {markup(note)}", highlight=False, soft_wrap=True)


def _hot(comparison: SampledComparison) -> str:
    """Where the known uses are, as ranges of addresses."""
    hot = comparison.hot.blocks
    if not hot:
        return "in use: unknown"
    runs: list[list[int]] = []
    for address in hot:
        if runs and runs[-1][1] == address:
            runs[-1][1] += PMD_SIZE
        else:
            runs.append([address, address + PMD_SIZE])
    ranges = ", ".join(f"0x{first:x}..0x{end:x}" for first, end in runs[:_LISTED])
    more = f" and {len(runs) - _LISTED} ranges more" if len(runs) > _LISTED else ""
    open_ = len(comparison.blocks) - comparison.hot.known
    return (
        f"in use: {pluralize(len(hot), 'block')} {'holds' if len(hot) == 1 else 'hold'} 90 % of the known uses: {ranges}{more}; of "
        f"{pluralize(open_, 'block')} it is not wholly known"
    )


def _range(span: Span, form: str, unit: float = 1.0) -> str:
    low, high = form.format(span.low * unit), form.format(span.high * unit)
    return low if low == high else f"{low} … {high}"


def _panels(samples: Samples, comparison: SampledComparison) -> list[Panel]:
    """The channels that were seen: the share of a block's pages that each called used, interval by interval; NaN where it cannot tell."""
    import numpy as np

    from secondsight.geometry import HPAGE_PMD_NR
    from secondsight.report.heatmap import Panel

    place = {address: i for i, (_, address) in enumerate(comparison.blocks)}
    looks = list(samples.looks())
    seen = [channel.name for channel in samples.provenance.channels if channel.seen] or ["primary"]
    out = []
    for name in seen:
        values = np.zeros((len(place), len(looks) - 1), np.float32)
        for at, look in enumerate(looks[1:]):
            rows = np.array([place[address] for address in look["address"].tolist()], np.int64)
            used = look[f"{name}_used"].astype(np.float32)
            used[(used == 0) & (look.unknown(name) > 0)] = np.nan
            values[rows, at] = used / HPAGE_PMD_NR
        out.append(Panel(name.upper().replace("_", "-"), values))
    return out


def _labels(comparison: SampledComparison) -> list[str]:
    return [f"0x{address:x}" for _, address in comparison.blocks]


def _map(samples: Samples, comparison: SampledComparison, console: Console) -> None:
    from secondsight.report.heatmap import legend, terminal

    colour = console.is_terminal and console.color_system in ("256", "truecolor")
    console.print()
    console.print(
        "[bold]what each channel called used[/], by address and time; where it could not tell, a question mark or grey",
        highlight=False,
    )
    console.print(
        terminal(
            _panels(samples, comparison), _labels(comparison), end=f"{comparison.seconds:.0f} s",
            width=min(console.width, 140), height=18, colour=colour,
        ),
        end="",
    )  # fmt: skip
    console.print(legend(colour))


def _draw(samples: Samples, comparison: SampledComparison, path: Path) -> None:
    from secondsight.report.heatmap import page, svg
    from secondsight.report.table import whole

    heading = f"{comparison.samples}: what each channel called used"
    drawing = svg(
        [("samples", _panels(samples, comparison))],
        _labels(comparison),
        title=heading,
        end=f"{comparison.seconds:.0f} s",
    )
    whole(path, (page(drawing, heading) if path.suffix == ".html" else drawing).encode())
