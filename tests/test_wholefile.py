"""What a user names is read only as far as such a file can go, and nothing waits for who writes a pipe."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.errors import InputError
from secondsight.lab.patches import touched
from secondsight.wholefile import check_input, open_input, read_whole


def test_a_file_of_just_that_length_is_read_and_a_longer_one_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_whole(tmp_path / "a", 100, "a letter") == b"x" * 100
    with pytest.raises(InputError, match=r"a: longer than 99 bytes; give a letter$"):
        read_whole(tmp_path / "a", 99, "a letter")
    with pytest.raises(InputError, match=r"none: cannot be read: No such file or directory; give a letter$"):
        read_whole(tmp_path / "none", 99, "a letter")


def test_only_a_regular_file_is_opened_and_the_refusal_says_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with open_input(tmp_path / "a", "a letter") as file:
        assert file.read() == b"x" and os.get_blocking(file.fileno())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for path, why in (
        (tmp_path, "is a directory; a letter is one file"),
        (tmp_path / "pipe", "is a pipe; a letter is one file"),
        (tmp_path / "socket", "is a socket; a letter is one file"),
        (Path("/dev/zero"), "is a device; a letter is one file"),
        (Path("/dev/null"), "is a device; a letter is one file"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links; give a letter"),
    ):
        with pytest.raises(InputError) as raised:
            check_input(path, "a letter")
        assert str(raised.value) == f"{path}: {why}"
    with pytest.raises(InputError, match="none: no such file"):
        check_input(tmp_path / "none", "a letter")


def test_nor_is_a_device_a_patch():
    with pytest.raises(InputError, match=r"^/dev/zero: longer than .*; give a patch$"):
        touched(Path("/dev/zero"))


@pytest.mark.parametrize(
    "words",
    [
        ["scenario", "run", "/dev/zero"],
        ["lab", "hold", "/dev/zero"],
        ["calibrate", "--show", "/dev/zero"],
        ["sweep", "/dev/zero", "-o", "OUT"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_device_without_an_end_is_refused_in_one_line(words, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "out") if word == "OUT" else word for word in words])
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "/dev/zero: longer than " in err


@pytest.mark.parametrize(
    "words",
    [
        ["trace", "info"],
        ["trace", "recover", "-o", "out.parquet"],
        ["trace", "cut", "-o", "out.parquet"],
        ["replay"],
        ["compare"],
        ["explain"],
        ["explain", "--pid", "1", "--vmcore"],
        ["report"],
        ["verify", "--pid", "SELF", "--before"],
        ["lab", "hold"],
        ["scenario", "run"],
        ["calibrate", "--show"],
    ],
    ids=" ".join,
)
def test_a_pipe_that_nobody_writes_is_refused_and_not_waited_for(words, tmp_path):
    if "--vmcore" in words:
        pytest.importorskip("drgn")
    os.mkfifo(tmp_path / "pipe")
    words = [str(os.getpid()) if word == "SELF" else word for word in words]
    finished = subprocess.run(
        [sys.executable, "-c", "from secondsight.cli import main; main()", *words, "pipe"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (2, "", 1), finished
    assert finished.stderr.startswith("secondsight: pipe: is a pipe; "), finished.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("words", [["trace", "info"], ["explain"], ["replay"], ["compare"]], ids=" ".join)
def test_a_device_is_no_trace_and_no_snapshot(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*words, "/dev/zero"])
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "/dev/zero: is a device; a " in err
