"""The commands about a running machine, on a process of our own, with whatever rights the tests have."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.cli.collapsed import print_choices, print_round
from secondsight.live.act.candidates import Choice, Selection
from secondsight.live.act.collapse import Round
from secondsight.live.act.guard import Guard
from secondsight.live.read.capture import save
from support.snapshots import columns, snapshot

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="this kernel has no THP"
)


def run(capsys, *argv, code=0):
    left = 0
    try:
        main([str(word) for word in argv])
    except SystemExit as end:
        left = end.code or 0
    captured = capsys.readouterr()
    assert left == code, captured.err
    assert "Traceback" not in captured.err
    return captured.out if code == 0 else captured.err


def test_explain_prints_totals_then_what_is_alike_once(target, capsys):
    printed = run(capsys, "explain", "--pid", target.pid, "--procfs")
    head, mappings, blocks = printed.split("\n\n")[0], printed.split("\n\n")[2], printed.split("\n\n")[3]
    assert f"process {target.pid} (" in head and "SECONDARY  unknown" in head
    assert mappings.count("shared memory") <= 3 and "skipped: MADV_NOHUGEPAGE" in mappings
    assert blocks.count("ineligible: MADV_NOHUGEPAGE") == 1 and "--all shows every block" in blocks
    every = run(capsys, "explain", "--pid", target.pid, "--procfs", "--all")
    assert every.count(": ineligible: MADV_NOHUGEPAGE") >= 9


def test_a_snapshot_says_what_the_process_said(target, tmp_path, capsys):
    path = tmp_path / "process.npz"
    run(capsys, "snapshot", "--pid", target.pid, "-o", path, "--procfs")
    page = tmp_path / "page.html"
    kept = json.loads(run(capsys, "explain", path, "--json", "--report", page))
    live = json.loads(run(capsys, "explain", "--pid", target.pid, "--procfs", "--json"))
    assert kept["totals"]["blocks"] >= 9 + 5 * 2 and kept["totals"] == live["totals"]
    assert page.read_text().startswith("<!doctype html>")
    area = next(m for m in kept["mappings"] if m["advice"] == "MADV_NOHUGEPAGE" and m["blocks"] >= 9)
    first = -(-area["start"] // (1 << 21)) << 21
    some = json.loads(
        run(
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


def test_a_dry_run_counts_what_may_be_added(capsys):
    class Limited(Guard):
        start, derived, allowance, spent, problem = None, False, 40 * 4096, 0, "unseen"

        def __init__(self):
            pass

    chosen = [
        Choice(n << 21, 500, None, added, against="enabled=never" * (n > 1))
        for n, added in enumerate((30, 20, 10, 0, 1))
    ]
    selection = Selection(chosen, {"huge already": 2}, 7, [])
    assert print_choices(selection, Limited(), json=False) == 40 * 4096
    printed = capsys.readouterr().out
    assert "would collapse 3 blocks (6 MiB), adding 0.2 MiB of memory" in printed
    assert (
        " 2 against the administrator" in printed
        and " 2 left alone: it would add more than --max-added 0.2 MiB" in printed
    )
    assert " 2 left alone: huge already" in printed
    assert print_choices(selection, Limited(), json=True) == 40 * 4096
    as_json = json.loads(capsys.readouterr().out)
    assert [choice["address"] >> 21 for choice in as_json["chosen"]] == [0, 2, 3]
    assert as_json["overridden"] == {"enabled=never": 2} and sum(as_json["left"].values()) == 4


def test_one_of_a_kind_is_told_as_one(target, capsys):
    live = json.loads(run(capsys, "explain", "--pid", target.pid, "--procfs", "--json"))
    area = next(m for m in live["mappings"] if m["advice"] == "MADV_NOHUGEPAGE" and m["blocks"] >= 9)
    first = -(-area["start"] // (1 << 21)) << 21
    one = f"{first:x}-{first + (1 << 21):x}"
    printed = run(capsys, "explain", "--pid", target.pid, "--procfs", "--range", one)
    assert (
        "1 block holds memory (2.0 MiB) in 1 mapping; 0 eligible" in printed and "1 block (0 huge" in printed
    )
    print_round(Round(considered=1, chosen=1), json=False)
    printed = capsys.readouterr().out
    assert "1 block looked at, 1 chosen" in printed


def test_where_nothing_was_read_no_channel_is_known(target, capsys):
    printed = run(capsys, "explain", "--pid", target.pid, "--procfs", "--range", "10000-400000")
    assert printed.count("nothing to see: no block holds memory") == 3 and "  PRIMARY    known" not in printed
    assert "0 blocks hold memory (0 B) in 0 mappings" in printed


def test_an_output_that_cannot_be_written_is_told_before_the_channels(target, tmp_path, capsys):
    nowhere = tmp_path / "no" / "t.parquet"
    message = run(capsys, "record", "pid", target.pid, "-o", nowhere, "--for", "1s", code=2)
    assert "there is no directory" in message and message.count("\n") == 1


def test_doctor_answers_with_any_rights(capsys):
    report = json.loads(run(capsys, "doctor", "--json"))
    groups = {check["group"] for check in report["checks"]}
    assert groups == {"kernel", "switch", "channel", "verb"}
    from secondsight.live.judge.inputs import INPUTS

    shown = {check["name"] for check in report["checks"] if check["group"] == "switch"}
    assert shown == {each.name for each in INPUTS if each.group == "switch"}, "every switch of the table"
    assert all(check["mend"] for check in report["checks"] if check["state"] == "no"), (
        "what is missing has a mend"
    )
    assert report["kernel"] == os.uname().release
    checks = {check["name"]: check for check in report["checks"]}
    # What `who splits` of host needs is a check of its own, and the verb hangs on it.
    assert checks["host: who splits"]["state"] == checks["function tracer"]["state"]
    assert not list(Path("/sys/kernel/tracing/instances").glob(f"secondsight-{os.getpid()}-*"))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("explain", "--pid", "99999999"), "there is no such process"),
        (("explain", "--pid", "2147483648"), "there is no such process"),
        (("explain", "--pid", "0"), "a process number is positive"),
        (("explain",), "name a snapshot file or --pid PID"),
        (("explain", "nowhere.npz"), "nowhere.npz"),
        (("explain", "--pid", "1", "--range", "5"), "write START-END in hexadecimal"),
        (("explain", "--pid", "1", "--vmcore", "nowhere"), "there is no such file"),
        (("explain", "--pid", "1", "--vmcore", __file__, "--qmp", __file__), "name one of them"),
        (("snapshot", "--pid", "99999999", "-o", "x.npz"), "there is no such process"),
        (("watch", "--pid", "99999999"), "there is no such process"),
        (("verify", "--pid", "99999999", "--save", "x.json"), "there is no such process"),
        (("verify", "--pid", "1", "--save", "x.json", "--work", " "), "--work: name a command"),
        (("host", "--interval", "inf"), "--interval"),
    ],
)
def test_what_cannot_be_asked_is_one_line(argv, says, capsys):
    message = run(capsys, *argv, code=2)
    assert says in message and message.count("\n") == 1


@pytest.mark.parametrize("option", ["--kernel-memory", "--procfs"])
def test_of_a_snapshot_no_source_can_be_chosen(option, tmp_path, capsys):
    path = tmp_path / "s.npz"
    save(snapshot(columns(1)), path)
    message = run(capsys, "explain", path, option, code=2)
    assert message.count("\n") == 1 and "belong to --pid; a snapshot holds what was captured" in message


def test_watching_a_process_whose_decisions_cannot_be_told_apart_is_a_failure(monkeypatch, capsys):
    """Neither its pages nor kernel memory may be read: none of khugepaged's decisions could be called its own, or anothers."""
    from secondsight.errors import MissingDependency
    from secondsight.live.read import capture, places, tracefs

    class Traced:
        events, lost = ("mm_khugepaged_scan_pmd",), 0

        def read(self):
            return []

    def denied(process, most):
        raise MissingDependency(f"/proc/{process.pid}/pagemap: permission denied")

    monkeypatch.setattr(tracefs.Instance, "open", classmethod(lambda cls: contextlib.nullcontext(Traced())))
    monkeypatch.setattr(capture, "open_kernel", lambda wanted: (None, "not here"))
    monkeypatch.setattr(places, "_places", denied)
    message = run(capsys, "watch", "--pid", os.getpid(), "--for", "1s", code=1)
    assert message.count("\n") == 1 and f"/proc/{os.getpid()}/pagemap: permission denied" in message


