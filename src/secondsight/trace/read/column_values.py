"""The values of columns as a trace has them; what does not fit is named by column and row."""

from __future__ import annotations

from decimal import Decimal
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

    def space(self, value: Any, column: str, index: int) -> Any:
        """*value*, at *index* of the batch at hand, as what tells spaces apart: without blanks, a whole number without its point.

        :raises InputError: it is no number.
        """
        if isinstance(value, float):
            if value != value:
                raise self.error(column, index, value, "which space it is")
            return int(value) if value.is_integer() else value
        return value.strip() if isinstance(value, str) else value

    def whole(
        self, column: Any, name: str, expected: str, *, form: str = "", scale: int = 1
    ) -> NDArray[np.uint64]:
        """uint64: whole numbers, times *scale*, rounded to the nearest; text in hexadecimal where *form* says hex.

        Addresses may be signed: the same bits of their width, so that the kernel's half stays it. Nothing else may be below 0.

        :raises InputError: a value that does not fit, by row and column.
        """
        column = self.plain(column, name)
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            return self._of_text(column, name, expected, form.startswith("hex"), scale)
        if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
            unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
            return self._scaled(
                self._from_zero(column, column.cast(pa.int64()), name, expected), unit, name, expected
            )
        if pa.types.is_floating(kind):
            values = column.to_numpy(zero_copy_only=False).astype(np.float64)
            bad = ~((values >= 0) & (values * scale < 2.0**64))
            if bad.any():
                index = int(np.flatnonzero(bad)[0])
                raise self.error(name, index, values[index], expected)
            # Apart, so that a whole number stays exact where its product has more than 53 bits.
            below = np.floor(values)
            part = np.rint((values - below) * scale).astype(np.uint64)
            return below.astype(np.uint64) * np.uint64(scale) + part
        if not pa.types.is_integer(kind):
            raise InputError(self.name, f"column {name}", f"its type is {kind}; expected {expected}")
        if "address" in expected and scale == 1:
            values = column.to_numpy(zero_copy_only=False)
            return values.view(f"u{values.itemsize}").astype(np.uint64)
        return self._scaled(self._from_zero(column, column, name, expected), scale, name, expected)

    def _from_zero(self, given: Any, column: Any, name: str, expected: str) -> NDArray[np.uint64]:
        """The integers *column* as uint64; one below 0 is an error that shows the value of *given*."""
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "i" and values.size and values.min() < 0:
            index = int(np.flatnonzero(values < 0)[0])
            raise self.error(name, index, given[index], expected)
        return values.astype(np.uint64, copy=False)

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
        column = pc.utf8_trim_whitespace(column.cast(pa.string(), safe=False))
        join: Any = pc.binary_join_element_wise
        digits = column
        if hexadecimal:
            # Arrow casts text with 0x as hexadecimal.
            digits = join("0x", pc.replace_substring_regex(column, pattern="^0[xX]", replacement=""), "")
        try:
            numbers = digits.cast(pa.uint64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            numbers = None
        if numbers is not None:
            return self._scaled(numbers, scale, name, expected)
        if not hexadecimal and (numbers := _decimals(column, scale)) is not None:
            return numbers
        # One by one: to name the first that is no number, or since they are written in several ways.
        out = np.empty(len(column), np.uint64)
        for index, value in enumerate(column.to_pylist()):
            number = _number(value, hexadecimal, scale)
            if number is None:
                hint = (
                    " (address=NAME:hex reads hexadecimal)"
                    if not hexadecimal and "address" in expected and is_hex(value)
                    else ""
                )
                raise self.error(name, index, value, expected + hint)
            out[index] = number
        return out

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


def _number(text: str, hexadecimal: bool, scale: int) -> int | None:
    """The number *text* times *scale*, rounded; None where it is none of 64 bits."""
    try:
        number = int(text, 16) * scale if hexadecimal else Decimal(text) * scale
        # Compared before it is made an integer: 1e999999999 would be one of a billion digits. A NaN cannot be compared.
        return round(number) if 0 <= number <= (1 << 64) - 1 else None
    except (ValueError, ArithmeticError):
        return None


def _decimals(column: Any, scale: int) -> NDArray[np.uint64] | None:
    """uint64: the decimal fractions *column* (text) times *scale*, a power of ten, rounded half up; exact, where a float has but 53 bits.

    None where not all of them are digits with a point, or one is too large.
    """
    places = len(str(scale)) - 1
    if scale != 10**places:
        return None
    parts = pc.extract_regex(column, pattern=r"^(?P<whole>[0-9]{1,19})(?:\.(?P<part>[0-9]*))?$")
    if parts.null_count:
        return None
    padded = pc.utf8_rpad(pc.struct_field(parts, "part"), places + 1, "0")
    digits = pc.utf8_slice_codeunits(padded, 0, places + 1).cast(pa.uint64()).to_numpy(zero_copy_only=False)
    whole = pc.struct_field(parts, "whole").cast(pa.uint64()).to_numpy(zero_copy_only=False)
    if whole.size and int(whole.max()) >= (1 << 64) // scale - 1:
        return None
    return whole * np.uint64(scale) + (digits + np.uint64(5)) // np.uint64(10)
