"""Dask: cells on the workers of a scheduler, wherever they are. Traces must be under the same paths there; results come back here.

A few cells more than the workers have threads are under way at a time; one whose worker is killed the scheduler hands to another.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from secondsight.errors import MissingDependency
from secondsight.whatif.cell import Outcome, work
from secondsight.whatif.spec import Cell

#: Seconds to wait for the scheduler, and for a first worker.
PATIENCE = 30.0


def run(
    cells: Sequence[Cell], address: str, patience: float = PATIENCE
) -> Iterator[tuple[Cell, Outcome, int]]:
    """Run *cells* on the Dask scheduler at *address*; (cell, outcome, 1) as they end.

    :raises MissingDependency: Dask is not installed, nobody answers at *address*, or no worker comes.
    """
    try:
        import distributed
    except ImportError:
        raise MissingDependency("--scheduler needs Dask: pip install 'secondsight[cluster]'") from None
    dask: Any = distributed
    # What goes wrong is said by us, once; lost connections to killed workers are no news.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client: Any = dask.Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingDependency(
            f"no Dask scheduler answers at {address} ({reason}); start one with `dask scheduler`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError:
            raise MissingDependency(
                f"the scheduler at {address} has no workers; start some with `dask worker {address}`"
            ) from None
        waiting = iter(cells)
        by_key: dict[str, Cell] = {}

        def submit(number: int) -> list[Any]:
            out = []
            for cell in itertools.islice(waiting, number):
                name = f"secondsight-{cell.id}"
                by_key[name] = cell
                out.append(client.submit(work, msgspec.msgpack.encode(cell), key=name))
            return out

        under_way: Any = dask.as_completed(submit(_window(client)), loop=client.loop)
        for future in under_way:
            cell = by_key.pop(future.key)
            failure = future.exception()
            if failure is not None:
                reason = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
                yield cell, Outcome(cell=cell.id, error=reason), 1
            else:
                yield cell, msgspec.msgpack.decode(future.result(), type=Outcome), 1
            future.release()
            # As many as are missing from what the workers of this moment can take.
            for another in submit(max(1, _window(client) - len(by_key))):
                under_way.add(another)


def _window(client: Any) -> int:
    return 2 + 2 * sum(client.nthreads().values())
