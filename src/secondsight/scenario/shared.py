"""Shared memory in scenarios: the steps that the model does not know there, and what a visit of khugepaged to it is told as."""

from __future__ import annotations

from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.khugepaged.walk_file import FileVisit
from secondsight.mm.protocols import MmLike
from secondsight.scenario import verbs
from secondsight.scenario.results import CollapseFileEvent, FilePass

__all__ = ["file_pass", "refuse_unmodelled"]

#: Not modelled over shared memory, each with what it would have to know.
_UNMODELLED: dict[type[verbs.Verb], str] = {
    verbs.Mlock: "mlock over the page cache",
    verbs.Munlock: "mlock over the page cache",
    verbs.Mprotect: "protection of shared mappings",
    verbs.Uffd: "userfaultfd over shared memory",
}
_ADVICE = ("cold", "mergeable", "unmergeable", "guard_install", "guard_remove")


def refuse_unmodelled(mm: MmLike | None, step: verbs.Verb) -> None:
    """:raises UsageError: *mm* is shared memory, and *step* is one that the model does not know there."""
    if mm is None or mm.memory is None:
        return
    what = _UNMODELLED.get(type(step))
    if isinstance(step, verbs.Madvise) and step.advice in _ADVICE:
        what = f"madvise {step.advice} over shared memory"
    if what is not None:
        raise UsageError(f"space {mm.name!r} is shared memory: {what} is not modelled")


def file_pass(visit: FileVisit, number: int) -> FilePass:
    """*visit*, in pass *number*, in the tracepoints' words."""
    memory, rules = visit.mm.memory, visit.mm.host.rules
    assert memory is not None
    found = visit.scan
    collapse = None
    if found.collapse is not None and rules.trace_collapse_file:
        collapse = CollapseFileEvent(
            result=str(found.collapse.result), index=found.collapse.ended_at, nr=HPAGE_PMD_NR, is_shmem=1
        )
    return FilePass(
        pass_=number, space=visit.mm.name, block=visit.block, file=memory.file, result=str(found.result),
        present=found.present, swap=found.swap, names_page=found.names_page, collapse=collapse,
    )  # fmt: skip