@pytest.mark.parametrize("rate", [0.0, 28.0])
def test_splits_are_told_as_a_rate(rate):
    from secondsight.cli.host import describe_pace
    from secondsight.host.supply import read_supply

    supply = read_supply()
    if supply.limits is None:
        pytest.skip("no khugepaged here")
    (line,) = (each for each in describe_pace(supply, {"thp_split_page": rate}) if "split" in each)
    assert line.startswith(f"  splits a second       {rate:.1f} of huge pages, ") and "in all" not in line


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("explain", "--nonesuch"), "secondsight explain: No such option: --nonesuch"),
        (("explain", "--pid", "one"), "secondsight explain: Invalid value for '--pid'"),
        (("explain", "--pid"), "secondsight explain: Option '--pid' requires an argument"),
        (("collapse", "--pid"), "secondsight collapse: Option '--pid' requires an argument"),
        (("lab", "run", "x.toml", "--kernel"), "secondsight lab run: Option '--kernel' requires an argument"),
        (("nonesuch",), "secondsight: No such command 'nonesuch'"),
        (("lab", "fetch", "--nonesuch"), "secondsight lab fetch: No such option: --nonesuch"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(argv, says, capsys):
    message = run(capsys, *argv, code=2)
    assert message.startswith(says) and message.count("\n") == 1 and "--help" in message


@pytest.mark.parametrize("argv", [["rules"], ["doctor", "--json"]])
def test_a_reader_that_leaves_is_no_error(argv):
    program = [sys.executable, "-m", "secondsight", *argv]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 0)


