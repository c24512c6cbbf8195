"""Parquet's encodings of integers that a replay must decode, compiled.

::

    hybrid               runs:  varint n << 1      n times one value
                                varint n << 1 | 1  n groups of 8 values, bit-packed, lowest bits first
    DELTA_BINARY_PACKED  varints: values a block, miniblocks a block, values in all, the first value (zigzag); then blocks:
                                the least difference (zigzag varint), a byte of bit width for each miniblock, the miniblocks:
                                each difference less the least, bit-packed

What does not add up returns False: the caller leaves it to pyarrow, which has the words for it. (Parquet format: Encodings.md.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from secondsight.native import allocating, merged

Bytes = NDArray[np.uint8]
_intrinsic: Any = intrinsic


@_intrinsic
def put(_, array, index, word):  # type: ignore[no-untyped-def]
    """Store the uint64 *word* at ``array[index]`` (*array* uint8, *index* uint64) and the seven bytes behind it, wherever that lies."""

    def code(context, build, signature, given):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, build, given[0]).data
        where = build.bitcast(build.gep(data, [given[1]]), ir.IntType(64).as_pointer())
        build.store(given[2], where, align=1)
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), code


@merged
def _varint(data: Bytes, at: int) -> tuple[np.uint64, int]:
    """The unsigned integer of at most 64 bits at ``data[at]``, and where it ends: -1 where it does not."""
    value = np.uint64(0)
    for shift in range(0, 64, 7):
        if at >= data.size:
            return value, -1
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < np.uint64(0x80):
            return value, at
    return value, -1


@merged
def _zigzag(value: np.uint64) -> np.uint64:
    """A signed integer, as arithmetic modulo 2^64 wants it."""
    return value >> np.uint64(1) ^ (np.uint64(0) - (value & np.uint64(1)))


class _ByteValues(NamedTuple):
    """What each byte stands for: *table* [256, 8] its values, *words* the same by eight bytes at once; *strange*: one of them is none."""

    table: NDArray[Any]
    words: NDArray[np.uint64]
    strange: NDArray[np.bool_]


@merged
def _spread(
    data: Bytes,
    at: int,
    size: int,
    values: _ByteValues,
    per_byte: int,
    out: NDArray[Any],
    n: int,
) -> bool:
    """*size* bytes of *data* from *at* on through *values* into *per_byte* of them each of *out* from *n* on; whether any is strange.

    A run has 63 bytes, as pyarrow writes them: to slice the arrays for each, and to call this, would take longer than the run.
    """
    table, words, strange = values.table, values.words, values.strange
    unknown = False
    from_, to = np.uint64(at), np.uint64(n)
    if out.itemsize == 1:
        # Eight values are a word, wherever a run begins. Of fewer, the next word overwrites what this one has too much.
        for i in range(np.uint64(size)):
            byte = data[from_ + i]
            unknown |= strange[byte]
            put(out, to, words[byte])
            to += np.uint64(per_byte)
    elif per_byte == 8:  # constant trip counts: the compiler unrolls them
        for i in range(np.uint64(size)):
            byte = data[from_ + i]
            unknown |= strange[byte]
            for j in range(np.uint64(8)):
                out[to + np.uint64(8) * i + j] = table[byte, j]
    elif per_byte == 4:
        for i in range(np.uint64(size)):
            byte = data[from_ + i]
            unknown |= strange[byte]
            for j in range(np.uint64(4)):
                out[to + np.uint64(4) * i + j] = table[byte, j]
    else:
        for i in range(np.uint64(size)):
            byte = data[from_ + i]
            unknown |= strange[byte]
            for j in range(np.uint64(2)):
                out[to + np.uint64(2) * i + j] = table[byte, j]
    return unknown


@allocating
def unpack(data: Bytes, width: int, values: NDArray[Any], known: int, out: NDArray[Any]) -> bool:
    """Look *data*'s runs of *width*-bit indices up in *values* (256 of them, of which *known* may be named) into *out*.

    *width* is 0 to 8; *out* has *values*' dtype. False where the runs do not add up or name what is not known.
    """
    at = 0
    n = 0
    largest = np.uint64(0)
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    bits = np.uint64(width)
    # Widths that divide a byte, the common ones: a table of the values that each byte stands for.
    per_byte = 8 // width if width == 1 or width == 2 or width == 4 else 0
    unknown = False
    table = np.zeros((256, 8), values.dtype)
    strange = np.zeros(256, np.bool_)
    for entry in range(256):
        for j in range(per_byte):
            index = np.uint64(entry) >> np.uint64(j * width) & mask
            table[entry, j] = values[index]
            strange[entry] |= index >= np.uint64(known)
    of_byte = _ByteValues(table, table.reshape(-1).view(np.uint64), strange)
    wide = 8 if out.itemsize == 1 else per_byte  # values that are written at once
    while n < out.size:
        head, at = _varint(data, at)
        length = int(np.int64(head >> np.uint64(1)))
        if at < 0 or length == 0 or length > 1 << 31:
            return False
        packed = head & np.uint64(1) != np.uint64(0)
        if not packed or width == 0:
            index = np.uint64(0)
            if width:
                if at >= data.size:
                    return False
                index = np.uint64(data[at])
                at += 1
            largest = max(largest, index)
            end = min(n + (8 * length if packed else length), out.size)
            value = values[index]
            for i in range(n, end):
                out[i] = value
            n = end
            continue
        stop = at + length * width
        if stop > data.size:
            return False
        if per_byte and out.size - n >= wide:
            whole = min(length * width, (out.size - n - wide) // per_byte + 1)
            unknown |= _spread(data, at, whole, of_byte, per_byte, out, n)
            n += whole * per_byte
            at += whole
        elif not per_byte:
            while at < stop and n + 8 <= out.size:
                word = np.uint64(0)
                for b in range(width):
                    word |= np.uint64(data[at + b]) << np.uint64(8 * b)
                at += width
                for i in range(8):
                    index = word & mask
                    largest = max(largest, index)
                    out[n + i] = values[index]
                    word >>= bits
                n += 8
        # The last few, where there is no room for more at once.
        word, have = np.uint64(0), 0
        while at < stop and n < out.size:
            word |= np.uint64(data[at]) << np.uint64(have)
            at += 1
            have += 8
            while have >= width and n < out.size:
                index = word & mask
                largest = max(largest, index)
                out[n] = values[index]
                word >>= bits
                have -= width
                n += 1
        at = stop
    return bool((largest < np.uint64(known) and not unknown) or out.size == 0)


@allocating
def sums(data: Bytes, out: NDArray[np.uint64]) -> bool:
    """The values of *data*, DELTA_BINARY_PACKED, into *out*; False where they do not add up. Sums are modulo 2^64, as the format has it."""
    block, at = _varint(data, 0)
    if at < 0:
        return False
    parts, at = _varint(data, at)
    if at < 0:
        return False
    total, at = _varint(data, at)
    if at < 0 or total != np.uint64(out.size):
        return False
    first, at = _varint(data, at)
    if at < 0 or block > np.uint64(1 << 20) or parts == 0 or parts > block:
        return False
    if block % (parts * np.uint64(8)) != 0:
        return False
    if out.size == 0:
        return True
    value = _zigzag(first)
    out[0] = value
    n = 1
    each = int(np.int64(block // parts))
    # In whole words, with room behind: each difference lies in one or two of them.
    words = np.zeros(data.size // 8 + 3, np.uint64)
    words.view(np.uint8)[: data.size] = data
    while n < out.size:
        least, at = _varint(data, at)
        if at < 0:
            return False
        least = _zigzag(least)
        widths = at
        at += int(np.int64(parts))
        if at > data.size:
            return False
        for part in range(widths, at):
            if n >= out.size:
                break
            width = int(np.int64(data[part]))
            count = min(each, out.size - n)
            if width == 0:
                for i in range(n, n + count):
                    value += least
                    out[i] = value
            else:
                if width > 64 or at + (count * width + 7) // 8 > data.size:
                    return False
                mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - width)
                bit = np.uint64(8 * at)
                for i in range(n, n + count):
                    word, shift = bit >> np.uint64(6), bit & np.uint64(63)
                    # In two steps: a shift by 64 is none.
                    high = words[word + np.uint64(1)] << np.uint64(1) << (np.uint64(63) - shift)
                    value += least + ((words[word] >> shift | high) & mask)
                    out[i] = value
                    bit += np.uint64(width)
                at += each * width // 8
            n += count
    return True
