"""Whose a calibration is: a foreign one is never used silently; a file that is none is one line."""

from __future__ import annotations

import msgspec
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.predict import calibration
from support.predict import HERE, made


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "secondsight").mkdir()
    return tmp_path


def test_round_trip(tmp_path):
    calibration.save(made(), tmp_path / "c.json")
    assert calibration.read(tmp_path / "c.json") == made()


def test_ones_own_is_used_and_a_new_kernel_told(home):
    calibration.save(made(), calibration.own_path())
    assert calibration.find(None, HERE) == (made(), [])
    newer = msgspec.structs.replace(HERE, kernel="7.0")
    assert "6.18.1" in calibration.find(None, newer)[1][0]


@pytest.mark.parametrize("change", [{"cpu": "CPU B"}, {"virtualised": True}])
def test_a_foreign_one_is_never_used_silently(home, tmp_path, change):
    calibration.save(made(msgspec.structs.replace(HERE, **change)), calibration.own_path())
    with pytest.raises(UsageError, match=r"another machine's.*secondsight calibrate"):
        calibration.find(None, HERE)
    foreign, notes = calibration.find(calibration.own_path(), HERE)
    assert foreign.machine != HERE
    assert "is of" in notes[0]


def test_a_home_that_may_not_be_looked_into_has_none(monkeypatch):
    """A service's, or another user's: here by a name that no file can have, which Path.exists answers by raising, too."""
    monkeypatch.setenv("XDG_DATA_HOME", "/" + "x" * 300)
    theirs = calibration.shipped().machine
    assert calibration.find(None, theirs)[0] == calibration.shipped()


def test_an_installation_without_one_says_so(home, monkeypatch, tmp_path):
    monkeypatch.setattr(calibration.resources, "files", lambda package: tmp_path)
    with pytest.raises(
        UsageError, match="no calibration comes with this installation; `secondsight calibrate`"
    ):
        calibration.find(None, HERE)


def test_the_shipped_one_says_whose_it_is(home):
    shipped = calibration.shipped()
    assert shipped.machine.cpu
    assert shipped.cells
    with pytest.raises(UsageError, match="shipped calibration is another machine's"):
        calibration.find(None, HERE)
    assert calibration.find(None, shipped.machine)[0] == shipped


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not a calibration"),
        (b"{}", "schema version None"),
        (b"[1]", "schema"),
        (b'{"schema":1}', "not a calibration"),
    ],
)
def test_what_is_none(raw, said):
    with pytest.raises(InputError, match=said):
        calibration.decode(raw, "x.json")