def test_a_recording_that_saw_nothing_says_what_it_could_not_see(target, capsys, tmp_path):
    path = tmp_path / "t.parquet"
    argv = ["record", "pid", target.pid, "-o", path, "--procfs", "--no-damon", "--pages"]
    message = run_err(capsys, *argv, "--interval", "0.05", "--for", "200ms")
    assert (
        "nothing was seen, which does not mean that nothing was used; not seen by these channels: accesses between"
        in message
    )
    assert "(process): no accesses\n" in run(capsys, "trace", "info", path)


def test_samples_say_what_they_could_not_see_and_what_they_cost(target, capsys, tmp_path):
    path = tmp_path / "s.parquet"
    argv = ["record", "pid", target.pid, "-o", path, "--procfs", "--no-damon"]
    message = run_err(capsys, *argv, "--interval", "0.05", "--for", "200ms")
    assert "primary not seen: no kernel memory (not asked for): use is unknown" in message
    assert "damon not seen: not asked for" in message
    assert "cost     ours: " in message and "ms of CPU a look" in message and "minor fault" in message
    info = run(capsys, "trace", "info", path)
    assert (
        "samples, " in info and "through procfs" in info and "channel  damon: not seen: not asked for" in info
    )


def run_err(capsys, *argv):
    """Standard error of a command that succeeds."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    assert end.value.code == 0
    return capsys.readouterr().err


def test_what_could_not_be_read_after_a_collapse_is_unknown_not_none(capsys):
    print_round(
        Round(considered=3, chosen=2, collapsed=2, confirmed=None, after=None, stopped="gone"), json=False
    )
    printed = capsys.readouterr().out
    assert "2 collapsed (unknown confirmed by the page table)" in printed and "unknown after" in printed


def test_names_in_a_rounds_reasons_reach_no_terminal_raw(capsys):
    hostile = "memory.max of cgroup /a\x1b]0;title\x07"
    print_round(
        Round(refused={hostile: 1}, left={hostile: 1}, overridden={hostile: 1}, stopped=hostile), json=False
    )
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\x07" not in printed and printed.count(r"\x1b]0;title\x07") == 4
