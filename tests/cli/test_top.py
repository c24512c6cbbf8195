"""``secondsight top``, piped."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from secondsight.cli import main
from secondsight.geometry import PAGE_SIZE
from secondsight.host import survey
from secondsight.host.history import passes, read
from secondsight.host.tasks import UNREADABLE


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["top", *words])
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


OWN = ("--pid", str(os.getpid()))


def test_a_table(capsys):
    code, out, _ = run(capsys, *OWN)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("kernel ")
    assert any(line.split()[:1] == [str(os.getpid())] for line in lines)


def test_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, *OWN)
    assert max(map(len, out.splitlines())) <= 80


def test_json_has_everything(capsys):
    _, out, _ = run(capsys, *OWN, "--json")
    view = json.loads(out)
    row = view["rows"][0]
    assert row["pid"] == os.getpid()
    assert row["resident"] % PAGE_SIZE == 0
    assert row["share"] == row["huge"] / row["resident"]
    assert {"value", "low", "high"} == set(row["now"])
    assert view["supply"]["counters"]["vmstat"]


def test_csv(capsys):
    _, out, _ = run(capsys, *OWN, "--csv", "--columns", "pid,resident,share")
    table = list(csv.DictReader(io.StringIO(out)))
    assert [int(row["pid"]) for row in table] == [os.getpid()]


def test_columns_that_need_no_blocks_read_none(capsys):
    _, out, _ = run(capsys, *OWN, "--columns", "pid,resident", "--sort", "resident", "--json")
    assert json.loads(out)["source"] == ""


def test_a_recording_that_is_there_is_not_taken_the_place_of(capsys, tmp_path):
    path = tmp_path / "host.parquet"
    words = ["--pid", str(os.getpid()), "--record", str(path), "--once"]
    assert run(capsys, *words)[0] == 0
    before = path.read_bytes()
    code, _, message = run(capsys, *words)
    assert code == 2 and message.count("\n") == 1 and "--append goes on with it" in message
    assert path.read_bytes() == before
    assert run(capsys, *words, "--append")[0] == 0
    assert passes(read(path)[0]) == 2
    code, _, message = run(capsys, *words, "--append", "--by", "vm")
    assert code == 2 and "go on with it by --by process" in message
    path.write_bytes(b"PAR1")
    code, _, message = run(capsys, *words, "--append")
    assert code == 2 and "no recording of the host" in message and path.read_bytes() == b"PAR1"
    assert run(capsys, "--append")[0] == 2


def test_once_is_one_pass_of_a_recording_too(capsys, tmp_path):
    path = tmp_path / "host.parquet"
    assert run(capsys, *OWN, "--record", str(path), "--once")[0] == 0
    assert passes(read(path)[0]) == 1


def test_a_process_that_has_ended_beside_one_that_is_there_is_counted(capsys):
    code, out, _ = run(capsys, *OWN, "--pid", "4194999", "--json")
    view = json.loads(out)
    assert code == 0 and len(view["rows"]) == 1 and sum(view["trouble"].values()) == 1


def test_explain_defines_every_column(capsys):
    from secondsight.host.columns import COLUMNS

    _, out, _ = run(capsys, "--explain")
    for line, (name, column) in zip(out.splitlines(), COLUMNS.items(), strict=True):
        assert re.fullmatch(rf"{name} +'{re.escape(column.title)}': {re.escape(column.meaning)}", line)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--by", "planet"), "--by planet: is one of"),
        (("--columns", "x"), "--columns x: is one of"),
        (("--sort", "x"), "--sort x: is one of"),
        (("--filter", "x"), "--filter x: write"),
        (("--if", "enabled"), "--if enabled: write NAME=VALUE"),
        (("--json", "--csv"), "choose one"),
        (("--record", "x.parquet", "--json"), "--record: keeps the rows and prints none"),
        (("--for", "1s"), "--for: ends a recording"),
        (("--pid", "0"), "--pid 0: a process number is positive"),
        (("--pid", "4194999"), "--pid 4194999: there is no such process"),
        (("--pid", "4194999", "--pid", "9" * 30), "none of the 2 processes is there"),
        (("--interval", "inf"), "--interval"),
    ],
)
def test_wrong_words_are_one_line(capsys, words, problem):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert problem in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["top", "export"])
@pytest.mark.parametrize("budget", ["inf", "86401"])
def test_a_budget_that_is_no_number_of_seconds_is_one_line(capsys, verb, budget):
    with pytest.raises(SystemExit, match="2"):
        main([verb, "--budget", budget, *(["--once"] if verb == "top" else [])])
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"secondsight: --budget {float(budget):g}: write seconds of CPU time, at most 86,400\n",
    )


def test_a_pid_that_leaves_no_row_is_one_line_that_says_why(capsys):
    child = subprocess.Popen([sys.executable, "-c", ""])
    ended = child.pid
    try:
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)  # a zombie, until it is waited for
        for form in ("--once", "--json", "--csv"):
            code, out, err = run(capsys, "--pid", str(ended), form)
            assert (code, out) == (2, "")
            assert err == (
                f"secondsight: --pid {ended}: no process with memory that can be read: left out: 1 zombie\n"
            )
    finally:
        child.wait()


@pytest.mark.parametrize("form", ["--once", "--json", "--csv"])
def test_a_process_that_may_not_be_read_is_a_failure_as_in_explain(capsys, monkeypatch, form):
    trouble = {UNREADABLE: 1}
    monkeypatch.setattr(survey, "host", lambda *_, **__: SimpleNamespace(rows=[], trouble=trouble))
    code, out, err = run(capsys, "--pid", str(os.getpid()), form)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no process with memory that can be read: left out: 1 not readable" in err
