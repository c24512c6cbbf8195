"""Anything in columns, CSV, TSV, Parquet and Arrow files, made into a trace by a mapping (``column_mapping.py``).

What the mapping leaves out is guessed by the columns' names and the first rows; what was made of it is told before anything is read.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import numpy as np

from secondsight.errors import InputError, UsageError
from secondsight.geometry import PAGE_SHIFT
from secondsight.trace.intake import Intake
from secondsight.trace.provenance import Clock
from secondsight.trace.read.column_mapping import UNITS, Mapping, column_option, guessed
from secondsight.trace.read.column_sources import Table, open_arrow, open_parquet, open_text
from secondsight.trace.read.column_values import ACCESSES, ColumnValues
from secondsight.trace.read.lackey import COUNTED
from secondsight.trace.read.text import ByteStream
from secondsight.trace.writer import DAMAGE


def read_table(table: Table, intake: Intake, given: Mapping, say: Callable[[str], None]) -> None:
    """All of *table* into *intake*, by *given* and what can be guessed; *say* is told the mapping first.

    :raises InputError: a mapping that does not fit, by column and row; a damaged file.
    """
    mapping = guessed(table, given)
    say(column_option(mapping))
    unseen = (
        ["page walks"] if "kind" in mapping else ["whether an access was a read or a write", "page walks"]
    )
    meaning = f"the column {mapping['time']}" if "time" in mapping else COUNTED
    intake.update(
        clock=Clock(meaning=meaning),
        unseen=unseen,
        notes=[*intake.sink.provenance.notes, f"columns: {column_option(mapping)}"],
    )
    values, spaces = ColumnValues(table.name, mapping), dict[Any, int]()
    if "space" not in mapping:
        intake.add_space(table.name)
    wanted = [column.name for column in mapping.values()]
    for batch in table.batches(wanted):
        if not batch.num_rows:
            continue
        columns = {ours: batch.column(wanted.index(theirs.name)) for ours, theirs in mapping.items()}
        n, form = batch.num_rows, mapping["address"].form
        where = values.whole(
            columns["address"], mapping["address"].name, "an address",
            form=form, scale=1 << PAGE_SHIFT if form.endswith("page") else 1,
        )  # fmt: skip
        if "time" in mapping:
            unit = UNITS[mapping["time"].form or "ns"]
            time = values.whole(columns["time"], mapping["time"].name, "a time from 0 up", scale=unit)
        else:
            time = np.arange(values.row, values.row + n, dtype=np.uint64)
        kind: Any = values.kinds(columns["kind"], mapping["kind"]) if "kind" in mapping else ACCESSES[0]
        count: Any = 1
        if "count" in mapping:
            count = values.whole(columns["count"], mapping["count"].name, "a number of accesses")
            if int(count.max()) >> 32 or not count.min():
                index = int(np.flatnonzero((count >> np.uint64(32) != 0) | (count == 0))[0])
                raise values.error(
                    mapping["count"].name, index, count[index], "a number of accesses, 1 to 2**32 - 1"
                )
        space: Any = 0
        if "space" in mapping:
            of = mapping["space"].name
            coded = values.plain(columns["space"], of).dictionary_encode()
            codes = coded.indices.to_numpy()
            named = [
                values.space(value, of, int(np.flatnonzero(codes == code)[0]))
                for code, value in enumerate(coded.dictionary.to_pylist())
            ]
            for value in named:
                if value not in spaces:
                    spaces[value] = intake.add_space(f"{of} {str(value)[:40]}")
            space = np.array([spaces[value] for value in named], np.uint16)[codes]
        intake.append(time, space, where, kind, count)
        values.row += n


def reader(open_: Callable[[ByteStream], Table]) -> Callable[..., None]:
    """The ``read`` of a format whose tables *open_* opens."""

    def read(
        stream: ByteStream,
        intake: Intake,
        columns: Mapping | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        try:
            read_table(open_(stream), intake, columns or {}, say)
        except (InputError, UsageError):
            raise
        except (csv.Error, *DAMAGE) as error:
            reason = " ".join(str(error).split())
            raise InputError(stream.name, "the file", f"it cannot be read: {reason[:200]}") from None

    return read


read_text, read_parquet, read_arrow = reader(open_text), reader(open_parquet), reader(open_arrow)
