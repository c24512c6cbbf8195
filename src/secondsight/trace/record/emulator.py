"""Recording a program under QEMU's user-mode emulation, with the plugin that records VMs (``plugin/guestmem.c``).

Each process connects to our socket by itself, and what it sends is a space: the program, each fork's child, and each program that one of
them becomes by exec, which the plugin makes the emulator's again. The clock is the number of instructions of all of them together, one
ns each: each process's own order is exact, between processes it is that of arrival.

    qemu-x86_64 -plugin guestmem.so ── HELLO, rows …, totals ──▶ socket ──▶ a space, shifted to the common clock ──▶ T.recording
         └─ fork, exec: a connection of their own ───────────────────┘       └─ the connection ends: an exit row
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secondsight.errors import MissingDependency, SecondSightError, UsageError
from secondsight.geometry import PMD_SHIFT
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind, Verb, is_known
from secondsight.trace.provenance import PAGE_WALKS, Clock, Provenance, Walks
from secondsight.trace.record.child import Reaper, ends_with_us
from secondsight.trace.record.run import CLOCK, end_group
from secondsight.trace.record.vm import ROW, TOTALS, api_of, build_plugin, qemu_version
from secondsight.trace.recording import Recording
from secondsight.trace.writer import Profile

EMULATOR: Final = "qemu-x86_64"
UNSEEN: Final = [
    PAGE_WALKS,
    "accesses of the kernel on the program's behalf (system calls)",
    "DMA",
    "real time: the program runs under an emulator",
]
#: Instructions over which accesses to a page are one row, unless said: no daemon wakes so often.
QUANTUM: Final = 1_000_000
_HELLO, _STRAYED, _WALKS = 0xFE, 0xFD, 0xFC
_FORKED, _EXECED, _AGAIN = 1, 2, 3
_MESSAGE: Final = 1 << 17
_QUIET: Final = 0.05  # seconds in which a child that has just been forked connects

Report = Callable[[int, int, int], None]


@dataclass(slots=True)
class _Sender:
    """One process in one program: its space, its clock at the last row, and what it has sent and said that it has seen."""

    space: int
    clock: int
    accesses: int = 0
    seen: int = -1
    unwritten: int = 0
    data: int = 0  # accesses to data by the plugin's own count, up to its last window
    in_rows: int = 0  # those that its rows tell of
    walks: list[NDArray[np.void]] = field(default_factory=list)

    def counted(self) -> Walks | None:
        """What the plugin's TLB counted of it, window by window; None if it ended before the first window did."""
        if not self.walks:
            return None
        rows = np.concatenate(self.walks)
        block, at = np.unique(rows["address"] >> np.uint64(PMD_SHIFT), return_inverse=True)
        small, huge = np.zeros((2, len(block)), np.uint64)
        np.add.at(small, at, rows["time"] >> np.uint64(32))
        np.add.at(huge, at, rows["time"] & np.uint64(0xFFFFFFFF))
        return Walks(
            space=self.space, accesses=max(self.data, self.in_rows), counted=int(rows["count"].sum(dtype=np.uint64)), block=block.tolist(),
            small=small.tolist(), huge=huge.tolist(),
        )  # fmt: skip


