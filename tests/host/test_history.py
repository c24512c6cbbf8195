"""Passes that are kept: whole after each, bounded, and no other file is taken for one."""

import stat

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secondsight.errors import InputError, SecondSightError, UsageError
from secondsight.host import marks
from secondsight.host.history import HostRecording, passes, read
from secondsight.host.marks import Mark
from support.host_views import NAMES, row, view


def test_what_is_kept_is_read_again_after_every_pass(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path)
    rows = [row(name, float(at)) for at, name in enumerate(NAMES)]
    for number in range(3):
        if number == 2:
            recording.marks.append(Mark(1002.5, "here"))
        recording.add(view(rows, taken=1000.0 + number), rows)
        table, footer = read(path)
        assert passes(table) == number + 1
        assert table.column("name").to_pylist()[: len(NAMES)] == NAMES
    assert footer["marks"] == [Mark(1002.5, "here")]
    assert footer["now"]["enabled"] == "madvise"
    assert table.column("gain_high").to_pylist()[:3] == [0, 2, 4]
    assert [each.name for each in tmp_path.iterdir()] == ["host.parquet"]


def test_it_is_bounded_and_keeps_the_newest_whole(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path, most=40)
    rows = [row(f"g{n}") for n in range(4)]
    for number in range(50):
        recording.add(view(rows, taken=float(number)), rows)
    times = sorted(set(read(path)[0].column("time").to_pylist()))
    # Four rows a pass, and the one of all.
    assert len(times) * 5 <= 40
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", None),
        ("time", float("nan")),
        ("resident", None),
        ("name", None),
        ("by", None),
        ("huge", "much"),
    ],
)
def test_a_recording_with_other_values_is_told(tmp_path, name, value):
    path = tmp_path / "host.parquet"
    HostRecording(path).add(view([row("a")]), [row("a")])
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    kind = pa.string() if value == "much" else table.schema.field(at).type
    column = pa.array([value] * len(table), kind)
    pq.write_table(table.set_column(at, name, column).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(InputError):
        read(path)


@pytest.mark.parametrize("marks_text", ["[]]", "7", '[{"time": "x"}]', None])
def test_metadata_of_another_form_is_told(tmp_path, marks_text):
    path = tmp_path / "host.parquet"
    HostRecording(path).add(view([row("a")]), [row("a")])
    table = pq.read_table(path)
    known = dict(table.schema.metadata)
    known.pop(b"secondsight.marks")
    if marks_text is not None:
        known[b"secondsight.marks"] = marks_text.encode()
    pq.write_table(table.replace_schema_metadata(known), path)
    with pytest.raises(InputError, match="metadata"):
        read(path)


def test_a_place_that_cannot_be_written_is_told_before_a_pass(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        HostRecording(tmp_path / "nowhere" / "host.parquet")


def test_a_device_that_takes_nothing_stays_and_is_a_failure(full_device):
    """A full disk under a recording, told as that; and what is no file is not removed with it."""
    with pytest.raises(SecondSightError, match="No space left on device") as raised:
        HostRecording(full_device)
    assert raised.value.exit_code == 1
    assert stat.S_ISCHR(full_device.stat().st_mode)


def test_a_mark_beside_the_file_is_taken_in_once_and_read_after_the_end(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path)
    recording.add(view([row("a")], taken=1000.0), [row("a")])
    early = marks.add(path, "tuned \n \x1b[31m <b>")
    recording.add(view([row("a")], taken=2000.0), [row("a")])
    late = marks.add(path, "after the end")
    assert read(path)[1]["marks"] == [early, late]
    recording.close()
    # Another recording of that name has none of them.
    HostRecording(path).add(view([row("a")], taken=3000.0), [row("a")])
    assert read(path)[1]["marks"] == []


def test_a_mark_before_the_first_pass_is_kept(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path)
    with pytest.raises(InputError, match="a recording without a row: its first pass is under way"):
        read(path)
    early = marks.add(path, "before the first pass")
    recording.add(view([row("a")], taken=early.time + 5), [row("a")])
    recording.discard()
    recording.close()
    assert read(path)[1]["marks"] == [early]
    gone_on_with = HostRecording(path, append=True)
    gone_on_with.add(view([row("a")], taken=early.time + 9), [row("a")])
    assert read(path)[1]["marks"] == [early]


def test_a_recording_without_a_pass_is_gone_on_with_or_taken_away(tmp_path):
    path = tmp_path / "host.parquet"
    HostRecording(path)  # killed here
    killed = marks.add(path, "")
    second = HostRecording(path, append=True)
    second.add(view([row("a")], taken=killed.time + 1), [row("a")])
    assert passes(read(path)[0]) == 1 and read(path)[1]["marks"] == [killed]
    other = tmp_path / "other.parquet"
    recording = HostRecording(other)
    marks.add(other, "x")
    recording.discard()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["host.parquet", "host.parquet.marks"]


def test_a_recording_is_gone_on_with(tmp_path):
    path, whole = tmp_path / "host.parquet", tmp_path / "whole.parquet"
    rows = [row(name, float(at)) for at, name in enumerate(NAMES)]
    first, once = HostRecording(path), HostRecording(whole)
    for number in range(2):
        first.add(view(rows, taken=1000.0 + number), rows)
        once.add(view(rows, taken=1000.0 + number), rows)
    early = marks.add(path, "before the restart")
    first.close()
    second = HostRecording(path, append=True)
    assert second.by == view(rows).by
    for number in range(2, 4):
        second.add(view(rows, taken=1000.0 + number), rows)
        once.add(view(rows, taken=1000.0 + number), rows)
    table, footer = read(path)
    assert table.equals(read(whole)[0]) and passes(table) == 4
    assert footer["marks"] == [early]


@pytest.mark.parametrize("append", [False, True])
def test_two_do_not_write_one_recording(tmp_path, append):
    path = tmp_path / "host.parquet"
    first = HostRecording(path)
    for number in range(2):
        first.add(view([row("a")], taken=1000.0 + number), [row("a")])
        with pytest.raises(UsageError, match="another process is recording into it; give another name"):
            HostRecording(path, append=append)
        assert passes(read(path)[0]) == number + 1
    first.close()
    second = HostRecording(path, append=True)
    second.add(view([row("a")], taken=1002.0), [row("a")])
    assert passes(read(path)[0]) == 3


def test_what_is_no_recording_is_not_taken_the_place_of(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    with pytest.raises(UsageError, match="is there already and holds text, no recording of the host"):
        HostRecording(path)
    assert path.read_text() == "precious"


def test_what_is_no_recording_is_not_gone_on_with(tmp_path):
    path = tmp_path / "host.parquet"
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match="no recording of the host"):
        HostRecording(path, append=True)
    assert path.read_bytes() == b"PAR1 torn"
    new = HostRecording(tmp_path / "new.parquet", append=True)
    new.add(view([row("a")]), [row("a")])
    assert passes(read(tmp_path / "new.parquet")[0]) == 1


def test_a_switch_that_changes_marks_itself(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path)
    first = view([row("a")], taken=1.0)
    recording.add(first, [row("a")])
    recording.add(view([row("a")], taken=2.0), [row("a")])
    recording.add(msgspec.structs.replace(first, taken=3.0, now=first.now | {"max_ptes_none": 0}), [row("a")])
    assert read(path)[1]["marks"] == [Mark(3.0, "max_ptes_none: 511 to 0")]
