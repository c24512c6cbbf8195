"""calibrate: what a calibration says and whose it is, where it is kept, and one line for what cannot be."""

from importlib import resources

import pytest

from secondsight.errors import SecondSightError
from secondsight.predict import calibrate, calibration
from support.commands import in_process, printed, refused
from support.predict import HERE, made

SHIPPED = resources.files("secondsight.predict").joinpath("data", "default.json")


def test_whose_a_calibration_is_and_what_it_says(capsys):
    lines = printed(capsys, "calibrate", "--show", SHIPPED).splitlines()
    assert "Linux" in lines[0]
    said = "\n".join(lines)
    assert "predicted times of patterns left out" in said and "  fault of a huge page: " in said


@pytest.fixture
def measured(monkeypatch):
    """What is measured, at once; and whether it had to be a guest's."""
    asked = []

    def measure(*, nested, progress):
        asked.append(nested)
        return made()

    monkeypatch.setattr(calibrate, "calibrate", measure)
    return asked


def test_what_is_measured_is_told_and_kept(measured, tmp_path, capsys):
    path = tmp_path / "c.json"
    out = printed(capsys, "calibrate", "--out", path)
    assert out.startswith(f"{HERE.title}, 16.0 GiB; measured ") and out.endswith(f"kept in {path}\n")
    assert calibration.read(path) == made()
    printed(capsys, "calibrate", "--out", path, "--nested")
    assert measured == [False, True], "a calibration makes room for another"


def test_without_a_name_it_is_this_users_own(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "own_path", lambda: tmp_path / "secondsight" / "own.json")
    (tmp_path / "secondsight").mkdir()
    (tmp_path / "secondsight" / "own.json").write_text("of an earlier version")
    assert f"kept in {tmp_path}/secondsight/own.json" in printed(capsys, "calibrate")


def test_what_was_measured_is_told_where_the_file_takes_nothing(measured, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise SecondSightError("no space left")

    monkeypatch.setattr(calibration, "save", fails)
    code, out, err = in_process(capsys, "calibrate", "--out", tmp_path / "c.json")
    assert code == 1 and "a walk where the program" in out and "no space left" in err


def test_what_cannot_be_kept_is_told_before_anything_is_measured(measured, tmp_path, capsys):
    (tmp_path / "notes").write_text("precious")
    assert "cannot be read" in refused(capsys, "calibrate", "--show", tmp_path / "none.json")
    assert "cannot be written" in refused(capsys, "calibrate", "--out", tmp_path / "none" / "c.json")
    assert "no calibration: give another name" in refused(capsys, "calibrate", "--out", tmp_path / "notes")
    assert measured == []
