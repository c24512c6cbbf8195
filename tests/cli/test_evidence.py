"""lab hold, identify and score: what kept answers say of profiles and rules; nothing is booted."""

import json

import msgspec
import pytest

from secondsight.lab.answers import Kept, write
from secondsight.lab.run import blocks_of
from secondsight.mm.profiles import profile
from secondsight.mm.rules import rule_names
from support.as_kernel import answers
from support.commands import in_process, printed, refused
from support.observable import SHOWN

SCENARIOS = [s.scenario() for s in SHOWN if s.rule in ("split_pmd_keeps_dirty", "pmd_modify_drops_dirty")]


@pytest.fixture
def kept(tmp_path):
    """Answers of a kernel whose rules are those of 6.12, but for those that are named."""

    def keep(**changes):
        rules = profile("6.12").derive(**changes) if changes else profile("6.12")
        asked = [
            msgspec.structs.replace(s, host=msgspec.structs.replace(s.host, mmu="npt")) for s in SCENARIOS
        ]
        path = tmp_path / "a.zst"
        write(
            path,
            Kept(
                "6.12.118",
                "6.12.118-1",
                "npt",
                blocks_of("npt"),
                5,
                tuple(asked),
                tuple(answers(SCENARIOS, rules)),
            ),
        )
        return path

    return keep


def test_what_agrees_is_counted_and_what_differs_is_a_failure(kept, capsys):
    assert printed(capsys, "lab", "hold", kept()).startswith(
        "6.12.118-1 on npt, rules 6.12: 2 of 2 scenarios agree, "
    )
    code, out, err = in_process(capsys, "lab", "hold", kept(split_pmd_keeps_dirty=False))
    assert code == 1 and "1 of 2 scenarios agree" in out and "\n  #0 " in out
    assert err == "secondsight: 1 scenario of 1 file differ\n"
    assert (
        in_process(
            capsys, "lab", "hold", kept(split_pmd_keeps_dirty=False), "-r", "6.12+split_pmd_keeps_dirty=false"
        )[0]
        == 0
    )


def test_a_kernel_is_identified_by_what_it_answered(kept, capsys):
    out = printed(capsys, "lab", "identify", "--kept", kept())
    assert out.startswith("6.12.118-1 on npt: 2 scenarios asked\n") and "nearest profile: 6.12" in out
    answer = json.loads(printed(capsys, "lab", "identify", "--kept", kept(), "--json"))
    assert (answer["schema"], answer["identity"]["scenarios"], answer["identity"]["differences"]) == (
        1,
        2,
        [],
    )


def test_a_rule_is_scored_by_whether_its_answers_notice(kept, capsys):
    out = printed(capsys, "lab", "score", "--kept", kept())
    assert out.startswith("6.12.118 on npt, ") and "2 scenarios of seed 5\n" in out
    assert "  split_pmd_keeps_dirty=false: noticed by #0, " in out
    counted = out.splitlines()[-1]
    answer = json.loads(printed(capsys, "lab", "score", "--kept", kept(), "--json"))
    noticed = [turned for turned in answer["turned"] if turned["noticed"] is not None]
    assert counted.startswith(f"{len(noticed)} of ") and answer["disagree"] == 0
    assert answer["asked"] == [{"kernel": "6.12.118", "mmu": "npt", "scenarios": 2, "seed": 5}]


def test_towards_a_profile_only_what_differs_there_is_changed(kept, capsys):
    answer = json.loads(printed(capsys, "lab", "score", "--kept", kept(), "--towards", "6.1", "--json"))
    ours, theirs = profile("6.12"), profile("6.1")
    assert {turned["rule"] for turned in answer["turned"]} <= {
        name for name in rule_names() if getattr(ours, name) != getattr(theirs, name)
    }
    assert {t["rule"]: t["noticed"] for t in answer["turned"]}["split_pmd_keeps_dirty"] == 0
    assert all(turned["value"] == getattr(theirs, turned["rule"]) for turned in answer["turned"])
    out = printed(capsys, "lab", "score", "--kept", kept(), "--towards", "6.1")
    assert out.splitlines()[-2].startswith("1 of ") and "rules noticed by some value" in out


def test_answers_that_disagree_already_are_told(kept, capsys):
    assert "\n1 of them disagree already\n" in printed(
        capsys, "lab", "score", "--kept", kept(split_pmd_keeps_dirty=False)
    )


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("hold",), "Missing argument"),
        (("hold", "nowhere.zst"), "nowhere.zst"),
        (("hold", "nowhere.zst", "-r", "9.9"), "9.9"),
        (("score", "--mutants", "3", "--towards", "6.1"), "give one of them"),
        (("score", "--mutants", "3"), "mutants are held against kept answers: give --kept FILE"),
        (("identify", "--random", "0"), "Invalid value for '--random'"),
        (("identify", "--kept", "nowhere.zst"), "nowhere.zst"),
    ],
)
def test_a_wrong_request_is_one_line(argv, says, capsys):
    assert says in refused(capsys, "lab", *argv)
