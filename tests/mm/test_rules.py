"""Rules and set-up as data: every field documented, what-ifs checked, impossible values refused."""

from __future__ import annotations

import dataclasses

import pytest

from secondsight.errors import UsageError
from secondsight.mm import rules as model
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.host import Host


def test_every_rule_says_what_it_means_where_it_stands_and_what_it_rests_on() -> None:
    for name in model.rule_names():
        told = model.info(name)
        assert len(told["doc"]) > 10 and len(told["cite"]) > 5
        assert told["evidence"] in ("booted", "source", "deduced")
    assert set(model.rule_names()) == {f.name for f in dataclasses.fields(model.Rules)} - {"name"}
    assert set(model.ABOUT) == set(model.PRESETS)


def test_every_rule_makes_a_difference_between_some_presets() -> None:
    for name in model.rule_names():
        assert len({getattr(r, name) for r in model.PRESETS.values()}) > 1, name


def test_what_if() -> None:
    changed = model.preset("7.2").but(zap_transfers_accessed=True)
    assert changed.zap_transfers_accessed and changed.name == "7.2+zap_transfers_accessed=true"
    again = model.preset("7.2+zap_transfers_accessed=true,lru_batch=15")
    assert again.zap_transfers_accessed and again.lru_batch == 15
    assert model.preset("6.1+writable=none").writable == "none"
    assert Host(changed).rules is changed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("5.4", "no rules preset is called '5.4'; there are no-heuristic, thp-base"),
        ("6.1+nonsense=1", "'nonsense=1' changes no rule of 6.1"),
        ("6.1+lru_batch", "'lru_batch' changes no rule"),
        ("6.1+lru_batch=16", "kernels have 14, 15 or 31"),
        ("6.1+lru_batch=many", "takes a number"),
        ("6.1+asks_secondary=maybe", "takes true or false"),
        ("6.1+writable=two", "takes one of every, none, one"),
    ],
)
def test_an_unknown_preset_field_or_value_is_refused_in_one_line(text, problem) -> None:
    with pytest.raises(UsageError) as refused:
        model.preset(text)
    assert problem in str(refused.value) and "\n" not in str(refused.value)


def test_but_refuses_what_no_rule_takes() -> None:
    with pytest.raises(UsageError, match="no rule is called 'zap'"):
        model.preset("6.1").but(zap=True)
    with pytest.raises(UsageError, match="takes a bool"):
        model.preset("6.1").but(asks_secondary="yes")
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
