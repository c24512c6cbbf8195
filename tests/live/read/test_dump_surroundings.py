"""A process's surroundings from kernel memory, laid out by hand: free huge blocks by node, the tightest limit of its cgroups."""

import pytest

pytest.importorskip("drgn")

from secondsight.live.read.dump_surroundings import read
from support.fake_kernel import STRUCTS, FakeKernel

ORDERS, ZONES = 11, 2
KERNEL = STRUCTS | {
    "free_area": {"nr_free": "u64"},
    "zone": {"free_area": f"free_area[{ORDERS}]"},
    "pglist_data": {"node_id": "int", "node_zones": f"zone[{ZONES}]"},
    "page_counter": {"usage": "atomic", "max": "u64"},
    "cgroup_subsys_state": {"parent": "cgroup_subsys_state*"},
    "mem_cgroup": {"css": "cgroup_subsys_state", "memory": "page_counter"},
    "css_set": {"subsys": "cgroup_subsys_state*[14]"},
    "task_struct": {"cgroups": "css_set*"},
}
KERNEL = {"atomic": {"counter": "s64"}} | KERNEL
MEMORY = 4
NO_LIMIT = ((1 << 63) - 1) // 4096


def node(kernel, number, free):
    """``struct pglist_data`` *number* with *free*: {(zone, order): blocks}."""
    made = kernel.make("pglist_data", node_id=number)
    zones = kernel.member("pglist_data", made, "node_zones")
    for (zone, order), blocks in free.items():
        kernel.write(zones + 8 * (ORDERS * zone + order), blocks.to_bytes(8, "little"))
    return made


def surroundings(nodes=(), groups=(), reclaim=None, memcg=True):
    """What is read where there are *nodes*, and the owner lies in the innermost of *groups*, (usage, max) from the root down."""
    kernel = FakeKernel(KERNEL, {"memory_cgrp_id": MEMORY} if memcg else {"other": 1})
    made = [node(kernel, i, free) for i, free in enumerate(nodes)]
    if made:
        kernel.global_("node_data", kernel.words_at(*made, 0))
    if reclaim is not None:
        # Four bytes: what lies behind is another variable.
        kernel.global_("node_reclaim_mode", kernel.words_at(7 << 32 | reclaim))
    css = 0
    for usage, most in groups:
        group = kernel.make("mem_cgroup")
        memory = kernel.member("mem_cgroup", group, "memory")
        kernel.change("page_counter", memory, max=most)
        kernel.change("atomic", memory, counter=usage)
        kernel.change("cgroup_subsys_state", kernel.member("mem_cgroup", group, "css"), parent=css)
        css = kernel.member("mem_cgroup", group, "css")
    subsys = kernel.make("css_set")
    kernel.write(subsys + 8 * MEMORY, css.to_bytes(8, "little"))
    owner = kernel.make("task_struct", cgroups=subsys)
    return read(kernel, kernel.at("mm_struct", kernel.make("mm_struct", owner=owner)))


def test_free_blocks_of_2_mib_and_larger_of_every_zone_and_node():
    nodes = [{(0, 8): 99, (0, 9): 3, (1, 10): 2}, {(1, 9): 5}]
    assert surroundings(nodes).huge_blocks == 3 + 2 * 2 + 5
    assert surroundings([{}]).huge_blocks == 0 and surroundings().huge_blocks is None


def test_what_follows_the_last_node_is_none():
    kernel = FakeKernel(KERNEL)
    first = node(kernel, 0, {(0, 9): 1})
    # Another pointer into the kernel, to what is no node of that number.
    kernel.global_("node_data", kernel.words_at(first, node(kernel, 7, {(0, 9): 50})))
    assert read(kernel, kernel.at("mm_struct", kernel.make("mm_struct"))).huge_blocks == 1


@pytest.mark.parametrize(
    ("groups", "pages"),
    [
        ([(10, NO_LIMIT)], None),
        ([(10, NO_LIMIT), (100, 300)], 200),
        ([(0, NO_LIMIT), (100, 150), (20, 300)], 50),  # an ancestor's is the tightest
        ([(0, NO_LIMIT), (400, 300)], 0),  # over it already
    ],
)
def test_the_room_below_the_tightest_limit(groups, pages):
    assert surroundings(groups=groups).headroom == (-1 if pages is None else 4096 * pages)


def test_a_kernel_without_memory_cgroups_has_no_limit():
    assert surroundings(memcg=False).headroom == -1
    kernel = FakeKernel(KERNEL, {"memory_cgrp_id": MEMORY})
    gone = kernel.make("mm_struct", owner=0xFFFF_A000_0000_0000)
    assert read(kernel, kernel.at("mm_struct", gone)).headroom is None


@pytest.mark.parametrize(
    ("nodes", "reclaim", "distances"),
    [(2, 1, True), (2, 0, False), (1, 1, False), (2, None, None)],
)
def test_distances_are_asked_where_there_are_several_nodes_and_reclaim_is_by_node(nodes, reclaim, distances):
    assert surroundings([{}] * nodes, reclaim=reclaim).distances is distances
