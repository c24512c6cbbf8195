"""What samples hold, in one pass: looks and their times, what each channel told, and each space's blocks at the last look."""

import numpy as np

from secondsight.trace.sample_summary import summarise_samples
from secondsight.trace.sampled import CHANNELS
from secondsight.trace.samples import Samples
from support.samples import random_rows, write


def test_the_summary_counts_every_look_but_the_first(tmp_path):
    rows = random_rows(np.random.default_rng(3), 5, 4)
    summary = summarise_samples(Samples.open(write(tmp_path / "s.parquet", rows)))
    assert summary.looks == 5 and summary.rows == 20
    for name in CHANNELS:
        later = [row for row in rows if row["time"]]
        channel = summary.channels[name]
        assert channel.used == sum(row[f"{name}_used"] for row in later)
        assert channel.unused == sum(row[f"{name}_unused"] for row in later)
        assert channel.used + channel.unused + channel.unknown == sum(row["present"] for row in later)


def test_spaces_are_counted_by_their_blocks_and_stand_as_the_last_look_left_them(tmp_path):
    rows = [
        {"time": 1, "block": 0, "present": 10},
        {"time": 1, "block": 1, "present": 512, "form": 1},
        {"time": 4, "block": 0, "present": 30},
        {"time": 4, "block": 2, "present": 512, "form": 1},
        {"time": 4, "block": 3, "present": 2},
    ]
    path = write(tmp_path / "s.parquet", rows)
    summary = summarise_samples(Samples.open(path))
    assert (summary.path, summary.rows, summary.looks) == (str(path), 5, 2)
    assert (summary.first_time, summary.last_time) == (10**9, 4 * 10**9)
    # The VM has no blocks, and is not listed.
    (process,) = summary.spaces
    assert (process.name, process.blocks, process.huge, process.present) == ("p", 4, 1, 30 + 512 + 2)


def test_samples_of_nothing_are_no_looks(tmp_path):
    summary = summarise_samples(Samples.open(write(tmp_path / "s.parquet", [])))
    assert (summary.looks, summary.first_time, summary.last_time) == (0, 0, 0)
    assert [(space.name, space.blocks) for space in summary.spaces] == [("p", 0)]
    assert all(
        channel.used == channel.unused == channel.unknown == 0 for channel in summary.channels.values()
    )
