"""Policies are found by name, options are read strictly, and a broken plug-in gives one clear line."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from secondsight.errors import MissingPart, UsageError
from secondsight.policy import describe, find, make, names, options, registry


def test_every_shipped_policy_is_registered_under_its_own_name():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    shipped = project["project"]["entry-points"]["secondsight.policies"]
    assert set(shipped) <= set(names())
    for name in shipped:
        policy = find(name)
        assert policy.name == name
        assert policy.__doc__
        assert make(name).interval > 0


def test_options_are_typed():
    policy = make("hawkeye,alpha=0.25,at_most=7")
    assert (policy.alpha, policy.at_most) == (0.25, 7)
    assert describe(policy) == "hawkeye,alpha=0.25,at_most=7"
    assert describe(make("damon_ethp,split=TRUE")) == "damon_ethp,split=true"
    assert "alpha" in options(find("hawkeye"))
    assert not any(name.startswith("_") for name in options(find("hawkeye")))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hawkey", "did you mean hawkeye"),
        ("hawkeye,beta=1", "no option 'beta=1'"),
        ("hawkeye,alpha", "no option 'alpha'"),
        ("hawkeye,alpha=much", "takes a number"),
        ("hawkeye,alpha=nan", "finite"),
        ("hawkeye,at_most=1.5", "whole number"),
        ("damon_ethp,split=1", "true or false"),
        ("thp_shrinker,faults=tiny", "one of small, huge"),
        ("hawkeye,_coverage=1", "no option"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(spec, said):
    with pytest.raises(UsageError, match=said) as caught:
        make(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:Thing", "cannot be loaded: ModuleNotFoundError"),
        ("json:dumps", "not a class"),
        ("support.looks:Nameless", "no `name`"),
    ],
)
def test_a_broken_plug_in_gives_one_line(monkeypatch, value, said):
    from support import looks

    monkeypatch.setattr(
        looks, "Nameless", type("Nameless", (), {"wake": lambda self, look: None}), raising=False
    )
    monkeypatch.setattr(registry, "_installed", lambda: {"bad": EntryPoint("bad", value, registry.GROUP)})
    with pytest.raises(MissingPart, match=said) as caught:
        make("bad")
    assert "\n" not in str(caught.value)


def test_a_policy_may_be_added_by_hand(monkeypatch):
    monkeypatch.setattr(registry, "_ADDED", {})
    never = find("never")
    mine = registry.add(type("Mine", (never,), {"name": "mine"}))
    assert "mine" in names()
    assert type(make("mine")) is mine
