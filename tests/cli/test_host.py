"""host: what it prints of a host's supply, with whatever rights the tests have."""

import json

import pytest

from secondsight.cli.host import describe_pace
from secondsight.errors import MissingDependency
from secondsight.host.supply import read_supply
from secondsight.live.read import splits
from support.commands import printed, refused


@pytest.mark.parametrize("rate", [0.0, 28.0])
def test_splits_are_told_as_a_rate(rate):
    supply = read_supply()
    if supply.limits is None:
        pytest.skip("no khugepaged here")
    (line,) = (each for each in describe_pace(supply, {"thp_split_page": rate}) if "split" in each)
    assert line.startswith(f"  splits a second       {rate:.1f} of huge pages, ") and "in all" not in line


@pytest.fixture
def untraced(monkeypatch):
    """Who splits cannot be told here."""

    def denied(cls):
        raise MissingDependency("tracing needs root\x1b")

    monkeypatch.setattr(splits.Splits, "open", classmethod(denied))


def test_json_is_one_object_that_says_what_is_missing(untraced, capsys):
    answer = json.loads(printed(capsys, "host", "--interval", "0", "--json"))
    assert answer["splits"] is None and answer["missing"]["splits"] == "tracing needs root\x1b"
    assert answer["memory"]["total"] > 0 and answer["interval"] >= 0 and isinstance(answer["rates"], dict)


def test_lines_for_people(untraced, capsys):
    out = printed(capsys, "host", "--interval", "0")
    heads = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert heads[0] == "supply" and heads[1].startswith("khugepaged") and heads[2] == "switches in force"
    assert heads[3].startswith("counters") and heads[4].startswith("who splits huge pages")
    assert "  not known: tracing needs root\\x1b" in out and "\x1b" not in out


def test_who_splits_is_listed_up_to_fifteen(monkeypatch, capsys):
    class Counting:
        lost = 3

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self):
            pass

        def splitters(self):
            return [
                splits.Splitter(
                    count=100 - n,
                    task=f"t{n}",
                    pid=n,
                    kind="mapping" if n % 2 else "page",
                    caller="c",
                    occasion="",
                )
                for n in range(20)
            ]

    monkeypatch.setattr(splits.Splits, "open", classmethod(lambda cls: Counting()))
    out = printed(capsys, "host", "--interval", "0")
    assert "     100 t0 (0) the page, c\n" in out and "      99 t1 (1) a mapping, c\n" in out
    assert " t14 (14) " in out and " t15 (15) " not in out and "  … 5 more; --json lists all" in out
    assert "3 events were too many" in out
    assert len(json.loads(printed(capsys, "host", "--interval", "0", "--json"))["splits"]) == 20


@pytest.mark.parametrize("interval", ["inf", "nan", "-1", "86401", "soon"])
def test_an_interval_that_is_none_is_one_line(interval, capsys):
    assert "--interval" in refused(capsys, "host", "--interval", interval)
