"""A sweep on a real Dask scheduler and workers, each a process of its own; one of them is killed at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import secondsight
from secondsight.errors import MissingDependency
from secondsight.whatif import cluster
from secondsight.whatif import spec as specs
from secondsight.whatif.sweep import sweep
from support import sweeps

pytest.importorskip("distributed")


@pytest.fixture
def dask(tmp_path):
    """Starts Dask's own commands; all are gone afterwards."""
    started = []

    def start(command, *arguments):
        env = os.environ | {
            "PYTHONPATH": str(Path(secondsight.__file__).parents[1]),
            "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
        }
        line = [sys.executable, "-m", "dask", command, *arguments]
        process = subprocess.Popen(
            line, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_worker_costs_no_cell_and_changes_no_result(tmp_path, dask):
    path = sweeps.spec(tmp_path)
    where = tmp_path / "scheduler.json"
    dask("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(where), "--host", "127.0.0.1")
    options = (
        "--scheduler-file",
        str(where),
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    )
    first, _ = (dask("worker", *options, "--name", name) for name in ("first", "second"))
    end = time.monotonic() + 60
    while not where.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    address = msgspec.json.decode(where.read_bytes())["address"]

    seen = []

    def kill(state):
        seen.append((state.run, state.left))
        if state.run == 2:
            # More cells than there are threads are under way: one is being worked on here.
            os.kill(first.pid, signal.SIGKILL)

    state = sweep(specs.read(path), tmp_path, tmp_path / "out", scheduler=address, after_cell=kill)
    assert (state.run, state.failed) == (3 * sweeps.CELLS, {})
    assert first.wait(10) == -signal.SIGKILL
    assert seen[0] == (0, None)
    assert seen[-1] == (15, 0)
    sweep(specs.read(path), tmp_path, tmp_path / "alone", jobs=1)
    assert sweeps.contents(tmp_path / "out") == sweeps.contents(tmp_path / "alone")


def test_nobody_at_the_address_is_one_line(tmp_path):
    cells, _ = specs.plan(specs.read(sweeps.spec(tmp_path, 1)), tmp_path)
    with pytest.raises(MissingDependency, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        list(cluster.run(cells, "tcp://127.0.0.1:1", patience=0.5))
    with pytest.raises(MissingDependency, match="no Dask scheduler answers at nonsense"):
        list(cluster.run(cells, "nonsense://x", patience=0.5))
