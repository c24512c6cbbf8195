"""Local worker processes: one cell each at a time; whoever is killed is replaced, and its cell run again.

parent ──cell──▶ worker     spawned, one pipe each; the parent waits for answers and for deaths at once
       ◀─outcome─
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from typing import Any

import msgspec

from secondsight.whatif.cell import Outcome, work
from secondsight.whatif.spec import Cell

#: How often a cell is tried that kills its worker (out of memory, most likely).
TRIES = 3


def _serve(pipe: connection.Connection) -> None:
    """A worker: cells in, outcomes out, until the other end closes."""
    # The terminal's Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            raw = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            pipe.send_bytes(work(raw))
        except (BrokenPipeError, OSError):
            return


class CellWorker:
    """A process that runs a cell at a time."""

    def __init__(self) -> None:
        """It is started."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.cell: Cell | None = None

    def give(self, cell: Cell) -> bool:
        """Hand *cell* over; False if the worker is dead."""
        try:
            self.pipe.send_bytes(msgspec.msgpack.encode(cell))
        except OSError:
            return False
        self.cell = cell
        return True

    def end(self) -> None:
        """Stop it, whatever it is at."""
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def run(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Outcome, int]]:
    """Run *cells*, the first first, in *jobs* processes; (cell, outcome, tries) as they end."""
    waiting: deque[tuple[Cell, int]] = deque((cell, 1) for cell in cells)
    tries: dict[str, int] = {}
    workers = [CellWorker() for _ in range(min(jobs, len(cells)))]
    try:
        while waiting or any(w.cell for w in workers):
            for i, worker in enumerate(workers):
                while worker.cell is None and waiting:
                    cell, tried = waiting.popleft()
                    tries[cell.id] = tried
                    if not worker.give(cell):
                        waiting.appendleft((cell, tried))
                        worker.end()
                        worker = workers[i] = CellWorker()
            yield from _answers(workers, waiting, tries)
    finally:
        for worker in workers:
            worker.end()


def _answers(
    workers: list[CellWorker], waiting: deque[tuple[Cell, int]], tries: dict[str, int]
) -> Iterator[tuple[Cell, Outcome, int]]:
    """What has come in from those who work, at least one thing."""
    busy = {i: w for i, w in enumerate(workers) if w.cell is not None}
    handles: dict[Any, int] = {w.pipe: i for i, w in busy.items()}
    for ready in connection.wait(list(handles)):
        i = handles[ready]
        worker, cell = busy[i], busy[i].cell
        assert cell is not None
        try:
            outcome = msgspec.msgpack.decode(worker.pipe.recv_bytes(), type=Outcome)
        except (EOFError, OSError, msgspec.MsgspecError):
            # Its end of the pipe closed: it died, its cell with it.
            worker.end()
            code = worker.process.exitcode
            workers[i] = CellWorker()
            tried = tries[cell.id]
            if tried < TRIES:
                waiting.appendleft((cell, tried + 1))
            else:
                reason = f"its worker died {tried} times (exit {code}): out of memory? try fewer --jobs, or a smaller `together`"
                yield cell, Outcome(cell=cell.id, error=reason), tried
            continue
        worker.cell = None
        yield cell, outcome, tries[cell.id]
