"""What decides beside a process's memory: free huge blocks, room below cgroup limits, its place in khugepaged's list."""

from types import SimpleNamespace

import pytest

from secondsight.live.read import surroundings
from secondsight.live.read.surroundings import UNREGISTERED, Surroundings, read, whether_known

BUDDY = """Node 0, zone      DMA      1      1      1      1      1      1      1      1      0      1      3
Node 0, zone   Normal    100     50     10      5      2      1      1      1      1      4      7
Node 1, zone   Normal      0      0      0      0      0      0      0      0      0      2      1
"""


def process(cgroup="0::/\n", status="Name:\tx\nTHP_enabled:\t1\n"):
    files = {"cgroup": cgroup, "status": status}
    return SimpleNamespace(pid=7, read_file=lambda name: files[name].encode())


def laid(folder, buddyinfo=BUDDY, mode="0\n"):
    """A /proc of so much memory."""
    (folder / "buddyinfo").write_text(buddyinfo)
    (folder / "sys/vm").mkdir(parents=True)
    (folder / "sys/vm/zone_reclaim_mode").write_text(mode)
    return folder


def test_blocks_of_2_mib_are_those_of_their_order_and_what_larger_ones_hold(tmp_path):
    # Order 9 once, order 10 twice, over every zone and node.
    assert read(process(), laid(tmp_path)).huge_blocks == 1 + 2 * 3 + 4 + 2 * 7 + 2 + 2 * 1


def test_the_root_group_has_no_limit(tmp_path):
    assert read(process("0::/\n"), laid(tmp_path)).headroom == -1
    assert read(process("4:memory:/\n3:cpu:/a\n0::/\n"), tmp_path).headroom == -1


@pytest.mark.parametrize("mode", ["0\n", "1\n"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_distances_are_asked_for_on_several_nodes_with_reclaim_switched_on(
    tmp_path, monkeypatch, mode, nodes
):
    sysfs = tmp_path / "node"
    for node in range(nodes):
        (sysfs / f"node{node}").mkdir(parents=True)
    real = surroundings.Path
    monkeypatch.setattr(
        surroundings, "Path", lambda path: sysfs if path == "/sys/devices/system/node" else real(path)
    )
    assert read(process(), laid(tmp_path, mode=mode)).distances == (mode == "1\n" and nodes == 2)


def test_what_may_not_be_read_is_unknown_and_a_kernel_without_numa_asks_nothing(tmp_path):
    nothing = read(process(), tmp_path)
    assert nothing.huge_blocks is None and nothing.distances is False
    laid(tmp_path, mode="torn\n")
    assert read(process(), tmp_path).distances is None


def test_only_khugepageds_list_says_that_it_knows_a_process():
    assert whether_known(True) == "knows this process"
    assert whether_known(False) == UNREGISTERED and "does not know" in UNREGISTERED
    assert "may not know" in whether_known(None) and "only in kernel memory" in whether_known(None)
    assert Surroundings().registered is None, "procfs shows no list"
