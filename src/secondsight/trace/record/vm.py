"""Recording a VM: QEMU's TCG with a plugin of ours (``plugin/guestmem.c``) that streams every guest access to us.

The plugin is built on first use with the machine's C compiler into the user's cache. Rows come through a pipe,
already aggregated in C when a quantum is asked for; a slow reader slows the VM and loses nothing. The plugin's
last words are its totals, and they must agree with what arrived.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np

from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import is_known
from secondsight.trace.provenance import Clock, Provenance
from secondsight.trace.record.child import ends_with_us
from secondsight.trace.recording import Recording

#: What each clock counts.
CLOCKS: Final[dict[str, str]] = {
    "instructions": "instructions retired by all vCPUs together, one ns each; halted time does not pass",
    "wall": "time on the machine that recorded, from the VM's first instruction on; halted time passes",
}
UNSEEN: Final = ["page walks", "DMA and other accesses of devices"]
DEFAULT_QEMU: Final = "qemu-system-x86_64"
MOST_QUANTUM: Final = (
    1 << 31
)  # of instructions, so that a count of 32 bits cannot overflow; by the wall clock the plugin sees to that
ROW: Final = np.dtype(
    [("time", "<u8"), ("address", "<u8"), ("count", "<u4"), ("kind", "u1"), ("pad", "u1", 3)]
)
TOTALS: Final = 0xFF
_READ: Final = 1 << 20
_DEFAULT_RAM: Final = 128 << 20  # what QEMU gives a PC without -m
_UNITS: Final = {"": 1 << 20, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# QEMU's releases and the plugin API that each still accepts (QEMU_PLUGIN_MIN_VERSION .. QEMU_PLUGIN_VERSION).
_API: Final = (((10, 0), 4), ((9, 0), 2), ((8, 2), 2), ((0, 0), 1))

Report = Callable[[int, int, int], None]  # accesses so far, rows so far, spaces


def build_plugin(api: int) -> Path:
    """The plugin for QEMU's plugin API version *api*, built if it is not in the cache yet.

    :raises MissingDependency: without a C compiler.
    :raises SecondSightError: it fails.
    """
    source = resources.files("secondsight.trace.record").joinpath("plugin", "guestmem.c").read_bytes()
    name = f"guestmem-{api}-{hashlib.sha256(source).hexdigest()[:16]}.so"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "secondsight"
    built = cache / name
    if built.exists():
        return built
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingDependency(
            "recording builds a small plugin and needs a C compiler (Debian: apt install gcc libc6-dev)"
        )
    cache.mkdir(parents=True, exist_ok=True)
    temporary = cache / f".{name}.{os.getpid()}"
    flags = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-DPLUGIN_VERSION={api}", "-xc", "-"]
    try:
        done = subprocess.run(
            [*shlex.split(compiler), *flags, "-o", str(temporary)],
            input=source,
            capture_output=True,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise MissingDependency(
            f"recording builds a small plugin, and $CC ({compiler}) cannot be run: {error}"
        ) from None
    if done.returncode:
        temporary.unlink(missing_ok=True)
        messages = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SecondSightError(
            f"{compiler} cannot build the plugin: {messages[0] if messages else 'no message'}"
        )
    temporary.replace(built)
    return built


def api_of(version: tuple[int, int]) -> int:
    """The plugin API to build for, by QEMU's *version*."""
    return next(api for since, api in _API if version >= since)


def qemu_version(program: str, package: str = "qemu-system-x86") -> tuple[int, int]:
    """Major and minor version of the QEMU *program*, which Debian's *package* has.

    :raises MissingDependency: it is not there or no QEMU.
    """
    if shutil.which(program) is None:
        raise MissingDependency(
            f"recording needs {program}, which is not installed (Debian: apt install {package})"
        )
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(?:QEMU emulator|qemu-\w+) version (\d+)\.(\d+)", output)
    if match is None:
        raise MissingDependency(f"{program} does not say that it is a QEMU emulator")
    return int(match[1]), int(match[2])


def ram_bytes(arguments: Sequence[str]) -> int:
    """The guest's memory by QEMU's own *arguments* (``-m 2G``, ``-m size=512M,slots=2``), 128 MiB without.

    :raises UsageError: a size that QEMU would not take either.
    """
    size = _DEFAULT_RAM
    for option, value in zip(arguments, arguments[1:], strict=False):
        if option in ("-m", "--m"):
            text = value.split(",")[0].removeprefix("size=").lower()
            match = re.fullmatch(r"(\d+)([bkmgt]?)", text)
            if match is None or int(match[1]) == 0:
                raise UsageError(f"-m {value}: expected a size like 512M or 2G")
            size = int(match[1]) * _UNITS[match[2]]
    return size


