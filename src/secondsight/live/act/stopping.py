"""Ending on SIGINT, SIGTERM or SIGHUP at a place of our choosing, so that nothing is left half done."""

from __future__ import annotations

import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Any

from secondsight.signals import ENDING, SAME_SIGNAL, heeded, interrupt_of, leave_terminal


class Stopping:
    """While entered, SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process; one more than a second later ends it.

    Sooner it is the first one come twice (:data:`SAME_SIGNAL`), and so is a SIGHUP at any time.

    :meth:`wait` sleeps and wakes at once when one arrives.
    """

    def __init__(self) -> None:
        self.asked = False
        #: the signal that asked, if any
        self.number: int | None = None
        self._heard_at = 0.0
        self._before: dict[int, Any] = {}
        self._read, self._write = -1, -1

    def __enter__(self) -> Stopping:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in filter(heeded, ENDING):
            self._before[number] = signal.signal(number, self._heard)
        return self

    def _heard(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGHUP:
            leave_terminal()
        if self.asked:
            if number != signal.SIGHUP and now - self._heard_at > SAME_SIGNAL:
                raise interrupt_of(number)
            return
        self.asked, self.number, self._heard_at = True, number, now
        os.write(self._write, b"!")

    def wait(self, seconds: float) -> bool:
        """Sleep *seconds*; True if we were asked to stop."""
        if not self.asked:
            select.select([self._read], [], [], max(seconds, 0))
        return self.asked

    def require_not_asked(self) -> None:
        """Let what was to come to an end by itself, and was cut short, end as every command that a signal ends.

        :raises KeyboardInterrupt: we were asked to stop; Terminated by another signal than SIGINT.
        """
        if self.number is not None:
            raise interrupt_of(self.number)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)
