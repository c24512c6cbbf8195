"""Columns straight from a Parquet file's pages, where they lie as a replay wants them.

pyarrow decodes 200 to 300 M values/s of one column, less than a replay uses. Two shapes of page need no decoder of that kind:

::

    column chunk    [dictionary page]  data page  data page ...        each page: header (Thrift, compact) + body
    PLAIN uint64    body = the values, little-endian                   → a view of the mapped file, nothing copied
    RLE_DICTIONARY  body = bit width, then runs:                       → unpacked eight values at a time
                      varint n << 1      n times one value
                      varint n << 1 | 1  n groups of 8 values, bit-packed

Only uncompressed, required columns of version 1 pages; whatever is otherwise, or does not add up, returns None and is left to
pyarrow, which also has the words for what is damaged. (Parquet format: Encodings.md; parquet.thrift, PageHeader.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from secondsight.trace.thrift import Reader

Bytes = NDArray[np.uint8]
F = TypeVar("F", bound=Callable[..., Any])

_DATA_PAGE, _DICTIONARY_PAGE = 0, 2  # PageType
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8  # Encoding
_MOST_WIDTH: Final = 8  # bits of a dictionary index: eight of them are one 64-bit word
_LONGEST_HEADER: Final = 1 << 12


class Column(NamedTuple):
    """*values*, each of which is one of *distinct* where that is known."""

    values: NDArray[Any]
    distinct: NDArray[Any] | None = None


class _Page(NamedTuple):
    kind: int
    encoding: int
    values: int
    body: int  # offset in the file
    size: int


def _pages(file: Bytes, start: int, stop: int) -> list[_Page]:
    """The pages of the column chunk ``file[start:stop]``. Raises IndexError, KeyError, TypeError or ValueError for nonsense."""
    found = []
    while start < stop:
        header = Reader(file[start : min(start + _LONGEST_HEADER, stop)].tobytes())
        fields = header.struct()
        kind, size = fields[1], fields[3]
        described = fields[7 if kind == _DICTIONARY_PAGE else 5]
        page = _Page(kind, described[2], described[1], start + header.at, size)
        start = page.body + size
        if size < 0 or fields[2] != size or page.values < 0:
            raise ValueError("sizes that cannot be")
        found.append(page)
    if start != stop:
        raise ValueError("a page that ends outside its chunk")
    return found


def column(file: Bytes, chunk: Any, dtype: type[np.unsignedinteger[Any]]) -> Column | None:
    """The values of *chunk* (pyarrow's ColumnChunkMetaData) of the mapped *file* as *dtype*, or None if pyarrow must decode them."""
    if chunk.compression != "UNCOMPRESSED":
        return None
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    stop = start + chunk.total_compressed_size
    if start is None or not 0 <= start <= stop <= file.size:
        return None
    try:
        pages = _pages(file, start, stop)
        if sum(page.values for page in pages if page.kind == _DATA_PAGE) != chunk.num_values:
            return None
        if dtype is np.uint64 and all(p.kind == _DATA_PAGE and p.encoding == _PLAIN for p in pages):
            return _plain(file, pages)
        return _dictionary(file, pages, dtype)
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _plain(file: Bytes, pages: list[_Page]) -> Column | None:
    """PLAIN pages of 64-bit values: a view of one page, a copy of several."""
    parts = []
    for page in pages:
        if page.size != 8 * page.values:
            return None
        parts.append(np.frombuffer(file, "<u8", page.values, page.body))
    return Column(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _dictionary(file: Bytes, pages: list[_Page], dtype: type[np.unsignedinteger[Any]]) -> Column | None:
    """A dictionary page of at most 256 values, then pages of indices into it."""
    first, *rest = pages
    stored = np.dtype(
        "<u8" if dtype is np.uint64 else "<u4"
    )  # Parquet's physical types have 32 bits at least
    if first.kind != _DICTIONARY_PAGE or first.encoding not in (_PLAIN, _PLAIN_DICTIONARY):
        return None
    if first.values > 256 or first.size != stored.itemsize * first.values:
        return None
    if not all(p.kind == _DATA_PAGE and p.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY) for p in rest):
        return None
    values = np.zeros(256, dtype)
    values[: first.values] = np.frombuffer(file, stored, first.values, first.body)
    out = np.empty(sum(page.values for page in rest), dtype)
    done = 0
    for page in rest:
        width = int(file[page.body]) if page.size else 0
        if page.size == 0 or width > _MOST_WIDTH:
            return None
        body = file[page.body + 1 : page.body + page.size]
        if not _unpack(body, width, values, first.values, out[done : done + page.values]):
            return None
        done += page.values
    return Column(out, values[: first.values])


def _merged(function: F) -> F:
    """Compiled into its caller, counting no references."""
    options: dict[str, Any] = {"cache": True, "nogil": True, "forceinline": True, "_nrt": False}
    compiled: F = njit(**options)(function)
    return compiled


@_merged
def _spread(
    data: Bytes,
    at: int,
    size: int,
    table: NDArray[Any],
    words: NDArray[np.uint64],
    strange: NDArray[np.bool_],
    per_byte: int,
    out: NDArray[Any],
    wide: NDArray[np.uint64],
    n: int,
) -> bool:
    """*size* bytes of *data* from *at* on through *table* into *per_byte* values each of *out* from *n* on; whether any is *strange*.

    A run has 63 bytes, as pyarrow writes them: to slice the arrays for each, and to call this, would take longer than the run.
    """
    unknown = False
    from_, to = np.uint64(at), np.uint64(n)
    if (
        per_byte == 8 and out.itemsize == 1 and n % 8 == 0
    ):  # all values of a byte are one word, *wide* being *out*
        for i in range(np.uint64(size)):
            byte = data[from_ + i]
            unknown |= strange[byte]
            wide[(to >> np.uint64(3)) + i] = words[byte]
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


@njit(cache=True, nogil=True)
def _unpack(data: Bytes, width: int, values: NDArray[Any], known: int, out: NDArray[Any]) -> bool:
    """Unpack *data*'s runs of *width*-bit indices through *values* into *out*; False if they do not add up."""
    at = 0
    n = 0
    largest = np.uint64(0)
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    bits = np.uint64(width)
    # Widths that divide a byte, the common ones: a table of the values that each byte stands for.
    per_byte = 8 // width if width == 1 or width == 2 or width == 4 else 0
    unknown = False
    table = np.empty((256, 8), values.dtype)
    strange = np.zeros(256, np.bool_)
    for entry in range(256):
        for j in range(per_byte):
            index = np.uint64(entry) >> np.uint64(j * width) & mask
            table[entry, j] = values[index]
            strange[entry] |= index >= np.uint64(known)
    words = table.reshape(-1).view(np.uint64)
    wide = out[: out.size // 8 * 8].view(np.uint64)
    while n < out.size:
        head = np.uint64(0)
        shift = np.uint64(0)
        while True:
            if at >= data.size or shift > np.uint64(28):
                return False
            byte = np.uint64(data[at])
            at += 1
            head |= (byte & np.uint64(0x7F)) << shift
            shift += np.uint64(7)
            if byte < np.uint64(0x80):
                break
        length = np.int64(head >> np.uint64(1))
        if head & np.uint64(1) == np.uint64(0):
            index = np.uint64(0)
            if width:
                if at >= data.size:
                    return False
                index = np.uint64(data[at])
                at += 1
            if index > np.uint64(255):
                return False
            largest = max(largest, index)
            end = int(n + length if n + length < out.size else out.size)
            value = values[index]
            for i in range(n, end):
                out[i] = value
            if length == 0:
                return False
            n = end
            continue
        if length == 0 or at + length * width > data.size:
            return False
        if per_byte:
            whole = int(length) * width
            if whole > (out.size - n) // per_byte:
                whole = (out.size - n) // per_byte
            unknown |= _spread(data, at, whole, table, words, strange, per_byte, out, wide, n)
            n += whole * per_byte
            if n < out.size and whole < int(length) * width:
                word = np.uint64(data[at + whole])
                while n < out.size:
                    index = word & mask
                    largest = max(largest, index)
                    out[n] = values[index]
                    word >>= bits
                    n += 1
            at += int(length) * width
            continue
        for _ in range(length):
            word = np.uint64(0)
            for b in range(width):
                word |= np.uint64(data[at + b]) << np.uint64(8 * b)
            at += width
            if n + 8 <= out.size:
                for i in range(8):
                    index = word & mask
                    largest = max(largest, index)
                    out[n + i] = values[index]
                    word >>= bits
                n += 8
            else:
                while n < out.size:
                    index = word & mask
                    largest = max(largest, index)
                    out[n] = values[index]
                    word >>= bits
                    n += 1
                break
    return bool((largest < np.uint64(known) and not unknown) or out.size == 0)
