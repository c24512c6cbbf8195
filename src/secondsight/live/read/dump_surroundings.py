"""What procfs and cgroupfs would say of a process's surroundings, from kernel memory alone: of a crash dump, or a guest from outside.

::

    node_data[] ─▶ node_zones[] ─▶ free_area[order].nr_free                          free blocks of 2 MiB
    mm->owner ─▶ cgroups ─▶ subsys[memory_cgrp_id] ─▶ memory.usage, memory.max       and of every ancestor (css.parent)
    node_reclaim_mode                                                                whether distances between nodes are asked

Sources: include/linux/mmzone.h, mm/memcontrol.c, include/linux/page_counter.h, mm/vmscan.c. What is not there, or does not hold still,
is None.
"""

from __future__ import annotations

from typing import Any

import drgn

from secondsight.geometry import PAGE_SIZE, PMD_ORDER
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.surroundings import Surroundings

_MOST_NODES = 1024
#: PAGE_COUNTER_MAX: no limit, in pages
_NO_LIMIT = ((1 << 63) - 1) // PAGE_SIZE
_MISSING = (drgn.FaultError, LookupError, AttributeError, TypeError, ValueError)


def read(kernel: KernelMemory, mm: Any) -> Surroundings:
    """The surroundings of ``struct mm_struct *`` *mm*; khugepaged's list is not among them."""
    nodes = _nodes(kernel)
    reclaim = kernel.variable("node_reclaim_mode")
    return Surroundings(
        huge_blocks=_huge_blocks(nodes),
        headroom=_headroom(kernel, mm),
        distances=None if reclaim is None else bool(reclaim & 0xFFFF_FFFF) and len(nodes) > 1,
    )


def _nodes(kernel: KernelMemory) -> list[Any]:
    """``struct pglist_data *`` of each node."""
    address = kernel.symbols.address("node_data")
    nodes: list[Any] = []
    if address is None:
        return nodes
    try:
        for number in range(_MOST_NODES):
            pointer = kernel.program.read_u64(address + 8 * number)
            # The array ends with what the kernel put after it, which is no pointer into the kernel.
            if pointer < 1 << 63:
                break
            nodes.append(drgn.Object(kernel.program, "struct pglist_data *", value=pointer))
            if int(nodes[-1].node_id.value_()) != number:
                nodes.pop()
                break
    except _MISSING:
        pass
    return nodes


def _huge_blocks(nodes: list[Any]) -> int | None:
    total = 0
    try:
        for node in nodes:
            for zone in node.node_zones:
                for order in range(PMD_ORDER, zone.free_area.type_.length):
                    total += int(zone.free_area[order].nr_free.value_()) << (order - PMD_ORDER)
    except _MISSING:
        return None
    return total if nodes else None


def _headroom(kernel: KernelMemory, mm: Any) -> int | None:
    """Bytes below the tightest limit of the owner's memory cgroup and its ancestors; -1 where none is set."""
    number = kernel.constant("memory_cgrp_id")
    if number is None:
        return -1  # a kernel without CONFIG_MEMCG
    least: int | None = None
    try:
        css = mm.owner.cgroups.subsys[number].read_()
        while css:
            group = drgn.container_of(css, "struct mem_cgroup", "css")
            most = int(group.memory.max.value_())
            if most < _NO_LIMIT:
                left = max(most - int(group.memory.usage.counter.value_()), 0) * PAGE_SIZE
                least = left if least is None else min(least, left)
            css = css.parent.read_()
    except _MISSING:
        return None
    return -1 if least is None else least
