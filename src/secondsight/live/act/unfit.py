"""Which mappings MADV_COLLAPSE refuses, and which the administrator would not have made huge.

MADV_COLLAPSE asks neither the switches in sysfs nor the advice (``TVA_FORCED_COLLAPSE``, mm/huge_memory.c); MADV_NOHUGEPAGE and
PR_SET_THP_DISABLE it obeys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from secondsight.live.read import eligible
from secondsight.live.read.backing import backing
from secondsight.live.read.page_cache import CachedFile, PageCache
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma

if TYPE_CHECKING:
    from secondsight.live.act.heat import Heat

_PRIVATE = "a private mapping of shared memory: left alone, for a page that was copied keeps MADV_COLLAPSE from mapping it huge"
_UNSEEN = "shared memory whose page cache could not be asked (root, or CAP_CHECKPOINT_RESTORE)"
PRCTL = "prctl PR_SET_THP_DISABLE: the kernel refuses MADV_COLLAPSE as well"


class Beside(NamedTuple):
    """What is known beside a snapshot. *thp_enabled*: what ``/proc/PID/status`` says, None where it does not; *shmem_enabled*: the switch,
    empty where it was not read; *cache*: the shared memory, None where it was not opened; *heat*: what was watched, None if nothing was."""

    thp_enabled: bool | None = None
    shmem_enabled: str = ""
    cache: PageCache | None = None
    heat: Heat | None = None


#: nothing known beside the snapshot
ALONE = Beside()


def unfit(vma: Vma, enabled: str, beside: Beside, switches: Switches | None = None) -> tuple[str, str]:
    """(why *vma* cannot be collapsed at all, why the administrator would not have it); each empty if it is not so."""
    if beside.cache is not None and (file := beside.cache.of(vma)) is not None:
        hard, soft = _unfit_shared(vma, file, beside.shmem_enabled)
    elif backing(vma, switches or Switches()).shmem:
        hard, soft = _UNSEEN if vma.perms.endswith("s") else _PRIVATE, ""
    else:
        hard = eligible.ineligible(msgspec.structs.replace(vma, eligible=None), "always", switches)
        soft = eligible.ineligible(vma, enabled, switches)
    if not hard and beside.thp_enabled is False:
        hard = PRCTL
    return hard, "" if hard else soft


def _unfit_shared(vma: Vma, file: CachedFile, switch: str) -> tuple[str, str]:
    """The same of shared memory (``shmem_allowable_huge_orders``, mm/shmem.c): only ``deny`` binds MADV_COLLAPSE."""
    # What decides before the kind of memory does, eligible.py says of the same mapping as if it were private.
    private = msgspec.structs.replace(vma, inode=0, device="00:00", perms=vma.perms[:3] + "p", eligible=None)
    if hard := eligible.ineligible(private, "always"):
        return hard, ""
    if not file.aligned:
        return (
            "misaligned against its file: no PMD can map it here (map it at an address that agrees with the offset)",
            "",
        )
    if switch == "deny":
        return "shmem_enabled=deny: the kernel refuses MADV_COLLAPSE as well", ""
    if vma.eligible or (vma.eligible is None and switch in ("always", "force", "within_size")):
        return "", ""
    advice = ", no MADV_HUGEPAGE" if switch == "advise" and "hg" not in vma.flags else ""
    return "", f"the kernel would not by itself (shmem_enabled={switch or 'unknown'}{advice})"
