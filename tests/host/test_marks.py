"""Marked moments: a line beside the recording, taken in once, and switches that mark themselves."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.host import marks
from secondsight.host.history import HostRecording, read
from secondsight.host.marks import Mark
from support.host_views import row, view


def test_lines_that_are_no_marks_are_passed_over(tmp_path):
    path = tmp_path / "host.parquet"
    HostRecording(path).add(view([row("a")], taken=1.0), [row("a")])
    marks.beside(path).write_bytes(b'torn {\n{"time": "x"}\n\xff\n{"time": 5.0, "text": "kept"}\n{"time":')
    assert read(path)[1]["marks"] == [Mark(5.0, "kept")]


def test_a_mark_needs_a_recording_and_few_words(tmp_path):
    with pytest.raises(UsageError, match="there is no recording"):
        marks.add(tmp_path / "none.parquet", "x")
    with pytest.raises(UsageError, match="at most 200"):
        marks.add(tmp_path / "none.parquet", "x" * 201)


@pytest.fixture
def recording(tmp_path):
    """A recording of one pass."""
    path = tmp_path / "host.parquet"
    HostRecording(path).add(view([row("a")], taken=1.0), [row("a")])
    return path


def test_marks_wait_beside_the_recording_in_the_order_they_came(recording):
    before = time.time()
    made = [marks.add(recording, text) for text in ("first", "", "two\nlines \udcff")]
    assert marks.waiting(recording) == made and marks.beside(recording).name == "host.parquet.marks"
    assert [mark.text for mark in made] == ["first", "", "two\nlines ?"], "what is no text is replaced"
    assert before <= made[0].time <= made[1].time <= time.time()
    assert len(marks.beside(recording).read_bytes().splitlines()) == 3


def test_where_nobody_marked_there_is_nothing(recording):
    assert marks.waiting(recording) == []


def test_only_a_recording_is_marked(tmp_path, recording):
    assert marks.is_recording(recording)
    for name, content in (("text", b"x"), ("empty", b""), ("torn", recording.read_bytes()[:-9])):
        (tmp_path / name).write_bytes(content)
        assert not marks.is_recording(tmp_path / name)
        with pytest.raises(UsageError, match="is no recording of the host"):
            marks.add(tmp_path / name, "x")
    assert not marks.is_recording(tmp_path), "a directory"
    os.mkfifo(tmp_path / "pipe")
    assert not marks.is_recording(tmp_path / "pipe"), "who writes it is not waited for"


@given(
    known=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), max_size=8),
    more=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), max_size=8),
    since=st.integers(0, 9),
)
def test_marks_from_two_places_are_one_rising_list(known, more, since):
    put = marks.together([Mark(*each) for each in known], [Mark(*each) for each in more], since)
    assert [(mark.time, mark.text) for mark in put] == sorted(
        {each for each in known + more if each[0] >= since}
    )


def test_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(marks, "MOST", 2)
    assert [mark.time for mark in marks.together([Mark(3.0), Mark(1.0)], [Mark(2.0)], 0.0)] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"enabled": "madvise", "x": 1}, {"enabled": "always", "x": 1}, "enabled: madvise to always"),
        ({"b": 1, "a": 2}, {"b": 2, "a": 3}, "a: 2 to 3, b: 1 to 2"),
        ({"a": 1}, {}, "a: 1 to none"),
        ({}, {"a": 0}, "a: none to 0"),
        ({"a": 1}, {"a": 1}, ""),
    ],
)
def test_switches_that_read_otherwise(before, after, said):
    assert marks.changes(before, after) == said
