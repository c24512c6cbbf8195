"""lab compare: what is drawn, what is told, and the command that asks the same again."""

import json
from pathlib import Path

import pytest

from secondsight.lab import answers, compare
from secondsight.lab.difference import Difference
from secondsight.scenario.files import read
from support.commands import in_process, printed

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"


@pytest.fixture
def compared(monkeypatch, kernel_6_12):
    """Each comparison's scenarios and rules; `differences` and `failures` are what it finds."""

    class Asked(list):
        differences, failures = [], []

    asked = Asked()

    def comparing(scenarios, kernel, mmu, *, rules, states, say):
        asked.append((scenarios, mmu, rules and rules.name, states))
        return compare.Comparison(
            kernel.release, mmu, "6.12", len(scenarios), visits=5, states=7, differences=asked.differences,
            failures=asked.failures,
        )  # fmt: skip

    monkeypatch.setattr(compare, "compare", comparing)
    return asked


def test_the_same_seed_draws_the_same(compared, capsys):
    for _ in range(2):
        out = printed(capsys, "lab", "compare", "--random", 4, "--seed", 3)
        assert "4 of 4 scenarios agree: 5 visits, 7 states of spaces" in out and ", seed 3\n" in out
    printed(capsys, "lab", "compare", "--random", 4, "--seed", 4)
    first, again, other = (scenarios for scenarios, *_ in compared)
    assert len(first) == 4 and first == again != other


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--shared"], lambda s: any(space.shared for space in s.spaces)),
        (["--files"], lambda s: any(space.shared and space.shared.file for space in s.spaces)),
    ],
)
def test_a_kind_of_memory_is_drawn_on_demand(compared, capsys, words, what):
    printed(capsys, "lab", "compare", "--random", 12, "--seed", 1)
    printed(capsys, "lab", "compare", "--random", 12, "--seed", 1, *words)
    plain, asked = (scenarios for scenarios, *_ in compared)
    assert not any(map(what, plain)) and any(map(what, asked))


def test_a_difference_is_a_failure_that_says_how_to_ask_again(compared, capsys):
    compared.differences = [Difference(1, "step 2", "status", "succeeded", "page_null")]
    argv = ["lab", "compare", "--random", "3", "--seed", "7", "--shared", "--states", "--shrink", "0"]
    code, out, err = in_process(capsys, *argv)
    assert code == 1 and "#1 step 2 status: model succeeded, kernel page_null\n" in out
    assert err.endswith(
        "secondsight lab compare --random 3 --seed 7 --shared --kernel 6.12.118 --mmu npt --states\n"
    )
    assert in_process(capsys, *argv, "--allow", "1")[0] == 0
    compared.failures = [(2, "its kernel is lost")]
    code, out, err = in_process(capsys, *argv, "--allow", "1")
    assert code == 1 and "#2 no answer: its kernel is lost" in out and "1 got no answer" in err


def test_only_the_files_that_differ_are_to_be_asked_again(compared, capsys):
    files = [f"{EXAMPLES}/guest-only-{name}.toml" for name in ("npt", "64k", "all-sizes")]
    compared.differences = [Difference(1, "step 2", "status", "succeeded", "page_null")]
    argv = ["lab", "compare", *files, "--random", "2", "--seed", "7", "--shrink", "0"]
    code, _, err = in_process(capsys, *argv)
    assert code == 1 and err.endswith(f"secondsight lab compare {files[1]} --kernel 6.12.118 --mmu npt\n")
    compared.failures = [(4, "its kernel is lost")]
    err = in_process(capsys, *argv)[2]
    assert err.endswith(
        f"secondsight lab compare {files[1]} --random 2 --seed 7 --kernel 6.12.118 --mmu npt\n"
    )


def test_a_difference_is_shrunk_and_kept(compared, tmp_path, monkeypatch, capsys):
    compared.differences = [Difference(1, "step 2", "status", "succeeded", "page_null")]
    monkeypatch.setattr(compare, "shrink", lambda scenario, *_, **__: scenario)
    code, out, _ = in_process(
        capsys, "lab", "compare", "--random", 2, "--seed", 5, "--write", tmp_path / "short"
    )
    assert code == 1 and "# the shortest scenario found for #1\n" in out
    assert read(str(tmp_path / "short" / "difference-5-1.toml")).steps == compared[0][0][1].steps


def test_json_is_one_document(compared, capsys):
    document = json.loads(printed(capsys, "lab", "compare", "--random", 2, "--seed", 6, "--json"))
    assert document["seed"] == 6 and document["report"]["scenarios"] == 2 and document["fields"]


def test_questions_and_answers_are_kept(compared, tmp_path, monkeypatch, capsys):
    path, kept = tmp_path / "a.zst", []
    monkeypatch.setattr(answers, "ask", lambda scenarios, *_, seed, **__: (len(scenarios), seed))
    monkeypatch.setattr(answers, "write", lambda where, what: kept.append((where, what)))
    printed(capsys, "lab", "compare", "--random", 2, "--seed", 6, "--states", "--keep", path)
    assert kept == [(path, (2, 6))]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "nothing to compare: name scenario files, or --random N"),
        (("--random", "-5"), "--random"),
        (("--random", "1", "--keep", "a.zst"), "--keep keeps every page's state too: give --states"),
        (("--random", "1", "--shared", "--files"), "--shared and --files are scenarios of two kinds"),
        (
            ("--random", "1", "--nested", "--mmu", "shadow"),
            "nested guests run on the machines with npt, not on shadow",
        ),
        (("--random", "1", "--numa", "-r", "5.10"), "NUMA balancing is modelled from 6.1 on, not under 5.10"),
        (("--random", "1", "--mmu", "vax"), "vax"),
        (("--random", "1", "-r", "9.9"), "9.9"),
        (("nowhere.toml",), "nowhere.toml"),
    ],
)
def test_what_cannot_be_compared_is_one_line(compared, argv, says, capsys):
    code, out, err = in_process(capsys, "lab", "compare", *argv)
    assert (code, out) == (2, "") and says in err.splitlines()[-1] and not compared
