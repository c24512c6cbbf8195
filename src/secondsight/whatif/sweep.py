"""Many traces, policies, rules and knobs: what is planned and not yet there is run, largest cells first.

spec ──plan──▶ cells ──minus what is finished──▶ workers (processes here, or Dask) ──▶ dataset
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from secondsight.errors import UsageError
from secondsight.whatif import spec as specs
from secondsight.whatif.cell import Outcome
from secondsight.whatif.dataset import Dataset
from secondsight.whatif.spec import Cell, Spec


@dataclass(slots=True)
class State:
    """How far a sweep is: cells planned, found finished, run, under way and failed (cell or trace -> why); weights for the time left; wall
    and CPU seconds of the cells run."""

    planned: int = 0
    before: int = 0
    run: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    weight: float = 0.0
    done: float = 0.0
    start: float = field(default_factory=time.monotonic)
    work: float = 0.0
    cpu: float = 0.0

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None before the first cell."""
        return self.seconds * (self.weight - self.done) / self.done if self.done else None


Told = Callable[[State], None]


def sweep(
    spec: Spec,
    base: Path,
    where: Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    after_cell: Told | None = None,
) -> State:
    """Run what of *spec* is not yet in the directory *where*; relative traces are looked for in *base*.

    :param jobs: local processes; as many as this process may use processors, unless said.
    :param scheduler: a Dask scheduler's address, instead of local processes.
    :param after_cell: called after each cell.
    :raises UsageError: the spec asks for what does not exist, or another sweep is at work in *where*.
    """
    if jobs is not None and not 1 <= jobs <= 4096:
        raise UsageError(f"--jobs {jobs}: must be at least 1")
    cells, damaged = specs.plan(spec, base)
    dataset = Dataset(where)
    with dataset.claimed():
        dataset.write_plan(spec, cells, damaged)
        todo, state = missing(cells, dataset), State(planned=len(cells), failed=dict(damaged))
        state.before = len(cells) - len(todo)
        state.weight = sum(cell.weight for cell in todo)
        if after_cell:
            after_cell(state)
        for cell, outcome, tries in _run(todo, jobs, scheduler):
            state.done += cell.weight
            if outcome.error:
                state.failed[f"{cell.trace} ({cell.id})"] = outcome.error
            else:
                dataset.keep(outcome)
                state.run += 1
                state.work += outcome.seconds
                state.cpu += outcome.cpu
            dataset.log(cell=cell.id, trace=cell.trace, rows=len(cell.entries), seconds=round(outcome.seconds, 3), worker=outcome.worker,
                        cpu=round(outcome.cpu, 3), tries=tries, error=outcome.error)  # fmt: skip
            if after_cell:
                after_cell(state)
    return state


def missing(cells: Sequence[Cell], dataset: Dataset) -> list[Cell]:
    """What of *cells* is not in *dataset*, largest first; of a cell that is there in part, the rows that are not."""
    finished = dataset.finished(cells)
    out = []
    for cell in cells:
        entries = [e for e in cell.entries if e.id not in finished]
        if len(entries) == len(cell.entries):
            out.append(cell)
        elif entries:
            out.append(msgspec.structs.replace(cell, entries=entries, id=specs.cell_id(cell.trace, entries)))
    return sorted(out, key=lambda cell: -cell.weight)


def _run(cells: list[Cell], jobs: int | None, scheduler: str | None) -> Iterator[tuple[Cell, Outcome, int]]:
    if not cells:
        return iter(())
    if scheduler is not None:
        from secondsight.whatif import cluster

        return cluster.run(cells, scheduler)
    from secondsight.whatif import workers

    return workers.run(cells, jobs or len(os.sched_getaffinity(0)))
