"""Linux 2.6.38, which no one booted here: the patch as its text decides, with the bug that it has, and the alternatives beside it."""

import dataclasses

import pytest

from secondsight.mm import rules as model
from secondsight.mm.config import HostConfig
from secondsight.mm.profiles import PROFILES
from secondsight.mm.profiles.v2_6_38 import SERIES
from secondsight.scenario import verbs as v
from secondsight.scenario.run import run

#: Memory that the guest has mapped, so that its use faults no more, and that nobody has used since.
OLD = (v.CpuWrite("p", "0"), v.GuestWrite("p", "0"), v.Drain(), v.ClearRefs("p"), v.Age("p", "0"))
PASS = (v.Madvise("p", "0", "hugepage"), v.Scan())


def answered(name, *use):
    """What khugepaged says of an old block after *use*: its status, and how many pages it counted as referenced."""
    space = v.SpaceSpec("p", vm=v.Vm())
    (visit,) = run(v.Scenario((space,), (*OLD, *use, *PASS), host=HostConfig(mmu="npt")), name).blocks
    return visit.status, visit.referenced


@pytest.mark.parametrize(
    ("use", "posted", "fixed", "base"),
    [
        # (use, what the patch as posted answers, with its bug mended, and the series before it)
        ((), "lack_referenced_page", "lack_referenced_page", "lack_referenced_page"),
        ((v.CpuRead("p", "0:9"),), "succeeded", "succeeded", "succeeded"),
        # A guest's use alone: seen since the patch, and by the posted one only at the block's first page.
        ((v.GuestRead("p", "0:0"),), "succeeded", "succeeded", "lack_referenced_page"),
        ((v.GuestRead("p", "0:9"),), "lack_referenced_page", "succeeded", "lack_referenced_page"),
    ],
)
def test_who_is_asked_whether_a_page_is_young(use, posted, fixed, base):
    assert [answered(name, *use)[0] for name in ("2.6.38", "2.6.38-fixed", "thp-base")] == [
        posted,
        fixed,
        base,
    ]


def test_the_posted_patch_asks_about_the_first_address_for_each_of_512_pages():
    assert answered("2.6.38", v.GuestRead("p", "0:0")) == ("succeeded", 512)
    assert answered("2.6.38-fixed", v.GuestRead("p", "0:0")) == ("succeeded", 1)


def test_without_the_heuristic_nothing_need_have_been_used():
    assert answered("no-heuristic")[0] == "succeeded"


def test_the_rules_defaults_are_its_values_and_nobody_was_asked():
    plain, profile = model.Rules(name=""), PROFILES["2.6.38"]
    assert {name: getattr(plain, name) for name in model.rule_names()} == {
        name: getattr(profile, name) for name in model.rule_names()
    }
    assert (
        SERIES.changes == {} and SERIES.asked == () and not any(variant.asked for variant in SERIES.variants)
    )


@pytest.mark.parametrize("variant", SERIES.variants, ids=lambda variant: variant.name)
def test_an_alternative_changes_what_it_says_and_no_more(variant):
    rules, plain = PROFILES[variant.name], PROFILES["2.6.38"]
    different = {name for name in model.rule_names() if getattr(rules, name) != getattr(plain, name)}
    assert different == set(variant.changes) and variant.about and dataclasses.is_dataclass(variant)
