"""The agent's loop, the line to the host being a list: hello, each batch answered, one that fails lost alone, and what is lacked said."""

import runpy
import sys

import pytest

from secondsight.lab import wire
from secondsight.lab.agent import batch, knobs, libc, needs
from secondsight.lab.agent.libc import SysError

PLAIN = {"spaces": [], "steps": []}


class Runner:
    """A batch that says its steps, and fails where its scenario's title says how."""

    closed = 0

    def __init__(self, host, scenario, observe, states):
        self.scenario, self.observe, self.states = scenario, observe, states

    def run(self, say):
        say(0)
        if self.scenario.title:
            say(1)
            raise {"lost": RuntimeError, "system": SysError}[self.scenario.title](5, "no such thing")

    def answer(self):
        return {"blocks": [], "observe": self.observe, "states": self.states}

    def close(self):
        Runner.closed += 1


class Boot:
    def provenance(self):
        return {"kernel": "fake"}


@pytest.fixture
def agent(monkeypatch):
    """Runs the agent over these requests; what it sent."""

    def served(*requests, lacks=(), states=False):
        sent, queue = [], list(requests)

        class Port:
            def send(self, value):
                sent.append(value)

            def receive(self):
                if not queue:
                    raise EOFError
                return queue.pop(0)

        monkeypatch.setattr(wire, "Port", Port)
        monkeypatch.setattr(
            needs, "missing", lambda states: list(lacks) + ["states"] * (states and bool(lacks))
        )
        monkeypatch.setattr(knobs, "quiet", lambda: None)
        monkeypatch.setattr(libc, "mmap_fixed", lambda *_: None)
        monkeypatch.setattr(batch, "Boot", Boot)
        monkeypatch.setattr(batch, "ScenarioRunner", Runner)
        monkeypatch.setattr(sys, "argv", ["agent", *(["--states"] if states else [])])
        monkeypatch.setattr("gc.disable", lambda: None)
        monkeypatch.setattr("gc.freeze", lambda: None)
        Runner.closed = 0
        runpy.run_module("secondsight.lab.agent.__main__", run_name="agent")
        return sent

    return served


def request(number, title="", observe=None):
    return {"batch": number, "scenario": {**PLAIN, "title": title}, "observe": observe or {}, "states": True}


def test_it_says_hello_and_answers_each_batch(agent):
    sent = agent(request(1), request(2, observe={"3": ["a"]}))
    assert sent == [
        {"hello": {"kernel": "fake"}}, {"at": [1, 0]}, {"done": 1, "blocks": [], "observe": {}, "states": True},
        {"at": [2, 0]}, {"done": 2, "blocks": [], "observe": {3: ["a"]}, "states": True},
    ]  # fmt: skip
    assert Runner.closed == 2


@pytest.mark.parametrize(("title", "lost"), [("system", False), ("lost", True)])
def test_a_batch_that_fails_names_its_step_and_is_lost_alone(agent, capsys, title, lost):
    sent = agent(request(1, title), request(2))
    failed = sent[3]
    assert (failed["failed"], failed["step"], failed["lost"]) == (1, 1, lost)
    assert (
        "no such thing" in failed["why"]
        and "test___main__.py:" in failed["why"]
        and "\n" not in failed["why"]
    )
    assert sent[-1]["done"] == 2 and Runner.closed == 2
    assert "Traceback" in capsys.readouterr().err  # whole, on the console


def test_a_scenario_that_is_none_is_an_answer_too(agent, capsys):
    sent = agent({"batch": 1, "scenario": {"steps": 7}, "observe": {}, "states": False})
    assert sent[-1]["failed"] == 1 and sent[-1]["step"] == 0 and sent[-1]["lost"] and Runner.closed == 0
    capsys.readouterr()


def test_it_ends_when_it_is_told_to(agent):
    assert agent({"quit": True}, request(1)) == [{"hello": {"kernel": "fake"}}]


@pytest.mark.parametrize(("states", "lacks"), [(False, ["pagemap"]), (True, ["pagemap", "states"])])
def test_a_kernel_that_lacks_something_is_asked_nothing(agent, states, lacks):
    assert agent(request(1), lacks=["pagemap"], states=states) == [{"lacks": lacks}]
