"""A snapshot in a file: it comes back as it was, or is refused by its name."""

import re

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secondsight.errors import InputError, UsageError
from secondsight.live.judge.explain import explain
from secondsight.live.read import capture
from support.snapshots import columns, snapshot, with_vm


def test_a_snapshot_comes_back(tmp_path):
    path = tmp_path / "s.npz"
    taken = snapshot(with_vm(columns(2), np.ones((2, 512), bool)))
    capture.save(taken, path)
    again = capture.load(path)
    assert again.header == taken.header
    assert msgspec.json.encode(explain(again)) == msgspec.json.encode(explain(taken))
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("snapshot") / "s.npz"
    capture.save(snapshot(columns(1)), path)
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_snapshot_is_refused_or_read_as_it_was(whole, tmp_path, data):
    """Some bytes of an archive say nothing of its contents: when a part was made, by which system."""
    path = tmp_path / "damaged.npz"
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(broken)
    try:
        again = capture.load(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        capture.save(again, path)
        assert path.read_bytes() == whole


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_snapshot_cut_short_is_refused(whole, tmp_path, data):
    path = tmp_path / "short.npz"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=re.escape(str(path))):
        capture.load(path)


@pytest.mark.parametrize("text", ["", "1000", "zz-1", "2000-1000", "0-fffffffffffffffff"])
def test_ranges_that_are_none(text):
    with pytest.raises(UsageError, match="--range"):
        capture.parse_range(text)
