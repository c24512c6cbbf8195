"""Policies are found by name, options are read strictly, and a broken plug-in gives one clear line."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency, UsageError
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
        ("hawkeye,alpha=-0.1", "^policy hawkeye: alpha=-0.1: must be 0 to 1$"),
        ("hawkeye,every=0", "^policy hawkeye: every=0.0: must be 0.001 to 4294967.295$"),
        ("damon_ethp,every=1e-10", "every=1e-10: must be 0.001"),
        ("madv_collapse,at_most=-3", "at_most=-3: must be 1 to 34359738368, or 0: no limit$"),
        ("khugepaged,pages_to_scan=-5", "pages_to_scan=-5: must be 1 to 4294967295, or -1: the host's$"),
        ("pcc,bits=1000000000000000000000", "must be 1 to 52"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(spec, said):
    with pytest.raises(UsageError, match=said) as caught:
        make(spec)
    assert "\n" not in str(caught.value)


def test_every_is_the_interval():
    assert make("pcc,every=2.5").interval == 2_500_000_000
    assert make("never").interval == 10_000_000_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:Thing", "cannot be loaded: ModuleNotFoundError"),
        ("json:dumps", "not a class"),
        ("support.looks:Nameless", "no `name`"),
        ("secondsight.policy.kernel:Never", "calls itself 'never'"),
    ],
)
def test_a_broken_plug_in_gives_one_line(monkeypatch, value, said):
    from support import looks

    monkeypatch.setattr(
        looks, "Nameless", type("Nameless", (), {"wake": lambda self, look: None}), raising=False
    )
    monkeypatch.setattr(registry, "installed", lambda: {"bad": EntryPoint("bad", value, registry.GROUP)})
    with pytest.raises(MissingDependency, match=said) as caught:
        make("bad")
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_name_are_told(monkeypatch):
    points = [
        EntryPoint("never", value, registry.GROUP)
        for value in ("secondsight.policy.kernel:Never", "other:Never")
    ]
    monkeypatch.setattr(registry, "entry_points", lambda **_: points)
    monkeypatch.setattr(registry, "installed", lambda: {"never": points[1]})
    registry.rivals.cache_clear()
    with pytest.raises(MissingDependency, match="several packages"):
        find("never")
    registry.rivals.cache_clear()


def test_a_policy_may_be_added_by_hand(monkeypatch):
    monkeypatch.setattr(registry, "ADDED", {})
    never = find("never")
    mine = registry.add(type("Mine", (never,), {"name": "mine"}))
    assert "mine" in names()
    assert type(make("mine")) is mine


def test_a_misspelt_need_is_refused(monkeypatch):
    class Clever(find("never")):
        name = "clever"
        needs = frozenset({"clear_yung"})

    monkeypatch.setattr(registry, "ADDED", {})
    registry.add(Clever)
    said = r"^policy clever: no signal is called 'clear_yung' \(did you mean clear_young\?\); there are young"
    with pytest.raises(UsageError, match=said):
        make("clever")
