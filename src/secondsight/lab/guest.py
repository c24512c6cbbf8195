"""A guest while it runs: the line to its program, its console, and how it can die.

The emulator's serial ports and terminal are watched in one place, ``receive``; nothing runs in the background, so
whoever wants the guest to get on calls ``receive``.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from secondsight.errors import SecondSightError
from secondsight.lab import wire

__all__ = ["Guest", "GuestDied"]

# What the kernel prints when it is lost. `oops=panic` makes the first three end in the fourth.
LOST = re.compile(
    rb"Kernel panic|Oops:|general protection fault|BUG: unable to handle|kernel BUG at|soft lockup"
)


INIT_FAILED = 97
"""The status with which the guest's /init gives up; its last words on the console begin with ``init:``."""


STOPPED_AFTER = 60.0
"""Seconds in which an emulator that is always busy uses some CPU time, be the machine as loaded as it will: a hundredth of them."""


class GuestDied(SecondSightError):
    """The guest crashed, hung or fell silent; ``console`` is what it had printed, ``why`` the reason.

    ``status`` is the exit status of its program where that is the reason.
    """

    def __init__(self, why: str, console: str, *, status: int | None = None, lines: int = 15) -> None:
        self.why, self.console, self.status = why, console, status
        tail = console.rstrip().splitlines()[-lines:] if lines else []
        self._lines = [f"the guest died: {why}" + ("; its console ended with" if tail else "")]
        self._lines += [f"  | {line}" for line in tail]
        super().__init__("\n".join(self._lines))

    def lines(self) -> list[str]:
        """What happened, and below it the end of the console."""
        return self._lines


