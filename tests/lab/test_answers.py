"""Kept answers: what was asked comes back whole, a rule that no kernel has is noticed, and what is no such file is one line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from secondsight.cli import main
from secondsight.errors import InputError, UsageError
from secondsight.lab.answers import Kept, held, read, write
from secondsight.lab.run import blocks_of
from secondsight.mm.profiles import for_kernel, profile
from secondsight.scenario import batch
from secondsight.scenario.results import Run
from support.as_kernel import answers
from support.observable import SHOWN

RULES = profile("6.12")
SCENARIOS = [s.scenario() for s in SHOWN if s.rule in ("split_pmd_keeps_dirty", "pmd_modify_drops_dirty")]
HERE = sorted((Path(__file__).parents[2] / "examples" / "answers").glob("*.json.zst"))


def kept(rules=RULES, unsteady=()) -> Kept:
    asked = [msgspec.structs.replace(s, host=msgspec.structs.replace(s.host, mmu="npt")) for s in SCENARIOS]
    given = tuple(a for a in answers(SCENARIOS, rules) if isinstance(a, Run))
    return Kept("6.12.118", "6.12.118-1", "npt", blocks_of("npt"), None, tuple(asked), given, unsteady)


def test_what_was_asked_and_answered_comes_back(tmp_path):
    write(tmp_path / "a.zst", kept())
    again = read(tmp_path / "a.zst")
    assert msgspec.json.encode(again) == msgspec.json.encode(kept())
    score = held(again)
    assert (score.rules, score.scenarios, score.agreed, score.differences) == ("6.12", 2, 2, [])
    assert score.states == sum(len(a.states) for a in again.answers) > 0


def test_what_the_kernel_does_otherwise_is_a_difference_except_where_chance_had_a_hand():
    other = RULES.derive(split_pmd_keeps_dirty=False)
    assert [d.scenario for d in held(kept(other)).differences] == [0]
    assert held(kept(other), other).agreed == 2
    assert held(kept(other, unsteady=(0,))).differences == []
    assert held(kept(other, unsteady=(0,))).scenarios == 1


def test_holding_says_who_and_how_many_and_fails_on_a_difference(tmp_path, capsys):
    write(tmp_path / "a.zst", kept())
    with pytest.raises(SystemExit, match="0"):
        main(["lab", "hold", str(tmp_path / "a.zst")])
    assert capsys.readouterr().out.startswith("6.12.118-1 on npt, rules 6.12: 2 of 2 scenarios agree")
    with pytest.raises(SystemExit, match="1"):
        main(["lab", "hold", str(tmp_path / "a.zst"), "-r", "6.12+split_pmd_keeps_dirty=false"])
    out, err = capsys.readouterr()
    assert "1 of 2 scenarios agree" in out and "#0 " in out and "1 scenario of 1 file differ" in err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 0}, "size: 0 blocks a pass"),
        ({"size": 10**30}, "must be 1 to 4096"),
        ({"mmu": "\x1b[31mevil"}, "mmu: "),
        ({"unsteady": (7,)}, "there is no scenario #7"),
        ({"scenarios": (), "answers": ()}, "holds no scenario"),
        ("blocks", "must be 1 to 4096"),
    ],
)
def test_what_could_not_have_been_asked_is_refused_in_one_line(tmp_path, capsys, changes, said):
    good = kept()
    if changes == "blocks":
        first = good.scenarios[0]
        space = msgspec.structs.replace(first.spaces[0], blocks=10**9)
        changes = {"scenarios": (msgspec.structs.replace(first, spaces=[space]), *good.scenarios[1:])}
    write(tmp_path / "a.zst", msgspec.structs.replace(good, **changes))
    for words in (["hold"], ["score", "--kept"]):
        with pytest.raises(SystemExit, match="2"):
            main(["lab", *words, str(tmp_path / "a.zst")])
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err and "\x1b" not in err


def test_the_names_in_kept_answers_are_shown_escaped(tmp_path, capsys):
    write(tmp_path / "a.zst", msgspec.structs.replace(kept(), version="6.12\x1b]0;x\x07"))
    with pytest.raises(SystemExit, match="0"):
        main(["lab", "hold", str(tmp_path / "a.zst")])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign", "later", "uneven"])
def test_what_is_no_such_file_is_refused(tmp_path, damage):
    path = tmp_path / "a.zst"
    write(path, kept())
    packed = path.read_bytes()
    if damage == "torn":
        path.write_bytes(packed[: len(packed) // 2])
    elif damage == "flipped":
        path.write_bytes(packed[:2] + b"\xff" + packed[3:])
    elif damage == "foreign":
        path.write_text("scenario = 1\n")
    elif damage == "later":
        write(path, msgspec.structs.replace(kept(), schema=2))
    else:
        write(path, msgspec.structs.replace(kept(), answers=kept().answers[:1]))
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.zst")


@pytest.mark.parametrize("path", HERE, ids=lambda p: p.name.removesuffix(".json.zst"))
def test_the_model_answers_as_the_kernels_did(path):
    """The shortest batch of every kept campaign, every field of every page, under the kernel's own profile; `make hold`: all of them."""
    campaign = read(path)
    assert for_kernel(campaign.release).asked, "a kernel whose answers are here was asked"
    score = held(shortest(campaign))
    assert score.differences == [] and score.scenarios > 0


def shortest(campaign: Kept) -> Kept:
    """The batch with the fewest scenarios, as a campaign of its own."""
    steady = set(range(len(campaign.scenarios))) - set(campaign.unsteady)
    members = min(
        (b for b in batch.plan(campaign.scenarios, campaign.size) if steady.intersection(b)), key=len
    )
    return msgspec.structs.replace(
        campaign,
        scenarios=tuple(campaign.scenarios[i] for i in members),
        answers=tuple(campaign.answers[i] for i in members),
        unsteady=tuple(n for n, i in enumerate(members) if i not in steady),
    )
