"""lab build: what it hands on, and what it says."""

from pathlib import Path

from secondsight.lab import build, kernels
from support.commands import in_process, refused


def test_what_was_built_is_named_with_its_release(monkeypatch, capsys):
    asked = []

    def built(source, patches, *, name, jobs, say):
        asked.append((source, patches, name, jobs))
        say("building")
        return kernels.Kernel("7.3+mine", "7.3.4-lab-5cacdad9", "7.3.4", Path("vmlinuz"), None)

    monkeypatch.setattr(build, "build", built)
    argv = ("--source", "linux-source-7.3", "--patch", "b.patch", "--patch", "a.patch", "--jobs", 3)
    assert in_process(capsys, "lab", "build", *argv) == (
        0,
        "7.3+mine: 7.3.4 (7.3.4-lab-5cacdad9)\n",
        "building\n",
    )
    assert asked == [("linux-source-7.3", [Path("b.patch"), Path("a.patch")], None, 3)], "in their order"


def test_what_cannot_be_built_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "missing_tools", list)
    assert "Missing option '--source'" in refused(capsys, "lab", "build")
    assert "Invalid value for '--jobs'" in refused(capsys, "lab", "build", "--source", tmp_path, "--jobs", 0)
    assert "it has no Makefile" in refused(capsys, "lab", "build", "--source", tmp_path)
    (tmp_path / "Makefile").write_text("all:\n")
    assert "its Makefile says no version" in refused(capsys, "lab", "build", "--source", tmp_path)
