"""Who splits huge pages, and on which occasion: the kernel's own functions, traced by their callers in a private instance.

::

    __split_huge_pmd              a PMD becomes 512 PTEs: the page stays huge, this mapping of it does not (thp_split_pmd)
    split_huge_page_to_list*      the page itself becomes small ones (thp_split_page)

      redis-server-812  [001] .....  73.125: __split_huge_pmd <-zap_pmd_range.isra.0      task, number, when, what, and its caller

No tracepoint of the kernel tells of a split (v7.3: include/trace/events/thp.h has migration's entries alone), so its function tracer
does: an instance's own ``set_ftrace_filter`` and ``current_tracer``, which nobody else's tracing sees and which end with it. It takes root,
a kernel with CONFIG_FUNCTION_TRACER, and one that is not locked down (``security_locked_down(LOCKDOWN_TRACEFS)``, kernel/trace/ftrace.c).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from types import TracebackType

import msgspec

from secondsight.errors import MissingDependency
from secondsight.live.read import tracefs

#: the function to each kind of split, the newest name first (Linux 6.10 added _to_order: commit c010d47f107f)
_FUNCTIONS = {
    "mapping": ("__split_huge_pmd",),
    "page": ("split_huge_page_to_list_to_order", "split_huge_page_to_list"),
}
_KINDS = {name: kind for kind, names in _FUNCTIONS.items() for name in names}
#: what a caller does, by how its name begins
_OCCASIONS = {
    "zap_pmd_range": "a part was unmapped or dropped (munmap, MADV_DONTNEED, exit)",
    "unmap_page_range": "a part was unmapped or dropped (munmap, MADV_DONTNEED, exit)",
    "zap_": "a part was unmapped or dropped (munmap, MADV_DONTNEED, exit)",
    "change_": "a part was protected otherwise (mprotect, NUMA balancing)",
    "vma_adjust_trans_huge": "a mapping was cut inside of it",
    "split_huge_pmd_address": "a mapping was cut inside of it",
    "split_huge_pmd_if_needed": "a mapping was cut inside of it",
    "__split_vma": "a mapping was cut inside of it",
    "move_page_tables": "a part was moved (mremap)",
    "copy_huge_pmd": "fork, of a page that may be pinned",
    "do_huge_pmd_wp_page": "written to while shared: copied page by page",
    "wp_huge_pmd": "written to while shared: copied page by page",
    "__handle_mm_fault": "written to while shared: copied page by page",
    "follow_": "something looked for one page of it (get_user_pages)",
    "deferred_split_scan": "the shrinker: unused parts of it were given back",
    "thp_underused": "the shrinker: mostly zeros",
    "madvise_": "madvise on a part (MADV_FREE, MADV_COLD, MADV_PAGEOUT)",
    "try_to_unmap": "reclaim or migration unmapped it",
    "try_to_migrate": "reclaim or migration unmapped it",
    "shrink_folio_list": "reclaim: no room for it whole in swap",
    "shrink_page_list": "reclaim: no room for it whole in swap",
    "migrate_pages": "migration: no huge page where it was to go",
    "truncate_inode_partial": "its file was cut inside of it",
    "ksm_": "KSM merged a page of it",
    "memory_failure": "a page of it is bad",
    "try_to_split_thp_page": "a page of it is bad",
}
_LINE = re.compile(rb" *(.{1,16}?)-(\d+) +\[\d+\] +(?:\S+ +)?\d+\.\d+: (\w+)(?:\.\S+)? <-(\S+)")
_LOST = re.compile(rb"LOST (\d+) EVENTS")


class Splitter(msgspec.Struct, frozen=True):
    """Splits of one kind by one task from one place. *kind*: ``mapping`` (a PMD) or ``page``; *caller*: the kernel's function; *occasion*:
    what that is in words, empty where this table does not know; *count* of them."""

    task: str
    pid: int
    kind: str
    caller: str
    occasion: str
    count: int


def occasion(caller: str) -> str:
    """What *caller* was doing, in words; empty where that is not known."""
    return next((words for start, words in _OCCASIONS.items() if caller.startswith(start)), "")


class Splits:
    """Counts splits from :meth:`open` to :meth:`close` (a context manager)."""

    def __init__(self, path: Path, pipe: int) -> None:
        self._path, self._pipe, self._rest = path, pipe, b""
        self._seen: Counter[tuple[str, int, str, str]] = Counter()
        #: events that the buffer could not hold
        self.lost = 0

    @classmethod
    def open(cls, tracing: Path | None = None) -> Splits:
        """Begin.

        :raises MissingDependency: no tracefs, no function tracer, a kernel that is locked down, or no permission.
        """
        path = tracefs.make_folder(tracefs.folder() if tracing is None else tracing)
        pipe = -1
        try:
            _write(path, "buffer_size_kb", "1024")
            _choose(path)
            _write(path, "current_tracer", "function")
            pipe = os.open(path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return cls(path, pipe)
        except BaseException as error:
            cls(path, pipe).close()
            if isinstance(error, OSError):
                raise MissingDependency(f"who splits huge pages: {path}: {error.strerror}") from None
            raise

    def read(self) -> None:
        """Take what came since the last call; does not wait."""
        while True:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except (BlockingIOError, InterruptedError):
                return
            if not chunk:
                return
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self.take(line)

    def take(self, line: bytes) -> None:
        """Count what a *line* of ``trace_pipe`` tells."""
        match = _LINE.match(line)
        if match is None:
            lost = _LOST.search(line)
            self.lost += int(lost[1]) if lost else 0
            return
        task, pid, function, caller = match.groups()
        kind = _KINDS.get(function.decode("ascii", "replace"))
        if kind is not None:
            # The compiler's copies of a function (.isra.0, .constprop.0) are that function.
            name = caller.decode("ascii", "replace").split(".")[0]
            self._seen[task.decode("utf-8", "replace").strip(), int(pid), kind, name] += 1

    def splitters(self) -> list[Splitter]:
        """Who, the most frequent first."""
        return [
            Splitter(task, pid, kind, caller, occasion(caller), count)
            for (task, pid, kind, caller), count in self._seen.most_common()
        ]

    def close(self) -> None:
        """Switch off and remove the instance; may be called twice."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        tracefs.remove_folder(self._path, ("current_tracer", "nop"))

    def __enter__(self) -> Splits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _choose(path: Path) -> None:
    """Trace of each kind the first function that this kernel has."""
    chosen = 0
    problem: OSError | None = None
    for names in _FUNCTIONS.values():
        for name in names:
            try:
                fd = os.open(path / "set_ftrace_filter", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                try:
                    os.write(fd, f"{name}\n".encode())
                finally:
                    os.close(fd)
            except FileNotFoundError:
                raise MissingDependency(
                    "who splits huge pages: no function tracer (CONFIG_FUNCTION_TRACER)"
                ) from None
            except OSError as error:
                problem = error
                continue
            chosen += 1
            break
    if not chosen:
        why = problem.strerror if problem is not None else ""
        raise MissingDependency(
            f"who splits huge pages: set_ftrace_filter: {why} (a kernel that is locked down?)"
        )


def _write(path: Path, name: str, value: str) -> None:
    (path / name).write_text(value, encoding="ascii")
