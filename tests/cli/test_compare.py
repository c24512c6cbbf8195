"""``secondsight compare``: what is printed and written, and one clear line for whatever is wrong."""

import csv
import io
from importlib import resources
from importlib.metadata import EntryPoint

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from secondsight.cli import main
from secondsight.cli.compare import is_table
from secondsight.errors import SecondSightError
from secondsight.policy import Decision, Policy, registry
from secondsight.report import encode, table
from secondsight.report.metrics import METRICS
from secondsight.trace import Provenance, Space, TraceWriter
from support import sweeps
from support.results import results

SHIPPED = resources.files("secondsight.predict").joinpath("data", "default.json")


@pytest.fixture
def trace(tmp_path):
    return str(sweeps.trace(tmp_path / "t.parquet", 1))


def run(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_everything_is_written_and_says_the_same(trace, tmp_path, capsys):
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "parquet", "html")}
    code, printed, _ = run(
        capsys, "compare", trace, "-p", "never", "-p", "khugepaged", "-r", "6.1", "-r", "7.2", "--vary", "max_ptes_none=0,511", "--passes",
        "-o", out["json"], "--csv", out["csv"], "--parquet", out["parquet"], "--report", out["html"], "--svg", tmp_path / "svg",
    )  # fmt: skip
    assert code == 0
    assert "khugepaged under 7.2" in printed
    assert "hot blocks made huge, after pass" in printed
    assert "coverage at max_ptes_none =" in printed
    decoded = msgspec.json.decode(out["json"].read_bytes())
    assert decoded["schema"] == 2
    assert decoded["provenance"]["command"].startswith("secondsight")
    coverage = [row["metrics"]["coverage"] for row in decoded["rows"]]
    lines = out["csv"].read_text().splitlines()
    assert msgspec.json.decode(lines[0][2:])["schema"] == 2
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[1:]))))
    assert [float(r["coverage"]) for r in rows[:3]] == coverage
    # Three rows, and two rules at two values of the knob.
    assert len(rows) == 3 + 4
    table = pq.read_table(out["parquet"])
    assert table.column("coverage").to_pylist()[:3] == coverage
    assert (
        msgspec.json.decode(table.schema.metadata[b"secondsight.results"])["provenance"]["trace"]
        == "t.parquet"
    )
    assert (tmp_path / "svg" / "utility.svg").exists()
    again = tmp_path / "again.html"
    assert run(capsys, "compare", out["json"], "--report", again)[0] == 0
    assert again.read_bytes() == out["html"].read_bytes()
    # What is printed as JSON is what was written.
    code, printed, _ = run(capsys, "compare", out["json"], "--json")
    assert code == 0 and printed == out["json"].read_text() + "\n"


@pytest.mark.parametrize(
    "option", [["--explain", "bloat"], ["--policies"], ["--apply"], ["--passes"], ["--all"]]
)
def test_what_is_printed_for_people_is_refused_beside_json(trace, option, capsys):
    code, out, err = run(capsys, "compare", trace, "--json", *option)
    assert (code, out) == (2, "") and err.startswith(f"secondsight: {option[0]}: ") and err.count("\n") == 1


def test_json_takes_no_path_any_more(trace, tmp_path, capsys):
    path = tmp_path / "out.json"
    code, out, err = run(capsys, "compare", trace, "--json", path)
    assert (code, out) == (2, "") and "unexpected extra argument" in err and not path.exists()


def test_every_figure_is_explained_and_every_policy_listed(capsys):
    code, out, _ = run(capsys, "compare", "--explain", "bloat")
    assert code == 0
    assert METRICS["bloat"].definition in out
    _, out, _ = run(capsys, "compare", "--explain", "all")
    assert all(m.title in out for m in METRICS.values())
    _, out, _ = run(capsys, "compare", "--policies")
    about_hawkeye = out[out.index("hawkeye: ") :]
    assert about_hawkeye.index("Simplified: ") < about_hawkeye.index("  alpha=0.4                  0 to 1\n")
    assert "  at_most=0                  1 to 34359738368, or 0: no limit\n" in about_hawkeye
    assert "  faults=huge                small or huge\n" in out


