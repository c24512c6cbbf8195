"""Running batches: answers are kept, a guest that dies costs the scenario at fault alone, a second run asks nothing again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secondsight.errors import MissingDependency, SecondSightError
from secondsight.lab import initramfs
from secondsight.lab import run as lab
from secondsight.lab.agent.needs import missing
from secondsight.lab.guest import GuestDied
from secondsight.lab.kernels import Kernel
from secondsight.scenario import verbs as v
from secondsight.scenario.results import Run


class FakeGuest:
    """Answers a batch with one visit a space and pass; dies or fails over the verbs it is told to."""

    console = "the end of the console"

    def __init__(self, dies_at: str, fails_at: str, lost: bool) -> None:
        self.dies_at, self.fails_at, self.lost = dies_at, fails_at, lost
        self.queue: list[Any] = [{"hello": {"kernel": "fake"}}]

    def send(self, request: dict[str, Any]) -> None:
        if "quit" in request:
            self.queue.append(None)
            return
        number, blocks, passes = request["batch"], [], 0
        spaces = [s["name"] for s in request["scenario"]["spaces"]]
        for i, step in enumerate(request["scenario"]["steps"]):
            self.queue.append({"at": [number, i]})
            if step["do"] == self.dies_at:
                self.queue.append(GuestDied("its kernel is lost", self.console))
                return
            if step["do"] == self.fails_at:
                self.queue.append({"failed": number, "step": i, "why": "no such thing", "lost": self.lost})
                return
            if step["do"] == "scan":
                passes += 1
                blocks += [
                    {"pass": passes, "space": s, "block": 0, "status": "succeeded", "referenced": 1, "none_or_zero": 0, "unmapped": 0}
                    for s in spaces
                ]  # fmt: skip
        self.queue.append({"done": number, "blocks": blocks, "answers": [], "states": []})

    def receive(self, timeout: float = 0) -> Any:
        value = self.queue.pop(0)
        if isinstance(value, Exception):
            raise value
        return value


class FakeMachine:
    name, slow, most_mib = "npt", 1.0, 1 << 20

    def __init__(self, **what: Any) -> None:
        self.boots, self.what = 0, {"dies_at": "", "fails_at": "", "lost": False, **what}
        self.lacks = ""

    def ready(self) -> None:
        if self.lacks:
            raise MissingDependency(self.lacks)

    @contextlib.contextmanager
    def boot(self, *_: Any, **__: Any) -> Iterator[FakeGuest]:
        self.boots += 1
        yield FakeGuest(**self.what)


PLAIN, KILLER = (
    v.Scenario((v.SpaceSpec("a"),), (v.CpuWrite("a", "0"), v.Scan()), title="plain"),
    v.Scenario((v.SpaceSpec("a"),), (v.CpuWrite("a", "0"), v.Drain(), v.Scan()), title="killer"),
)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def asked(scenarios: list[v.Scenario], machine: FakeMachine, **more: Any) -> list[Run | lab.Failure]:
        monkeypatch.setattr(lab, "machine", lambda name: machine)
        kernel = Kernel("own", "9.9", "9.9-1", tmp_path / "vmlinuz", None)
        return lab.run(scenarios, kernel, "npt", folder=tmp_path / "kept", **more)

    return asked


def test_each_scenario_gets_its_own_answer_and_a_second_run_boots_nothing(ask: Any) -> None:
    machine = FakeMachine()
    answers = ask([PLAIN, KILLER, PLAIN], machine, size=2)
    assert [len(a.blocks) for a in answers] == [1, 1, 1] and machine.boots == 1
    assert [a.provenance["scenario"] for a in answers] == ["plain", "killer", "plain"]
    assert all(a.blocks[0].space == "a" and a.provenance["mmu"] == "npt" for a in answers)
    assert ask([PLAIN, KILLER, PLAIN], machine, size=2) == answers and machine.boots == 1


def test_what_is_missing_is_the_only_thing_said_and_what_is_kept_needs_nothing(ask: Any) -> None:
    machine, said = FakeMachine(), []
    machine.lacks = "the guest needs drgn"
    with pytest.raises(MissingDependency, match="drgn"):
        ask([PLAIN], machine, say=said.append)
    assert not said and not machine.boots
    machine.lacks = ""
    answers = ask([PLAIN], machine)
    machine.lacks = "the guest needs drgn"
    assert ask([PLAIN], machine) == answers and machine.boots == 1


@pytest.mark.parametrize(
    ("what", "boots"),
    [
        ({"dies_at": "drain"}, 2),
        ({"fails_at": "drain"}, 1),
        ({"fails_at": "drain", "lost": True}, 2),
    ],
)
def test_the_scenario_at_fault_fails_alone(ask: Any, what: dict[str, Any], boots: int) -> None:
    machine = FakeMachine(**what)
    answers = ask([PLAIN, KILLER, PLAIN], machine)
    assert [isinstance(a, Run) for a in answers] == [True, False, True]
    assert answers[1].console == FakeGuest.console and machine.boots == boots


def test_where_the_pass_kills_the_batch_is_halved_until_each_has_had_its_turn(ask: Any) -> None:
    machine = FakeMachine(dies_at="scan")
    answers = ask([PLAIN] * 4, machine)
    assert all(isinstance(a, lab.Failure) and "lost" in a.why for a in answers)


def test_a_guest_that_dies_before_any_step_is_nobodys_fault(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FakeGuest, "receive", lambda self, timeout=0: (_ for _ in ()).throw(GuestDied("no boot", ""))
    )
    with pytest.raises(GuestDied, match="no boot"):
        ask([PLAIN], FakeMachine())


def test_an_answer_to_something_else_is_refused(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = iter([{"hello": {}}, {"done": "another batch"}])
    monkeypatch.setattr(FakeGuest, "receive", lambda self, timeout=0: next(replies))
    with pytest.raises(SecondSightError, match="another batch"):
        ask([PLAIN], FakeMachine())


def test_everything_the_agent_imports_goes_along() -> None:
    files = lab.agent_files()
    assert "/app/secondsight/lab/agent/__main__.py" in files
    assert not [f for f in files if f.startswith("/app/secondsight/cli")]


def test_a_kernel_that_lacks_what_is_needed_is_one_line(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("proc/self/pagemap", "sys/kernel/tracing/kprobe_events"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    lacks = missing(True, tmp_path)
    assert [re.findall(r"CONFIG_\w+", what)[0] for what in lacks] == [
        "CONFIG_TRANSPARENT_HUGEPAGE", "CONFIG_BLK_DEV_RAM", "CONFIG_DEBUG_INFO_BTF", "CONFIG_PROC_KCORE",
    ]  # fmt: skip
    assert missing(False, tmp_path) == lacks[:2] and missing(False) != lacks
    monkeypatch.setattr(FakeGuest, "receive", lambda self, timeout=0: {"lacks": lacks[:2]})
    with pytest.raises(
        SecondSightError, match=r"lacks transparent huge pages .*, and RAM disks .*; the lab cannot ask it$"
    ):
        ask([PLAIN], FakeMachine())


GUEST = """
import sys
for absent in ("numba", "pyarrow", "typer", "rich"):
    sys.modules[absent] = None
import importlib
for name in sys.argv[2:]:
    importlib.import_module(name)
assert all(m.__file__.startswith(sys.argv[1]) for n, m in sys.modules.items() if n.startswith("secondsight"))
"""


def test_what_the_guest_is_given_imports_nothing_that_it_has_not(tmp_path):
    for inside, content in lab.agent_files().items():
        path = tmp_path / inside.removeprefix("/app/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    # Those that are imported within functions too: kernel memory is read only where it is asked for.
    agent = sorted((tmp_path / "secondsight/lab/agent").glob("*.py"))
    names = {name for path in agent for name in initramfs.imported_by(path)}
    assert {"secondsight.live.read.kmem", "secondsight.lab.agent.batch"} <= names
    finished = subprocess.run(
        [sys.executable, "-c", GUEST, str(tmp_path), *sorted(names)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
