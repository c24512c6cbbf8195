"""Rules and set-up as data: every field documented, what-ifs checked, impossible values refused."""

from __future__ import annotations

import dataclasses
import re

import pytest

from secondsight.errors import UsageError
from secondsight.mm import profiles
from secondsight.mm import rules as model
from secondsight.mm.compiled import compile_rules
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.host import Host

#: A place in the kernel: a commit by 12 digits, or a file and what in it (a function, a limit, a tracepoint's name).
PLACE = re.compile(r"\b[0-9a-f]{12}\b|[\w/-]+\.[ch](?:, [\w/]+\.[ch])*(?: \d[\d.]*)?:? [A-Za-z_]\w+")


def test_every_rule_says_what_it_means_where_it_stands_and_what_it_rests_on() -> None:
    meanings = {}
    for name in model.rule_names():
        rule = model.info(name)
        # A phrase of one line: tables print it after the rule's name and values.
        assert len(rule["doc"].split()) >= 4 and "\n" not in rule["doc"], name
        assert rule["doc"] == rule["doc"].strip() and not rule["doc"].endswith((".", ":", ";", ",")), name
        assert PLACE.search(rule["cite"]), (name, rule["cite"])
        assert rule["evidence"] in ("booted", "source", "deduced")
        assert meanings.setdefault(rule["doc"], name) == name, "two rules mean the same"
    assert set(model.rule_names()) == {f.name for f in dataclasses.fields(model.Rules)} - {"name", "asked"}
    assert set(profiles.ABOUT) == set(profiles.PROFILES)


def test_every_rule_makes_a_difference_between_some_profiles() -> None:
    for name in model.rule_names():
        assert len({getattr(r, name) for r in profiles.PROFILES.values()}) > 1, name


def test_what_if() -> None:
    changed = profiles.profile("7.2").derive(zap_transfers_accessed=True)
    assert changed.zap_transfers_accessed and changed.name == "7.2+zap_transfers_accessed=true"
    again = profiles.profile("7.2+zap_transfers_accessed=true,lru_batch=15")
    assert again.zap_transfers_accessed and again.lru_batch == 15
    assert profiles.profile("6.1+writable=none").writable == "none"
    assert Host(changed).rules is changed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("5.4", "no kernel profile is called '5.4'; there are no-heuristic, thp-base"),
        ("6.1+nonsense=1", "'nonsense=1' changes no rule of 6.1"),
        ("6.1+lru_batch", "'lru_batch' changes no rule"),
        ("6.1+lru_batch=16", "kernels have 14, 15 or 31"),
        ("6.1+lru_batch=many", "takes a number"),
        ("6.1+asks_secondary=maybe", "takes true or false"),
        ("6.1+writable=two", "takes one of every, none, one"),
    ],
)
def test_an_unknown_profile_field_or_value_is_refused_in_one_line(text, problem) -> None:
    with pytest.raises(UsageError) as refused:
        profiles.profile(text)
    assert problem in str(refused.value) and "\n" not in str(refused.value)


def test_derive_refuses_what_no_rule_takes() -> None:
    with pytest.raises(UsageError, match="no rule is called 'zap'"):
        profiles.profile("6.1").derive(zap=True)
    with pytest.raises(UsageError, match="takes a bool"):
        profiles.profile("6.1").derive(asks_secondary="yes")
    with pytest.raises(UsageError, match="no rule is called 'zap'"):
        model.info("zap")


@pytest.mark.parametrize("name", ["max_ptes_none", "max_ptes_swap", "max_ptes_shared"])
@pytest.mark.parametrize("value", [-1, 512])
def test_impossible_limits(name, value) -> None:
    with pytest.raises(UsageError, match=rf"{name}={value}: must be 0 to 511"):
        Knobs(**{name: value})
    assert getattr(Knobs(**{name: 511}), name) == 511


def test_other_impossible_knobs() -> None:
    with pytest.raises(UsageError, match="pages_to_scan=0"):
        Knobs(pages_to_scan=0)
    with pytest.raises(UsageError, match="cannot be negative"):
        Knobs(scan_sleep_millisecs=-1)
    assert Knobs() == Knobs(4096, 10_000, 60_000, 511, 64, 256) and HostConfig().knobs == Knobs()


