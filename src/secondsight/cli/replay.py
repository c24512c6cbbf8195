"""``secondsight replay``: one trace under several kernels' profiles, side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.options import (
    KnobOption,
    MglruOption,
    MmuOption,
    Progress,
    host,
    rules_option,
    stands_behind,
)
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, PMD_SHIFT, kb_of_order
from secondsight.plural import pluralize
from secondsight.terminal import markup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from secondsight.replay import ConfigurationResult, Result

app = typer.Typer(add_completion=False)

#: What is replayed where nothing else is asked for: before the heuristic, as posted, and the long-term kernels.
DEFAULT = ("thp-base", "2.6.38", "6.1", "6.18", "7.2")

#: What copies of shared memory took, as results and figures call it.
_COPIES = {"copied": "copied_pages", "copied_huge": "copied_huge", "copy_splits": "copy_splits"}


@app.command()
def replay(
    trace: Annotated[
        Path, typer.Argument(help="The trace (Parquet; `secondsight convert` makes one of others).")
    ],
    rules: Annotated[
        list[str] | None,
        rules_option("A profile, or PROFILE+rule=value,…; repeatable. Default: all that matter."),
    ] = None,
    backing: Annotated[
        str,
        typer.Option(
            "--as", help="What the trace's memory is: trace (as recorded), process, vm (a guest's memory)."
        ),
    ] = "trace",
    time_scale: Annotated[
        float, typer.Option(help="ns of khugepaged's clock for one ns of the trace; it wakes every 10 s.")
    ] = 1.0,
    mmu: MmuOption = "npt",
    mglru: MglruOption = False,
    knob: KnobOption = None,
    empty: Annotated[
        bool, typer.Option(help="A VM's memory begins empty, not written and aged before the trace.")
    ] = False,
    tlb: Annotated[
        bool,
        typer.Option(
            "--tlb", help="Model a data TLB: only its misses walk, and so set accessed bits. Slower."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw which channel saw use, under every profile, to FILE.svg or FILE.html."),
    ] = None,
    heat: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="Whose heat map the terminal shows: one of the profiles, or none. Default: the last.",
        ),
    ] = None,
) -> None:
    """Replay a trace through the model under any number of kernel profiles: what khugepaged would make huge, refuse, and why."""
    import msgspec

    from secondsight import atomicfile
    from secondsight.cli.sampled import print_comparison, refuse
    from secondsight.errors import UsageError
    from secondsight.replay import Configuration
    from secondsight.replay import replay as run
    from secondsight.replay.tlb import TlbConfig
    from secondsight.trace.samples import Samples, is_samples
    from secondsight.whatif.sampled import compare_samples

    if picture is not None and picture.suffix not in (".svg", ".html"):
        raise UsageError(f"--picture {picture}: the name must end in .svg or .html")
    atomicfile.check_writable(picture, trace, kind=atomicfile.PAGE)
    config, behind = host(knob or [], mmu, mglru), stands_behind(backing, "--as")
    if is_samples(trace):
        refuse({"--tlb": tlb, "--empty": empty}, "replay")
        if heat not in (None, "none"):
            raise UsageError(f"--map {heat}: samples have one map, of all their channels; or none")
        samples = Samples.open(trace)
        with Progress("replayed") as progress:
            comparison = compare_samples(
                samples, ["khugepaged"], rules or DEFAULT, config=config, time_scale=time_scale, backing=behind, progress=progress,
            )  # fmt: skip
        if json:
            print(msgspec.json.format(msgspec.json.encode(comparison), indent=2).decode())
        else:
            print_comparison(samples, comparison, heat is None, picture)
        return
    configurations = [
        Configuration.of(
            r, config=config, backing=behind, fill=False if empty else None, tlb=TlbConfig() if tlb else None
        )
        for r in dict.fromkeys(rules or DEFAULT)
    ]
    names = [s.name for s in configurations]
    if heat is not None and heat not in [*names, "none"]:
        raise UsageError(f"--map {heat}: one of {', '.join(names)}, or none")
    shown = None if heat == "none" or json else heat or names[-1]
    with Progress("replayed", compiles=True) as progress:
        result = run(
            trace,
            configurations,
            time_scale=time_scale,
            channels=picture is not None or shown is not None,
            progress=progress,
        )
    if json:
        print(result.json().decode())
    else:
        _print(result, str(trace), shown)
    # Last: a picture that cannot be written keeps nothing from being printed.
    if picture is not None:
        _draw(result, picture, str(trace))


def _print(result: Result, trace: str, shown: str | None) -> None:
    """The table, the meaning of its refusals, the map, the notes."""
    from rich.console import Console

    from secondsight.mm.profiles import title
    from secondsight.report.table import side_by_side

    terminal = Console()
    # A pipe has no width of its own: lines are not folded there.
    console = (
        terminal if terminal.is_terminal else Console(width=max(100, 34 + 15 * len(result.configurations)))
    )
    first, span = result.configurations[0], result.provenance.span
    clock = (span[1] - span[0]) / 1e9 * result.provenance.time_scale
    console.print(f"[bold]{markup(trace)}[/]", highlight=False)
    console.print(_what(first, clock, result.provenance.time_scale), highlight=False)
    console.print()
    columns = [title(s.name).replace(" (unasked)", " unasked") for s in result.configurations]
    console.print(side_by_side(columns, _rows(result)))
    console.print()
    _meanings(result, console)
    for configuration in result.configurations:
        if configuration.name == shown:
            _map(result, configuration, console)
    for note in _notes(result, clock):
        console.print(f"note: {markup(note)}", highlight=False)


def _what(result: ConfigurationResult, clock: float, scale: float) -> str:
    """In words: what was replayed, as what, and on which clock."""
    as_what = {
        "vm": f"a VM's memory (KVM, {result.mmu})",
        "process": "a process's memory",
        "mixed": "VMs' and processes' memory",
    }
    began = "written and aged before it begins" if result.start == "filled" else "empty when it begins"
    time = f"{clock:,.0f} s of khugepaged's time" + (
        f", each second of the trace standing for {scale:g}" if scale != 1 else ""
    )
    return (
        f"{pluralize(result.total.accesses, 'access', 'accesses')} to {as_what[result.backing]} of "
        f"{pluralize(result.total.blocks, 'block')} of 2 MiB, "
        f"{began}; {time}"
    )


#: What a row says that is no figure of ``report/metrics.py``.
_ROWS = {
    "huge by a first touch": "Blocks that a page fault mapped as one huge page: no collapse was needed.",
    "blocks left small": "Blocks that no huge page maps at the end; below, by the answer of khugepaged's last visit.",
    "never visited": "khugepaged has not come to the block.",
    "page walks": "TLB misses, each of which reads the page tables; only they set accessed bits.",
    "walk references": "Page-table entries that those walks read.",
    "full scans": "Times khugepaged went round all memory.",
}
_UNASKED = "No booted kernel was compared with this profile."
#: What each panel of the map is.
_CHANNELS = {
    "PRIMARY": "the accessed bit in the process's own page table",
    "REFERENCED": "the page's flag, set by system calls and by what clears accessed bits",
    "SECONDARY": "the page tables by which a guest or a device reaches the memory",
    "huge": "blocks that a huge page maps",
    "refused": "collapses that were begun and refused",
}


def _rows(result: Result) -> list[tuple[str, str, list[float | None]]]:
    """The table: (title, form, a value for each configuration); a title that begins with a space is part of the one above."""
    from secondsight.report.metrics import METRICS

    configurations, totals = result.configurations, [s.total for s in result.configurations]

    def known(key: str, values: list[Any]) -> tuple[str, str, list[float | None]]:
        return METRICS[key].title, METRICS[key].form, values

    def each(name: str) -> list[Any]:
        return [getattr(t, name) for t in totals]

    rows: list[tuple[str, str, list[float | None]]] = [known("collapses", each("collapses"))]
    if any(each("fault_huge")):
        rows.append(("huge by a first touch", "count", each("fault_huge")))
    rows.append(("blocks left small", "count", [t.blocks - t.huge_at_end for t in totals]))
    reasons = dict.fromkeys(code for t in totals for code in t.refused)
    rows += [(f" {code}", "count", [t.refused.get(code, 0) for t in totals]) for code in reasons]
    if any(each("unvisited")):
        rows.append((" never visited", "count", each("unvisited")))
    rows += [
        known("coverage", [t.coverage for t in totals]),
        known("bloat", each("bloat")),
        known("wasted_passes", each("wasted")),
        *_attempts(totals, known),
        known("pages_scanned", each("pages_scanned")),
        known("notifier_calls", [sum(s.notifier_calls.values()) for s in configurations]),
    ]
    ops = dict.fromkeys(op for s in configurations for op in s.notifier_calls)
    rows += [(f" {op}", "count", [s.notifier_calls.get(op, 0) for s in configurations]) for op in ops]
    if any(each("guest_faults")):
        rows.append(known("guest_faults", each("guest_faults")))
    if any(each("splits")):
        rows.append(known("splits", each("splits")))
    for name, key in _COPIES.items():
        if any(each(name)):
            rows.append(known(key, each(name)))
    if totals[0].walks is not None:
        rows.append(("page walks", "count", each("walks")))
        rows.append(("walk references", "count", each("walk_references")))
    rows.append(("full scans", "count", [s.full_scans for s in configurations]))
    return rows


def _attempts(totals: Sequence[Any], known: Callable[[str, list[Any]], Any]) -> list[Any]:
    """Refused collapses, and by size where smaller ones than a block were tried."""
    orders = sorted({int(order) for t in totals for order in t.attempts}, reverse=True)
    rows = [known("refused_collapses", [t.refused_collapses for t in totals])]
    if orders and orders[-1] != PMD_ORDER:
        for order in orders:
            counts = [t.attempts.get(str(order)) for t in totals]
            size = f"{kb_of_order(order)} kB"
            rows.append((f" {size}, begun", "count", [each.begun if each else 0 for each in counts]))
            rows.append((f" {size}, refused", "count", [each.refused if each else 0 for each in counts]))
    return rows


def _meanings(result: Result, console: Console) -> None:
    """What the columns are, what each row of the table says, and the words of mm that say so, each once."""
    from rich.table import Table

    from secondsight.glossary import WORDS
    from secondsight.mm.profiles import ABOUT, title

    meanings = {title(s.rules): ABOUT[s.rules] for s in result.configurations if s.rules in ABOUT}
    if any("(unasked)" in title(s.rules) for s in result.configurations):
        meanings["unasked"] = _UNASKED
    meanings |= {row.strip(): _meaning(row.strip()) for row, _, _ in _rows(result)}
    # One of them may be what explains another.
    used: dict[str, str] = {}
    while more := {
        word: meaning
        for word, meaning in WORDS.items()
        if word not in used
        and any(
            re.search(rf"\b{word.replace(' ', '[- ]')}s?\b", text)
            for text in (*meanings, *meanings.values(), *used.values())
        )
    }:
        used |= more
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for word, meaning in (meanings | {word: used[word] for word in WORDS if word in used}).items():
        table.add_row(word, meaning)
    console.print(table)


def _meaning(row: str) -> str:
    """What the row called *row* says: a figure's definition up to its first full stop, an answer's rule, a notifier's method."""
    from secondsight.glossary import NOTIFIER_METHODS
    from secondsight.report.metrics import METRICS
    from secondsight.report.verdicts import rule

    for metric in METRICS.values():
        if metric.title == row:
            return metric.definition.split(". ")[0].rstrip(".") + "."
    if row in NOTIFIER_METHODS:
        return NOTIFIER_METHODS[row]
    if begun := re.fullmatch(r"(\d+ kB), (begun|refused)", row):
        return f"Attempts to collapse a block, or a part of it, to {begun[1]} that were {begun[2]}."
    return _ROWS.get(row) or rule(row).meaning


