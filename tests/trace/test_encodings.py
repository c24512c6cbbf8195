"""Parquet's encodings of integers: what an encoder made by the format's text wrote comes out again; what does not add up is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.trace.encodings import sums, unpack


def varint(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def zigzag(value):
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def packed(values, width):
    """*values* of *width* bits each, lowest bits first."""
    word = sum(value << (i * width) for i, value in enumerate(values))
    return word.to_bytes((len(values) * width + 7) // 8, "little")


def hybrid(runs, width):
    """*runs*: (True, [one value, repeated]) or (False, groups of eight), as in Encodings.md."""
    out = b""
    for repeated, values in runs:
        if repeated:
            out += varint(len(values) << 1) + packed(values[:1], 8 * ((width + 7) // 8))
        else:
            out += varint(len(values) // 8 << 1 | 1) + packed(values, width)
    return out


def delta(values, block=128, parts=4):
    """DELTA_BINARY_PACKED of *values* (of 64 bits, signed)."""
    out = varint(block) + varint(parts) + varint(len(values)) + zigzag(values[0] if values else 0)
    steps = [(b - a + (1 << 63)) % (1 << 64) - (1 << 63) for a, b in zip(values, values[1:], strict=False)]
    each = block // parts
    for start in range(0, len(steps), block):
        chunk = steps[start : start + block]
        least = min(chunk)
        groups = [[s - least for s in chunk[i : i + each]] for i in range(0, block, each)]
        widths = [max((s.bit_length() for s in group), default=0) for group in groups]
        out += zigzag(least) + bytes(widths)
        for group, width in zip(groups, widths, strict=True):
            if group:
                out += packed(group + [0] * (each - len(group)), width)
    return out


def bytes_of(raw):
    return np.frombuffer(raw, np.uint8)


@st.composite
def runs(draw):
    """(width, runs, how many of their values are asked for): the last group of eight is filled up."""
    width = draw(st.integers(0, 8))
    value = st.integers(0, (1 << width) - 1)
    made = []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            made.append((True, [draw(value)] * draw(st.integers(1, 70))))
        else:
            n = 8 * draw(st.integers(1, 9))
            made.append((False, draw(st.lists(value, min_size=n, max_size=n))))
    short = draw(st.integers(0, 7)) if not made[-1][0] else 0
    return width, made, sum(len(values) for _, values in made) - short


@given(runs(), st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]))
@settings(max_examples=120, deadline=None)
def test_runs_of_indices_are_looked_up(made, dtype):
    width, parts, n = made
    values = np.arange(256).astype(dtype) * dtype(1) + dtype(3)
    # Nothing behind the last is written.
    whole = np.full(n + 16, 0xEE, dtype)
    assert unpack(bytes_of(hybrid(parts, width)), width, values, 256, whole[:n])
    expected = [index for _, run in parts for index in run][:n]
    assert whole[:n].tolist() == values[expected].tolist() and set(whole[n:].tolist()) == {0xEE}


@pytest.mark.parametrize("width", range(1, 9))
def test_an_index_that_no_value_has_is_refused(width):
    values = np.arange(256, dtype=np.uint16)
    top = (1 << width) - 1
    for run in ((True, [top] * 5), (False, [0] * 20 + [top] + [0] * 3), (False, [0] * 7 + [top])):
        data, out = bytes_of(hybrid([run], width)), np.zeros(len(run[1]), np.uint16)
        assert unpack(data, width, values, top + 1, out)
        assert not unpack(data, width, values, top, out)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8])
def test_runs_that_are_cut_anywhere_are_refused(width):
    values = np.arange(256, dtype=np.uint8)
    raw = hybrid([(False, [1, 0] * 12), (True, [1] * 9), (False, [0, 1] * 8)], width)
    out = np.zeros(24 + 9 + 16, np.uint8)
    assert unpack(bytes_of(raw), width, values, 256, out)
    assert not any(unpack(bytes_of(raw[:cut]), width, values, 256, out) for cut in range(len(raw)))


def test_runs_of_nothing_and_of_too_much_are_refused():
    values, out = np.arange(256, dtype=np.uint8), np.zeros(8, np.uint8)
    for head in (0, 1, (1 << 32) << 1, (1 << 62) << 1):
        assert not unpack(bytes_of(varint(head) + b"\0" * 40), 1, values, 256, out), head
    assert not unpack(bytes_of(b"\x80" * 12), 1, values, 256, out)  # a varint that never ends
    assert unpack(bytes_of(b""), 1, values, 256, out[:0])


signed = st.integers(-(1 << 63), (1 << 63) - 1)


@given(
    st.one_of(st.lists(signed, max_size=300), st.lists(st.integers(-40, 40), max_size=300)),
    st.sampled_from([(128, 4), (128, 1), (256, 8), (32, 4)]),
)
@settings(max_examples=80, deadline=None)
def test_differences_add_up_to_the_values(values, shape):
    out = np.zeros(len(values), np.uint64)
    assert sums(bytes_of(delta(values, *shape)), out)
    assert out.tolist() == [value % (1 << 64) for value in values]


def test_differences_that_are_cut_anywhere_are_refused():
    values = [7, -3, 1 << 40, 5, 5] * 30
    raw, out = delta(values), np.zeros(150, np.uint64)
    assert sums(bytes_of(raw), out)
    # The last miniblock may be padded: what is cut of that is no value.
    needed = len(raw) - (32 - (149 - 128)) * 42 // 8
    assert not any(sums(bytes_of(raw[:cut]), out) for cut in range(needed - 1))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (varint(128) + varint(4) + varint(3) + zigzag(0), "another number of values"),
        (varint(128) + varint(0) + varint(2) + zigzag(0), "no miniblocks"),
        (varint(128) + varint(3) + varint(2) + zigzag(0), "miniblocks of no whole bytes"),
        (varint(4) + varint(8) + varint(2) + zigzag(0), "more miniblocks than values"),
        (varint(1 << 21) + varint(4) + varint(2) + zigzag(0) + b"\0" * 9, "a block that is too large"),
        (
            varint(128) + varint(4) + varint(2) + zigzag(0) + zigzag(0) + b"\x41\0\0\0" + b"\0" * 600,
            "65 bits",
        ),
    ],
)
def test_heads_that_cannot_be_are_refused(raw, why):
    assert not sums(bytes_of(raw), np.zeros(2, np.uint64)), why
