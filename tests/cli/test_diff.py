"""lab diff: kinds of differences as lines, JSON and files, and the exit code that they come to."""

import json

import pytest

from secondsight.lab import differ
from secondsight.lab.diff import DifferenceKind, Kinds
from support.commands import in_process, printed, refused

DIRTY = DifferenceKind(
    "state.pte",
    "PAD",
    "PA",
    why={3: ["pmd_modify_drops_dirty"], 5: []},
    follows=["status"],
    shortest="title = 'x'\n",
)
YOUNG = DifferenceKind("state.young", "yes", "no", why={4: ["zap_transfers_accessed"]})


@pytest.fixture
def found(monkeypatch, kernel_6_12):
    """What differs, whatever is asked; and what was asked."""
    made = Kinds([YOUNG], compared=8, differing=[4], lost=0)
    asked = []

    def differs(scenarios, a, b, mmu, *, shrink, say):
        asked.append((len(scenarios), a.name, b.name, mmu, shrink))
        return made

    monkeypatch.setattr(differ, "differ", differs)
    made.asked = asked
    return made


def test_each_kind_has_its_rules_and_what_follows(found, capsys):
    found.kinds = [DIRTY, YOUNG]
    code, out, err = in_process(capsys, "lab", "diff", "6.12", "6.1", "--random", 8)
    assert code == 1 and "1 kind not, or not always, explained" in err
    assert "1 of 8 scenarios differ, in 2 kinds" in out
    assert (
        f"\n{DIRTY.name}\n    2 scenarios, the first #3; pmd_modify_drops_dirty (1), unexplained (1)\n" in out
    )
    assert "    what follows: status\n    | title = 'x'\n" in out
    assert found.asked == [(8, "6.12", "6.1", "npt", True)]


def test_what_rules_explain_is_no_failure(found, tmp_path, capsys):
    found.kinds[0].shortest = "title = 'young'\n"
    printed(capsys, "lab", "diff", "6.12", "6.1", "--no-shrink", "--write", tmp_path / "kinds")
    assert [(each.name, each.read_text()) for each in (tmp_path / "kinds").iterdir()] == [
        ("state-young-yes-no.toml", "title = 'young'\n")
    ]
    assert found.asked[0][0] == 60 and found.asked[0][-1] is False
    found.kinds[0].shortest = ""


def test_json_has_every_kind(found, capsys):
    answer = json.loads(printed(capsys, "lab", "diff", "a", "b", "--random", 1, "--seed", 9, "--json"))
    assert (answer["schema"], answer["seed"], answer["first"], answer["second"]) == (
        1,
        9,
        "6.12.118",
        "6.12.118",
    )
    (kind,) = answer["found"]["kinds"]
    assert kind["name"] == YOUNG.name and kind["rules"] == {"zap_transfers_accessed": 1}
    assert answer["found"]["compared"] == 8


@pytest.mark.parametrize(
    ("expected", "lost", "code", "says"),
    [
        (f"{YOUNG.name}\n", 0, 0, "as expected: 1 kind"),
        (f"{YOUNG.name}\n", 2, 1, "2 scenarios without an answer"),
        (f"? {YOUNG.name}\n? {DIRTY.name}\n", 0, 0, "as expected"),
        (f"{DIRTY.name}\n", 0, 1, "expected and not found: " + DIRTY.name),
        (f"{YOUNG.name}\n{DIRTY.name}\n", 0, 1, "0 kinds beside those of"),
        ("# nothing\n", 0, 1, "not expected: " + YOUNG.name),
        ("this is none\n", 0, 2, "line 1: no kind"),
    ],
)
def test_what_is_expected_decides(found, tmp_path, capsys, expected, lost, code, says):
    path, found.lost = tmp_path / "expected.txt", lost
    path.write_text(expected)
    left, out, err = in_process(capsys, "lab", "diff", "a", "b", "--expect", path)
    assert left == code and says in out + err


def test_a_module_tree_goes_to_a_kernel_by_its_path(found, capsys):
    printed(capsys, "lab", "diff", "6.12", "./vmlinuz", "--modules", "tree", "--random", 1)
    assert "more module trees than kernels given by a path" in refused(
        capsys, "lab", "diff", "a", "b", "--modules", "t"
    )
    assert "nothing to ask" in refused(capsys, "lab", "diff", "a", "b", "--random", 0)
    assert "Missing argument" in refused(capsys, "lab", "diff", "a")