def _notes(result: Result, clock: float) -> list[str]:
    """Notes on the trace, of all configurations, each once, and whether khugepaged had time to do anything."""
    from secondsight.replay.clock import hardly_woke

    notes = dict.fromkeys([*result.provenance.notes, *(n for s in result.configurations for n in s.notes)])
    if not clock:
        notes[
            "every access stands at one moment, which no --time-scale spreads: only what happens at faults can be seen"
        ] = None
    elif hardly := hardly_woke(min(s.khugepaged_wakes for s in result.configurations), clock):
        notes[hardly] = None
    return list(notes)


# -- pictures ------------------------------------------------------------------------------------------------------


def _panels(result: Result, index: int) -> list[Any]:
    """PRIMARY, REFERENCED, SECONDARY and what was huge, of configuration *index*."""
    import numpy as np

    from secondsight.report.heatmap import Panel

    channels = result.data[index].channels
    assert channels is not None
    out = []
    for name in ("primary", "referenced", "secondary"):
        pages = np.array(getattr(channels, name), np.float32).T
        if name != "secondary" or result.configurations[index].backing != "process":
            out.append(
                Panel(name.upper(), np.where(pages < 0, np.nan, pages / HPAGE_PMD_NR).astype(np.float32))
            )
    out.append(Panel("huge", np.array(channels.huge, np.float32).T))
    if any(each.any() for each in channels.refused):
        # As a share of the pages of a block, as all panels: 255 attempts are half of its pages.
        refused = np.array(channels.refused, np.float32).T / HPAGE_PMD_NR
        out.append(Panel("refused", np.minimum(refused, 1).astype(np.float32)))
    return out


