"""What a running process or cgroup does in a while: CPU time, work, faults, and how much of its memory is huge; before a change and after.

    /proc/PID/stat          utime, stime, minflt of each process           cgroup v2: cpu.stat usage_usec, memory.stat pgfault
    /proc/PID/smaps_rollup  Anonymous, AnonHugePages                       cgroup v2: memory.stat anon, anon_thp
    a command of the user's prints how much work was done so far           a number that rises: requests served, rows written

CPU time for each unit of work compares whatever the load was; CPU time alone says nothing where the load moved. Nothing is changed.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from secondsight.errors import InputError, MissingDependency, SecondSightError, TargetGone, UsageError

SCHEMA: Final = 1
_TICK = os.sysconf("SC_CLK_TCK")
#: Seconds that the user's command may take.
PATIENCE: Final = 60
#: Share of the anonymous memory: what moved less in huge pages has not moved.
UNMOVED: Final = 0.01


class Observed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Over *seconds* by the wall clock. *name*: of the program, empty for a cgroup; cpu seconds; faults without I/O; anon and huge bytes
    at the end; work: units done, None: not counted."""

    schema: int = SCHEMA
    what: str
    name: str = ""
    seconds: float
    cpu: float
    faults: int
    anon: int
    huge: int
    work: float | None = None

    @property
    def coverage(self) -> float | None:
        """Share of the anonymous memory in huge pages; None without any."""
        return self.huge / self.anon if self.anon else None

    @property
    def per_work(self) -> float | None:
        """CPU seconds for a unit of work."""
        return self.cpu / self.work if self.work else None


class Reading(msgspec.Struct, frozen=True):
    """Counters at one moment."""

    cpu: float
    faults: int
    anon: int
    huge: int


def of_process(pid: int, proc: Path = Path("/proc")) -> Reading:
    """Counters of process *pid*, all its threads.

    :raises TargetGone: it has exited.
    :raises MissingDependency: no permission.
    """
    where = proc / str(pid)
    try:
        stat = (where / "stat").read_text(errors="replace").rpartition(")")[2].split()
        rollup = (where / "smaps_rollup").read_text()
    except PermissionError:
        raise MissingDependency(
            f"process {pid}: its memory may not be read; run as root or as its owner"
        ) from None
    except OSError:
        raise TargetGone(f"process {pid} has exited") from None
    sizes = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in rollup.splitlines()[1:]
        if line.endswith("kB")
    }
    return Reading(
        (int(stat[11]) + int(stat[12])) / _TICK,
        int(stat[7]),
        sizes.get("Anonymous", 0),
        sizes.get("AnonHugePages", 0),
    )


def of_cgroup(path: Path) -> Reading:
    """Counters of the cgroup (v2) whose directory is *path*, and of those below it.

    :raises UsageError: no such group.
    :raises MissingDependency: its controllers do not say.
    """
    if not (path / "cgroup.procs").exists():
        raise UsageError(f"--cgroup {path}: no directory of a cgroup, such as /sys/fs/cgroup/system.slice")
    try:
        cpu = _counters(path / "cpu.stat")["usage_usec"] / 1e6
        memory = _counters(path / "memory.stat")
        return Reading(cpu, memory["pgfault"], memory["anon"], memory["anon_thp"])
    except (OSError, KeyError) as error:
        raise MissingDependency(
            f"{path}: its cpu.stat and memory.stat (cgroup v2) do not say: "
            f"{error.strerror if isinstance(error, OSError) else f'no {error.args[0]}'}; name a process by --pid"
        ) from None


