"""A recording's stream: one recorder's at a time, whole batches on a disk that fills, and told wherever it is left."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from secondsight.errors import SecondSightError, UsageError
from secondsight.trace import Provenance, Recording, Space, Trace, TraceWriter, Verb, recover
from support.recordings import flushed

PROVENANCE = Provenance(source="test", spaces=[Space(id=0, name="p", type="process")])


def test_a_second_recording_of_a_name_is_refused_while_the_first_runs_and_after_a_kill(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    first = Recording(path, PROVENANCE)
    first.append([1], 0, [4096], 0)
    with pytest.raises(UsageError, match=r"another process is recording into it \(.*t\.parquet\.recording\)"):
        Recording(path, PROVENANCE)
    first.close()
    (tmp_path / "t.parquet.recording").write_bytes(b"torn")
    with pytest.raises(UsageError, match="an unfinished recording is here; `secondsight trace recover`"):
        Recording(path, PROVENANCE)


def test_one_that_came_between_the_check_and_the_start_is_seen(tmp_path, monkeypatch) -> None:
    path = tmp_path / "t.parquet"
    first = Recording(path, PROVENANCE)
    first.append([1], 0, [4096], 0)
    real, calls = Recording.check, []

    def check(where):
        calls.append(where)
        return first.stream_path if len(calls) == 1 else real(where)

    monkeypatch.setattr(Recording, "check", staticmethod(check))
    with pytest.raises(UsageError, match="another process is recording into it"):
        Recording(path, PROVENANCE)
    first.close()
    assert Trace.open(path).rows == 1


@pytest.mark.parametrize("content", [b"precious\n", b"PAR1 of another program PAR1", b"\x7fELF\0"])
def test_only_a_trace_is_taken_the_place_of(tmp_path, content) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for made in (Recording, TraceWriter):
        with pytest.raises(UsageError, match=r"is there already and holds .*, no trace: give another name"):
            made(path, PROVENANCE)
    assert path.read_bytes() == content and [each.name for each in tmp_path.iterdir()] == ["notes.txt"]
    path.write_bytes(b"")
    for made in (Recording, TraceWriter):
        for _ in range(2):
            with made(path, PROVENANCE) as out:
                out.append([1], 0, [4096], 0)
            assert Trace.open(path).rows == 1


def _limit(size: int) -> tuple[int, int]:
    """Files may grow to *size* bytes: what a full disk is to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return before


@pytest.mark.parametrize("batches", [1, 3])
def test_what_fits_on_a_disk_that_fills_is_kept_and_recovered(tmp_path, batches) -> None:
    """Rows that do not compress: 2**16 of them do not fit in 256 KiB, nor do three smaller batches; a leading part does."""
    path, rows = tmp_path / "t.parquet", Recording.FLUSH_ROWS // batches
    addresses = np.random.default_rng(7).integers(0, 1 << 46, rows * batches, np.uint64)
    before = _limit(256 << 10)
    try:
        with (
            pytest.raises(SecondSightError, match="cannot be written: File too large") as raised,
            Recording(path, PROVENANCE) as out,
        ):
            for start in range(0, addresses.size, rows):
                some = addresses[start : start + rows]
                out.append(np.arange(start, start + some.size), 0, some, 0)
                flushed(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    stream = tmp_path / "t.parquet.recording"
    assert f"`secondsight trace recover {stream} -o FILE` makes a trace of what is kept" in str(raised.value)
    assert not getattr(raised.value, "__notes__", [])
    recover(stream, path)
    kept = np.concatenate([batch.address for batch in Trace.open(path).batches()])
    assert 4096 < kept.size < addresses.size and (kept == addresses[: kept.size]).all()


def test_a_stream_that_is_left_is_told_with_whatever_ended_the_recording(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(KeyboardInterrupt) as raised, Recording(path, PROVENANCE) as out:
        out.append([1], 0, [4096], 0)
        raise KeyboardInterrupt
    (note,) = raised.value.__notes__
    assert note == f"`secondsight trace recover {path}.recording -o FILE` makes a trace of what is kept"
    recover(f"{path}.recording", path)
    assert Trace.open(path).rows == 1
    with pytest.raises(KeyboardInterrupt) as raised, Recording(tmp_path / "none", PROVENANCE):
        raise KeyboardInterrupt
    assert not hasattr(raised.value, "__notes__")
    assert not (tmp_path / "none.recording").exists()


def test_one_of_no_use_is_given_up(tmp_path) -> None:
    with (
        pytest.raises(SecondSightError, match=r"^nothing$") as raised,
        Recording(tmp_path / "t", PROVENANCE) as out,
    ):
        out.append([1], 0, [0], int(Verb.EXIT), 0)
        flushed(out)
        out.abandon()
        raise SecondSightError("nothing")
    assert not list(tmp_path.iterdir()) and not hasattr(raised.value, "__notes__")
