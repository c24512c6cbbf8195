"""The command line: thin, lazy, and the one place where errors become exit codes.

The commands are in ``group.py``. One that is often asked is run without Typer where its words allow (``plain.py``).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

from secondsight.errors import SecondSightError


def main(argv: list[str] | None = None) -> None:
    """Entry point: run a command; turn our errors, and a command line that cannot be read, into one line and their exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        _run(words)
        sys.stdout.flush()
        sys.exit(0)
    except SecondSightError as error:
        print(f"secondsight: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("secondsight: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _no_reader()
    except SystemExit as end:
        # What rich makes of a closed pipe.
        if isinstance(end.__context__, BrokenPipeError):
            _no_reader()
        raise


def _run(words: list[str]) -> None:
    if words[:1] == ["explain"]:
        from secondsight.cli import explained, plain

        said = plain.read(words[1:], explained.OPTIONS)
        if said is not None:
            with _no_cycles():
                explained.explain(**said)
            return
    from secondsight.cli import group

    group.run(words)


@contextlib.contextmanager
def _no_cycles() -> Iterator[None]:
    """Of what is made here nothing is searched for cycles, neither now nor when the interpreter ends: 30 ms for a hundred modules."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()


def import_numpy() -> None:
    """Import NumPy without threads for its linear algebra, of which these commands have none: each spins for 40 ms before it sleeps."""
    if "numpy" in sys.modules or "OPENBLAS_NUM_THREADS" in os.environ:
        return
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy as np  # noqa: F401

    # Not for a program that is started from here.
    del os.environ["OPENBLAS_NUM_THREADS"]


def _no_reader() -> None:
    """The reader of a pipe left (head, less): not an error. Silence the flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
