"""Who belongs to a cgroup, and who runs a VM."""

import pytest

from secondsight.errors import UsageError
from secondsight.host.targets import in_cgroup, in_vm
from secondsight.host.tasks import Task


def task(pid, path, *command):
    return Task(pid, command[0] if command else "x", 0, 1, f"4:memory:{path}\n0::/\n", command, {})


TASKS = [
    task(1, "/"),
    task(2, "/a"),
    task(3, "/a/b"),
    task(4, "/ab"),
    task(5, "/vms", "qemu-system-x86_64", "-name", "guest=web"),
    task(6, "/vms", "qemu-system-x86_64", "-name", "db"),
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("/a", [2, 3]),
        ("/a/", [2, 3]),
        ("/a/b", [3]),
        ("a", [2, 3]),
        ("a/b/", [3]),
        ("ab", [4]),
        ("/", [1, 2, 3, 4, 5, 6]),
        ("/vms", [5, 6]),
    ],
)
def test_a_cgroup_and_those_below(wanted, expected):
    assert [each.pid for each in in_cgroup(wanted, TASKS)] == expected


def test_a_vm_by_name():
    assert [each.pid for each in in_vm("web", TASKS)] == [5]
    with pytest.raises(UsageError, match="--vm mail: there is no such VM; here are db, web"):
        in_vm("mail", TASKS)
    with pytest.raises(UsageError, match="no VM is seen here"):
        in_vm("mail", TASKS[:2])


def test_nobody_is_there():
    with pytest.raises(UsageError, match="--cgroup /nobody: no process is in such"):
        in_cgroup("/nobody", TASKS)
