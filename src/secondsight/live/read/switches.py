"""The switches that decide who may have huge pages, as this machine has them: sysfs, and the options of tmpfs mounts.

::

    /sys/kernel/mm/transparent_hugepage/
      enabled, hugepages-NkB/enabled                anonymous memory: always, madvise, never; a size's own: inherit too
      shmem_enabled, hugepages-NkB/shmem_enabled    shared memory without a mount: always, within_size, advise, never; force, deny
      defrag, use_zero_page                         what a fault does for a huge page
      khugepaged/defrag                             whether khugepaged compacts
    huge= of a tmpfs mount                          its files: always, within_size, advise, never

Read only. A file that this kernel does not have is an empty word.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from secondsight.geometry import ANON_ORDERS, PMD_ORDER, kb_of_order, order_of_kb
from secondsight.live.read.sysfs import THP

_SIZE = f"hugepages-{kb_of_order(PMD_ORDER)}kB"


class Switches(msgspec.Struct, frozen=True, omit_defaults=True):
    """Each the chosen word; empty: not read, or not there. *sizes*: anonymous ``enabled`` by KiB; *mounts*: ``huge=`` of each tmpfs mount
    by its device number as maps prints it; *internal*: that of the mount behind memfd, shared anonymous and System V memory."""

    enabled: str = ""
    enabled_size: str = ""
    shmem_enabled: str = ""
    shmem_size: str = ""
    defrag: str = ""
    use_zero_page: str = ""
    khugepaged_defrag: str = ""
    sizes: dict[int, str] = {}
    mounts: dict[str, str] = {}
    internal: str = ""

    @property
    def effective(self) -> str:
        """always, madvise or never: what holds for anonymous 2 MiB; the size's own word wins where it does not inherit."""
        own = self.enabled if self.enabled_size in ("", "inherit") else self.enabled_size
        return own or "never"

    @property
    def effective_shmem(self) -> str:
        """The same for 2 MiB of shared memory without a mount: deny and force win over the size's own word."""
        if self.shmem_size in ("", "inherit") or self.shmem_enabled in ("deny", "force"):
            return self.shmem_enabled or "never"
        return self.shmem_size

    def anon_orders(self, enabled: str, *, advised: bool) -> int:
        """The orders that khugepaged may collapse anonymous memory to, as bits: ``thp_vma_allowable_orders`` (mm/huge_memory.c).

        *enabled*: the effective word for 2 MiB; *advised*: the mapping has MADV_HUGEPAGE.
        """
        words = {order_of_kb(kb): word for kb, word in self.sizes.items()} | {PMD_ORDER: enabled}
        whole = self.enabled or enabled
        orders = 0
        for order, word in words.items():
            chosen = whole if word == "inherit" else word
            if order in ANON_ORDERS and (chosen == "always" or (chosen == "madvise" and advised)):
                orders |= 1 << order
        return orders


def read(pid: int, folder: Path = THP, proc: Path = Path("/proc")) -> Switches:
    """The switches now, and the tmpfs mounts that process *pid* sees."""
    sizes = {}
    for each in folder.glob("hugepages-*kB"):
        word = _chosen(each / "enabled")
        if word:
            sizes[int(each.name[len("hugepages-") : -len("kB")])] = word
    return Switches(
        enabled=_chosen(folder / "enabled"),
        enabled_size=_chosen(folder / _SIZE / "enabled"),
        shmem_enabled=_chosen(folder / "shmem_enabled"),
        shmem_size=_chosen(folder / _SIZE / "shmem_enabled"),
        defrag=_chosen(folder / "defrag"),
        use_zero_page=_chosen(folder / "use_zero_page"),
        khugepaged_defrag=_chosen(folder / "khugepaged/defrag"),
        sizes=dict(sorted(sizes.items())),
        mounts=mounts_of(_text(proc / str(pid) / "mountinfo")),
        internal=_internal(),
    )


def _chosen(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
    match = re.search(r"\[(\S+)\]", text)
    return match[1] if match else text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def mounts_of(text: str) -> dict[str, str]:
    """``huge=`` of the tmpfs mounts that *text* (``/proc/PID/mountinfo``) has, by device number as maps prints it."""
    huge_by_device = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("tmpfs", "devtmpfs"):
            continue
        major, _, minor = fields[2].partition(":")
        option = re.search(r"(?:^|,)huge=(\w+)", kind[2])
        huge_by_device[f"{int(major):02x}:{int(minor):02x}"] = option[1] if option else "never"
    return huge_by_device


def _internal() -> str:
    """The device number of the kernel's own tmpfs mount, as maps prints it: that of a file of ours on it."""
    try:
        fd = os.memfd_create("secondsight", os.MFD_CLOEXEC)
    except (OSError, AttributeError):
        return ""
    try:
        device = os.fstat(fd).st_dev
    finally:
        os.close(fd)
    return f"{os.major(device):02x}:{os.minor(device):02x}"
