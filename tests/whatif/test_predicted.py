"""Predicted run times in a comparison: today's row is what was measured, and a trace that cannot carry one says why."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.predict import calibration
from secondsight.predict.machine import this_machine
from secondsight.replay import Events
from secondsight.trace.provenance import Provenance, Space
from secondsight.whatif import compare
from secondsight.whatif.predicted import PredictionBasis
from secondsight.whatif.settings import best, settings
from support.predict import made

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """This machine's own calibration is the made-up one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path = calibration.own_path()
    path.parent.mkdir(parents=True)
    calibration.save(made(this_machine()), path)
    return path


def scattered(n: int = 60_000, pages: int = 20_000, **fields) -> Events:
    """Stores to pages drawn at random, in a second."""
    address = np.random.default_rng(1).integers(0, pages, n).astype(np.uint64) << np.uint64(12)
    return Events(
        address=address, kind=1, time=np.arange(n, dtype=np.uint64) * np.uint64(SECOND // n), **fields
    )


def run(events, asked, *policies):
    return compare(
        events, policies or ("never", "always,khugepaged=false"), ["7.2"], predict=asked, channels=False
    )


def test_huge_pages_save_what_their_walks_cost():
    never, always = (row.metrics for row in run(scattered(), PredictionBasis(cpu_seconds=0.2)).rows)
    assert never["run_time"] == never["run_time_low"] == never["run_time_high"] == 0.2
    assert never["run_time_change"] == 0
    assert 0 < always["run_time_low"] < always["run_time"] < 0.2
    assert always["run_time"] < always["run_time_high"]
    # A fault of 2 MiB may take 3 ms, a small one 2 µs.
    assert (never["longest_stall"], always["longest_stall"]) == (2e-6, 3e-3)


def test_today_need_not_be_a_row():
    """Measured under always: never is what is predicted then."""
    only = run(scattered(), PredictionBasis(cpu_seconds=0.02, today="always,khugepaged=false"), "never").rows
    assert len(only) == 1
    assert only[0].metrics["run_time"] > 0.02


@pytest.mark.parametrize(("events", "asked", "said"), [
    (scattered(), PredictionBasis(), "--cpu-time"),
    (scattered(n=5_000), PredictionBasis(cpu_seconds=1.0), "5,000 accesses"),
])  # fmt: skip
def test_what_cannot_be_predicted_is_said(events, asked, said):
    results = run(events, asked)
    assert results.rows[0].metrics["run_time"] is None
    assert any("no run time is predicted" in note and said in note for note in results.provenance.notes)


def test_an_aggregated_trace_has_no_order():
    events = scattered()
    events.provenance = Provenance(source="lackey", quantum=1000, spaces=[Space(id=0, name="p")])
    assert any("aggregated" in note for note in run(events, PredictionBasis()).provenance.notes)
    with pytest.raises(UsageError, match="aggregated"):
        run(events, PredictionBasis(cpu_seconds=1.0))


def test_a_vm_needs_nested_prices(here):
    machine = msgspec.structs.replace(this_machine(), virtualised=False)
    calibration.save(made(machine), here)
    events = scattered(spaces=[Space(id=0, name="vm", type="vm")])
    with pytest.raises(UsageError, match=r"VM's, whose walks are nested|another machine's"):
        run(events, PredictionBasis(cpu_seconds=1.0, calibration=here))


def test_no_time_is_below_nothing():
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="--cpu-time"):
            PredictionBasis(cpu_seconds=seconds)


def test_without_being_asked_nothing_changes():
    results = compare(scattered(), ["never"], ["7.2"], channels=False)
    assert results.rows[0].metrics["run_time"] is None
    assert not any("run time" in note for note in results.provenance.notes)


def test_the_settings_are_those_of_the_quickest_row():
    results = run(scattered(), PredictionBasis(cpu_seconds=0.02))
    lines = settings(results)
    assert best(results.rows).policy == "always"
    assert "echo always > /sys/kernel/mm/transparent_hugepage/enabled" in lines
    assert any(line.startswith("# Nothing was set") for line in lines)
    assert all(line.startswith(("#", "echo ", "[ -e ", "secondsight ")) for line in lines)


def test_never_is_a_setting_where_all_else_is_slower():
    results = run(scattered(), PredictionBasis(cpu_seconds=0.02))
    slower = [r for r in results.rows if r.policy == "never"]
    assert best(slower).policy == "never"
    assert "echo never > /sys/kernel/mm/transparent_hugepage/enabled" in settings(type(results)(
        title="", answer="", provenance=results.provenance, metrics=[], spaces=[], rows=slower, blocks=results.blocks))  # fmt: skip


def test_of_the_oracle_alone_there_is_no_setting():
    results = compare(scattered(), ["oracle"], ["7.2"], channels=False)
    with pytest.raises(UsageError, match="only the oracle"):
        best(results.rows)
