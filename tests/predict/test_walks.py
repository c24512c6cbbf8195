"""Walks of a trace: against a TLB in plain Python, in windows, and as the recorder counted them."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.predict import walks
from secondsight.replay import Events
from secondsight.replay.layout import discover
from secondsight.trace.provenance import Provenance, Space, Walks
from support.plaintlb import PlainTlb


def plain(address, kind):
    """(walks by block with small pages, with huge ones), dicts, of one process whose touched blocks are numbered from 0."""
    blocks = sorted({int(a) >> 21 for a in address})
    row = {b: i for i, b in enumerate(blocks)}
    small, huge, out = PlainTlb(16), PlainTlb(8), np.zeros((2, len(blocks)), int)
    for a, k in zip(address.tolist(), kind.tolist(), strict=True):
        if k % 4 == 2:
            continue
        b = row[a >> 21]
        out[0, b] += small.misses(b * 512 + (a >> 12 & 511))
        out[1, b] += huge.misses(b)
    return out


def walked(events):
    source = walks.Walking(events)
    layout = discover(events)
    source.start(layout)
    for _ in source.batches(("address", "kind")):
        pass
    return source.profile()


@pytest.mark.parametrize("seed", range(3))
def test_every_walk_of_a_short_trace(seed):
    rng = np.random.default_rng(seed)
    pages = rng.integers(0, 5000, 300)
    address = (rng.choice(pages, 20_000) * 7 << 12).astype(np.uint64)
    kind = rng.choice(np.array([0, 1, 2], np.uint8), 20_000)
    counted = walked(Events(address=address, kind=kind))
    data = np.count_nonzero(kind != 2)
    scale = 20_000 / data
    expected = plain(address, kind)
    np.testing.assert_allclose(counted.small, scale * expected[0])
    np.testing.assert_allclose(counted.huge, scale * expected[1])
    assert counted.counted == data
    assert counted.error == 0


def test_windows_of_a_long_trace_come_near_all_of_it(monkeypatch):
    rng = np.random.default_rng(1)
    n = 3_000_000
    address = (np.minimum(rng.zipf(1.2, n), 40_000) * 4096 * 13 % (1 << 32)).astype(np.uint64)
    events = Events(address=address, kind=0)
    monkeypatch.setattr(walks, "PERIOD", 1 << 17)
    whole = walked(events)
    monkeypatch.setattr(walks, "WHOLE", 0)
    part = walked(events)
    assert part.counted < n / 5
    assert part.small.sum() == pytest.approx(whole.small.sum(), rel=0.03)
    assert 0 < part.error < 0.03


def test_batches_may_be_cut_anywhere(monkeypatch):
    rng = np.random.default_rng(2)
    address = (rng.integers(0, 9000, 60_000) << 12).astype(np.uint64)
    monkeypatch.setattr(walks, "WHOLE", 0)
    for name, value in (("WARM", 500), ("COUNT", 700), ("PERIOD", 5000)):
        monkeypatch.setattr(walks, name, value)

    class Cut(Events):
        def batches(self, columns=(), rows=None):
            return super().batches(columns, 777)

    one, other = walked(Events(address=address, kind=0)), walked(Cut(address=address, kind=0))
    np.testing.assert_array_equal(one.small, other.small)
    assert one.counted == other.counted == 700 * 12


def test_what_the_recorder_counted_is_scaled_and_put_in_its_rows():
    events = Events(address=np.array([3 << 21, 7 << 21, 9 << 21], np.uint64), kind=0)
    recorded = Walks(space=0, accesses=1000, counted=100, block=[3, 5, 9], small=[4, 99, 2], huge=[1, 99, 0])
    about = Provenance(source="record-run", spaces=[Space(id=0, name="p")], walks=[recorded])
    scaled = walks.recorded(about, discover(events))
    np.testing.assert_array_equal(scaled.small, [40, 0, 20])
    np.testing.assert_array_equal(scaled.huge, [10, 0, 0])
    assert walks.recorded(Provenance(source="lackey"), discover(events)) is None