class Guest:
    """A running guest: values to and from its program, and its console."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        folder: Path,
        *,
        listener: socket.socket,
        console: int,
        screen: int | None = None,
        busy: bool = False,
    ) -> None:
        """*process*: the emulator, a session's leader; *folder*: the run's own; *listener*: where its line connects.

        *console* and *screen* are descriptors to read: the first serial port, and the terminal it draws on. *busy*: an emulator that
        uses no CPU time for :data:`STOPPED_AFTER` has stopped (Bochs 2.7 deadlocks now and then, and would be waited for in vain).
        """
        self._cpu = (time.monotonic(), 0.0) if busy else None
        self._process, self._listener, self._console_fd = process, listener, console
        self._text = bytearray()
        self._lost: float | None = None
        self._rest = b""
        self._lines: list[bytes] = []
        self._line: socket.socket | None = None
        self._outgoing = bytearray()
        self._status: int | None = None
        self.on_console: Callable[[str], None] | None = None
        """Called with what the guest prints, as it comes."""
        self.folder = folder
        self.started = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(console, selectors.EVENT_READ, self._read_console)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        if screen is not None:  # a terminal that nobody reads would stop the emulator
            self._screen_fd = screen
            self._selector.register(screen, selectors.EVENT_READ, self._read_screen)

    @property
    def console(self) -> str:
        """All that the guest has printed so far."""
        return self._text.decode(errors="replace").replace("\r\n", "\n")

    @property
    def qmp_socket(self) -> Path:
        """Where QEMU's control socket is, when booted with ``qmp=True``."""
        return self.folder / "qmp.sock"

    def send(self, value: object) -> None:
        """Queue *value* for the program; it is delivered while ``receive`` waits."""
        self._outgoing += wire.encode(value)
        self._watch_line()

    def receive(self, timeout: float = 60.0) -> Any:
        """The program's next value, or None once it has ended well (so a program should send no ``null``).

        *timeout* is in seconds of silence of the program.

        :raises GuestDied: the kernel is lost, the program fails, the emulator ends early, or nothing comes in *timeout*.
        """
        deadline = time.monotonic() + timeout
        while True:
            while self._lines:
                line = self._lines.pop(0)
                try:
                    value = wire.decode(line)
                except ValueError:
                    raise GuestDied(f"the line from it is garbled: {line[:60]!r}", self.console) from None
                if isinstance(value, dict) and value.keys() == {"exit"}:
                    self._status = int(value["exit"])
                    # Wait for the rest of the console; power-off may take longer.
                    deadline = time.monotonic() + 1.0
                    continue
                return value
            ended = self._process.poll() is not None
            left = deadline - time.monotonic()
            if ended:
                self._drain()
                if self._lines:
                    continue
            if self._status is not None and (ended or left <= 0):
                if self._status == 0:
                    return None
                if self._status == INIT_FAILED and (
                    init_messages := re.findall(r"^init: (.*)$", self.console, re.M)
                ):
                    modules = re.findall(r"^insmod: (.*)$", self.console, re.M)
                    why = "; ".join([init_messages[-1], *modules])
                    raise GuestDied(why, self.console, status=self._status, lines=0)
                why = f"its program ended with status {self._status}"
                raise GuestDied(why, self.console, status=self._status)
            # A lost kernel is given half a second to print its trace.
            if self._lost is not None and (ended or time.monotonic() > self._lost):
                raise GuestDied(f"its kernel is lost: {self._cause()}", self.console)
            if ended:
                raise GuestDied(f"the emulator ended ({_ending(self._process.returncode)})", self.console)
            if left <= 0:
                raise GuestDied(f"nothing came from it for {timeout:.0f} s", self.console)
            if self._stopped():
                raise GuestDied(
                    f"the emulator has stopped: no CPU time in {STOPPED_AFTER:.0f} s", self.console
                )
            self._wait(min(left, 0.1))

    def _stopped(self) -> bool:
        """Whether a busy emulator has used next to no CPU time since :data:`STOPPED_AFTER` ago."""
        if self._cpu is None:
            return False
        since, before = self._cpu
        if (now := time.monotonic()) - since < STOPPED_AFTER:
            return False
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            return False
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self._cpu = (now, used)
        return used - before < STOPPED_AFTER / 100

    def __iter__(self) -> Iterator[Any]:
        """The program's values until it ends.

        :raises GuestDied: as ``receive``.
        """
        while (value := self.receive()) is not None:
            yield value

    def _cause(self) -> str:
        """The line with which the kernel first said that it was lost."""
        line = next((line for line in self.console.splitlines() if LOST.search(line.encode())), "")
        return re.sub(r"^\[ *[\d.]+\] ", "", line)

    def _wait(self, seconds: float) -> bool:
        ready = self._selector.select(seconds)
        for key, mask in ready:
            key.data(mask)
        return bool(ready)

    def _drain(self) -> None:
        while self._selector.get_map() and self._wait(0):
            pass

    def _accept(self, mask: int) -> None:
        self._line, _ = self._listener.accept()
        self._line.setblocking(False)
        self._selector.unregister(self._listener)
        self._selector.register(self._line, selectors.EVENT_READ, self._exchange)
        self._watch_line()

    def _watch_line(self) -> None:
        if self._line is not None and self._line.fileno() in self._selector.get_map():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
            self._selector.modify(self._line, events, self._exchange)

    def _exchange(self, mask: int) -> None:
        assert self._line is not None
        try:
            if mask & selectors.EVENT_WRITE and self._outgoing:
                del self._outgoing[: self._line.send(self._outgoing)]
                self._watch_line()
            data = self._line.recv(1 << 16) if mask & selectors.EVENT_READ else None
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data == b"":
            self._selector.unregister(self._line)
        elif data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines += [line for line in lines if line.strip()]

    def _read_console(self, _: int) -> None:
        try:
            data = os.read(self._console_fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:  # every writer has gone
            self._selector.unregister(self._console_fd)
            return
        seen = max(0, len(self._text) - 64)
        self._text += data
        if self.on_console:
            self.on_console(data.decode(errors="replace").replace("\r", ""))
        if self._lost is None and LOST.search(self._text, seen):
            self._lost = time.monotonic() + 0.5

    def _read_screen(self, _: int) -> None:
        try:
            data = os.read(self._screen_fd, 1 << 16)
        except OSError:  # EIO: the emulator has closed its side
            data = b""
        if not data:
            self._selector.unregister(self._screen_fd)

    def _close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._selector.close()
        if self._line is not None:
            self._line.close()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
