"""``secondsight sweep``: many traces, policies, profiles and knobs; local processes or a Dask cluster; resumable."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secondsight.plural import pluralize
from secondsight.terminal import printable

if TYPE_CHECKING:
    from secondsight.whatif.sweep import State

app = typer.Typer(add_completion=False)


@app.command()
def sweep(
    spec: Annotated[Path, typer.Argument(help="What to run: a TOML file; see docs/scale.md.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The directory of the results; a sweep in it is taken up again."),
    ],
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", help="Local processes. Default: one a processor.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A Dask scheduler's address (tcp://host:8786), instead of local processes."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be run, and run nothing.")] = False,
) -> None:
    """Run many traces, policies, profiles and knobs. What is finished is never run again; `secondsight compare DIR` reports on it."""
    from secondsight.errors import UsageError
    from secondsight.whatif import spec as specs
    from secondsight.whatif.sweep import sweep as run

    if jobs is not None and scheduler is not None:
        raise UsageError("--jobs is for local processes, --scheduler for Dask: give one of them")
    read = specs.read(spec)
    if plan:
        _plan(read, spec.parent, output)
        return
    with Meter() as meter:
        state = run(read, spec.parent, output, jobs=jobs, scheduler=scheduler, after_cell=meter)
    print(
        f"{pluralize(state.planned, 'cell')}: {state.before} were finished before, {state.run} run, {len(state.failed)} failed; "
        f"{duration(state.seconds)}. Report: secondsight compare {output} --report report.html"
    )
    for name, why in list(state.failed.items())[:20]:
        print(f"failed: {printable(name)}: {printable(why)}", file=sys.stderr)
    if len(state.failed) > 20:
        print(f"failed: {len(state.failed) - 20} more; see {output / 'log.jsonl'}", file=sys.stderr)
    if state.failed:
        raise typer.Exit(1)


def _plan(spec: object, base: Path, output: Path) -> None:
    from secondsight.whatif import spec as specs
    from secondsight.whatif.dataset import Dataset
    from secondsight.whatif.sweep import missing

    assert isinstance(spec, specs.Spec)
    cells, damaged = specs.plan(spec, base)
    todo = missing(cells, Dataset(output))
    rows = sum(len(cell.entries) for cell in cells)
    print(
        f"{pluralize(len({c.trace for c in cells}), 'trace')}, {pluralize(rows, 'row')} in {pluralize(len(cells), 'cell')} of up to "
        f"{spec.together}; {pluralize(len(todo), 'cell')} to run, {len(cells) - len(todo)} finished"
    )
    for name, why in damaged.items():
        print(f"cannot be read: {printable(name)}: {printable(why)}", file=sys.stderr)
    labels = dict.fromkeys(e.combination().label for cell in cells for e in cell.entries)
    for label in labels:
        print(f"  {printable(label)}")


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Meter:
    """Progress on standard error: one line that changes on a terminal, else a line every half minute."""

    def __init__(self) -> None:
        """Nothing printed yet."""
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()
        self.state: State | None = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if kind is not None and self.state is not None:
            done = self.state.before + self.state.run
            print(
                f"{done} of {pluralize(self.state.planned, 'cell')} are finished and kept: the same command runs the others",
                file=sys.stderr,
            )

    def __call__(self, state: State) -> None:
        """Say how far *state* is."""
        self.state = state
        now = time.monotonic()
        if now - self.last < (0.2 if self.terminal else 30) and state.run + state.before:
            return
        self.last = now
        done = state.before + state.run
        failed = f", {len(state.failed)} failed" if state.failed else ""
        left = f", {duration(state.left)} left" if state.left is not None else ""
        line = f"{done} of {pluralize(state.planned, 'cell')}{failed}{left}"
        print(
            f"\r\x1b[K{line}" if self.terminal else line,
            end="" if self.terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
