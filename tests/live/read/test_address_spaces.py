"""Owners of address spaces: read when one is not known, and not too often."""

import pytest

pytest.importorskip("drgn")

from secondsight.live.read.address_spaces import AddressSpaces


def test_they_are_read_again_for_one_that_is_not_known():
    now, tables = [100.0], [{1: (10, "a")}, {1: (10, "a"), 2: (20, "b")}]
    readings = []

    def read():
        readings.append(now[0])
        return tables[min(len(readings), 2) - 1]

    spaces = AddressSpaces(read, lambda: now[0])
    assert spaces.owner(1) == 10 and spaces.owner(1) == 10 and readings == [100.0]
    assert spaces.owner(2) is None and readings == [100.0], "not at once again"
    now[0] = 103.0
    assert spaces.owner(2) == 20 and spaces.owner(3) is None
    assert readings == [100.0, 103.0] and spaces.names == {10: "a", 20: "b"}
