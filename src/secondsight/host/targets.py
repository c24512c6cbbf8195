"""Which processes belong to a memory cgroup or run a VM: targets of ``collapse --cgroup`` and ``--vm``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from secondsight.errors import UsageError
from secondsight.host.charges import Groups, memory_path
from secondsight.host.naming import vm_of
from secondsight.host.tasks import Task, pids, read_tasks


def in_cgroup(wanted: str, tasks: Iterable[Task] | None = None) -> list[Task]:
    """The processes charged to the memory cgroup *wanted* or one below it, by PID.

    Args:
        wanted: the path that ``/proc/PID/cgroup`` shows (``/system.slice/x.service``, its first slash may be left out), or the group's
            directory under its mount.
        tasks: among these; all processes unless given.

    :raises UsageError: no process is there.
    """
    groups = Groups()
    path = "/" + wanted.strip("/")
    inside = [task for task in _all(tasks) if _inside(task, path, groups)]
    if not inside:
        raise UsageError(
            f"--cgroup {wanted}: no process is in such a memory cgroup; `secondsight top --by cgroup` lists them"
        )
    return inside


def _inside(task: Task, wanted: str, groups: Groups) -> bool:
    path = memory_path(task.cgroup)
    if wanted == "/" or f"{path}/".startswith(f"{wanted}/"):
        return bool(path)
    group = groups.group(task.cgroup) if Path(wanted).is_dir() else None
    return group is not None and group.folder.is_relative_to(wanted)


def in_vm(wanted: str, tasks: Iterable[Task] | None = None) -> list[Task]:
    """The processes that run the VM called *wanted* (``naming.vm_of``), by PID.

    :raises UsageError: there is none.
    """
    every = [(vm_of(task.command, memory_path(task.cgroup), task.pid), task) for task in _all(tasks)]
    running = [task for name, task in every if name == wanted]
    if not running:
        names = sorted({name for name, _ in every if name is not None})
        known = f"; here are {', '.join(names[:8])}" if names else "; no VM is seen here"
        raise UsageError(f"--vm {wanted}: there is no such VM{known}")
    return running


def _all(tasks: Iterable[Task] | None) -> list[Task]:
    return read_tasks(pids(), sums=False)[0] if tasks is None else list(tasks)