def _labels(result: Result) -> list[str]:
    """A block's address: of processes as `maps` has it, of VMs (what the guest calls it) in MiB."""
    form = "0x{0:x}" if result.configurations[0].backing == "process" else "{1:,} MiB"
    numbers = result.data[0].blocks.number.tolist()
    return [form.format(n << PMD_SHIFT, n * 2).replace(",", " ") for n in numbers]


def _end(result: Result, index: int) -> str:
    seconds = result.configurations[index].series.time[-1] / 1e9
    return f"{seconds / 60:.0f} min" if seconds >= 180 else f"{seconds:.0f} s"


def _map(result: Result, configuration: ConfigurationResult, console: Console) -> None:
    """The terminal's heat map of one configuration."""
    from secondsight.mm.profiles import title
    from secondsight.report.heatmap import legend, terminal

    index = result.configurations.index(configuration)
    panels = _panels(result, index)
    colour = console.is_terminal and console.color_system in ("256", "truecolor")
    console.print()
    console.print(
        f"[bold]{markup(title(configuration.name))}[/]: which channel saw use, by address and time",
        highlight=False,
    )
    console.print(
        terminal(
            panels,
            _labels(result),
            end=_end(result, index),
            width=min(console.width, 140),
            height=18,
            colour=colour,
        ),
        end="",
    )
    console.print(legend(colour))
    for shown in (panel.title for panel in panels):
        console.print(f"{shown}: {_CHANNELS[shown]}", highlight=False)


def _draw(result: Result, path: Path, title: str) -> None:
    """Every configuration's panels, as SVG or a page."""
    from secondsight.mm.profiles import title as titled
    from secondsight.report.heatmap import page, svg
    from secondsight.report.table import whole

    rows = [(titled(s.name), _panels(result, i)) for i, s in enumerate(result.configurations)]
    heading = f"{title}: which channel saw use, and what was huge"
    drawing = svg(rows, _labels(result), title=heading, end=_end(result, 0))
    whole(path, (page(drawing, heading) if path.suffix == ".html" else drawing).encode())
