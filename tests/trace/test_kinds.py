"""The kind byte: its bits, its names, what is unknown."""

import numpy as np
import pytest

from secondsight.trace.kinds import (
    Access,
    Kind,
    Origin,
    Verb,
    first_decrease,
    first_unknown,
    is_known,
    kind_name,
)


def test_an_access_is_an_origin_and_what_it_did():
    for kind in Kind:
        assert kind.name == f"{kind.origin.name}_{kind.access.name}"
        assert kind == (kind.origin << 2 | kind.access) < 0x80
    assert len(Kind) == len(Origin) * len(Access)
    assert all(verb >= 0x80 for verb in Verb)


def test_the_fast_check_agrees_with_the_table_for_every_byte():
    for byte in range(256):
        assert (first_unknown(np.array([0, byte], np.uint8)) == -1) == is_known(byte), hex(byte)
    assert kind_name(Kind.GUEST_WRITE) == "guest_write"
    assert kind_name(0x7F) == "kind 0x7f"


@pytest.mark.parametrize(("times", "at"), [([], -1), ([5], -1), ([1, 1, 2], -1), ([1, 3, 2, 1], 2)])
def test_first_decrease(times, at):
    assert first_decrease(np.array(times, np.uint64)) == at