def _counters(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


def work_of(command: str) -> float:
    """The number that *command*, a line of the shell, prints first.

    :raises UsageError: it fails, takes longer than a minute, or prints no number.
    """
    # A session of its own, so that all that the line started can be ended with it.
    with subprocess.Popen(
        ["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    ) as child:  # fmt: skip
        try:
            output, errors = child.communicate(timeout=PATIENCE)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise UsageError(f"--work {command!r}: did not end within {PATIENCE} s") from None
            raise
    if child.returncode:
        why = errors.strip().splitlines()
        raise UsageError(
            f"--work {command!r}: ended with exit code {child.returncode}{f': {why[-1]}' if why else ''}"
        )
    words = output.split()
    with contextlib.suppress(ValueError):
        if words and math.isfinite(value := float(words[0])):
            return value
    printed = f"it printed {words[0]!r} first" if words else "it printed nothing"
    raise UsageError(f"--work {command!r}: must print a number that says how much was done so far; {printed}")


def name_of(pid: int, proc: Path = Path("/proc")) -> str:
    """The name of process *pid*.

    :raises TargetGone: it has exited.
    """
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        raise TargetGone(f"process {pid} has exited") from None


def observe(
    what: str, read: Callable[[], Reading], seconds: float, work: str | None, *, name: str = ""
) -> Observed:
    """What happens within *seconds* from now. *read*: the counters; *work*: a command, see :func:`work_of`; *name*: of the program.

    :raises SecondSightError: the counters, or the work, went backwards.
    """
    start, first, done = time.monotonic(), read(), work_of(work) if work else None
    time.sleep(seconds)
    last, after = read(), work_of(work) if work else None
    took = time.monotonic() - start
    units = after - done if after is not None and done is not None else None
    if last.cpu < first.cpu or (units is not None and units <= 0):
        raise SecondSightError(
            f"{what}: no work was done in {seconds:g} s, or its counters went back; nothing can be compared"
        )
    return Observed(
        what=what, name=name, seconds=took, cpu=last.cpu - first.cpu, faults=last.faults - first.faults,
        anon=last.anon, huge=last.huge, work=units,
    )  # fmt: skip


def decode(raw: bytes, source: str) -> Observed:
    """Read what ``msgspec.json.encode`` wrote of one.

    :raises InputError: *raw* is none, or of another schema version.
    """
    try:
        observed = msgspec.json.decode(raw, type=Observed)
    except msgspec.MsgspecError as error:
        raise InputError(source, "", f"not what `verify --save` writes: {error}") from None
    if observed.schema != SCHEMA:
        raise InputError(source, "schema", f"version {observed.schema}; this reads version {SCHEMA}")
    return observed


class MeasuredChange(msgspec.Struct, frozen=True, kw_only=True):
    """After over before, less one; None where it was not counted. cpu: for each unit of work, or each second of the clock where none is
    counted."""

    cpu: float | None
    faults: float | None
    coverage: float | None  # difference of the shares
    by_work: bool


def change(before: Observed, after: Observed) -> MeasuredChange:
    """What changed between two observations.

    :raises UsageError: work was counted in one of them alone, or they are of two programs.
    """
    if (before.name, not before.name and before.what) != (after.name, not after.name and after.what):
        raise UsageError(
            f"what was kept is of {before.what}{f' ({before.name})' * bool(before.name)}, not of {after.what}"
            f"{f' ({after.name})' * bool(after.name)}: before and after are of one program"
        )
    if (before.work is None) != (after.work is None):
        raise UsageError(
            "--work was given in one of the two observations alone: give the same command in both"
        )
    by_work = before.work is not None
    units_before, units_after = (before.work, after.work) if by_work else (before.seconds, after.seconds)
    assert units_before is not None and units_after is not None

    def ratio(was: float, now: float) -> float | None:
        return (now / units_after) / (was / units_before) - 1 if was else None

    had, has = before.coverage, after.coverage
    return MeasuredChange(
        cpu=ratio(before.cpu, after.cpu), faults=ratio(before.faults, after.faults),
        coverage=None if had is None or has is None else has - had, by_work=by_work,
    )  # fmt: skip


class PredictionCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A predicted change of the CPU time beside the measured one: low, middle and high; *met*: the measured one lies between; None:
    that says nothing, and *why*."""

    label: str
    low: float
    middle: float
    high: float
    met: bool | None
    why: str = ""


def verdict(
    label: str, prediction: tuple[float, float, float, float], measured: MeasuredChange
) -> PredictionCheck:
    """*prediction*: run_time, low, high, change of a row.

    Nothing is met or missed where no unit of work was counted (the load may have moved), where no change was predicted, where no more
    of the memory is huge than before, and where the interval holds no change as well as the measured one.
    """
    time_, low, high, change_ = prediction
    today = time_ / (1 + change_)
    bounds = low / today - 1, high / today - 1
    met, why = None, ""
    if not measured.by_work or measured.cpu is None:
        why = "no work was counted (--work)"
    elif bounds == (0, 0):
        why = "no change was predicted"
    elif measured.coverage is not None and abs(measured.coverage) < UNMOVED:
        why = "as much of its memory is huge as before: the change was not made, or did not reach it"
    else:
        met = bounds[0] <= measured.cpu <= bounds[1]
        if met and bounds[0] <= 0 <= bounds[1]:
            met, why = None, "the interval holds it, and no change at all too"
    return PredictionCheck(label=label, low=bounds[0], middle=change_, high=bounds[1], met=met, why=why)
