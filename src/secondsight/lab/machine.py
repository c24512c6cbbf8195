"""Machines: an emulator, the kernel it boots, and the line to the program that runs in the guest.

    machines["npt"].boot(kernel, files, main=[...]) ──▶ Guest
         host                                      guest
      Guest.send / receive  ◀── wire (JSON lines) ──▶  /dev/lab      the program's requests and answers
      Guest.console         ◀──────── text ─────────   ttyS0         what the kernel and the program print

A machine is data (which emulator and which MMU) and one method, ``command``. Whatever happens, no guest
outlives its run: the emulator is in a session of its own, the kernel kills it when the process that started
it is gone (``PR_SET_PDEATHSIG``), and leaving the ``with`` block kills it too. Large inputs live in memory
files, so even a run that is killed leaves nothing but an empty folder behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from secondsight.errors import MissingPart, SecondSightError, UsageError
from secondsight.lab import initramfs, wire
from secondsight.lab.kernels import Kernel, Say, cache_dir

__all__ = ["Emulator", "Guest", "GuestDied", "Launch", "Machine", "machine", "machines"]

COMMAND_LINE = (
    "console=ttyS0,115200 quiet loglevel=4 panic=-1 oops=panic "  # an oops ends the run
    "no_hash_pointers "  # tracepoints then say which mm they speak of
    "damon_stat.enabled=0 "  # Debian's 7.x: DAMON_STAT moves accessed bits of random pages
    "mitigations=off audit=0 apparmor=0 random.trust_cpu=on"  # a second of the boot
)

# What the kernel prints when it is lost. `oops=panic` makes the first three end in the fourth.
LOST = re.compile(
    rb"Kernel panic|Oops:|general protection fault|BUG: unable to handle|kernel BUG at|soft lockup"
)


class GuestDied(SecondSightError):
    """The guest crashed, hung or fell silent; ``console`` is what it had printed, ``why`` the reason.

    ``status`` is the exit status of its program where that is the reason.
    """

    def __init__(self, why: str, console: str, *, status: int | None = None, lines: int = 15) -> None:
        self.why, self.console, self.status = why, console, status
        tail = "\n".join(f"  | {line}" for line in console.rstrip().splitlines()[-lines:])
        super().__init__(f"the guest died: {why}" + (f"; its console ended with\n{tail}" if tail else ""))


class Launch:
    """What an emulator is given for one run.

    *folder*: a private folder; *cache*: the user's; *kernel*: the kernel; *initrd*: path of the whole
    initramfs; *append*: the kernel's command line; *memory_mib*; *console*: a FIFO to write the first serial
    port to; *listener*: a listening socket (AF_UNIX at ``folder/lab.sock``, or AF_INET) to which the second
    port connects; *qmp*: a control socket is asked for.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        kernel: Kernel,
        append: str,
        memory_mib: int,
        listener: socket.socket,
        qmp: bool,
    ) -> None:
        self.folder, self.cache, self.kernel, self.append = folder, cache, kernel, append
        self.memory_mib, self.listener, self.qmp = memory_mib, listener, qmp
        self.console = folder / "console"
        self.initrd = ""
        self.files: list[int] = []
        """Descriptors that the emulator inherits (``/proc/self/fd/N``)."""

    def memory_file(self, *parts: bytes | Path) -> str:
        """A file in memory holding *parts* end to end, as a path that the emulator can open."""
        descriptor = os.memfd_create("secondsight", 0)
        self.files.append(descriptor)
        with os.fdopen(descriptor, "wb", closefd=False) as out:
            for part in parts:
                if isinstance(part, bytes):
                    out.write(part)
                else:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
        return f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        """Let go of the memory files."""
        while self.files:
            os.close(self.files.pop())


class Emulator(Protocol):
    """How one kind of emulator is started."""

    family: socket.AddressFamily
    """``socket.AF_UNIX`` or ``socket.AF_INET``: what its second serial port can connect to."""

    def missing(self) -> str | None:
        """What has to be installed before it runs, or None."""

    def command(self, launch: Launch, machine: Machine) -> list[str]:
        """The command that boots *launch*; may write files of its own into ``launch.folder``."""


