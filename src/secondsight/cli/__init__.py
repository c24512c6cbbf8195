"""The command line: thin, lazy, and the one place where errors become exit codes.

The commands are in ``group.py``. What is often asked is answered without Typer: ``--help``, and one command where its words allow
(``plain.py``).
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from secondsight.errors import SecondSightError
from secondsight.signals import Interrupts, Terminated
from secondsight.terminal import printable


def main(argv: list[str] | None = None) -> None:
    """Entry point: run a command; turn our errors, and a command line that cannot be read, into one line and their exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    no_output = sys.stdout is None
    _streams()
    hook_before = sys.unraisablehook
    interrupts = Interrupts()
    sys.unraisablehook = interrupts.once_more
    mark_before = _ignore_marks(words)
    try:
        interrupts.begin()
        if no_output:
            # Said before anything is done, not when it is to be told.
            raise SecondSightError(
                "standard output is closed: nothing could be told; >/dev/null throws it away"
            )
        run_words(words)
        sys.stdout.flush()
        sys.exit(0)
    except SecondSightError as error:
        print("secondsight: " + _with_notes("\n".join(map(printable, error.lines())), error), file=sys.stderr)
        sys.exit(error.exit_code)
    except Terminated as end:
        print(f"secondsight: {_with_notes('terminated', end)}", file=sys.stderr)
        sys.exit(128 + end.number)
    except KeyboardInterrupt as end:
        print(f"secondsight: {_with_notes('interrupted', end)}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        _no_reader()
    except OSError as error:
        # Whatever could not be read or written and was not told by name: a full disk under standard output, most likely.
        why = os.strerror(error.errno) if error.errno else str(error)
        print(f"secondsight: {printable(error.filename or 'the output')}: {why}", file=sys.stderr)
        _silence(sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # Code that lost the interrupt, as LLVM's calls do, stumbles over what it left undone.
        if interrupts.number is None:
            raise
        ending = "interrupted" if interrupts.number == signal.SIGINT else "terminated"
        print(f"secondsight: {_with_notes(ending, error)}", file=sys.stderr)
        sys.exit(128 + interrupts.number)
    except SystemExit as end:
        # What rich makes of a closed pipe.
        if isinstance(end.__context__, BrokenPipeError):
            _no_reader()
        raise
    finally:
        sys.unraisablehook = hook_before
        interrupts.end()
        if mark_before is not None:
            signal.signal(signal.SIGUSR1, mark_before)


def _ignore_marks(words: list[str]) -> Any:
    """A mark of `top --record` may come while modules are imported, or after its last pass: it must not end it. What SIGUSR1 did before."""
    if words[:1] == ["top"] and any(word.partition("=")[0] == "--record" for word in words):
        with contextlib.suppress(ValueError):  # not the main thread
            return signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return None


def _with_notes(told: str, error: BaseException) -> str:
    """*told*, and what those that *error* passed through say of it: what is kept, and where (``BaseException.add_note``)."""
    return "; ".join([told, *map(printable, getattr(error, "__notes__", ()))])


def _streams() -> None:
    """A standard stream that was closed becomes /dev/null, lest a file of ours take its number; what cannot be shown becomes ``?``; of
    standard error the reader may leave."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            if (opened := os.open(os.devnull, os.O_RDWR)) != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif name == "stdout" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        elif name == "stderr" and stream is sys.__stderr__ and isinstance(stream, io.TextIOWrapper):
            written = io.BufferedWriter(_PerhapsUnread(stream.fileno(), "w", closefd=False))
            sys.stderr = io.TextIOWrapper(written, stream.encoding, stream.errors, line_buffering=True)


class _PerhapsUnread(io.FileIO):
    """What is said after the reader left (``2>&1 | head``) goes nowhere, and ends neither a recording nor changes an exit code."""

    def write(self, said: Any, /) -> int:
        try:
            return super().write(said)
        except BrokenPipeError:
            _silence(self.fileno())
            return len(said)


def run_words(words: list[str]) -> None:
    """Run the command that *words* are, the program's own name left out."""
    if words[:1] == ["explain"]:
        from secondsight.cli import explained, plain

        options = plain.read(words[1:], explained.OPTIONS)
        if options is not None:
            with _no_cycles():
                explained.explain(**options)
            return
    if words in (["--help"], ["-h"]):
        from secondsight.cli.commands import overview

        print(overview())
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
    """The reader of a pipe left (head, less): not an error."""
    _silence(sys.stdout.fileno())
    sys.exit(0)


def _silence(number: int) -> None:
    """Let whatever the descriptor *number* is yet given go nowhere, the flush at exit included: it takes nothing any more."""
    opened = os.open(os.devnull, os.O_WRONLY)
    os.dup2(opened, number)
    os.close(opened)
