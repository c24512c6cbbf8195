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
import copy
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from secondsight.errors import MissingDependency
from secondsight.lab import initramfs
from secondsight.lab.guest import INIT_FAILED, Guest, GuestDied
from secondsight.lab.kernels import Kernel, Say, cache_dir
from secondsight.mm.config import Mmu

COMMAND_LINE = (
    "console=ttyS0,115200 quiet loglevel=4 panic=-1 oops=panic "  # an oops ends the run
    "no_hash_pointers "  # tracepoints then say which mm they speak of
    "no_timer_check "  # on a busy machine an emulator's timer fails the boot's test of it, and the kernel panics
    "damon_stat.enabled=0 "  # Debian's 7.x: DAMON_STAT moves accessed bits of random pages
    "transparent_hugepage=madvise "  # nothing is registered with khugepaged that did not ask for it, nor what it forks
    "cryptomgr.notests=1 mitigations=off audit=0 apparmor=0 random.trust_cpu=on"  # two seconds of the boot
)
_NUMBERS = {"Y": "1", "N": "0"}


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

    terminal: bool
    """Whether it will not run without a terminal of its own."""

    def missing(self) -> str | None:
        """What has to be installed before it runs, or None."""

    def command(self, launch: Launch, machine: Machine) -> list[str]:
        """The command that boots *launch*; may write files of its own into ``launch.folder``."""


class Limits(NamedTuple):
    """What an emulator cannot do: *slow* is how many times slower than QEMU it boots, *most_mib* the most memory it can have.

    *busy*: it computes while the guest is halted, too, so that one which does not has stopped for good.
    """

    slow: float = 1.0
    most_mib: int = 1 << 20
    busy: bool = False


class Machine:
    """An emulator, a CPU and the parameters that give KVM one kind of secondary MMU.

    *name* is what ``--mmu`` says, *mmu* the model's word for what KVM has there, *about* one line for people. *modules* maps each module
    to load, dependencies left out, to its parameters; *check* maps files of the guest's sysfs to what they must hold, so that a kernel
    which ignores a parameter cannot pass for another machine. *cpus*: its processors; *nodes*: its NUMA nodes, the processors on the first.
    """

    def __init__(
        self, name: Mmu, about: str, emulator: Emulator, *, cpu: str, modules: Mapping[str, str],
        check: Mapping[str, str], append: str = "", limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.name: str = name
        self.about, self.emulator, self.cpu = about, emulator, cpu
        self.modules, self.check, self.append = dict(modules), dict(check), append
        self.slow, self.most_mib, self.busy = limits or Limits()
        self.mmu, self.cpus, self.nodes = name, 1, 1

    def with_cpus(self, cpus: int) -> Machine:
        """The same machine with *cpus* processors, as ``NAME-Ncpu``."""
        other = copy.copy(self)
        other.name, other.about, other.cpus = (
            f"{self.name}-{cpus}cpu",
            f"{self.about}, {cpus} processors",
            cpus,
        )
        return other

    def with_nodes(self, nodes: int) -> Machine:
        """The same machine with *nodes* NUMA nodes, as ``NAME-numa``."""
        other = copy.copy(self)
        other.name, other.about, other.nodes = f"{self.name}-numa", f"{self.about}, {nodes} NUMA nodes", nodes
        return other

    def ready(self) -> None:
        """Raise MissingDependency when the emulator or a part of the guest's root is not installed."""
        if (what := self.emulator.missing()) is not None:
            raise MissingDependency(f"machine {self.name} needs {what}")
        initramfs.ready()

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
        to the kernel's command line.

        :raises MissingDependency: as ``ready``.
        """
        self.ready()
        bases = initramfs.build(kernel, cache, say)
        loads = {name: self.modules.get(name, "") for name in kernel.load_order(*self.modules)}
        top = initramfs.overlay({"/init": init_script(loads, self.check, main).encode(), **files})
        # A module that is built in takes its parameters from here; one that is not listed by the archive is checked by the kernel.
        options = " ".join(
            f"{name.replace('-', '_')}.{option}"
            for name, text in self.modules.items()
            for option in text.split()
        )
        enforce = "module.sig_enforce=1" if kernel.checks else ""
        line = " ".join(f"{COMMAND_LINE} {options} {enforce} {self.append} {append}".split())
        memory_mib = min(memory_mib, self.most_mib)
        return running(self, cache or cache_dir(), kernel, [*bases, top], line, memory_mib, qmp)


@contextlib.contextmanager
def running(
    machine: Machine,
    cache: Path,
    kernel: Kernel,
    parts: list[Path | bytes],
    append: str,
    memory_mib: int,
    qmp: bool,
) -> Iterator[Guest]:
    """A guest of *machine*: *kernel* with the initramfs *parts*, told *append*, from its start to its end; see :meth:`Machine.boot`."""
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
        screen, terminal = os.openpty() if machine.emulator.terminal else (None, None)
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *machine.emulator.command(launch, machine)],
            stdin=terminal if terminal is not None else subprocess.DEVNULL,
            stdout=terminal if terminal is not None else log,
            stderr=log, pass_fds=launch.files, start_new_session=True, env={**os.environ, "TERM": "linux"},
        )  # fmt: skip
        if terminal is not None and screen is not None:
            os.close(terminal)
            stack.callback(os.close, screen)
        guest = Guest(process, folder, listener=listener, console=console, screen=screen, busy=machine.busy)
        try:
            yield guest
        except GuestDied as death:
            log_text = (folder / "emulator.log").read_text(errors="replace").strip()
            if not death.console.strip() and log_text:
                raise GuestDied(f"{death.why}: {log_text.splitlines()[-1]}", "") from None
            raise
        finally:
            guest._close()


def init_script(modules: Mapping[str, str], check: Mapping[str, str], main: Sequence[str]) -> str:
    """``/init``: mount, load *modules* (name → parameters) in order, check the MMU, run *main*, power off.

    ``/dev/ram0`` becomes swap and ``/dev/ram1`` is left for direct I/O (both brd, memory only when used).
    """
    loads = "\n".join(f"insmod /mod/{name}.ko {options}".rstrip() for name, options in modules.items())
    # A parameter that is an integer in some kernels (kvm_amd's npt before 5.13) reads 1 or 0.
    checks = "\n".join(
        f'case "$(cat {path} 2>/dev/null)" in {value}|{_NUMBERS.get(value, value)}) ;; '
        f'*) fail "{path} holds $(cat {path} 2>&1), not {value}" ;; esac'
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
fail() {{ echo "init: $1"; finish {INIT_FAILED}; sleep 60; }}
{loads}
[ -e /dev/kvm ] || fail "this kernel has no KVM for this machine (CONFIG_KVM_AMD, CONFIG_KVM_INTEL); a kernel given by its path \\
needs its modules: --modules DIR"
{checks}
[ -b /dev/ram0 ] && mkswap /dev/ram0 >/dev/null && swapon /dev/ram0
python3 -S {arguments} 9>&-
finish $?
"""
