"""Metrics that both of Prometheus's formats read, bounded in number, whatever names there are."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from secondsight.host.metrics import OTHERS, ROW_METRICS, bounded, openmetrics
from secondsight.predict.at_most import Bounds
from support.host_views import NAMES, row, view


@pytest.mark.parametrize("families", [openmetrics_families, text_families])
def test_both_formats_read_every_name(families):
    by_name = {
        family.name: family
        for family in families(openmetrics(view([row(name) for name in NAMES]), 50).decode())
    }
    resident = by_name["secondsight_group_resident_bytes"]
    assert len({sample.labels["name"] for sample in resident.samples}) == len(NAMES)
    assert all(len(sample.labels["name"]) <= 120 for sample in resident.samples)
    assert all(family.type == "gauge" and family.documentation for family in by_name.values())
    assert [(s.labels["node"], s.value) for s in by_name["secondsight_free_huge_bytes"].samples] == [
        ("0", 5 << 21),
        ("1", 0),
    ]
    bounds = {
        s.labels["bound"]: s.value
        for s in by_name["secondsight_group_gain_bytes"].samples
        if s.labels["name"] == "/plain"
    }
    assert bounds == {"estimate": 1.0, "low": 0.5, "high": 2.0}
    assert {s.labels["reason"]: s.value for s in by_name["secondsight_processes_unread"].samples} == {
        "zombies": 2,
        "not readable": 1,
    }
    assert by_name["secondsight_pass_cpu_seconds"].samples[0].value == 0.5


def test_a_thousand_rows_are_bounded_and_lose_nothing():
    rows = [row(f"g{n}", float(n)) for n in range(1000)]
    kept = bounded(view(rows), 10)
    assert [each.name for each in kept] == [f"g{n}" for n in range(999, 989, -1)] + [OTHERS]
    assert sum(each.resident for each in kept) == 100 * 1000
    assert kept[-1].gain.value == sum(range(990))
    text = openmetrics(view(rows), 10).decode()
    assert text.count("secondsight_group_") < 3 * 13 * len(ROW_METRICS) + 3 * len(ROW_METRICS)
    assert text.endswith("# EOF\n")


def test_processes_of_one_name_are_told_apart():
    text = openmetrics(view([row("sleep", pid=1), row("sleep", pid=2)], by="process"), 50).decode()
    assert 'name="sleep[1]"' in text
    assert 'name="sleep[2]"' in text


def test_bounds_of_run_time_are_two_series_and_none_where_it_is_unknown():
    rows = [
        row("a", 3.0, busy=1.5, saves=Bounds(-0.25, 0.5)),
        row("b", 2.0, busy=1.0, saves=None),
        row("c", 1.0, busy=0.5, saves=Bounds(-0.5, 0.25)),
    ]

    def bounds(rows, most):
        by_name = {family.name: family for family in text_families(openmetrics(view(rows), most).decode())}
        return {
            (s.labels["name"], s.labels["bound"]): s.value
            for s in by_name["secondsight_group_savable_processors"].samples
        }

    assert bounds(rows, 3) == {
        ("a", "low"): -0.25,
        ("a", "high"): 0.5,
        ("c", "low"): -0.5,
        ("c", "high"): 0.25,
    }
    # Of the others together nothing is known if one of them is unknown.
    assert bounds(rows, 1) == {("a", "low"): -0.25, ("a", "high"): 0.5}
    assert bounds([rows[0], rows[2]], 0) == {(OTHERS, "low"): -0.75, (OTHERS, "high"): 0.75}
