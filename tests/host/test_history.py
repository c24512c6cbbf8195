"""Passes that are kept: whole after each, bounded, and no other file is taken for one."""

import pyarrow.parquet as pq
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.host.history import HostRecording, passes, read
from support.host_views import NAMES, row, view


def test_what_is_kept_is_read_again_after_every_pass(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path)
    rows = [row(name, float(at)) for at, name in enumerate(NAMES)]
    for number in range(3):
        if number == 2:
            recording.marks.append(1002.5)
        recording.add(view(rows, taken=1000.0 + number), rows)
        table, told = read(path)
        assert passes(table) == number + 1
        assert table.column("name").to_pylist()[: len(NAMES)] == NAMES
    assert told["marks"] == [1002.5]
    assert told["now"]["enabled"] == "madvise"
    assert table.column("gain_high").to_pylist()[:3] == [0, 2, 4]
    assert [each.name for each in tmp_path.iterdir()] == ["host.parquet"]


def test_it_is_bounded_and_keeps_the_newest_whole(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path, most=40)
    rows = [row(f"g{n}") for n in range(4)]
    for number in range(50):
        recording.add(view(rows, taken=float(number)), rows)
    times = sorted(set(read(path)[0].column("time").to_pylist()))
    assert len(times) * 4 <= 40
    assert times[-4:] == [46.0, 47.0, 48.0, 49.0]
    assert times[0] < 25


def test_a_file_that_is_none_is_told(tmp_path):
    path = tmp_path / "other.parquet"
    with pytest.raises(InputError, match="no recording of the host"):
        read(path)
    recording = HostRecording(path)
    recording.add(view([row("a")]), [row("a")])
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    with pytest.raises(InputError, match="no recording of the host"):
        read(path)
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match="no recording of the host"):
        read(path)


def test_a_place_that_cannot_be_written_is_told_before_a_pass(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        HostRecording(tmp_path / "nowhere" / "host.parquet")