@dataclass(slots=True)
class _Streams:
    """What all processes send, into one intake on one clock."""

    intake: Intake
    report: Report | None
    now: int = 0
    senders: dict[int, _Sender] = field(default_factory=dict)
    ended: list[_Sender] = field(default_factory=list)
    strayed: int = 0

    def hello(self, row: NDArray[np.void]) -> int:
        """A process says that it begins, or goes on over a new connection; returns its pid."""
        pid, parent = int(row["address"]) >> 32, int(row["address"]) & 0xFFFFFFFF
        why, clock = int(row["count"]), int(row["time"])
        if why == _AGAIN and pid in self.senders:
            return pid
        if pid in self.senders:  # it became another program
            self.end(pid)
        above = self.senders.get(parent)
        number = len(self.intake.spaces)
        space = self.intake.add_space(f"process {number}", parent=above.space if above is not None else None)
        if why == _FORKED and above is not None:
            self.intake.append([self.now], above.space, 0, int(Verb.FORK), space)
        self.senders[pid] = _Sender(space, clock)
        return pid

    def rows(self, pid: int, rows: NDArray[np.void]) -> None:
        """What process *pid* sent."""
        sender = self.senders[pid]
        kinds = rows["kind"]
        special = kinds >= _WALKS
        if special.any():
            totals = rows[kinds == TOTALS]
            if len(totals):
                sender.seen, sender.unwritten = int(totals["time"][0]), int(totals["address"][0])
            walks = rows[kinds == _WALKS]
            whole = walks["address"] == np.uint64(0xFFFFFFFFFFFFFFFF)
            sender.data += int(walks["time"][whole].sum(dtype=np.uint64))
            if not whole.all():
                sender.walks.append(walks[~whole].copy())
            self.strayed += int(np.count_nonzero(kinds == _STRAYED))
            rows = rows[~special]
        if not len(rows):
            return
        if not all(map(is_known, np.unique(rows["kind"]).tolist())):
            raise SecondSightError("the plugin sent a row of an unknown kind: its stream is damaged")
        times = rows["time"]
        last = int(times[-1])
        shift = self.now - sender.clock
        self.intake.append(
            (times.astype(np.int64) + shift).astype(np.uint64), sender.space, rows["address"], rows["kind"], rows["count"]
        )  # fmt: skip
        sender.accesses += int(rows["count"].sum(dtype=np.uint64))
        sender.in_rows += int(rows["count"][rows["kind"] <= Kind.CPU_WRITE].sum(dtype=np.uint64))
        self.now += last - sender.clock
        sender.clock = last
        self.intake.flush()
        if self.report is not None:
            self.report(self.intake.accesses, self.intake.sink.rows, len(self.intake.spaces))

    def end(self, pid: int) -> None:
        """Process *pid* has ended, or become another program."""
        sender = self.senders.pop(pid)
        self.ended.append(sender)
        self.intake.append([self.now], sender.space, 0, int(Verb.EXIT), 0)

    def account(self) -> list[str]:
        """What was lost, counted where it can be; and notes of what cannot."""
        notes = []
        silent = sum(sender.seen < 0 for sender in self.ended)
        if silent:
            notes.append(
                f"{silent} of {len(self.ended)} processes ended without the plugin's totals (killed by a signal?): "
                "accesses of their last moments are missing, uncounted"
            )
        self.intake.drop("accesses lost to a failed write", sum(s.unwritten for s in self.ended))
        lost = sum(max(0, s.seen - s.unwritten - s.accesses) for s in self.ended if s.seen >= 0)
        self.intake.drop("accesses lost in the stream", lost)
        if self.strayed:
            notes.append(
                f"{self.strayed} times a process became a program that the emulator cannot run (execveat, or not for x86-64): "
                "from there on it ran unseen; --with lackey may follow it"
            )
        return notes


