"""Local workers: whoever is killed is replaced, and its cell run again; a cell that kills all of them is given up."""

import os
import signal

from secondsight.whatif import spec as specs
from secondsight.whatif import workers
from secondsight.whatif.sweep import sweep
from support import sweeps


def again(base, where, **options):
    return sweep(specs.read(base / "spec.toml"), base, where, **options)


def test_a_killed_worker_is_replaced_and_its_cell_run_again(done, tmp_path, monkeypatch):
    killed = []
    give = workers.CellWorker.give

    def and_kill(worker, cell):
        given = give(worker, cell)
        if len(killed) < 2:
            os.kill(worker.process.pid, signal.SIGKILL)
            killed.append(cell.id)
        return given

    monkeypatch.setattr(workers.CellWorker, "give", and_kill)
    state = again(done, tmp_path / "out", jobs=1)
    assert len(killed) == 2
    assert (state.run, state.failed) == (sweeps.TOTAL, {})
    assert sweeps.contents(tmp_path / "out") == sweeps.contents(done / "out")
    assert '"tries":3' in (tmp_path / "out" / "log.jsonl").read_text()


def test_a_cell_that_kills_every_worker_is_given_up_and_the_others_run(done, tmp_path, monkeypatch):
    give = workers.CellWorker.give
    first = []

    def and_kill(worker, cell):
        given = give(worker, cell)
        first.append(cell.id)
        if cell.id == first[0]:
            os.kill(worker.process.pid, signal.SIGKILL)
        return given

    monkeypatch.setattr(workers.CellWorker, "give", and_kill)
    state = again(done, tmp_path / "out", jobs=1)
    assert (state.run, len(state.failed)) == (sweeps.TOTAL - 1, 1)
    assert "its worker died 3 times" in next(iter(state.failed.values()))


def test_cells_are_handed_out_in_order_and_each_comes_back_once(tmp_path):
    cells, _ = specs.plan(specs.read(sweeps.spec(tmp_path, 1)), tmp_path)
    came = list(workers.run(cells, 1))
    assert [cell.id for cell, _, _ in came] == [cell.id for cell in cells]
    assert all(outcome.cell == cell.id and not outcome.error and tries == 1 for cell, outcome, tries in came)
    assert list(workers.run([], 4)) == []
