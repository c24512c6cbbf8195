"""Steps that are refused before they are taken: they would wait for ever, or the model does not know them."""

from __future__ import annotations

from collections.abc import Mapping

from secondsight.errors import UsageError
from secondsight.mm.mm_struct import Mm
from secondsight.mm.protocols import MmLike
from secondsight.mm.userfaultfd import waits
from secondsight.mm.vma import VmFlags
from secondsight.scenario import pages as page_text
from secondsight.scenario import verbs

__all__ = ["refuse_space", "refuse_unmodelled", "refuse_waiting"]

#: Not modelled over shared memory, each with what it would have to know.
_UNMODELLED: dict[type[verbs.Verb], str] = {
    verbs.Mlock: "mlock over the page cache",
    verbs.Munlock: "mlock over the page cache",
    verbs.Mprotect: "protection of shared mappings",
    verbs.Uffd: "userfaultfd over shared memory",
}
#: The same over a regular file.
_UNMODELLED_FILE: dict[type[verbs.Verb], str] = {
    verbs.SwapOut: "reclaim of a file's pages",
    verbs.SplitHuge: "splitting a file's huge page",
    verbs.IoZeroCopy: "direct I/O to a file's pages",
}
_FILE_VERBS = (verbs.FileRead, verbs.FileWrite, verbs.FileSync, verbs.FileDrop)
_ADVICE = ("cold", "mergeable", "unmergeable", "guard_install", "guard_remove")


def refuse_unmodelled(mm: MmLike | None, step: verbs.Verb) -> None:
    """:raises UsageError: *mm* is shared memory, and *step* is one that the model does not know there."""
    if mm is None:
        return
    if isinstance(step, _FILE_VERBS) and (mm.memory is None or mm.memory.is_shmem):
        raise UsageError(
            f"space {mm.name!r} maps no regular file, which {step.__struct_config__.tag} is about"
        )
    if mm.memory is None:
        return
    what = _UNMODELLED.get(type(step))
    if not mm.memory.is_shmem:
        what = what or _UNMODELLED_FILE.get(type(step))
        if isinstance(step, verbs.Pin) and step.write:
            what = "a long-term pin for writing, which the kernel refuses there,"
        if what is not None:
            raise UsageError(f"space {mm.name!r} maps a regular file: {what} is not modelled")
    if isinstance(step, verbs.Madvise) and step.advice in _ADVICE:
        what = f"madvise {step.advice} over shared memory"
    if what is not None:
        raise UsageError(f"space {mm.name!r} is shared memory: {what} is not modelled")


def refuse_space(space: verbs.SpaceSpec) -> None:
    """:raises UsageError: a space that maps a regular file without a name, or has a device over it, which the model does not know."""
    if space.shared is None or not space.shared.file:
        return
    if not space.shared.memory:
        raise UsageError(f"space {space.name!r} maps a regular file: shared.memory is to name it")
    if space.vm2 is not None or space.gru is not None:
        raise UsageError(
            f"space {space.name!r} maps a regular file: a second VM or a device over one is not modelled"
        )


def refuse_waiting(mms: Mapping[str, Mm], step: verbs.Verb) -> None:
    """:raises UsageError: *step*, an access to one of *mms*, would never end."""
    match step:
        case verbs.CpuRead() | verbs.GuestRead() | verbs.DeviceRead():
            write = False
        case verbs.Mlock(onfault=True):
            return
        case verbs.CpuWrite() | verbs.GuestWrite() | verbs.DeviceWrite() | verbs.Mlock():
            write = True
        case verbs.IoCopied() | verbs.IoZeroCopy() | verbs.Pin():
            write = step.write
        case _:
            return
    mm = mms.get(step.space)
    if mm is None or not any(vma.flags & VmFlags.UFFD_ARMED for vma in mm.vmas.areas):
        return
    if waits(mm, page_text.parse(step.pages, mm.blocks), write=write):
        raise UsageError(
            "a page there waits for userfaultfd's handler, of which there is none: the step would never end"
        )