class Machine:
    """An emulator, a CPU and the parameters that give KVM one kind of secondary MMU.

    *name* is what ``--mmu`` says; *about* one line for people; *modules* maps each module to load,
    dependencies left out, to its parameters; *check* maps files of the guest's sysfs to what they must hold,
    so that a kernel which ignores a parameter cannot pass for another machine; *slow* is how many times
    slower than QEMU it boots.
    """

    def __init__(
        self, name: str, about: str, emulator: Emulator, *, cpu: str, modules: Mapping[str, str],
        check: Mapping[str, str], slow: float = 1.0, append: str = "",
    ) -> None:  # fmt: skip
        self.name, self.about, self.emulator, self.cpu = name, about, emulator, cpu
        self.modules, self.check, self.slow, self.append = dict(modules), dict(check), slow, append

    def boot(
        self,
        kernel: Kernel,
        files: Mapping[str, bytes | Path],
        *,
        main: Sequence[str] = ("-m", "secondsight.lab.agent"),
        memory_mib: int = 1024,
        append: str = "",
        qmp: bool = False,
        cache: Path | None = None,
        say: Say = lambda text: None,
    ) -> contextlib.AbstractContextManager[Guest]:
        """Boot *kernel* with *files* laid over the base, run Python with arguments *main*, power off.

        Returns a context manager that yields the ``Guest`` at once, before it has booted. *append* is added
        to the kernel's command line. Raises MissingPart when the emulator or a part of the guest's root is
        not installed.
        """
        if (what := self.emulator.missing()) is not None:
            raise MissingPart(f"machine {self.name} needs {what}")
        bases = initramfs.build(kernel, cache, say)
        loads = {name: self.modules.get(name, "") for name in kernel.load_order(*self.modules)}
        top = initramfs.overlay({"/init": init_script(loads, self.check, main).encode(), **files})
        line = " ".join(f"{COMMAND_LINE} {self.append} {append}".split())
        return _running(self, cache or cache_dir(), kernel, [*bases, top], line, memory_mib, qmp)