def _follow(listener: socket.socket, process: subprocess.Popen[bytes], streams: _Streams) -> None:
    """Read until the program and everyone who connected has ended, but for those that left for a session of their own."""
    heard = 0.0  # when anyone who is waited for connected or sent
    with selectors.DefaultSelector() as chosen:
        chosen.register(listener, selectors.EVENT_READ)
        open_: dict[int, tuple[socket.socket, int]] = {}
        last_of: dict[int, int] = {}  # the connection that a process sends over now
        silent: set[int] = set()  # processes that have none
        while True:
            ended = process.poll() is not None  # asked before: what an ended process has sent is ready below
            ready = chosen.select(_QUIET)
            for pid in list(silent):
                # A process that closed what it did not open will connect again; one that said its totals, or is gone, will not.
                if pid in streams.senders and (streams.senders[pid].seen >= 0 or _gone(pid)):
                    streams.end(pid)
                if pid not in streams.senders:
                    silent.discard(pid)
            if ended:
                left = {fd for fd, (_, pid) in open_.items() if pid >= 0 and _left(pid, process.pid)}
                if any(key.fd not in left for key, _ in ready):
                    heard = time.monotonic()
                elif left == open_.keys() and time.monotonic() - heard >= _QUIET:
                    return
            for key, _ in ready:
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    chosen.register(connection, selectors.EVENT_READ)
                    open_[connection.fileno()] = (connection, -1)
                    continue
                connection, pid = open_[key.fd]
                data = connection.recv(_MESSAGE)
                if not data:
                    chosen.unregister(connection)
                    del open_[key.fd]
                    if pid >= 0 and last_of.get(pid) == key.fd:
                        del last_of[pid]
                        silent.add(pid)
                    connection.close()
                    continue
                rows = np.frombuffer(data, ROW, len(data) // ROW.itemsize)
                if rows[0]["kind"] == _HELLO:
                    above = last_of.get(int(rows[0]["address"]) & 0xFFFFFFFF)
                    if above is not None:
                        # What its parent sent before it forked comes first.
                        _drain(*open_[above], streams)
                    pid = streams.hello(rows[0])
                    open_[key.fd], last_of[pid] = (connection, pid), key.fd
                    silent.discard(pid)
                    rows = rows[1:]
                elif pid < 0:
                    raise SecondSightError(
                        "a process sent rows before it said who it is: its stream is damaged"
                    )
                streams.rows(pid, rows)


def _drain(connection: socket.socket, pid: int, streams: _Streams) -> None:
    """Read what process *pid* has sent so far over *connection*."""
    while True:
        try:
            data = connection.recv(_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not data:
            return  # its end is read again by whoever waits for it
        streams.rows(pid, np.frombuffer(data, ROW, len(data) // ROW.itemsize))


def _left(pid: int, group: int) -> bool:
    """Whether process *pid* runs in another group than the recorded program's, as a daemon does that may never end."""
    try:
        return os.getpgid(pid) != group and not _gone(pid)
    except ProcessLookupError:
        return False


def _gone(pid: int) -> bool:
    """Whether process *pid* has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def available() -> bool:
    """Whether QEMU's user mode is here and takes plugins (a static build, as Debian 13's, takes none)."""
    if shutil.which(EMULATOR) is None:
        return False
    completed = subprocess.run(
        [EMULATOR, "-h"], capture_output=True, text=True, errors="replace", check=False
    )
    return re.search(r"^-plugin\b", completed.stdout, re.MULTILINE) is not None


def record_program(
    path: str | os.PathLike[str],
    command: Sequence[str],
    *,
    quantum: int = QUANTUM,
    profile: Profile = "compact",
    report: Report | None = None,
    cpu_time: bool = False,
) -> tuple[Provenance, int]:
    """Run *command* under the emulator and write the trace *path*; returns its provenance and the command's exit code, 0 where we ended it.

    *quantum* (ns of the clock, that is instructions; 0: exact). Threads are the process's own; forks and programs that they become are
    spaces of their own. Ctrl-C ends the command and keeps what was recorded. A child that left for a session of its own and outlives the
    others is ended with them. *cpu_time*: run it once by itself before, its output thrown away, to know the CPU time that it takes
    today.

    :raises MissingDependency: without the emulator or a compiler.
    :raises UsageError: without the program.
    :raises SecondSightError: nothing was recorded.
    :raises KeyboardInterrupt: nothing was recorded when it came.
    """
    Recording.check(path)
    version = qemu_version(EMULATOR, "qemu-user")
    program = shutil.which(command[0])
    if program is None:
        raise UsageError(f"{command[0]}: no such program")
    plugin = build_plugin(api_of(version))
    start = Provenance(
        source="record-run",
        command=list(command),
        clock=Clock(meaning=CLOCK),
        unseen=list(UNSEEN),
        quantum=quantum,
    )
    recording = Recording(path, start, profile=profile)
    intake = Intake(recording, 0)  # the plugin aggregates
    intake.update(quantum=quantum)
    notes: list[str] = []
    interrupt: KeyboardInterrupt | None = None
    with tempfile.TemporaryDirectory(prefix="secondsight-") as directory, recording:
        took = _cpu_time(command) if cpu_time else None
        where = Path(directory) / "rows"
        options = f"file={plugin},socket={where},self={plugin},quantum={quantum}"
        interpreter = _interpreted(Path(program))
        emulated = [*interpreter, program, *command[1:]] if interpreter else [program, *command[1:]]
        streams = _Streams(intake, report)
        shown = [] if interpreter else ["-0", command[0]]
        with Reaper("socket=", directory), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(where))
            listener.listen(128)
            process = subprocess.Popen(
                ends_with_us([EMULATOR, "-plugin", options, *shown, *emulated]), start_new_session=True
            )
            try:
                _follow(listener, process, streams)
            except KeyboardInterrupt as asked:
                interrupt = asked
                notes.append("interrupted; holds what was recorded until then")
                os.killpg(process.pid, signal.SIGTERM)
            finally:
                end_group(process)
        for pid in list(streams.senders):
            streams.end(pid)
        if not intake.accesses:
            recording.abandon()
            if interrupt is not None:
                raise interrupt
            raise SecondSightError(
                f"the emulator recorded nothing of {command[0]} (exit code {process.returncode})"
            )
        counted = [walks for sender in streams.ended if (walks := sender.counted()) is not None]
        notes += streams.account()
        unseen = [each for each in UNSEEN if each != PAGE_WALKS or not counted]
        code = process.returncode if interrupt is None else 0
        return intake.close(notes=notes, walks=counted, unseen=unseen, **(took or {})), code


def _cpu_time(command: Sequence[str]) -> dict[str, object]:
    """The provenance's fields of what *command* takes by itself: CPU seconds, all threads and children that ended, and the THP setting.

    :raises SecondSightError: it fails.
    """
    process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _, status, used = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SecondSightError(
            f"--cpu-time: {command[0]} by itself ended with exit code {process.returncode}"
        )
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", setting.read_text()) if setting.exists() else None
    return {"cpu_seconds": used.ru_utime + used.ru_stime, "cpu_thp": chosen[1] if chosen else ""}


def _interpreted(program: Path) -> list[str]:
    """The interpreter, and its argument, of a script; nothing for a program.

    :raises UsageError: it is a program of another machine.
    """
    with program.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n")[0].decode("utf-8", "surrogateescape").split(None, 1)
        if not words or shutil.which(words[0]) is None:
            raise UsageError(f"{program}: its interpreter is not here")
        return words
    if head[:4] == b"\x7fELF" and (head[4] != 2 or head[18:20] != b"\x3e\x00"):
        raise MissingDependency(
            f"{program} is no x86-64 program: the emulator cannot run it; --with lackey may"
        )
    return []
