"""A sweep's file: what it plans, and what it refuses."""

import pytest

from secondsight.errors import InputError, UsageError
from secondsight.whatif import spec as specs
from support import sweeps


def planned(directory, text, traces=1):
    path = sweeps.spec(directory, traces, text)
    return specs.plan(specs.read(path), directory)[0]


def labels(cells):
    return [entry.combination().label for cell in cells for entry in cell.entries]


def test_every_value_against_every_other_and_what_has_no_knob_once(tmp_path):
    cells = planned(tmp_path, sweeps.SPEC)
    assert labels(cells) == [
        "never under 6.1",
        *[f"khugepaged under {r} max_ptes_none={v}" for r in ("6.1", "7.2") for v in (0, 509, 511)],
        "madv_collapse under 6.1",
        "madv_collapse under 7.2",
        "oracle under 6.1",
    ]
    assert [len(cell.entries) for cell in cells] == [2] * sweeps.CELLS
    assert cells[1].entries[0].config.knobs.max_ptes_none == 509


def test_hosts_budgets_and_clocks_are_axes_too(tmp_path):
    text = 'traces = ["traces/t0.parquet"]\npolicies = ["khugepaged"]\nmmu = ["npt", "ept"]\nbudget = [2, "50%"]\ntime_scale = [1, 10]\n'
    cells = planned(tmp_path, text)
    assert len(set(labels(cells))) == 8
    assert labels(cells)[0] == "khugepaged under 7.2 mmu=npt budget=2 time_scale=1"
    assert [cell.time_scale for cell in cells] == [1.0, 10.0]
    assert {e.config.mmu for cell in cells for e in cell.entries} == {"npt", "ept"}


def test_a_policys_option_is_a_knob_and_travels_in_its_text(tmp_path):
    text = 'traces = ["traces/t0.parquet"]\npolicies = ["hawkeye,every=5", "ingens"]\n[knobs]\nalpha = "0.2..0.6:0.2"\nevery = 3\n'
    entries = planned(tmp_path, text)[0].entries
    assert len(entries) == 4
    assert entries[1].combination().make().alpha == pytest.approx(0.4)
    assert [e.make for e in entries[:2]] == ["hawkeye,alpha=0.2,every=3.0", "hawkeye,every=3.0"]


def test_ids_hang_on_what_figures_hang_on_and_on_nothing_else(tmp_path):
    base = 'traces = ["traces/t0.parquet"]\npolicies = ["khugepaged"]\n'
    first = planned(tmp_path, base)[0].entries[0].id
    for same in ("together = 7\n", 'rules = ["7.2", "6.1"]\n'):
        assert planned(tmp_path, base + same)[0].entries[0].id == first
    for other in (
        "time_scale = 2\n",
        'mmu = "ept"\n',
        'rules = ["6.1"]\n',
        "empty = true\n",
        "budget = 3\n",
        "maps = true\n",
    ):
        assert planned(tmp_path, base + other)[0].entries[0].id != first
    sweeps.trace(tmp_path / "other.parquet", 9).rename(tmp_path / "traces" / "t0.parquet")
    cells, _ = specs.plan(specs.read(tmp_path / "spec.toml"), tmp_path)
    assert cells[0].entries[0].id != first


def test_a_damaged_trace_is_told_and_the_others_are_planned(tmp_path):
    path = sweeps.spec(tmp_path, 2, 'traces = ["traces/*"]\n')
    (tmp_path / "traces" / "a.parquet").write_bytes(b"PAR1 no more")
    cells, damaged = specs.plan(specs.read(path), tmp_path)
    assert {cell.trace for cell in cells} == {"traces/t0.parquet", "traces/t1.parquet"}
    assert list(damaged) == ["traces/a.parquet"]
    assert "not a whole Parquet file" in damaged["traces/a.parquet"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("traces = [", "not TOML"),
        ("policies = []", "traces"),
        ('traces = ["t"]\nplicies = ["x"]', "unknown field `plicies`"),
        ('traces = ["t"]\ntogether = "a"', "together: Expected `int`"),
        ('traces = ["t"]\ntogether = 0', "must be 1 to 1000"),
        ("traces = []", "traces: an empty list"),
        ('traces = ["t"]\nmmu = "arm"', "mmu: Invalid enum value 'arm'"),
        ('traces = ["t"]\nschema = 9', "schema: version 9; this reads version 1"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "spec.toml").write_text(text)
    with pytest.raises(InputError) as error:
        specs.read(tmp_path / "spec.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policies = []", "at least one policy"),
        ('policies = ["hawkey"]', "did you mean hawkeye"),
        ('rules = ["6.11"]', "6.11"),
        ("[knobs]\nnonsense = 1", "nonsense: neither khugepaged nor any"),
        ("[knobs]\nmax_ptes_none = 512", "must be 0 to 511"),
        ("[knobs]\nmax_ptes_none = 1.5", "whole numbers"),
        ("[knobs]\nmax_ptes_none = []", "empty list"),
        ('[knobs]\nmax_ptes_none = "1-5"', "knobs: 'max_ptes_none=1-5'"),
        ('budget = "some"', "budget 'some'"),
        ("time_scale = 0", "time scale 0"),
        ("time_scale = [1, 1e30]", r"traces/t0.parquet: time scale 1e\+30: .* would wake"),
        ('policies = ["pcc,bits=60"]', "policy pcc: bits=60: must be 1 to 52"),
        ('policies = ["pcc"]\n[knobs]\nbits = [8, 60]', "policy pcc: bits=60: must be 1 to 52"),
        (
            '[knobs]\nmax_ptes_none = "0..511:1"\npages_to_scan = "1..4096:512"',
            "values of its knobs together",
        ),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_runs(tmp_path, text, said):
    path = sweeps.spec(tmp_path, 1, f'traces = ["traces/*.parquet"]\n{text}\n')
    with pytest.raises(UsageError, match=said):
        specs.plan(specs.read(path), tmp_path)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    path = sweeps.spec(tmp_path, 1, 'traces = ["nowhere/*.parquet"]\n')
    with pytest.raises(InputError, match="nothing matches 'nowhere"):
        specs.plan(specs.read(path), tmp_path)
