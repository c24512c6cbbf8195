"""calibrate, verify and compare's run times on the command line: what they print, and one line for what cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from secondsight.trace import Provenance, Space, TraceWriter

SECONDSIGHT = [sys.executable, "-c", "from secondsight.cli import main; main()"]
SHIPPED = str(resources.files("secondsight.predict").joinpath("data", "default.json"))


def run(*argv, **environment):
    finished = subprocess.run(
        [*SECONDSIGHT, *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | environment,
    )
    return finished.returncode, finished.stdout, finished.stderr


def test_whose_a_calibration_is_and_what_it_says():
    code, out, _ = run("calibrate", "--show", SHIPPED)
    assert code == 0
    assert "Linux" in out.splitlines()[0]
    assert "predicted times of patterns left out" in out
    assert "fault of a huge page" in out


@pytest.mark.parametrize(("argv", "said"), [
    (["calibrate", "--show", "/nowhere.json"], "cannot be read"),
    (["calibrate", "--out", "/nowhere/c.json"], "cannot be written"),
    (["verify", "--save", "x.json"], "--pid PID or --cgroup"),
    (["verify", "--pid", str(os.getpid())], "--save FILE before"),
    (["verify", "--pid", "99999999"], "there is no such process"),
    (["verify", "--cgroup", "/nowhere"], "no directory of a cgroup"),
    (["verify", "--pid", str(os.getpid()), "--save", "x.json", "--predicted", "r.json"], "needs --before"),
    (["verify", "--pid", str(os.getpid()), "--save", "/tmp/x.json", "--for", "soon"], "write a time"),
])  # fmt: skip
def test_one_line_for_what_is_wrong(argv, said):
    code, _, err = run(*argv)
    assert code == 2
    assert err.count("\n") == 1
    assert said in err


def test_before_and_after_of_a_running_process(tmp_path):
    """This process, looked at twice for a moment, its work counted by a command; the file of the first is what the second reads."""
    before = tmp_path / "before.json"
    code, out, err = run(
        "verify", "--pid", str(os.getpid()), "--for", "100ms", "--work", "date +%s%N", "--save", str(before)
    )
    assert (code, err) == (0, "")
    assert "units of work" in out
    code, out, err = run(
        "verify", "--pid", str(os.getpid()), "--for", "100ms", "--work", "date +%s%N", "--before", str(before)
    )
    assert (code, err) == (0, "")
    assert "CPU time for a unit of work" in out
    code, _, err = run("verify", "--pid", str(os.getpid()), "--for", "100ms", "--before", str(before))
    assert code == 2
    assert "same command in both" in err


def test_a_trace_that_says_nothing_of_time_and_one_that_is_told_it(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "t.parquet"
    about = Provenance(source="lackey", spaces=[Space(id=0, name="p")])
    with TraceWriter(path, about) as out:
        out.append(
            np.arange(40_000) * 1000, 0, rng.integers(0, 20_000, 40_000).astype(np.uint64) << np.uint64(12), 1
        )
    compare = ["compare", str(path), "-p", "never", "-p", "always,khugepaged=false"]
    home = {"XDG_DATA_HOME": str(tmp_path)}
    code, out, _ = run(*compare, **home)
    assert code == 0
    assert "no run time is predicted: the trace does not say" in out
    code, out, _ = run(*compare, "--cpu-time", "0.2", "--calibration", SHIPPED, "--apply", **home)
    assert code == 0
    assert "predicted run time" in out
    assert "# Nothing was set" in out
