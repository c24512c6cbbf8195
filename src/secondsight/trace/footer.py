"""A Parquet footer, looked at before pyarrow does: what damage there would end the whole process.

pyarrow's C++ throws where a column's metadata contradicts the schema, and its Python face of that metadata catches nothing (26.0.1:
"ColumnMetaData type does not match ColumnDescriptor", then abort). So these are compared here. (parquet.thrift: FileMetaData.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from secondsight.trace.kinds import COLUMNS
from secondsight.trace.thrift import Reader

_INT32, _INT64 = 1, 2  # Type
_BYTES: Final = {_INT32: 4, _INT64: 8}
# Fields of FileMetaData, RowGroup, ColumnChunk, ColumnMetaData and Statistics.
_ROW_GROUPS, _COLUMNS, _METADATA, _CRYPTO, _TYPE, _STATISTICS = 4, 1, 3, 8, 1, 12
_LIMITS: Final = (1, 2, 5, 6)


def damaged_group(path: Path, columns: Mapping[str, type[np.unsignedinteger]] = COLUMNS) -> int | None:
    """The first row group of *path*, a file of these *columns*, whose metadata cannot be; None if all can.

    :raises ValueError: a footer that cannot be read at all.
    """
    with path.open("rb") as file:
        end = file.seek(-8, 2)
        length = int.from_bytes(file.read(8)[:4], "little")
        if length > end:
            raise ValueError("the footer is longer than the file")
        file.seek(end - length)
        data = file.read(length)
    try:
        groups = Reader(data).struct()[_ROW_GROUPS]
        for index, group in enumerate(groups):
            if not _sound(group[_COLUMNS], columns):
                return index
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"the footer does not add up ({error})") from None
    return None


def _sound(chunks: list[dict[int, Any]], columns: Mapping[str, type[np.unsignedinteger]]) -> bool:
    """Whether the columns of a row group are ours, each of its type, with limits as long as its values."""
    if len(chunks) != len(columns):
        return False
    for chunk, dtype in zip(chunks, columns.values(), strict=True):
        about = chunk.get(_METADATA)
        kind = _INT64 if dtype(0).itemsize == 8 else _INT32
        if about is None or _CRYPTO in chunk or about[_TYPE] != kind:
            return False
        limits = about.get(_STATISTICS, {})
        if any(len(limits[field]) != _BYTES[kind] for field in _LIMITS if field in limits):
            return False
    return True