def _checked(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split the QEMU program from its arguments, and refuse accelerators that run the guest without TCG."""
    rest = list(arguments)
    program = rest.pop(0) if rest and not rest[0].startswith("-") else DEFAULT_QEMU
    asked = " ".join(rest)
    if re.search(r"(^| )--?enable-kvm( |$)|accel[= ](kvm|hvf|whpx|xen)", asked):
        raise UsageError(
            "record vm sees accesses only under TCG; leave the accelerator out or say -accel tcg"
        )
    return program, rest


def record_vm(
    path: str | os.PathLike[str],
    arguments: Sequence[str],
    *,
    quantum: int = 0,
    clock: str = "instructions",
    virtual: bool = False,
    report: Report | None = None,
    stdin: int | None = None,
    command_line: Sequence[str] | None = None,
) -> tuple[Provenance, int]:
    """Run QEMU with *arguments* and write the trace *path*; returns its provenance and QEMU's exit code, 0 where we ended it.

    *arguments* may begin with the QEMU program. *quantum* in ns of the *clock*, that is instructions or real ones; 0: every access.
    *command_line*: the command that the provenance names, where *arguments* hold paths of this machine.
    *virtual*: guest-virtual addresses, of all the guest's processes mixed, instead of guest-physical ones. Ctrl-C ends
    the VM and keeps what was recorded.

    :raises MissingDependency: QEMU or a C compiler is not there, or QEMU takes no plugins.
    :raises UsageError: a clock or a quantum that there is not, an accelerator, a size of RAM that QEMU would not take.
    :raises SecondSightError: the guest accessed no memory, or the plugin's stream is damaged.
    :raises KeyboardInterrupt: it had accessed none when that came.
    """
    if clock not in CLOCKS:
        raise UsageError(f"--clock {clock}: there are {' and '.join(CLOCKS)}")
    if quantum < 0 or (clock == "instructions" and quantum >= MOST_QUANTUM):
        raise UsageError(f"a quantum of {quantum} ns: expected 0 to {MOST_QUANTUM - 1}, or --clock wall")
    Recording.check(path)
    program, rest = _checked(arguments)
    version = qemu_version(program)
    ram = ram_bytes(rest)
    high = version >= (8, 0)
    plugin = build_plugin(api_of(version))
    start = Provenance(
        source="record-vm",
        command=list(command_line or (program, *rest)),
        clock=Clock(meaning=CLOCKS[clock]),
        unseen=list(UNSEEN),
        quantum=quantum,
    )
    recording = Recording(path, start)
    intake = Intake(recording, 0)  # the plugin aggregates
    intake.update(quantum=quantum)
    if virtual:
        intake.add_space("guest-virtual addresses of every process of the VM", "process")
    else:
        intake.add_space("vm", "vm")
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _READ)
    settings = f"fd={theirs},quantum={quantum},ram={ram},high={int(high)},virtual={int(virtual)},wall={int(clock == 'wall')}"
    command = [program, *rest, "-plugin", f"file={plugin},{settings}"]
    with recording:
        process = subprocess.Popen(ends_with_us(command), pass_fds=[theirs], stdin=stdin)
        os.close(theirs)
        stream = PluginStream(ours, intake, report)
        notes = []
        interrupt: KeyboardInterrupt | None = None
        try:
            stream.follow()
        except KeyboardInterrupt as asked:
            interrupt = asked
            notes.append("interrupted; holds what was recorded until then")
            process.send_signal(signal.SIGTERM)
            stream.follow()
        finally:
            os.close(ours)
            if process.poll() is None:
                process.terminate()
            process.wait()
        if not recording.rows:
            if interrupt is not None:
                raise interrupt
            raise SecondSightError(
                f"{program} ended with code {process.returncode} before the guest accessed any memory"
            )
        stream.account(notes)
        if not high and not virtual:
            notes.append(
                "QEMU before 8: RAM above the PCI hole has the addresses right behind the RAM below it"
            )
        code = process.returncode if interrupt is None else 0
        return intake.close(notes=notes, unseen=[*UNSEEN, *stream.unseen]), code


class PluginStream:
    """The plugin's rows from the pipe *fd* into *intake*, and its totals."""

    def __init__(self, fd: int, intake: Intake, report: Report | None) -> None:
        self.fd, self.intake, self.report = fd, intake, report
        self.accesses = 0
        self.totals: list[tuple[int, int, int]] = []
        self.unseen: list[str] = []
        self._rest = b""

    def follow(self) -> None:
        """Read until QEMU closes the pipe."""
        while data := os.read(self.fd, _READ):
            data = self._rest + data
            whole = len(data) // ROW.itemsize * ROW.itemsize
            self._rest = data[whole:]
            rows = np.frombuffer(data, ROW, whole // ROW.itemsize)
            if (last := rows["kind"] == TOTALS).any():
                self.totals += [(int(r["time"]), int(r["address"]), int(r["count"])) for r in rows[last]]
                rows = rows[~last]
            if not all(map(is_known, np.unique(rows["kind"]).tolist())):
                raise SecondSightError("the plugin sent a row of an unknown kind: its stream is damaged")
            self.accesses += int(rows["count"].sum(dtype=np.uint64))
            self.intake.append(rows["time"], 0, rows["address"], rows["kind"], rows["count"])
            self.intake.flush()
            if self.report is not None:
                self.report(self.accesses, self.intake.sink.rows, 1)

    def account(self, notes: list[str]) -> None:
        """Compare the plugin's totals with what arrived, and say what is missing."""
        if len(self.totals) != 2:
            notes.append(
                "QEMU ended without the plugin's totals: accesses of its last moments are missing, uncounted"
            )
            return
        (seen, unwritten, fetches_lost), (elsewhere, io, _) = self.totals
        self.intake.drop("accesses lost to a failed write", unwritten)
        self.intake.drop("accesses lost in the stream", seen - unwritten - self.accesses)
        self.intake.drop("accesses to memory that is not RAM (firmware, video)", elsewhere)
        self.intake.drop("accesses to device registers", io)
        if fetches_lost:
            self.unseen.append("instruction fetches: the guest's RAM was not found in QEMU's mappings")
