"""Recording a program: valgrind's lackey, its text reduced while it is written, its children followed.

valgrind gives each process a log of its own when the log's name holds ``%p``, also after a fork without exec.
The logs are files in a temporary directory that are eaten from the front: what was read is punched out of them
(FALLOC_FL_PUNCH_HOLE), so the disk holds no more than the last moments. When the reader falls behind by more
than ``_BACKLOG``, the programs are stopped until it has caught up.

The clock is the number of instructions of all processes together, one ns each. Each process's own order is
exact; between processes the order is that of arrival, a few milliseconds apart.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from secondsight.errors import InputError, MissingDependency, SecondSightError, UsageError
from secondsight.trace.intake import Intake
from secondsight.trace.provenance import Clock, Provenance
from secondsight.trace.read.lackey import UNSEEN, LackeyParser, compile_parser
from secondsight.trace.read.text import BLOCK
from secondsight.trace.record.child import Reaper, ends_with_us
from secondsight.trace.recording import Recording
from secondsight.trace.writer import Profile

CLOCK: Final = "instructions retired by all recorded processes together, one ns each"
_BACKLOG: Final = 256 << 20
_LOG: Final = "--log-file="
_POLL: Final = 0.01  # seconds
_GRACE: Final = 5.0  # seconds between asking the programs to end and killing them
_PUNCH_HOLE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

Report = Callable[[int, int, int], None]  # accesses so far, rows so far, processes so far


class _InstructionClock:
    """Instructions of all processes so far (ns)."""

    def __init__(self) -> None:
        self.now = 0


class _Log:
    """One process's log: followed as it grows, punched out behind the reader."""

    def __init__(self, path: Path, parser: LackeyParser, clock: _InstructionClock) -> None:
        self.parser, self.clock = parser, clock
        self._fd = os.open(path, os.O_RDWR)
        path.unlink()  # valgrind keeps its own descriptor; nothing is left behind however we end
        self._at = 0
        self._rest = b""

    @property
    def backlog(self) -> int:
        """Bytes written and not yet read."""
        return os.fstat(self._fd).st_size - self._at

    def take(self) -> int:
        """Read and parse one block; returns its bytes."""
        data = os.pread(self._fd, BLOCK, self._at)
        if not data:
            return 0
        _punch(self._fd, self._at, len(data))
        self._at += len(data)
        cut = data.rfind(b"\n") + 1
        if cut:
            before = self.parser.instructions
            self.parser.feed(self._rest + data[:cut], shift=self.clock.now - before)
            self.clock.now += self.parser.instructions - before
            self._rest = data[cut:]
        else:
            self._rest += data
        return len(data)

    def take_all(self) -> int:
        """Read and parse what is written by now; returns its bytes."""
        left = self.backlog
        taken = 0
        while taken < left and (some := self.take()):
            taken += some
        return taken

    def close(self) -> int:
        """Close; returns the bytes of a last line that was torn by a kill."""
        os.close(self._fd)
        return len(self._rest)


def _punch(fd: int, offset: int, length: int) -> None:
    """Give the disk space of a range of *fd* back; where the file system cannot, the log just stays."""
    ctypes.CDLL(None).fallocate(fd, _PUNCH_HOLE, ctypes.c_long(offset), ctypes.c_long(length))


def record_run(
    path: str | os.PathLike[str],
    command: Sequence[str],
    *,
    quantum: int = 0,
    fetches: bool = True,
    profile: Profile = "compact",
    report: Report | None = None,
) -> tuple[Provenance, int]:
    """Run *command* under lackey and write the trace *path*; returns its provenance and the command's exit code, 0 where we ended it.

    *quantum* (ns of the clock, that is instructions; 0: exact). Ctrl-C ends the command and keeps what was recorded. A child that left for
    a session of its own and outlives the others is ended with them: nobody would read its log any more.

    :raises MissingDependency: without valgrind.
    :raises UsageError: without the program.
    :raises SecondSightError: valgrind cannot run the command.
    :raises KeyboardInterrupt: nothing was recorded when it came.
    """
    Recording.check(path)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise MissingDependency(
            "record run needs valgrind, which is not installed (Debian: apt install valgrind)"
        )
    if shutil.which(command[0]) is None:
        raise UsageError(f"{command[0]}: no such program")
    compile_parser()
    start = Provenance(
        source="record-run", command=list(command), clock=Clock(meaning=CLOCK), unseen=list(UNSEEN)
    )
    recording = Recording(path, start, profile=profile)
    intake = Intake(recording, quantum)
    with tempfile.TemporaryDirectory(prefix="secondsight-") as directory, recording:
        arguments = [
            valgrind,
            "--tool=lackey",
            "--trace-mem=yes",
            "--basic-counts=no",
            "--trace-children=yes",
            "--vgdb=no",  # nobody debugs it; its pipes would stay in the folder of temporary files after a kill
            f"{_LOG}{directory}/%p",
            *command,
        ]
        notes = []
        interrupt: KeyboardInterrupt | None = None
        # valgrind hands the log's name on to every process that it follows.
        with Reaper(_LOG, directory):
            process = subprocess.Popen(ends_with_us(arguments), start_new_session=True)
            try:
                torn = _follow(process, Path(directory), intake, report)
                if torn:
                    notes.append(f"{torn} processes ended in the middle of a line, which was left out")
            except KeyboardInterrupt as asked:
                interrupt = asked
                notes.append("interrupted; holds what was recorded until then")
            finally:
                end_group(process)
        if not intake.spaces:
            if interrupt is not None:
                raise interrupt
            raise SecondSightError(
                f"valgrind recorded nothing of {command[0]} (exit code {process.returncode})"
            )
        return intake.close(notes=notes), process.returncode if interrupt is None else 0


def _follow(process: subprocess.Popen[bytes], directory: Path, intake: Intake, report: Report | None) -> int:
    """Read all logs until every process has ended; returns how many ended within a line."""
    clock = _InstructionClock()
    logs: list[_Log] = []
    stopped = False
    try:
        while True:
            # Asked before reading: what is written until then is read below.
            running = process.poll() is None or _group_lives(process.pid)
            for path in sorted(directory.iterdir(), key=lambda p: int(p.name)):
                parent = 0 if logs else None
                space = intake.add_space(f"process {len(logs)}", parent=parent)
                parser = LackeyParser(intake, space, f"lackey's log of process {len(logs)}")
                logs.append(_Log(path, parser, clock))
            # A child in a session of its own writes on: what is there by now is what is kept of it.
            taken = sum([log.take() if running else log.take_all() for log in logs])
            intake.flush()
            if report is not None:
                report(intake.accesses, intake.sink.rows, len(logs))
            behind = sum(log.backlog for log in logs)
            if running and not stopped and behind > _BACKLOG:
                os.killpg(process.pid, signal.SIGSTOP)
                stopped = True
            elif stopped and behind == 0:
                os.killpg(process.pid, signal.SIGCONT)
                stopped = False
            if not running:
                return sum(1 for log in logs if log.close())
            if taken == 0:
                time.sleep(_POLL)
    except InputError:
        end_group(process)
        raise


def _group_lives(group: int) -> bool:
    """Whether any process of the recorded program's session is left, after its first one has ended."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, then make it."""
    for number in (signal.SIGCONT, signal.SIGTERM):
        _signal(process.pid, number)
    limit = time.monotonic() + _GRACE
    while _group_lives(process.pid) and time.monotonic() < limit:
        process.poll()
        time.sleep(_POLL)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
