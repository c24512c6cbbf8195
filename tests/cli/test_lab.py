"""lab kernels, drop, boot and run, where nothing is booted."""

import contextlib
import json
from typing import ClassVar

import pytest

from secondsight.lab import guest, kernels, machines, run
from secondsight.mm.profiles import profile
from secondsight.scenario import files
from support.as_kernel import answers
from support.commands import in_process, printed, refused
from support.observable import SHOWN


@pytest.fixture
def scenario(tmp_path):
    """A file with a scenario of one rule."""
    path = tmp_path / "s.toml"
    files.write(next(s for s in SHOWN if s.rule == "split_pmd_keeps_dirty").scenario(), path)
    return path


@pytest.fixture
def answering(monkeypatch, kernel_6_12):
    """The model of 6.12 in the kernel's place; `dies`: it answers none."""

    class Kernel:
        dies = False
        asked: ClassVar[list] = []

    def running(scenarios, kernel, mmu, *, states, size, folder, say):
        Kernel.asked.append((kernel.name, mmu, states, size, folder is not None))
        if Kernel.dies:
            return [run.Failure("s", "its kernel is lost", "one\nKernel panic\n") for _ in scenarios]
        return answers(scenarios, profile("6.12"), mmu)

    Kernel.asked = []
    monkeypatch.setattr(run, "run", running)
    return Kernel


def test_scenarios_are_answered_as_a_table_and_as_a_document_a_line(scenario, answering, capsys):
    table = printed(capsys, "lab", "run", scenario, "--kernel", "6.12", "--mmu", "npt")
    assert table.startswith("split_pmd_keeps_dirty ")
    lines = printed(
        capsys, "lab", "run", scenario, scenario, "--json", "--states", "--size", 4, "--fresh"
    ).splitlines()
    assert len(lines) == 2 and all(json.loads(line)["source"] == "model:6.12" for line in lines)
    assert answering.asked == [("6.12", "npt", False, None, False), ("6.1", "npt", True, 4, True)]


def test_an_answer_is_written_into_its_file(scenario, answering, capsys):
    printed(capsys, "lab", "run", scenario, "--record")
    assert list(files.read(str(scenario)).expect) == ["6.12.118/npt"]


def test_what_got_no_answer_is_told_apart_with_the_consoles_end(scenario, answering, capsys):
    answering.dies = True
    code, out, err = in_process(capsys, "lab", "run", scenario)
    assert (code, out) == (1, "")
    assert (
        f"{scenario}: no answer: its kernel is lost; the console ended with\n  | one\n  | Kernel panic\n"
        in err
    )
    assert err.endswith("secondsight: 1 of 1 scenario without an answer; the others have one\n")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("run", "nowhere.toml"), "nowhere.toml"),
        (("run",), "Missing argument"),
        (("run", "x.toml", "--size", "0"), "Invalid value for '--size'"),
        (("drop",), "nothing to remove: name kernels that `lab kernels` lists, or --builds"),
        (("drop", "nonesuch"), "nonesuch"),
        (("boot", "nowhere.py"), "no script at nowhere.py"),
    ],
)
def test_a_wrong_request_is_one_line(argv, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "cache_dir", lambda: tmp_path)
    assert says in refused(capsys, "lab", *argv)


def test_a_script_that_is_none_or_a_file_that_is_not_there(tmp_path, capsys, kernel_6_12):
    script = tmp_path / "s.py"
    script.write_text("a b\n")
    assert f"{script}: line 1: not a Python script" in refused(capsys, "lab", "boot", script)
    script.write_text("print(1)\n")
    for pair in (f"{script}", f"{script}:relative", "/none:/there"):
        assert f"not {pair!r}" in refused(capsys, "lab", "boot", script, "--file", pair)


@pytest.mark.parametrize(("status", "code"), [(None, 1), (7, 7)])
def test_a_booted_script_prints_and_its_exit_code_is_ours(
    tmp_path, capsys, monkeypatch, kernel_6_12, status, code
):
    class Guest:
        said: ClassVar[list] = ["first", {"a": 1}]

        def receive(self, timeout):
            if not self.said:
                raise guest.GuestDied("it ended", "", status=status)
            return self.said.pop(0)

    class Machine:
        def boot(self, kernel, files, *, main, **_):
            assert main == ["/app/main.py", "-x"] and "/app/main.py" in files and files["/data"] == script
            return contextlib.nullcontext(Guest())

    script = tmp_path / "s.py"
    script.write_text("print(1)\n")
    monkeypatch.setattr(machines, "machine", lambda mmu: Machine())
    left, out, _ = in_process(capsys, "lab", "boot", script, "--file", f"{script}:/data", "--", "-x")
    assert (left, out) == (code, "first\n{'a': 1}\n")


def test_kernels_that_are_here_and_those_that_are_not(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernels, "cache_dir", lambda: tmp_path)
    lines = printed(capsys, "lab", "kernels").splitlines()
    assert [line.split()[0] for line in lines] == ["kernel", "6.1", "6.12", "newest"]
    assert all(f"secondsight lab fetch {line.split()[0]}" in line for line in lines[1:])
    assert json.loads(printed(capsys, "lab", "kernels", "--json")) == {
        "6.1": None,
        "6.12": None,
        "newest": None,
    }
