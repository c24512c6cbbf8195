"""What a user names is read only as far as such a file can go."""

from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.errors import InputError
from secondsight.lab.patches import touched
from secondsight.wholefile import read_whole


def test_a_file_of_just_that_length_is_read_and_a_longer_one_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_whole(tmp_path / "a", 100, "a letter") == b"x" * 100
    with pytest.raises(InputError, match=r"a: longer than 99 bytes; give a letter$"):
        read_whole(tmp_path / "a", 99, "a letter")
    with pytest.raises(InputError, match=r"none: cannot be read: No such file or directory; give a letter$"):
        read_whole(tmp_path / "none", 99, "a letter")


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
