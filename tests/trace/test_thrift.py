"""Thrift's compact protocol, read back from bytes put together by hand."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.trace.thrift import Reader


def varint(value):
    """*value* in groups of seven bits, the lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def zigzag(value):
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


@given(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1))
def test_integers_come_back(unsigned, signed):
    reader = Reader(varint(unsigned) + zigzag(signed))
    assert reader.varint() == unsigned and reader.integer() == signed
    assert reader.at == len(reader.data)


def test_a_structs_fields_by_number():
    """Field 1 an i32, field 2 true, field 5 bytes, field 300 a list of two i64, then the end."""
    data = (
        b"\x15" + zigzag(-7) + b"\x11" + b"\x38" + varint(3) + b"abc"
        + b"\x09" + zigzag(300) + b"\x26" + zigzag(1 << 40) + zigzag(-1) + b"\x00"
    )  # fmt: skip
    assert Reader(data).struct() == {1: -7, 2: True, 5: b"abc", 300: [1 << 40, -1]}


def test_structs_and_lists_lie_in_each_other():
    inner = b"\x15" + zigzag(9) + b"\x00"
    data = b"\x1c" + inner + b"\x19" + b"\x2c" + inner + b"\x00" + b"\x00"
    assert Reader(data).struct() == {1: {1: 9}, 2: [{1: 9}, {}]}


def test_a_long_list_has_its_size_behind_its_head():
    data = b"\x19" + b"\xf5" + varint(20) + b"".join(zigzag(i) for i in range(20)) + b"\x00"
    assert Reader(data).struct() == {1: list(range(20))}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", IndexError),
        (b"\x15", IndexError),
        (b"\x18" + varint(10) + b"abc", ValueError),
        (b"\x19\xf5" + varint(1 << 30), ValueError),
        (b"\x15" + b"\xff" * 11, ValueError),
        (b"\x1e\x00", ValueError),
        (b"\x1c" * 40, ValueError),
    ],
    ids=["nothing", "no value", "bytes beyond", "list beyond", "varint too long", "no type 14", "too deep"],
)
def test_what_does_not_add_up_is_an_error(data, error):
    with pytest.raises(error):
        Reader(data).struct()


@given(st.binary(max_size=60))
def test_no_bytes_bring_more_than_those_errors(data):
    with contextlib.suppress(IndexError, ValueError):
        Reader(data).struct()
