"""Model against kernel: what counts as a difference, and what as chance; the kernel is played by the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from secondsight.lab import compare as lab
from secondsight.lab.kernels import Kernel
from secondsight.lab.run import Failure
from secondsight.mm.profiles import profile
from secondsight.scenario import batch
from secondsight.scenario import verbs as v
from secondsight.scenario.run import run as run_model

RULES = profile("6.12")
SCENARIOS = [
    v.Scenario(
        (v.SpaceSpec("p"),), (v.Madvise("p", "0", "hugepage"), v.CpuWrite("p", "0:3"), v.Scan()), title="one"
    ),
    v.Scenario(
        (v.SpaceSpec("p"),), (v.Madvise("p", "0", "hugepage"), v.CpuRead("p", "0"), v.Scan()), title="two"
    ),
]


class Lab:
    """``lab.run``: the model's answers, of which *wrong* ones say another status, in the first *times* asked."""

    def __init__(self, wrong: set[str], times: int = 1 << 30, dies: bool = False) -> None:
        self.wrong, self.times, self.dies, self.asked = wrong, times, dies, 0

    def __call__(self, scenarios: list[v.Scenario], *_: Any, **more: Any) -> list[Any]:
        self.asked += 1
        merged = batch.merge(scenarios)
        out: list[Any] = list(batch.split(merged, run_model(merged.scenario, RULES, keep_states=True)))
        for i, scenario in enumerate(scenarios):
            if scenario.title in self.wrong and self.asked <= self.times:
                blocks = [msgspec.structs.replace(b, status="scan_failed") for b in out[i].blocks]
                out[i] = (
                    Failure(scenario.title, "its kernel is lost")
                    if self.dies
                    else msgspec.structs.replace(out[i], blocks=blocks)
                )
        return out


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        lab.kernels, "resolve", lambda name: Kernel("own", "6.12", "6.12-1", tmp_path / "vmlinuz", None)
    )


def ask(monkeypatch: pytest.MonkeyPatch, machine: Lab) -> lab.Comparison:
    monkeypatch.setattr(lab, "run", machine)
    return lab.compare(SCENARIOS, "own", "npt", rules=RULES)


def test_a_kernel_that_answers_as_the_model_agrees_and_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Lab(set())
    report = ask(monkeypatch, machine)
    assert (report.agreed, report.unsteady, report.differences, machine.asked) == (2, [], [], 1)
    assert report.visits == 2 and report.states


def test_a_steady_difference_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ask(monkeypatch, Lab({"two"}))
    assert report.agreed == 1 and report.unsteady == []
    assert {(d.scenario, d.field, d.kernel) for d in report.differences} == {(1, "status", "scan_failed")}


def test_an_answer_that_a_second_boot_does_not_repeat_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ask(monkeypatch, Lab({"two"}, times=1))
    assert report.agreed == 2 and report.unsteady == [1] and report.differences == []


def test_a_scenario_whose_machine_was_lost_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Lab({"two"}, times=1, dies=True)
    report = ask(monkeypatch, machine)
    assert report.agreed == 2 and not report.failures and not report.unsteady and machine.asked == 2


def test_a_scenario_without_an_answer_is_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ask(monkeypatch, Lab({"two"}, dies=True))
    assert report.agreed == 1 and [i for i, _ in report.failures] == [1]
