"""Capturing a process for later."""

import json

import pytest

from support.commands import printed, refused


def test_a_snapshot_says_what_the_process_said(target, tmp_path, capsys):
    path = tmp_path / "process.npz"
    printed(capsys, "snapshot", "--pid", target.pid, "-o", path, "--procfs")
    page = tmp_path / "page.html"
    kept = json.loads(printed(capsys, "explain", path, "--json", "--report", page))
    live = json.loads(printed(capsys, "explain", "--pid", target.pid, "--procfs", "--json"))
    assert kept["totals"]["blocks"] >= 9 + 5 * 2 and kept["totals"] == live["totals"]
    assert page.read_text().startswith("<!doctype html>")
    area = next(m for m in kept["mappings"] if m["advice"] == "MADV_NOHUGEPAGE" and m["blocks"] >= 9)
    first = -(-area["start"] // (1 << 21)) << 21
    some = json.loads(
        printed(
            capsys,
            "explain",
            "--pid",
            target.pid,
            "--procfs",
            "--json",
            "--range",
            f"{first:x}-{first + (2 << 21):x}",
        )
    )
    assert [b["address"] for b in some["blocks"]] == [first, first + (1 << 21)]
    assert len(some["mappings"]) == 1 and some["mappings"][0]["empty"] == 0


def test_it_says_what_was_captured(target, tmp_path, capsys):
    path = tmp_path / "s.npz"
    line, *rest = printed(capsys, "snapshot", "--pid", target.pid, "-o", path, "--procfs").splitlines()
    assert line.startswith(f"{path}: ") and f"({target.pid}) from procfs in " in line
    assert len(rest) == 1 and "only kernel memory shows are unknown" in rest[0]
    # A snapshot of its own makes room for another.
    printed(capsys, "snapshot", "--pid", target.pid, "-o", path, "--procfs")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--pid", "99999999", "-o", "new.npz"), "there is no such process"),
        (("--pid", "1"), "Missing option '-o'"),
        (("-o", "new.npz"), "Missing option '--pid'"),
        (("--pid", "1", "-o", "notes.npz"), "holds text, no snapshot: give another name"),
        (("--pid", "1", "-o", "none/s.npz"), "there is no directory none"),
        (("--pid", "1", "-o", "new.npz", "--range", "5"), "write START-END in hexadecimal"),
    ],
)
def test_what_cannot_be_captured_is_one_line(argv, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.npz").write_text("precious")
    assert says in refused(capsys, "snapshot", *argv)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("notes.npz", "precious")]
