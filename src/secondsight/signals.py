"""SIGINT, SIGTERM, SIGHUP: the first is an exception after which everything is tidied, or is remembered (``live/act/stopping.py``)."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import termios
import threading
import time
from typing import Any, Final

__all__ = ["ENDING", "SAME_SIGNAL", "Interrupts", "Terminated", "heeded", "interrupt_of", "leave_terminal"]

#: Seconds in which another signal is the first one once more: `timeout` sends it to its child, and to the group that the child is in.
SAME_SIGNAL: Final = 1.0
#: The signals that ask a command to end.
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP (*number*): everything that is tidied after Ctrl-C is tidied after it too."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def interrupt_of(number: int) -> KeyboardInterrupt:
    """What the ending signal *number* raises; its exit code is 128 + *number*."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def heeded(number: int) -> bool:
    """Whether the ending signal *number* is to be listened to: SIGTERM always, the others not where they were ignored at the start: SIGHUP
    by :manpage:`nohup(1)`, SIGINT in a shell's background."""
    return number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN


def leave_terminal() -> None:
    """Standard streams whose terminal has hung up become /dev/null: what is said while all is tidied must not fail there."""
    for number in (0, 1, 2):
        try:
            termios.tcgetattr(number)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                opened = os.open(os.devnull, os.O_RDWR)
                os.dup2(opened, number)
                os.close(opened)


class Interrupts:
    """What SIGINT, SIGTERM and SIGHUP do: the first one raises :class:`KeyboardInterrupt`, the others :class:`Terminated`; all is tidied.

    Another within a second is the same one come twice, and changes nothing of what the first began; a later SIGTERM ends the process. A
    SIGHUP never does: a terminal's end sends several, as far apart as its shell takes.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        #: the last ending signal that was heard, if any
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def begin(self) -> None:
        """Listen, where this is the main thread; what is ignored stays so: a SIGINT in a shell's background, a SIGHUP under nohup."""
        with contextlib.suppress(ValueError):
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._heard)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._heard)
            if heeded(signal.SIGHUP):
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._heard)

    def end(self) -> None:
        """Whatever was done before is done again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, _: object) -> None:
        now = time.monotonic()
        self.number = number
        if number == signal.SIGHUP:
            leave_terminal()
        if self._first is None or (number == signal.SIGINT and now - self._first > SAME_SIGNAL):
            self._first = now
            raise interrupt_of(number)
        if number == signal.SIGTERM and now - self._first > SAME_SIGNAL:
            os.write(2, b"secondsight: terminated at once\n")
            os._exit(128 + number)

    def once_more(self, lost: Any) -> None:
        """An interrupt that arrives while LLVM calls back into Python is printed there and dropped: send it once more, a moment later."""
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        self._first = None
        number = lost.exc_value.number if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        again = threading.Timer(0.1, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
