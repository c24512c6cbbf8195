"""The answers that scenario files state: under which profiles and machines, what differs from them, and how they are written down."""

import msgspec
import pytest

from secondsight.mm.config import HostConfig
from secondsight.mm.profiles import PROFILES
from secondsight.scenario import files
from secondsight.scenario import verbs as v
from secondsight.scenario.expect import answers, differences, write

STEPS = (
    v.CpuWrite("a", "0"),
    v.ClearRefs("a"),
    v.GuestRead("a", "0:1"),
    v.Madvise("a", "0", "hugepage"),
    v.Scan(),
)
SCENARIO = v.Scenario(
    (v.SpaceSpec("a", 1, v.Vm()),), STEPS, title="a guest alone", host=HostConfig(mmu="npt")
)


def test_the_models_answer_under_the_profiles_that_are_named_or_all():
    assert answers(msgspec.structs.replace(SCENARIO, rules=("6.1", "thp-base"))) == {
        "6.1": ["pass 1 a:0 succeeded scan 1 isolate 1"],
        "thp-base": ["pass 1 a:0 lack_referenced_page scan 0"],
    }
    assert list(answers(SCENARIO)) == list(PROFILES)


def test_what_the_model_gives_differs_in_nothing_from_itself():
    stated = msgspec.structs.replace(SCENARIO, expect=answers(SCENARIO))
    assert differences(stated) == []


def test_each_answer_that_differs_is_a_line_with_both():
    expect = answers(SCENARIO) | {"6.1": ["pass 1 a:0 succeeded scan 2"], "6.12": []}
    first, second = differences(msgspec.structs.replace(SCENARIO, expect=expect))
    assert (
        first
        == "6.1: expected ['pass 1 a:0 succeeded scan 2'], got ['pass 1 a:0 succeeded scan 1 isolate 1']"
    )
    assert second.startswith("6.12: expected [], got ")


def test_a_kernels_answer_is_of_its_machine():
    # EPT without accessed bits: what KVM does not track is young, and the guest's use is 512 pages.
    for mmu in ("npt", "ept-noad"):
        asked = msgspec.structs.replace(SCENARIO, rules=("6.1",), host=HostConfig(mmu=mmu))
        (given,) = answers(asked).values()
        stated = msgspec.structs.replace(SCENARIO, expect={f"6.1.0-56-amd64/{mmu}": given})
        assert differences(stated) == []
    wrong = msgspec.structs.replace(SCENARIO, expect={"6.1.0-56-amd64/npt": ["pass 1 a:0 x"]})
    assert differences(wrong)[0].startswith("6.1.0-56-amd64/npt: expected")


def test_what_is_written_replaces_what_stood_there_and_nothing_else(tmp_path):
    path = tmp_path / "s.toml"
    files.write(SCENARIO, path)
    path.write_text("# why it is asked\n" + path.read_text())
    for expect in ({"6.1": ['a "quoted" line', "b"]}, {"6.12": [], "7.3/npt": ["c"]}):
        write(path, expect)
        assert files.read(path) == msgspec.structs.replace(SCENARIO, expect=expect)
        assert path.read_text().startswith("# why it is asked\n") and path.read_text().count("[expect]") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["s.toml"]


def test_a_profile_that_is_not_there_is_told():
    with pytest.raises(Exception, match=r"no-such-kernel"):
        answers(msgspec.structs.replace(SCENARIO, rules=("no-such-kernel",)))
