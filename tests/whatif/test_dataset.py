"""A sweep's directory: what is in it is finished, or not there."""

import msgspec
import pytest

from secondsight.errors import InputError, UsageError
from secondsight.whatif import spec as specs
from secondsight.whatif.cell import Outcome
from secondsight.whatif.dataset import Dataset
from support import sweeps


@pytest.fixture
def planned(tmp_path):
    """A directory with a plan and no finished cell; its cells."""
    spec = specs.read(sweeps.spec(tmp_path, 1))
    cells, _ = specs.plan(spec, tmp_path)
    dataset = Dataset(tmp_path / "out")
    with dataset.claimed():
        dataset.write_plan(spec, cells, {"torn.parquet": "its end is missing"})
    return dataset, cells


def test_the_plan_comes_back(planned):
    dataset, cells = planned
    plan = dataset.plan()
    assert plan.traces == ["traces/t0.parquet"] and plan.damaged == {"torn.parquet": "its end is missing"}
    assert [row for row, _, _ in plan.rows] == [entry.id for cell in cells for entry in cell.entries]
    assert dataset.files() == {} and dataset.finished(cells) == set() and len(dataset.table(plan)) == 0


def test_one_sweep_at_a_time(planned):
    dataset, _ = planned
    with (
        dataset.claimed(),
        pytest.raises(UsageError, match="another sweep is at work here"),
        dataset.claimed(),
    ):
        pass
    with dataset.claimed():
        pass


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"), Dataset(tmp_path / "file" / "out").claimed():
        pass


def test_a_finished_cell_is_finished_under_another_plan_too(done):
    dataset = Dataset(done / "out")
    cells, _ = specs.plan(specs.read(done / "spec.toml"), done)
    every = {entry.id for cell in cells for entry in cell.entries}
    assert dataset.finished(cells) == dataset.finished([]) == every
    plan = dataset.plan()
    assert dataset.table(plan).column("id").to_pylist() == [row for row, _, _ in plan.rows]
    fewer = msgspec.structs.replace(plan, rows=plan.rows[3:5][::-1])
    assert dataset.table(fewer).column("id").to_pylist() == [plan.rows[4][0], plan.rows[3][0]], (
        "in the plan's order"
    )


def test_the_log_has_a_line_for_each_fact(planned):
    dataset, _ = planned
    dataset.log(cell="a", rows=2)
    dataset.log(cell="b", error="torn")
    lines = (dataset.where / "log.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line) for line in lines] == [
        {"cell": "a", "rows": 2},
        {"cell": "b", "error": "torn"},
    ]


def test_what_is_damaged_is_named_with_a_way_out(planned, tmp_path):
    dataset, cells = planned
    dataset.keep(Outcome(cell=cells[0].id, table=b"torn", details=b"torn"))
    with pytest.raises(InputError, match=r"not a finished cell \(.*\); remove it and sweep again"):
        dataset.table(dataset.plan())
    with pytest.raises(InputError, match=r"damaged .*; remove the cell's table and sweep again"):
        dataset.whole(cells[0].id)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        dataset.whole("none")
    with pytest.raises(InputError, match=r"no sweep\.json: not a sweep's directory"):
        Dataset(tmp_path).plan()
    (dataset.where / "sweep.json").write_text('{"schema": 1}')
    with pytest.raises(InputError, match="not a sweep's plan"):
        dataset.plan()