# -- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("2.6.32", "2.6.38"), ("2.6.38.8", "2.6.38"), ("6.1.0-56-amd64", "6.1"), ("6.12.117+deb13-amd64", "6.12"),
        ("6.11", "6.1"), ("99.0.1", profiles.newest().name), ("6.1.152", "6.1.152"), ("6.1.153", "6.1"),
        ("5.10.244", "5.10.218"), ("6.16.3+deb13-amd64", "6.16.3"), ("6.12.47", "6.12.43"), ("6.12.48+deb13-amd64", "6.12.90"),
        ("6.12.112", "6.12.111"), ("6.12.113", "6.12.113"), ("6.12.116", "6.12.115"),
    ],
)  # fmt: skip
def test_a_kernel_has_its_own_profile_or_that_of_the_nearest_older_series(release, name) -> None:
    assert profiles.for_kernel(release).name == name


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("6.12.73+deb12-amd64", "those of 6.12.90, as 6.12.57 to 6.12.107 answered"),
        (
            "6.18.44",
            "those of 6.18, as 6.18.5 to 6.18.15 answered; what stable changed between that and 6.18.44 was not asked",
        ),
        ("6.13.2", "those of 6.12, the nearest older series: no kernel of this one was asked"),
        ("2.6.38.8", "those of 2.6.38, read from its source: no booted kernel was asked"),
    ],
)
def test_what_stands_behind_a_point_release_is_said(release, words) -> None:
    assert profiles.evidence_for(release) == words


def test_debians_name_for_an_abi_is_no_point_release() -> None:
    assert profiles.evidence_for("6.1.0-57-amd64").endswith(
        "which point release this is its name does not say"
    )


def test_for_kernel_knows_every_series_of_the_folder_and_every_point_release_that_a_variant_names() -> None:
    for series in profiles.SERIES:
        assert profiles.for_kernel(f"{series.name}.0-test") in (
            profiles.PROFILES[series.name], *(profiles.PROFILES[v.name] for v in series.variants)
        )  # fmt: skip
        for variant in series.variants:
            for point in variant.points:
                assert profiles.for_kernel(f"{series.name}.{point}-test") == profiles.PROFILES[variant.name]
    with pytest.raises(UsageError, match="no kernel release"):
        profiles.for_kernel("newest")


def test_series_come_oldest_first_and_state_only_what_changed() -> None:
    versions = [series.version for series in profiles.SERIES]
    assert versions == sorted(versions) and len(set(versions)) == len(versions)
    before = model.Rules(name="")
    for series in profiles.SERIES:
        after = profiles.PROFILES[series.name]
        for name, new in series.changes.items():
            assert getattr(before, name) != new and getattr(after, name) == new, (series.name, name)
        for variant in series.variants:
            for name, new in variant.changes.items():
                assert getattr(after, name) != new, (variant.name, name)
        before = after


def test_what_no_kernel_was_asked_is_marked() -> None:
    for name, rules in profiles.PROFILES.items():
        assert profiles.title(name) == rules.title == (name if rules.asked else f"{name} (unasked)")
        assert all(each.scenarios > 0 for each in rules.asked)
    assert profiles.title("2.6.38+swap_limit=true").endswith(" (unasked)")
    assert profiles.profile("6.1+lru_batch=31").title == "6.1+lru_batch=31"
    assert profiles.profile("6.1").derive(name="mine").title == "mine (unasked)"
    assert (
        profiles.is_asked("6.12.117+deb13-amd64")
        and not profiles.is_asked("6.13.1")
        and not profiles.is_asked("?")
    )


def test_compiled_code_is_handed_every_rule_that_is_marked_and_mglru_s_only_with_it() -> None:
    rules = profiles.newest()
    on = compile_rules(rules, HostConfig(mglru=True))
    assert set(on._fields) == {
        *model.compiled_names(),
        "mglru",
        "use_zero_page",
        "orders_plain",
        "orders_advised",
        "shmem_plain",
        "shmem_advised",
    }
    assert all(getattr(on, name) == int(getattr(rules, name)) for name in model.compiled_names())
    off = compile_rules(rules, HostConfig(mglru=False))
    assert not any(getattr(off, name) for name in off._fields if name.startswith("mglru"))
    assert off.lru_batch == rules.lru_batch
    old = compile_rules(profiles.profile("2.6.38"), HostConfig(mglru=True))
    assert old.mglru == 0
