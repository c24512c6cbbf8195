"""What tests of sweeps share."""

import pytest

from secondsight.whatif import spec as specs
from secondsight.whatif.sweep import sweep
from support import sweeps


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A finished sweep of three traces, and its directory."""
    base = tmp_path_factory.mktemp("sweep")
    state = sweep(specs.read(sweeps.spec(base)), base, base / "out", jobs=2)
    assert (state.planned, state.before, state.run, state.failed) == (sweeps.TOTAL, 0, sweeps.TOTAL, {})
    return base
