"""Columns straight from a Parquet file's pages, where they lie as a replay wants them.

pyarrow decodes 200 to 300 M values/s of one column, less than a replay uses. Three shapes of page need no decoder of that kind:

::

    column chunk         [dictionary page]  data page  data page ...      each page: header (Thrift, compact) + body
    PLAIN uint64         body = the values, little-endian                 → a view of the mapped file, nothing copied
    DELTA_BINARY_PACKED  body = first value, then differences             → added up     (:mod:`.encodings`)
    RLE_DICTIONARY       body = bit width, then runs of indices           → looked up    (:mod:`.encodings`)

Only uncompressed, required columns of version 1 pages; whatever is otherwise, or does not add up, returns None and is left to
pyarrow, which also has the words for what is damaged. (Parquet format: Encodings.md; parquet.thrift, PageHeader.)
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secondsight.bufferpool import unset
from secondsight.trace.encodings import sums, unpack
from secondsight.trace.thrift import Reader

Bytes = NDArray[np.uint8]

_DATA_PAGE, _DICTIONARY_PAGE = 0, 2  # PageType
_PLAIN, _PLAIN_DICTIONARY, _DELTA_BINARY_PACKED, _RLE_DICTIONARY = 0, 2, 5, 8  # Encoding
_MOST_WIDTH: Final = 8  # bits of a dictionary index: eight of them are one 64-bit word
_LONGEST_HEADER: Final = 4096


class DecodedColumn(NamedTuple):
    """*values*, each of which is one of *distinct* where that is known; *mapped*: they lie in the file."""

    values: NDArray[Any]
    distinct: NDArray[Any] | None = None
    mapped: bool = False


class _Page(NamedTuple):
    kind: int
    encoding: int
    values: int
    body: int  # offset in the file
    size: int


def _pages(file: Bytes, start: int, stop: int) -> list[_Page]:
    """The pages of the column chunk ``file[start:stop]``.

    :raises IndexError, KeyError, TypeError, ValueError: nonsense.
    """
    pages = []
    while start < stop:
        header = Reader(file[start : min(start + _LONGEST_HEADER, stop)].tobytes())
        fields = header.struct()
        kind, size = fields[1], fields[3]
        described = fields[7 if kind == _DICTIONARY_PAGE else 5]
        page = _Page(kind, described[2], described[1], start + header.at, size)
        start = page.body + size
        if size < 0 or fields[2] != size or page.values < 0:
            raise ValueError("sizes that cannot be")
        pages.append(page)
    if start != stop:
        raise ValueError("a page that ends outside its chunk")
    return pages


def column(file: Bytes, chunk: Any, dtype: type[np.unsignedinteger[Any]]) -> DecodedColumn | None:
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
        shapes = {(page.kind, page.encoding) for page in pages}
        if dtype is np.uint64 and shapes == {(_DATA_PAGE, _PLAIN)}:
            return _plain(file, pages)
        if dtype is np.uint64 and shapes == {(_DATA_PAGE, _DELTA_BINARY_PACKED)}:
            return _delta(file, pages)
        return _dictionary(file, pages, dtype)
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _plain(file: Bytes, pages: list[_Page]) -> DecodedColumn | None:
    """PLAIN pages of 64-bit values: a view of one page, a copy of several."""
    parts = []
    for page in pages:
        if page.size != 8 * page.values:
            return None
        parts.append(np.frombuffer(file, "<u8", page.values, page.body))
    return DecodedColumn(parts[0], mapped=True) if len(parts) == 1 else DecodedColumn(np.concatenate(parts))


def _delta(file: Bytes, pages: list[_Page]) -> DecodedColumn | None:
    """DELTA_BINARY_PACKED pages of 64-bit values."""
    out = unset(8 * sum(page.values for page in pages)).view(np.uint64)
    done = 0
    for page in pages:
        if not sums(file[page.body : page.body + page.size], out[done : done + page.values]):
            return None
        done += page.values
    return DecodedColumn(out)


def _dictionary(
    file: Bytes, pages: list[_Page], dtype: type[np.unsignedinteger[Any]]
) -> DecodedColumn | None:
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
    out = unset(np.dtype(dtype).itemsize * sum(page.values for page in rest)).view(dtype)
    done = 0
    for page in rest:
        width = int(file[page.body]) if page.size else 0
        if page.size == 0 or width > _MOST_WIDTH:
            return None
        body = file[page.body + 1 : page.body + page.size]
        if not unpack(body, width, values, first.values, out[done : done + page.values]):
            return None
        done += page.values
    return DecodedColumn(out, values[: first.values])
