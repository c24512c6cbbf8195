"""What explain prints of a process, and of a snapshot."""

import json

import pytest

from secondsight.live.read.capture import save
from support.commands import printed, refused
from support.snapshots import columns, snapshot


def test_explain_prints_totals_then_what_is_alike_once(target, capsys):
    shown = printed(capsys, "explain", "--pid", target.pid, "--procfs")
    head, mappings, blocks = shown.split("\n\n")[0], shown.split("\n\n")[2], shown.split("\n\n")[3]
    assert f"process {target.pid} (" in head and "SECONDARY  unknown" in head
    assert mappings.count("shared memory") <= 3 and "skipped: MADV_NOHUGEPAGE" in mappings
    assert blocks.count("ineligible: MADV_NOHUGEPAGE") == 1 and "--all shows every block" in blocks
    every = printed(capsys, "explain", "--pid", target.pid, "--procfs", "--all")
    assert every.count(": ineligible: MADV_NOHUGEPAGE") >= 9


def test_one_of_a_kind_is_told_as_one(target, capsys):
    live = json.loads(printed(capsys, "explain", "--pid", target.pid, "--procfs", "--json"))
    area = next(m for m in live["mappings"] if m["advice"] == "MADV_NOHUGEPAGE" and m["blocks"] >= 9)
    first = -(-area["start"] // (1 << 21)) << 21
    one = f"{first:x}-{first + (1 << 21):x}"
    shown = printed(capsys, "explain", "--pid", target.pid, "--procfs", "--range", one)
    assert "1 block holds memory (2.0 MiB) in 1 mapping; 0 eligible" in shown and "1 block (0 huge" in shown


def test_where_nothing_was_read_no_channel_is_known(target, capsys):
    shown = printed(capsys, "explain", "--pid", target.pid, "--procfs", "--range", "10000-400000")
    assert shown.count("nothing to see: no block holds memory") == 3 and "  PRIMARY    known" not in shown
    assert "0 blocks hold memory (0 B) in 0 mappings" in shown


@pytest.mark.parametrize("option", ["--kernel-memory", "--procfs"])
def test_of_a_snapshot_no_source_can_be_chosen(option, tmp_path, capsys):
    path = tmp_path / "s.npz"
    save(snapshot(columns(1)), path)
    message = refused(capsys, "explain", path, option)
    assert message.count("\n") == 1 and "belong to --pid; a snapshot holds what was captured" in message


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--pid", "99999999"), "there is no such process"),
        (("--pid", "2147483648"), "there is no such process"),
        (("--pid", "0"), "a process number is positive"),
        ((), "name a snapshot file or --pid PID"),
        (("nowhere.npz",), "nowhere.npz"),
        (("--pid", "1", "--range", "5"), "write START-END in hexadecimal"),
        (("--pid", "1", "--vmcore", "nowhere"), "there is no such file"),
        (("--pid", "1", "--vmcore", __file__, "--qmp", __file__), "name one of them"),
    ],
)
def test_what_cannot_be_explained_is_one_line(argv, says, capsys):
    assert says in refused(capsys, "explain", *argv)
