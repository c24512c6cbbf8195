"""SIGINT and SIGTERM: the first one is an exception after which everything is tidied, or is remembered (``live/act/stopping.py``)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, Final

__all__ = ["SAME_SIGNAL", "Interrupts", "Terminated"]

#: Seconds in which another signal is the first one once more: `timeout` sends it to its child, and to the group that the child is in.
SAME_SIGNAL: Final = 1.0


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything that is tidied after Ctrl-C is tidied after it too."""


class Interrupts:
    """What SIGINT and SIGTERM do: the first one raises :class:`KeyboardInterrupt`, SIGTERM :class:`Terminated`, and everything is tidied.

    Another within a second is the same one come twice, and changes nothing of what the first began; a later SIGTERM ends the process.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._before: dict[int, Any] = {}

    def begin(self) -> None:
        """Listen, where this is the main thread; a SIGINT that is ignored, as in a shell's background, stays ignored."""
        with contextlib.suppress(ValueError):
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._heard)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._heard)

    def end(self) -> None:
        """Whatever was done before is done again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._first is None or (number == signal.SIGINT and now - self._first > SAME_SIGNAL):
            self._first = now
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if now - self._first > SAME_SIGNAL:
            os.write(2, b"secondsight: terminated at once\n")
            os._exit(128 + number)

    def once_more(self, lost: Any) -> None:
        """An interrupt that arrives while LLVM calls back into Python is printed there and dropped: send it once more, a moment later."""
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        self._first = None
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        again = threading.Timer(0.1, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
