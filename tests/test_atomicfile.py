"""Files appear whole or not at all, and what is no file is never replaced by one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from secondsight import atomicfile
from secondsight.cli import main
from secondsight.errors import SecondSightError, UsageError


def test_nothing_appears_until_the_end_and_what_was_there_stays_after_an_error(tmp_path) -> None:
    path = tmp_path / "t"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomicfile.open_atomic(path) as part:
        part.write_text("half")
        assert path.read_text() == "before"
        raise RuntimeError
    assert path.read_text() == "before"
    with atomicfile.open_atomic(path) as part:
        part.write_text("after")
    assert path.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_link_stays_a_link(tmp_path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    with atomicfile.open_atomic(link) as part:
        part.write_text("x")
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "x"


def test_a_pipe_is_written_to_and_never_replaced(tmp_path) -> None:
    reader, writer = os.pipe()
    path = Path(f"/dev/fd/{writer}")  # what a shell's >(command) and /dev/stdout are
    try:
        atomicfile.check_writable(path)
        with atomicfile.open_atomic(path) as part:
            part.write_text("x")
        assert os.read(reader, 9) == b"x"
        with pytest.raises(RuntimeError), atomicfile.open_atomic(path):
            raise RuntimeError
        assert stat.S_ISFIFO(path.stat().st_mode)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_pipe_with_a_name_is_refused_and_not_waited_for(tmp_path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with pytest.raises(UsageError, match="is a pipe, no regular file; name a file"):
            atomicfile.check_writable(name)
        with pytest.raises(UsageError, match="is a pipe, no regular file"), atomicfile.open_atomic(name):
            pass
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize(
    "words",
    [
        ["top", "--once", "--record"],
        ["export", "--sums", "-o"],
        ["snapshot", "--pid", str(os.getpid()), "-o"],
        ["explain", "--pid", str(os.getpid()), "--report"],
        ["verify", "--pid", str(os.getpid()), "--for", "1s", "--save"],
    ],
    ids=lambda words: words[0],
)
def test_no_command_waits_for_who_reads_a_pipe(tmp_path, capsys, words) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit, match="2"):
        main([*words, str(tmp_path / "pipe")])
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"secondsight: {tmp_path}/pipe: cannot be written: is a pipe, no regular file; name a file\n",
    )


def test_a_full_disk_is_a_failure_and_no_wrong_request(tmp_path) -> None:
    path = tmp_path / "t"
    path.write_text("before")
    for number, code in ((errno.ENOSPC, 1), (errno.EIO, 1), (errno.EACCES, 2)):
        with (
            pytest.raises(SecondSightError, match=os.strerror(number)) as raised,
            atomicfile.open_atomic(path),
        ):
            raise OSError(number, os.strerror(number))
        assert raised.value.exit_code == code
    assert path.read_text() == "before"


def test_what_cannot_be_written_is_one_line(tmp_path) -> None:
    source = tmp_path / "t"
    source.write_text("x")
    for name, why in (
        (tmp_path, "is a directory"),
        (tmp_path / "none" / "t", "there is no directory"),
        (source / "t", "there is no directory"),
    ):
        with pytest.raises(UsageError, match=why):
            atomicfile.check_writable(name)
        with pytest.raises(UsageError, match=why), atomicfile.open_atomic(name):
            pass
    with pytest.raises(UsageError, match="is what is read"):
        atomicfile.check_writable(tmp_path / "." / "t", source)
    atomicfile.check_writable(None, source)


def test_the_mode_and_the_owner_that_are_there_stay(tmp_path) -> None:
    path = tmp_path / "t"
    path.write_text("before")
    path.chmod(0o400)
    if not os.getuid():
        os.chown(path, 7, 8)
    before = path.stat()
    with atomicfile.open_atomic(path) as part:
        part.write_text("after")
    after = path.stat()
    assert path.read_text() == "after"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.parametrize(
    "words",
    [
        ["export", "--sums", "-o"],
        ["snapshot", "--pid", str(os.getpid()), "-o"],
        ["explain", "--pid", str(os.getpid()), "--report"],
        ["verify", "--pid", str(os.getpid()), "--for", "1s", "--save"],
        ["calibrate", "--out"],
        ["record", "pid", str(os.getpid()), "-o"],
        ["record", "vm", "--kernel", "newest", "true", "-o"],
        ["record", "run", "true", "-o"],
        ["convert", "IN", "-o"],
        ["trace", "merge", "TRACE", "TRACE", "-o"],
        ["replay", "TRACE", "--picture"],
        ["compare", "TRACE", "-o"],
        ["compare", "TRACE", "--report"],
        ["compare", "TRACE", "--csv"],
        ["compare", "TRACE", "--parquet"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_takes_the_place_of_what_it_does_not_make(tmp_path, monkeypatch, capsys, words) -> None:
    trace = Path(__file__).parents[1] / "examples" / "traces" / "redis-fork.parquet"
    (tmp_path / "in.txt").write_text(" L 1ffeffe7e,8\n")
    names = {"IN": str(tmp_path / "in.txt"), "TRACE": str(trace)}
    path = tmp_path / ("notes.svg" if "--picture" in words else "notes.txt")
    path.write_text("precious\n")
    with pytest.raises(SystemExit, match="2"):
        main([*(names.get(word, word) for word in words), str(path)])
    message = capsys.readouterr().err.replace("\n", " ")
    assert f"{path}: is there already and holds text, no " in message
    assert message.rstrip().endswith("give another name, or remove it first")
    assert path.read_text() == "precious\n"
    assert {each.name for each in tmp_path.iterdir()} == {"in.txt", path.name}


def test_what_a_command_makes_and_an_empty_file_are_taken_the_place_of(tmp_path) -> None:
    kind = atomicfile.starting("metrics", b"# HELP", b"# EOF")
    path = tmp_path / "t.prom"
    for content in (b"", b"# HELP x\n", b"\xef\xbb\xbf \n# eof"):
        path.write_bytes(content)
        atomicfile.check_writable(path, kind=kind)
    for content, holds in ((b"x # HELP", "text"), (b"PAR1", "another Parquet file"), (b"a\0", "binary data")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"holds {holds}, no metrics: give another name"):
            atomicfile.check_writable(path, kind=kind)


def test_a_device_that_takes_nothing_is_told_before_the_work(capsys) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["calibrate", "--out", "/dev/full"])
    assert capsys.readouterr().err == "secondsight: /dev/full: cannot be written: No space left on device\n"
    atomicfile.check_writable("/dev/null")
