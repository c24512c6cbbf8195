"""What the agent needs of a kernel, each with the option that gives it: said before anything is asked of a kernel that lacks it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["missing"]

_NEEDS = (
    ("sys/kernel/mm/transparent_hugepage/khugepaged", "transparent huge pages (CONFIG_TRANSPARENT_HUGEPAGE)"),
    ("sys/kernel/tracing/kprobe_events", "kprobes in its trace (CONFIG_KPROBE_EVENTS)"),
    ("dev/ram1", "RAM disks (CONFIG_BLK_DEV_RAM)"),
    ("proc/self/pagemap", "pagemap (CONFIG_PROC_PAGE_MONITOR)"),
)
_FOR_STATES = (
    ("sys/kernel/btf/vmlinux", "its types (CONFIG_DEBUG_INFO_BTF), by which --states reads kernel memory"),
    ("proc/kcore", "/proc/kcore (CONFIG_PROC_KCORE), through which --states reads kernel memory"),
)


def missing(states: bool, root: Path = Path("/")) -> list[str]:
    """What this kernel lacks; *states*: kernel memory is going to be read."""
    return [what for path, what in _NEEDS + (_FOR_STATES if states else ()) if not (root / path).exists()]
