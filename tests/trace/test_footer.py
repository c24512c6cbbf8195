"""A Parquet footer is looked at before pyarrow does: no damage of it ends the process."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secondsight.trace import writer
from secondsight.trace.footer import damaged_group
from secondsight.trace.kinds import COLUMNS
from support.random_traces import some, write

CHANGED_FOOTERS = """
import sys
from pathlib import Path
from secondsight.errors import InputError
from secondsight.trace import Trace
path, broken = Path(sys.argv[1]), Path(sys.argv[2])
content = path.read_bytes()
length = int.from_bytes(content[-8:-4], "little")
for at in range(len(content) - 8 - length, len(content) - 8):
    for change in (0x04, 0x50):
        broken.write_bytes(content[:at] + bytes([content[at] ^ change]) + content[at + 1 :])
        try:
            Trace.open(broken)
        except InputError as error:
            assert str(broken) in str(error)
"""


def test_a_byte_changed_anywhere_in_the_footer_ends_no_process(tmp_path):
    # pyarrow ends the process where a column's type in a row group is not the schema's: so in a process of its own.
    write(tmp_path / "t.parquet", some(10))
    done = subprocess.run(
        [sys.executable, "-c", CHANGED_FOOTERS, tmp_path / "t.parquet", tmp_path / "b.parquet"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_whole_file_has_no_damaged_group(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ROW_GROUP", 100)
    assert damaged_group(write(tmp_path / "t.parquet", some(250))) is None


def test_files_of_other_columns_have_theirs_damaged_at_the_first_group(tmp_path):
    pq.write_table(pa.table({"time": pa.array([1], pa.uint64())}), tmp_path / "one.parquet")
    assert damaged_group(tmp_path / "one.parquet") == 0
    five = {name: pa.array([1], pa.uint64()) for name in COLUMNS}
    pq.write_table(pa.table(five), tmp_path / "five.parquet")
    assert damaged_group(tmp_path / "five.parquet") == 0, "space is no 64-bit number"
    assert damaged_group(tmp_path / "five.parquet", dict.fromkeys(COLUMNS, np.uint64)) is None


def test_a_footer_that_cannot_be_read_says_so(tmp_path):
    path = write(tmp_path / "t.parquet", some(10))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + (1 << 30).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="longer than the file"):
        damaged_group(path)
    at = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:at] + b"\x00" + whole[at + 1 :])
    with pytest.raises(ValueError, match="does not add up"):
        damaged_group(path)