class Guest:
    """A running guest: values to and from its program, and its console."""

    def __init__(self, process: subprocess.Popen[bytes], launch: Launch, console: int) -> None:
        self._process, self._launch, self._console_fd = process, launch, console
        self._text = bytearray()
        self._lost: float | None = None
        self._rest = b""
        self._lines: list[bytes] = []
        self._line: socket.socket | None = None
        self._outgoing = bytearray()
        self._status: int | None = None
        self.on_console: Callable[[str], None] | None = None
        """Called with what the guest prints, as it comes."""
        self.folder = launch.folder
        self.started = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(console, selectors.EVENT_READ, self._read_console)
        self._selector.register(launch.listener, selectors.EVENT_READ, self._accept)

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
        """The program's next value, or None once it has ended well and the guest has powered off.

        *timeout* is in seconds of silence of the program. Raises GuestDied when the kernel is lost, the
        program fails, the emulator ends early, or nothing comes in *timeout*.
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
                    continue
                return value
            if self._process.poll() is not None:
                self._drain()
                if self._lines:
                    continue
                if self._status == 0:
                    return None
                if self._status is not None:
                    raise GuestDied(
                        f"its program ended with status {self._status}", self.console, status=self._status
                    )
                raise GuestDied(f"the emulator ended ({_ending(self._process.returncode)})", self.console)
            # A lost kernel is given half a second to print its trace.
            if self._lost is not None and time.monotonic() > self._lost:
                raise GuestDied("its kernel is lost", self.console)
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestDied(f"nothing came from it for {timeout:.0f} s", self.console)
            self._wait(min(left, 0.1))

    def __iter__(self) -> Iterator[Any]:
        """The program's values until it ends; raises as ``receive`` does."""
        while (value := self.receive()) is not None:
            yield value

    def _wait(self, seconds: float) -> bool:
        ready = self._selector.select(seconds)
        for key, mask in ready:
            key.data(mask)
        return bool(ready)

    def _drain(self) -> None:
        while self._selector.get_map() and self._wait(0):
            pass

    def _accept(self, _: int) -> None:
        self._line, _peer = self._launch.listener.accept()
        self._line.setblocking(False)
        self._selector.unregister(self._launch.listener)
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

    def _close(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._selector.close()
        if self._line is not None:
            self._line.close()


@contextlib.contextmanager
def _running(
    machine: Machine,
    cache: Path,
    kernel: Kernel,
    parts: list[Path | bytes],
    append: str,
    memory_mib: int,
    qmp: bool,
) -> Iterator[Guest]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secondsight-lab-")))
        listener = stack.enter_context(socket.socket(machine.emulator.family))
        listener.bind(
            str(folder / "lab.sock") if machine.emulator.family == socket.AF_UNIX else ("127.0.0.1", 0)
        )
        listener.listen(1)
        launch = Launch(folder, cache, kernel, append, memory_mib, listener, qmp)
        stack.callback(launch.close)
        launch.initrd = launch.memory_file(*parts)
        os.mkfifo(launch.console)
        console = os.open(launch.console, os.O_RDONLY | os.O_NONBLOCK)
        stack.callback(os.close, console)
        # The FIFO needs a writer until the emulator has opened it, or reading it would say "ended".
        keep = os.open(launch.console, os.O_WRONLY)
        stack.callback(os.close, keep)
        log = stack.enter_context((folder / "emulator.log").open("wb"))
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *machine.emulator.command(launch, machine)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=launch.files, start_new_session=True,
        )  # fmt: skip
        guest = Guest(process, launch, console)
        try:
            yield guest
        except GuestDied as death:
            said = (folder / "emulator.log").read_text(errors="replace").strip()
            if not death.console.strip() and said:
                raise GuestDied(f"{death.why}: {said.splitlines()[-1]}", "") from None
            raise
        finally:
            guest._close()


def init_script(modules: Mapping[str, str], check: Mapping[str, str], main: Sequence[str]) -> str:
    """``/init``: mount, load *modules* (name → parameters) in order, check the MMU, run *main*, power off.

    ``/dev/ram0`` becomes swap and ``/dev/ram1`` is left for direct I/O (both brd, memory only when used).
    """
    loads = "\n".join(f"insmod /mod/{name}.ko {options}".rstrip() for name, options in modules.items())
    checks = "\n".join(
        f'[ "$(cat {path} 2>/dev/null)" = "{value}" ] || fail "{path} holds $(cat {path} 2>&1), not {value}"'
        for path, value in check.items()
    )
    exports = "\n".join(f"export {name}={value}" for name, value in initramfs.PYTHON.items())
    arguments = " ".join("'" + word.replace("'", "'\\''") + "'" for word in main)
    return f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /dev/shm /cgroup
mount -t tmpfs shm /dev/shm
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup /sys/fs/cgroup
{exports}
[ -e /dev/lab ] || ln -s ttyS1 /dev/lab
exec 9<>/dev/lab
stty raw -echo <&9
finish() {{ echo "{{\\"exit\\":$1}}" >&9; sleep 0.1; poweroff -f; }}
fail() {{ echo "init: $1"; finish 97; sleep 60; }}
{loads}
{checks}
[ -b /dev/ram0 ] && mkswap /dev/ram0 >/dev/null && swapon /dev/ram0
python3 -S {arguments} 9>&-
finish $?
"""


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"


def machines() -> dict[str, Machine]:
    """Every machine by name, in the order in which they are listed to people."""
    from secondsight.lab import qemu

    return {machine.name: machine for machine in qemu.MACHINES}


def machine(name: str) -> Machine:
    """The machine called *name*. Raises UsageError for a name that there is not."""
    known = machines()
    if name not in known:
        raise UsageError(f"no machine is called {name!r}; known are {', '.join(known)}")
    return known[name]
