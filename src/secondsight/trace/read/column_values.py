"""The values of columns as a trace has them; what does not fit is named by column and row."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from secondsight.errors import InputError
from secondsight.trace.kinds import Kind
from secondsight.trace.read.column_mapping import Mapping, SourceColumn, is_hex, word_of

#: The kinds that reads, writes and fetches become.
ACCESSES: Final = (int(Kind.CPU_READ), int(Kind.CPU_WRITE), int(Kind.CPU_FETCH))


class ColumnValues:
    """Turns the columns of record batches into a trace's; knows the row it is at, for what does not fit."""

    def __init__(self, name: str, mapping: Mapping) -> None:
        """At row 1 of the source called *name*."""
        self.name, self.mapping, self.row = name, mapping, 1

    def error(self, column: str, index: int, value: Any, expected: str) -> InputError:
        """*value*, at *index* of the batch at hand, is not what was *expected*."""
        return InputError(
            self.name,
            f"row {self.row + index:,}, column {column}",
            f"{str(value)[:40]!r}; expected {expected}",
        )

    def plain(self, column: Any, name: str) -> Any:
        """*column* without dictionaries, and without missing values.

        :raises InputError: a value is missing, by row and column.
        """
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            index = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self.error(name, index, "", "a value, and there is none")
        return column

    def whole(
        self, column: Any, name: str, expected: str, *, hexadecimal: bool = False, scale: int = 1
    ) -> NDArray[np.uint64]:
        """uint64: whole numbers, times *scale*; of an int64 the same bits (addresses of the kernel's half).

        :raises InputError: a value that does not fit, by row and column.
        """
        column = self.plain(column, name)
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            return self._of_text(column, name, expected, hexadecimal, scale)
        if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
            unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
            return column.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.uint64) * np.uint64(unit)
        if pa.types.is_floating(kind):
            values = column.to_numpy(zero_copy_only=False).astype(np.float64) * scale
            bad = ~((values >= 0) & (values < 2.0**64))
            if bad.any():
                index = int(np.flatnonzero(bad)[0])
                raise self.error(name, index, values[index] / scale, expected)
            return np.rint(values).astype(np.uint64)
        if not pa.types.is_integer(kind):
            raise InputError(self.name, f"column {name}", f"its type is {kind}; expected {expected}")
        return self._scaled(
            column.to_numpy(zero_copy_only=False).astype(np.uint64, copy=False), scale, name, expected
        )

    def _scaled(self, values: NDArray[np.uint64], scale: int, name: str, expected: str) -> NDArray[np.uint64]:
        if scale == 1:
            return values
        bad = values > np.uint64(((1 << 64) - 1) // scale)
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise self.error(name, index, values[index], expected)
        return values * np.uint64(scale)

    def _of_text(
        self, column: Any, name: str, expected: str, hexadecimal: bool, scale: int
    ) -> NDArray[np.uint64]:
        column = given = pc.utf8_trim_whitespace(column.cast(pa.string(), safe=False))
        join: Any = pc.binary_join_element_wise
        try:
            if hexadecimal:
                # Arrow casts text with 0x as hexadecimal.
                bare = pc.replace_substring_regex(column, pattern="^0[xX]", replacement="")
                column = join("0x", bare, "")
            if not hexadecimal and scale != 1 or pc.any(pc.match_substring(column.slice(0, 64), ".")).as_py():
                return self.whole(column.cast(pa.float64()), name, expected, scale=scale)
            return self._scaled(
                column.cast(pa.uint64()).to_numpy(zero_copy_only=False), scale, name, expected
            )
        except pa.ArrowInvalid:
            pass
        for index, value in enumerate(column.to_pylist()):
            try:
                number = (
                    int(value, 16)
                    if hexadecimal
                    else int(float(value))
                    if scale != 1 or "." in value
                    else int(value)
                )
                if 0 <= number * scale < 1 << 64:
                    continue
            except (ValueError, OverflowError):
                pass
            hint = (
                " (address=NAME:hex reads hexadecimal)"
                if not hexadecimal and "address" in expected and is_hex(value)
                else ""
            )
            raise self.error(name, index, given[index].as_py(), expected + hint)
        # Each by itself can be read, if not all in one way: one by one.
        return np.array(
            [int(v, 16) if hexadecimal else int(float(v) * scale) if scale != 1 or "." in v else int(v) for v in column.to_pylist()],
            np.uint64,
        )  # fmt: skip

    def kinds(self, column: Any, named: SourceColumn) -> NDArray[np.uint8]:
        """The kind of each value of *column*, by the values that *named* says.

        :raises InputError: a value that none of them is, by row and column.
        """
        column = self.plain(column, named.name)
        words = [word.strip().upper() for word in named.form.split("/")] if named.form else []
        if not words:
            raise InputError(
                self.name, f"column {named.name}",
                f"which of its values are reads? write kind={named.name}:READ/WRITE, as in kind={named.name}:R/W",
            )  # fmt: skip
        if pa.types.is_integer(column.type) and words == [str(i) for i in range(len(words))]:
            codes = column.to_numpy(zero_copy_only=False)
            if not len(codes) or (int(codes.min()) >= 0 and int(codes.max()) < len(words)):
                return codes.astype(np.uint8)
        coded = column.dictionary_encode()
        table = np.zeros(max(1, len(coded.dictionary)), np.uint8)
        for i, value in enumerate(coded.dictionary.to_pylist()):
            if word_of(value) not in words:
                index = int(np.flatnonzero(coded.indices.to_numpy() == i)[0])
                raise self.error(
                    named.name,
                    index,
                    value,
                    f"one of {', '.join(named.form.split('/'))} (say which with kind={named.name}:READ/WRITE)",
                )
            table[i] = ACCESSES[words.index(word_of(value))]
        return table[coded.indices.to_numpy()]
