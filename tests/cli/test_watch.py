"""Following khugepaged: a line for each decision, the totals at the end, and a file of them."""

import contextlib
import json
import os
import signal

import pyarrow.parquet as pq
import pytest

from secondsight.cli.watch import DecisionFile, DecisionPrinter
from secondsight.errors import MissingDependency, UsageError
from secondsight.live.read import capture, largest, places, tracefs
from secondsight.live.watch import SCHEMA
from secondsight.signals import ENDING
from support.commands import in_process, printed, refused
from support.traced import FILES, V61, V72, decisions


def test_what_cannot_be_named_becomes_a_line(capsys):
    some = [decision for decision, _ in decisions(V72)] * 50
    printer = DecisionPrinter(False, {}, 3600)
    printer.take(some, False)
    assert capsys.readouterr().out == ""
    printer.take(some, True)
    out = capsys.readouterr().out
    assert (
        out.count("\n") == 1 and "300 decisions about 2 address spaces" in out and "no_pte_table 100" in out
    )
    DecisionPrinter(True, {}, 3600).take(some, True)
    assert capsys.readouterr().out.count("\n") == 150, "whole in JSON"


def test_a_named_one_keeps_its_line(capsys):
    (decision, _), *_ = decisions(V61)
    decision.pid, decision.address = 42, 0x200000000000
    (file, _), *_ = decisions(FILES)
    DecisionPrinter(False, {42: "a\x1bb"}, 3600).take([decision, file], False)
    first, second = capsys.readouterr().out.splitlines()
    assert "pid 42 (a\\x1bb) 0x200000000000: succeeded" in first
    assert "file ram 0x300000200000: succeeded" in second and "512 pages in the page cache" in second


def test_decisions_take_the_place_of_earlier_ones_alone_and_one_watch_writes_them(tmp_path):
    path, notes = tmp_path / "w.parquet", tmp_path / "notes.txt"
    notes.write_text("precious")
    with pytest.raises(UsageError, match="holds text, no recording of decisions: give another name"):
        DecisionFile(notes)
    with DecisionFile(path), pytest.raises(UsageError, match="another process is recording into it"):
        DecisionFile(path)
    with DecisionFile(path):
        pass
    assert notes.read_text() == "precious" and path.read_bytes().startswith(b"PAR1")


def test_watching_a_process_whose_decisions_cannot_be_told_apart_is_a_failure(monkeypatch, capsys):
    """Neither its pages nor kernel memory may be read: none of khugepaged's decisions could be called its own, or anothers."""

    class Traced:
        events, lost = ("mm_khugepaged_scan_pmd",), 0

        def read(self):
            return []

    def denied(process):
        raise MissingDependency(f"/proc/{process.pid}/pagemap: permission denied")

    monkeypatch.setattr(tracefs.Instance, "open", classmethod(lambda cls: contextlib.nullcontext(Traced())))
    monkeypatch.setattr(capture, "open_kernel", lambda wanted: (None, "not here"))
    monkeypatch.setattr(places, "Pagemap", denied)
    message = refused(capsys, "watch", "--pid", os.getpid(), "--for", "1s", code=1)
    assert message.count("\n") == 1 and f"/proc/{os.getpid()}/pagemap: permission denied" in message


@pytest.fixture
def traced(monkeypatch):
    """A trace instance that holds V72; its second reading sends *number* to us, if that is set."""

    class Traced:
        events, lost = ("mm_khugepaged_scan_pmd",), 2
        number = None
        readings = 0

        def read(self):
            self.readings += 1
            if self.number is not None and self.readings == 2:
                os.kill(os.getpid(), self.number)
            lines = V72.splitlines() if self.readings == 1 else []
            return [tracefs.parse_line(line) for line in lines]

    instance = Traced()
    monkeypatch.setattr(tracefs.Instance, "open", classmethod(lambda cls: contextlib.nullcontext(instance)))
    monkeypatch.setattr(capture, "open_kernel", lambda wanted: (None, "not here"))
    monkeypatch.setattr(largest, "largest_processes", list)
    return instance


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_it_with_its_totals_and_its_file(traced, number, tmp_path, capsys):
    traced.number = number
    path = tmp_path / "w.parquet"
    code, out, err = in_process(capsys, "watch", "--record", path)
    assert (code, err) == (0, "")
    assert out.startswith(
        "watching khugepaged on every process; events: mm_khugepaged_scan_pmd; interrupt to stop\n"
    )
    assert "3 decisions in " in out and "1 wasted pass," in out and ", 2 events lost" in out
    assert "not here" in out, "why those that are not named are not"
    table = pq.read_table(path)
    assert table.num_rows == 3 and set(table.column_names) == set(SCHEMA)
    assert signal.getsignal(number) is not signal.SIG_IGN


def test_json_is_an_object_a_line_the_last_one_the_totals(traced, capsys):
    traced.number = signal.SIGINT
    *each, last = map(json.loads, printed(capsys, "watch", "--json").splitlines())
    assert [decision["status"] for decision in each] == ["lack_referenced_page"] * 2 + ["no_pte_table"]
    totals = last["summary"]
    assert (totals["decisions"], totals["wasted"], totals["lost_events"]) == (3, 1, 2)
    assert totals["by_status"] == {"lack_referenced_page": 2, "no_pte_table": 1}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--pid", "99999999"), "there is no such process"),
        (("--for", "soon"), "--for soon: write a time such as 30s"),
        (("--refresh", "0"), "Invalid value for '--refresh'"),
        (("--record", "none/w.parquet"), "there is no directory none"),
    ],
)
def test_what_cannot_be_watched_is_one_line(traced, argv, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "watch", *argv)
