"""What an address space and its machine are to the code below them: all that is promised there is there, on every kind of them."""

from __future__ import annotations

import inspect

import pytest

from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.protocols import HostLike, MmLike, SharedMemoryLike, Slots


def promised(protocol: type) -> set[str]:
    """The names of its attributes and methods."""
    return {
        name for name in {*inspect.get_annotations(protocol), *vars(protocol)} if not name.startswith("_")
    }


def made() -> dict[str, tuple[type, object]]:
    """One of each kind, with the protocol that it is to be."""
    host = Host("7.3", HostConfig(shmem_enabled="advise"))
    private = host.mm("private", 1)
    memory, file = host.shared_memory("ram", 2), host.regular_file("data", 2)
    shared, mapped = (
        host.shared_mm("shared", 1, memory, 1),
        host.shared_mm("mapped", 1, file, 0, writable=False),
    )
    return {
        "host": (HostLike, host), "khugepaged": (Slots, host.khugepaged), "shared memory": (SharedMemoryLike, memory),
        "regular file": (SharedMemoryLike, file), "private": (MmLike, private), "shared": (MmLike, shared), "mapped": (MmLike, mapped),
    }  # fmt: skip


@pytest.mark.parametrize("kind", made())
def test_what_is_promised_is_there(kind: str) -> None:
    protocol, thing = made()[kind]
    names = promised(protocol)
    assert len(names) >= 4
    assert {name for name in names if not hasattr(thing, name)} == set()


@pytest.mark.parametrize("kind", made())
def test_methods_take_what_is_promised_by_the_same_names(kind: str) -> None:
    protocol, thing = made()[kind]
    for name in promised(protocol):
        method = inspect.getattr_static(protocol, name, None)
        if inspect.isfunction(method):
            there = inspect.signature(getattr(thing, name)).parameters
            asked = list(inspect.signature(method).parameters)[1:]
            assert [each for each in asked if each not in there] == [], name


def test_a_space_is_known_by_its_name_and_its_machine() -> None:
    _, host = made()["host"]
    assert all(mm.host is host and host.mms[name] is mm for name, mm in host.mms.items())
    assert {mm.memory is None for mm in host.mms.values()} == {True, False}
