"""sweep: the plan, what is finished and kept, and how far it is."""

import pytest

from secondsight.cli.sweep import Meter, duration
from secondsight.whatif import sweep as module
from support import sweeps
from support.commands import in_process


def test_a_sweep_from_plan_to_report(tmp_path, capsys):
    spec = sweeps.spec(tmp_path, 2)
    code, out, _ = in_process(capsys, "sweep", spec, "-o", tmp_path / "out", "--plan")
    assert (code, out.splitlines()[0]) == (
        0,
        "2 traces, 20 rows in 10 cells of up to 2; 10 cells to run, 0 finished",
    )
    (tmp_path / "traces" / "torn.parquet").write_bytes(b"PAR1")
    code, out, err = in_process(capsys, "sweep", spec, "-o", tmp_path / "out", "--jobs", 1)
    assert code == 1
    assert "10 cells: 0 were finished before, 10 run, 1 failed" in out
    assert "failed: traces/torn.parquet: " in err
    (tmp_path / "traces" / "torn.parquet").unlink()
    code, out, _ = in_process(capsys, "sweep", spec, "-o", tmp_path / "out", "--jobs", 1)
    assert (code, "10 were finished before, 0 run, 0 failed" in out) == (0, True)
    code, out, _ = in_process(capsys, "compare", tmp_path / "out", "--report", tmp_path / "all.html")
    assert (code, out.startswith("Over 2 traces: ")) == (0, True)
    code, out, _ = in_process(
        capsys, "compare", tmp_path / "out", "--trace", "t1", "--report", tmp_path / "one.html"
    )
    assert code == 0
    assert "traces/t1.parquet" in (tmp_path / "one.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--jobs", "0"], 2, "--jobs 0"),
        (["--jobs", "1", "--scheduler", "tcp://x"], 2, "give one of them"),
    ],
)
def test_a_sweep_asked_wrongly_is_one_line(tmp_path, capsys, arguments, code, said):
    exit_code, _, err = in_process(
        capsys, "sweep", sweeps.spec(tmp_path, 1), "-o", tmp_path / "out", *arguments
    )
    assert (exit_code, err.count("\n")) == (code, 1)
    assert said in err


def test_an_interrupted_sweep_says_what_it_has(tmp_path, capsys, monkeypatch):
    def stop(spec, base, output, *, after_cell, **_):
        after_cell(module.State(planned=7, before=2, run=3))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sweep", stop)
    code, printed, error = in_process(capsys, "sweep", sweeps.spec(tmp_path), "-o", tmp_path / "out")
    assert (code, printed) == (130, "")
    assert "5 of 7 cells are finished and kept: the same command runs the others" in error


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (42.4, "42 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_duration_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_meter_that_is_no_terminal_says_where_it_begins_and_little_more(capsys):
    with Meter() as meter:
        for run in range(50):
            meter(module.State(planned=50, run=run))
    assert capsys.readouterr().err == "0 of 50 cells\n"


def test_failures_are_listed_up_to_twenty(tmp_path, capsys, monkeypatch):
    failed = {f"t{n}\x1b": "torn" for n in range(25)}
    monkeypatch.setattr(module, "sweep", lambda *_, **__: module.State(planned=25, failed=failed))
    code, out, err = in_process(capsys, "sweep", sweeps.spec(tmp_path), "-o", tmp_path / "out")
    assert code == 1 and "0 run, 25 failed" in out
    assert err.count("failed: t") == 20 and "failed: 5 more; see " in err and "\x1b" not in err
