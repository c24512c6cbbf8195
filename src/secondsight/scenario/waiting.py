"""Steps that would wait for a userfaultfd's handler, of which there is none, are refused before they are taken."""

from __future__ import annotations

from collections.abc import Mapping

from secondsight.errors import UsageError
from secondsight.mm.mm_struct import Mm
from secondsight.mm.userfaultfd import waits
from secondsight.mm.vma import VmFlags
from secondsight.scenario import pages as page_text
from secondsight.scenario import verbs

__all__ = ["refuse_waiting"]


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
