"""Whether a process refused transparent huge pages by ``prctl(PR_SET_THP_DISABLE)``, and how far (``vma_thp_disabled``).

    NONE          it did not
    ALL           MMF_DISABLE_THP (3.15), MMF_DISABLE_THP_COMPLETELY (6.18)
    NOT_ADVISED   MMF_DISABLE_THP_EXCEPT_ADVISED (6.18): memory under MADV_HUGEPAGE is spared

procfs shows ALL alone (``THP_enabled: 0`` in status since 5.0, fs/proc/array.c task_thp_status): since 6.18 what it calls enabled may be
NOT_ADVISED, which nothing but kernel memory tells from NONE.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from secondsight.live.read.vma import Vma

if TYPE_CHECKING:
    from secondsight.live.read.kmem import KernelMemory

#: include/linux/mm_types.h (before 6.16 sched/coredump.h): the bits of mm->flags
_EXCEPT_ADVISED, _DISABLED = 1 << 23, 1 << 24
_SPARES_ADVISED = (6, 18)


class ThpDisabled(StrEnum):
    """What of a process's memory prctl keeps from huge pages."""

    NONE = "none"
    ALL = "all"
    NOT_ADVISED = "not advised"


def thp_enabled(status: bytes) -> bool | None:
    """``THP_enabled`` of ``/proc/PID/status``: False under PR_SET_THP_DISABLE; None where the kernel does not print it (before 5.0)."""
    for line in status.splitlines():
        if line.startswith(b"THP_enabled:"):
            return line.split()[1:] != [b"0"]
    return None


def from_status(status: bytes, release: str) -> ThpDisabled | None:
    """What ``/proc/PID/status`` of a kernel *release* leaves no doubt about; None: that cannot be told."""
    enabled = thp_enabled(status)
    if enabled is False:
        return ThpDisabled.ALL
    return ThpDisabled.NONE if enabled and _version(release) < _SPARES_ADVISED else None


def from_kernel(kernel: KernelMemory, mm: int) -> ThpDisabled | None:
    """What the flags of the ``struct mm_struct`` at the kernel address *mm* say; None where they could not be read."""
    import drgn

    try:
        flags = drgn.Object(kernel.program, "struct mm_struct *", value=mm).flags
        # A bitmap of words since 6.18 (mm_flags_t).
        if flags.type_.unaliased_kind() == drgn.TypeKind.STRUCT:
            flags = flags.member_("__mm_flags")[0]
        word = int(flags.value_())
    except (drgn.FaultError, LookupError, AttributeError, TypeError):
        return None
    if word & _DISABLED:
        return ThpDisabled.ALL
    # Before, the bit was another's (MMF_HUGE_ZERO_PAGE).
    spares = word & _EXCEPT_ADVISED and _version(kernel.release) >= _SPARES_ADVISED
    return ThpDisabled.NOT_ADVISED if spares else ThpDisabled.NONE


def refusal(vma: Vma, disabled: ThpDisabled | None) -> str:
    """Why *vma* is skipped under *disabled*; empty if it is not, or nobody knows (:func:`is_open`)."""
    if disabled is ThpDisabled.ALL:
        return "prctl PR_SET_THP_DISABLE"
    if disabled is ThpDisabled.NOT_ADVISED and "hg" not in vma.flags:
        return "not advised, and prctl PR_SET_THP_DISABLE spares advised memory alone"
    return ""


def is_open(vma: Vma, disabled: ThpDisabled | None) -> bool:
    """Whether *vma* may be skipped for all that is known: the process's flags were not read, and the kernel's own answer (THPeligible in
    smaps) is of other switches."""
    return disabled is None and vma.eligible is None and "hg" not in vma.flags


def _version(release: str) -> tuple[int, ...]:
    first, _, rest = release.partition(".")
    second = rest.partition(".")[0].partition("-")[0]
    return (int(first), int(second)) if first.isdigit() and second.isdigit() else (0,)