class Broken(Policy):
    """Divides by zero at its second wake-up."""

    name = "broken"
    wakes = 0

    def wake(self, look):
        self.wakes += 1
        return Decision() if self.wakes < 2 else 1 // 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "broken"], "policy broken failed at 10 s: ZeroDivisionError"),
        (["-p", "hawkeye,alhpa=1"], "policy hawkeye: no option 'alhpa=1'; it takes alpha"),
        (["-p", "nobody"], "no policy is called 'nobody'"),
        (["-r", "5.55"], "5.55"),
        (["--vary", "max_ptes_none"], "write KNOB=FIRST..LAST:STEP"),
        (["--vary", "max_ptes_none=600"], "must be 0 to 511"),
        (["--knob", "nonsense=1"], "--knob 'nonsense=1'"),
        (["--budget", "many"], "budget 'many'"),
        (["-p", "hawkeye,alpha=1.5"], "policy hawkeye: alpha=1.5: must be 0 to 1"),
        (["--vary", "alpha=0..2:0.5", "-p", "hawkeye"], "policy hawkeye: alpha=1.5: must be 0 to 1"),
        (["--vary", "scan_sleep_millisecs=1,10000", "--time-scale", "1000"], "would wake"),
        (["--time-scale", "-1"], "time scale"),
        (["--time-scale", "1e30"], "time scale 1e+30: "),
        (["--mmu", "arm"], "arm"),
        (["--backing", "disk"], "--backing"),
        (["--trace", "x"], "no sweep's directory"),
        (
            ["--report", "/nonexistent/dir/x.html"],
            "cannot be written: there is no directory /nonexistent/dir",
        ),
        (["--svg", "/dev/null/x"], "cannot be made"),
    ],
)
def test_whatever_is_wrong_is_one_line_and_code_two(trace, capsys, arguments, said, monkeypatch):
    monkeypatch.setattr(registry, "ADDED", {"broken": Broken})
    code, _, err = run(capsys, "compare", trace, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1], "returned a list, not a Decision"),
        (Decision(promote=[99]), "promote names rows outside 0 to 5"),
        (Decision(split=[0.5]), "split must be an array of row numbers"),
    ],
)
def test_what_is_no_decision_is_one_line(trace, capsys, monkeypatch, returned, said):
    class Wrong(Policy):
        name = "wrong"

        def wake(self, look):
            return returned

    monkeypatch.setattr(registry, "ADDED", {"wrong": Wrong})
    code, _, err = run(capsys, "compare", trace, "-p", "wrong")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_files_that_are_no_traces_are_one_line(tmp_path, capsys):
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    (tmp_path / "a.json").write_text('{"schema": 1}')
    (tmp_path / "empty").mkdir()
    for name, said in (("a.parquet", "not a whole"), ("a.json", "version 1; this reads version 2"), ("empty", "not a sweep"),
                       ("none.parquet", "no such file"), ("none.json", "cannot be read")):  # fmt: skip
        code, _, err = run(capsys, "compare", tmp_path / name)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err


def test_tables_that_compare_wrote_are_those_that_it_takes_the_place_of(tmp_path):
    table.write_parquet(results(), tmp_path / "r.parquet")
    table.write_csv(results(), tmp_path / "r.csv")
    assert is_table(tmp_path / "r.parquet") and not is_table(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_bytes().startswith(b"# {")


def test_what_cannot_be_written_is_said_before_and_keeps_nothing_from_being_printed(
    tmp_path, capsys, monkeypatch
):
    path, out = tmp_path / "r.json", tmp_path / "out"
    path.write_bytes(encode(results(12, 3)))
    for arguments, said in (
        (["--csv", out, "--parquet", out], "two results cannot be written to one file"),
        (["--svg", path], "is no directory"),
        (["--svg", path / "deeper"], "is no directory"),
    ):
        code, printed, error = run(capsys, "compare", path, *arguments)
        assert (code, printed) == (2, "")
        assert said in error
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]

    def full(*_):
        raise SecondSightError("no space left")

    monkeypatch.setattr(table, "write_csv", full)
    code, printed, error = run(capsys, "compare", path, "--csv", out)
    assert code == 1
    assert "no space left" in error
    assert "policy under profile" in printed


def test_one_broken_package_hides_no_other_policy(monkeypatch, capsys):
    points = registry.installed() | {"aaa": EntryPoint("aaa", "no_such_module:X", registry.GROUP)}
    monkeypatch.setattr(registry, "installed", lambda: points)
    code, printed, error = run(capsys, "compare", "--policies")
    assert code == 1
    assert "cannot be loaded" in error
    assert printed.startswith("always: ")
    assert "\nthp_shrinker: " in printed


@pytest.mark.parametrize(
    "option", [["-p", "never"], ["-r", "6.12"], ["--tlb"], ["--budget", "3"], ["--mmu", "ept"], ["--time-scale", "2"]]
)  # fmt: skip
def test_results_are_reported_and_not_replayed(tmp_path, capsys, option):
    path = tmp_path / "r.json"
    path.write_bytes(encode(results(12, 3)))
    assert run(capsys, "compare", path)[0] == 0
    code, printed, error = run(capsys, "compare", path, *option)
    assert (code, printed) == (2, "")
    assert "holds results" in error
    code, _, error = run(capsys, "compare", path, "--trace", "t")
    assert code == 2
    assert "no sweep's directory" in error


def test_a_trace_that_says_nothing_of_time_and_one_that_is_told_it(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    path = tmp_path / "t.parquet"
    about = Provenance(source="lackey", spaces=[Space(id=0, name="p")])
    with TraceWriter(path, about) as out:
        out.append(
            np.arange(40_000) * 1000, 0, rng.integers(0, 20_000, 40_000).astype(np.uint64) << np.uint64(12), 1
        )
    compare = ["compare", str(path), "-p", "never", "-p", "always,khugepaged=false"]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    code, out, _ = run(capsys, *compare)
    assert code == 0
    assert "no run time is predicted: the trace does not say" in out
    code, out, _ = run(capsys, *compare, "--cpu-time", "0.2", "--calibration", SHIPPED, "--apply")
    assert code == 0
    assert "predicted run time" in out
    assert "# Nothing was set" in out
