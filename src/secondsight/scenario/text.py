"""Answers as lines and tables: what a person reads, and what a scenario file states it expects.

One line a visit, in the tracepoints' words: ``pass 1 vm:2 succeeded scan 512 isolate 512`` (scan and isolate: pages
referenced); a line for a failed system call or MADV_COLLAPSE: ``step 3 EINVAL``.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from secondsight.scenario import verbs
from secondsight.scenario.results import BlockPass, FilePass, Run
from secondsight.terminal import markup

__all__ = ["line", "lines", "table"]


def line(visit: BlockPass) -> str:
    """One visit as the text that ``expect`` uses."""
    out = f"pass {visit.pass_} {visit.space}:{visit.block} {visit.status} scan {visit.referenced}"
    if visit.none_or_zero:
        out += f" none {visit.none_or_zero}"
    if visit.unmapped:
        out += f" swapped {visit.unmapped}"
    if visit.isolate is not None:
        out += f" isolate {visit.isolate.referenced}"
    if visit.further:
        # How they ended one by one depends on what else waits in the CPU's LRU batch, so a file states only how many there were.
        out += f" attempts {len(visit.attempts)}"
    return out


def file_line(visit: FilePass) -> str:
    """One visit to shared memory, likewise."""
    out = f"pass {visit.pass_} {visit.space}:{visit.block} {visit.result} file {visit.file} present {visit.present}"
    return f"{out} swapped {visit.swap}" if visit.swap else out


def lines(run: Run) -> list[str]:
    """A whole answer as text, in order: visits, those to shared memory after the others, then what system calls said."""
    out = [line(visit) for visit in run.blocks] + [file_line(visit) for visit in run.files]
    out.extend(f"step {a.step} {a.errno}" for a in run.answers if a.errno is not None)
    return out


def table(scenario: verbs.Scenario, run: Run) -> None:
    """Print *run* as a table: a row a visit, with the channels' counts, scan and isolate; blank: not reached, or not known.

    *asked*: how often test_young was called, which no tracepoint of a kernel tells.
    """
    where = run.provenance.get("mmu", scenario.host.mmu)
    title = markup(f"{scenario.title or 'scenario'}  [{run.provenance.get('kernel', run.source)}, {where}]")
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in (
        "pass",
        "block",
        "PRIMARY",
        "REFERENCED",
        "SECONDARY",
        "scan",
        "none",
        "swapped",
        "isolate",
        "asked",
        "status",
    ):
        shown.add_column(name, justify="left" if name in ("block", "status") else "right", no_wrap=True)
    for v in run.blocks:
        young = v.young or ("", "", "")
        shown.add_row(
            str(v.pass_), markup(f"{v.space}:{v.block}"), *map(str, young), str(v.referenced), str(v.none_or_zero), str(v.unmapped),
            "" if v.isolate is None else str(v.isolate.referenced),
            "" if v.test_young_calls is None else str(v.test_young_calls), v.status,
        )  # fmt: skip
    for f in run.files:
        # What the page cache has, not what was used: nobody is asked there.
        shown.add_row(
            str(f.pass_), markup(f"{f.space}:{f.block}"), "", "", "", "", "", str(f.swap), "", "",
            markup(f"{f.result} ({f.file}, {f.present} present)"),
        )  # fmt: skip
    # A pipe has no width of its own: nothing is cut off there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(shown)
    if not run.blocks and not run.files:
        console.print(_why_empty(scenario))
    for answer in run.answers:
        if answer.errno is not None:
            console.print(f"step {answer.step}: {answer.errno}")


def _why_empty(scenario: verbs.Scenario) -> str:
    """What a scenario in which khugepaged visits no block may lack."""
    if not any(isinstance(step, verbs.Scan) for step in scenario.steps):
        return 'no block was visited: it has no step that scans (do = "scan")'
    host = scenario.host.thp_enabled
    lack = {
        "madvise": 'a step before that advises it (do = "madvise", advice = "hugepage"), or host.thp_enabled = "always"',
        "never": 'host.thp_enabled = "madvise" or "always"',
    }.get(host, "memory in a whole block of an area that may be huge")
    return f"no block was visited: under host.thp_enabled = {host!r} khugepaged would need {lack}"
