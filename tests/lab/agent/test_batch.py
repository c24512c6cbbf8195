"""A batch step by step, the machine being stand-ins: what is said before each step, how knobs and passes go, what is answered."""

import pytest

from secondsight.lab.agent import batch, knobs
from secondsight.lab.agent.batch import ScenarioRunner
from secondsight.lab.agent.libc import SysError
from secondsight.scenario import verbs as v


class Tracer:
    """A trace in which nothing happened."""

    sees_files = False

    def __init__(self, did):
        self.did = did

    def start(self):
        self.did.append("start")

    def stop(self):
        self.did.append("stop")
        return []


class Host:
    def __init__(self, did):
        self.tracer = Tracer(did)


@pytest.fixture
def machine(monkeypatch):
    """What the machine was made to do, in order."""
    did = []
    monkeypatch.setattr(knobs, "settle", lambda host: did.append("settle"))
    monkeypatch.setattr(knobs, "khugepaged", lambda name, value: did.append((name, value)))
    monkeypatch.setattr(knobs, "thp_enabled", lambda value: did.append(("enabled", value)))
    monkeypatch.setattr(batch, "rest", lambda: did.append("rest"))
    monkeypatch.setattr(batch.libc, "drain", lambda: did.append("drain"))
    monkeypatch.setattr(batch, "one_pass", lambda: did.append("pass"))
    monkeypatch.setattr(batch, "wake_up", lambda pages: did.append(("wake", pages)))
    monkeypatch.setattr(batch, "finish_pass", lambda: did.append("finish"))
    return did


def runner(did, *steps, spaces=(), states=False):
    return ScenarioRunner(Host(did), v.Scenario(spaces, steps), {}, states)


def test_each_step_is_said_before_it_is_taken_and_batches_are_empty_after_it(machine):
    made = runner(machine, v.Drain(), v.SetKnobs(max_ptes_none=3), v.Drain())
    made.run(lambda step: machine.append(f"step {step}"))
    assert machine == [
        "settle", "rest", "drain", "step 0", "drain", "step 1", ("max_ptes_none", 3), "drain", "step 2", "drain",
    ]  # fmt: skip
    assert made.answer() == {"blocks": [], "answers": [], "states": [], "files": []}


def test_knobs_that_are_not_named_keep_their_value(machine):
    runner(machine, v.SetKnobs(max_ptes_swap=1, max_ptes_shared=2, thp_enabled="never")).run(
        lambda step: None
    )
    assert [each for each in machine if isinstance(each, tuple)] == [
        ("max_ptes_swap", 1),
        ("max_ptes_shared", 2),
        ("enabled", "never"),
    ]


def test_a_scan_is_so_many_passes_each_in_a_trace_of_its_own(machine):
    made = runner(machine, v.Scan(passes=2))
    made.run(lambda step: None)
    assert [each for each in machine if each in ("start", "pass", "stop")] == ["start", "pass", "stop"] * 2
    assert made.passes == 2 and not made.unfinished
    made.close()
    assert "finish" not in machine


def test_a_wake_up_that_leaves_the_list_unfinished_is_finished_at_the_end(machine):
    made = runner(machine, v.Scan(pages=700))
    made.run(lambda step: None)
    assert ("wake", 700) in machine and "pass" not in machine and made.unfinished
    made.close()
    assert machine[-1] == "finish"


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (v.SpaceSpec("a", gru=v.Gru()), "a GRU: no kernel here"),
        (v.SpaceSpec("a", shared=v.Shared("ram")), "which file block is scanned"),
    ],
)
def test_what_this_kernel_cannot_show_is_an_error_before_any_process_is_made(
    machine, monkeypatch, space, said
):
    monkeypatch.setattr(batch.os, "fork", lambda: pytest.fail("forks"))
    with pytest.raises(SysError, match=said):
        runner(machine, spaces=(space,)).run(lambda step: None)
