"""Samples replayed, against plain counting: what is there, what is used, what khugepaged and policies make of it, and what stays open."""

import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.geometry import PMD_SHIFT
from secondsight.mm.config import Knobs
from secondsight.policy.kernel import Never
from secondsight.replay import Configuration, replay
from secondsight.replay.configuration import HOST
from secondsight.replay.sampled import SampledEvents
from secondsight.trace.samples import Samples
from secondsight.whatif.sampled import Span, compare_samples
from support.samples import BASE, BLOCK, provenance, write

LIMIT = 256  # max_ptes_none of these tests


def config():
    import msgspec

    knobs = msgspec.structs.replace(Knobs(), max_ptes_none=LIMIT, pages_to_scan=1 << 20)
    return msgspec.structs.replace(HOST, knobs=knobs)


def random_rows(rng, looks=4, blocks=9, unknown=True):
    """Processes' blocks whose pages stay; bits and uses at random, some of them not known."""
    rows = []
    present = rng.choice([1, 40, 250, 256, 300, 470, 512], blocks)
    idle = rng.random(blocks) < 0.4
    for look in range(looks):
        for block in range(blocks):
            there = int(present[block])
            row = {"time": look, "block": block, "present": there}
            used = 0 if idle[block] else int(rng.integers(0, there + 1))
            hidden = int(rng.integers(0, there + 1)) if unknown and rng.random() < 0.5 else 0
            if look:
                row["primary_used"] = max(0, used - hidden)
                row["primary_unused"] = there - row["primary_used"] - min(hidden, there)
                row["secondary_unused"] = there
            else:
                stands = there if rng.random() < 0.3 else 0
                row["primary_set"] = stands
                row["primary_clear"] = 0 if unknown and rng.random() < 0.3 else there - stands
                row["secondary_clear"] = there
            rows.append(row)
    return rows


def plain(rows, reading):
    """By block: its uses, whether anything was ever young, and its pages; counted in words."""
    by_block = {}
    for row in rows:
        uses, young, _ = by_block.get(row["block"], (0, False, 0))
        if row["time"] == 0:
            bits = row["primary_set"]
            if reading == "most":
                bits += row["present"] - row["primary_set"] - row["primary_clear"]
            young = bits > 0
        else:
            more = row["present"] - row["primary_used"] - row["primary_unused"]
            used = row["primary_used"] + (more if reading == "most" else 0)
            uses, young = uses + used, young or used > 0
        by_block[row["block"]] = uses, young, row["present"]
    return by_block


@pytest.mark.parametrize("seed", range(4))
def test_uses_and_decisions_are_those_of_plain_counting(tmp_path, seed):
    """khugepaged takes what is dense enough and was young; Ingens what is nine tenths full and was; MADV_COLLAPSE everything."""
    rows = random_rows(np.random.default_rng(seed))
    samples = Samples.open(write(tmp_path / "s.parquet", rows))
    comparison = compare_samples(
        samples, ["never", "khugepaged", "ingens", "madv_collapse"], ["7.2"], config=config(), time_scale=10
    )
    sides = [plain(rows, reading) for reading in ("least", "most")]
    blocks = sorted(sides[0])
    assert comparison.blocks == [(0, BASE + block * BLOCK) for block in blocks]
    assert comparison.hot.uses == [tuple(side[block][0] for side in sides) for block in blocks]
    assert (comparison.uses.low, comparison.uses.high) == tuple(
        sum(uses for uses, _, _ in side.values()) for side in sides
    )
    wanted = {
        "never": lambda young, present: False,
        "khugepaged": lambda young, present: young and 512 - present <= LIMIT,
        "ingens": lambda young, present: young and present >= 0.9 * 512,
        "madv_collapse": lambda young, present: True,
    }
    for row in comparison.rows:
        for at, block in enumerate(blocks):
            made = {wanted[row.policy](*side[block][1:]) for side in sides}
            word = "open" if len(made) == 2 else "huge" if made == {True} else "small"
            assert row.decisions[at] == word, (row.policy, block)
        assert row.known == sum(word != "open" for word in row.decisions)
        assert row.huge.low == row.decisions.count(
            "huge"
        ) and row.huge.high == row.huge.low + row.decisions.count("open")
    assert next(row for row in comparison.rows if row.policy == "never").coverage.high == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_truth_that_was_hidden_in_part_lies_in_the_range(tmp_path, seed):
    rng = np.random.default_rng(100 + seed)
    truth = random_rows(rng, looks=5, unknown=False)
    hidden = []
    for row in truth:
        row = dict(row)
        names = ("primary_used", "primary_unused") if row["time"] else ("primary_set", "primary_clear")
        for name in names:
            if rng.random() < 0.5:
                row[name] = int(rng.integers(0, row[name] + 1))
        hidden.append(row)
    made = [
        compare_samples(
            Samples.open(write(tmp_path / f"{name}.parquet", rows)), ["khugepaged", "ingens,util=0.5"], ["7.2"], config=config(),
            time_scale=10,
        )
        for name, rows in (("truth", truth), ("hidden", hidden))
    ]  # fmt: skip
    for real, ranges in zip(made[0].rows, made[1].rows, strict=True):
        assert real.known == real.blocks and real.coverage.low == real.coverage.high
        if ranges.coverage is not None:
            assert (
                ranges.coverage.low <= real.coverage.low + 1e-12
                and real.coverage.high <= ranges.coverage.high + 1e-12
            )
        for word, true in zip(ranges.decisions, real.decisions, strict=True):
            assert word in ("open", true)


def test_the_population_is_there_and_counts_nothing(tmp_path):
    """512, 100 and 30 pages, 20 in swap; nothing is used: nothing is counted, and all of it is there."""
    rows = [
        {"time": look, "block": block, "present": present, "swapped": swapped}
        | ({"primary_unused": present} if look else {})
        for look in range(3)
        for block, present, swapped in ((0, 512, 0), (1, 100, 0), (5, 30, 20))
    ]
    events = SampledEvents(Samples.open(write(tmp_path / "s.parquet", rows)), "least")
    result = replay(events, [Configuration.of("7.2")])
    assert result.data[0].blocks.populated.tolist() == [512, 100, 30]
    assert result.data[0].blocks.number.tolist() == [(BASE >> PMD_SHIFT) + n for n in (0, 1, 5)]
    total = result.configurations[0].total
    assert (total.accesses, total.faults, total.fault_huge) == (0, 0, 0) and result.configurations[
        0
    ].start == "population"


def test_what_comes_and_goes_follows_the_counts(tmp_path):
    """A block grows from 10 pages to 30 and shrinks to 5; one appears; one goes; pages go to swap and come back."""
    looks = [
        {0: (10, 0), 1: (512, 0), 2: (40, 0)},
        {0: (30, 0), 1: (512, 0), 2: (25, 15)},
        {0: (5, 0), 3: (7, 0), 2: (40, 0)},
    ]
    rows = [
        {"time": time, "block": block, "present": present, "swapped": swapped}
        for time, look in enumerate(looks)
        for block, (present, swapped) in look.items()
    ]
    for upto, wanted in ((2, {0: 30, 1: 512, 2: 25}), (3, {0: 5, 1: 0, 2: 40, 3: 7})):
        short = write(tmp_path / "part.parquet", [row for row in rows if row["time"] < upto])
        events = SampledEvents(Samples.open(short), "least")
        blocks = replay(events, [Configuration.of("7.2", policy=Never)]).data[0].blocks
        assert (
            dict(zip((blocks.number - (BASE >> PMD_SHIFT)).tolist(), blocks.populated.tolist(), strict=True))
            == wanted
        )
        # 20 pages appeared in the first interval, 7 and 15 that came back in the second.
        assert blocks.accesses.sum() == (20 if upto == 2 else 20 + 7 + 15)


def test_what_was_huge_begins_huge_and_its_single_pages_are_not_known(tmp_path):
    rows = [
        {"time": look, "block": block, "form": form, "present": 512, "primary_used": form * bool(look),
         "primary_unused": 0 if form else 512 * bool(look), "secondary_unused": 512 * bool(look)}
        for look in range(3)
        for block, form in ((0, 1), (1, 0))
    ]  # fmt: skip
    comparison = compare_samples(Samples.open(write(tmp_path / "s.parquet", rows)), ["never"], ["7.2"])
    (row,) = comparison.rows
    assert row.decisions == ["huge", "small"] and (row.coverage.low, row.coverage.high) == (1, 1)
    assert comparison.hot.uses == [(2, 2 * 512), (0, 0)]
    assert (row.bloat.low, row.bloat.high) == (0, 511 * 4096)
    assert any("of a huge block" in note for note in comparison.notes)


def test_a_guests_uses_are_the_guests(tmp_path):
    """7.2 refuses what only the guest used: its first pass takes the bits away, the next finds none; 6.1 takes it. SPTEs are there."""
    rows = [
        {"time": look, "block": 0, "space": 1, "present": 512, "secondary_used": 100 * bool(look), "secondary_unused": 412 * bool(look),
         "primary_unused": 512 * bool(look), "primary_clear": 512, "secondary_clear": 512}
        for look in range(2)
    ]  # fmt: skip
    comparison = compare_samples(
        Samples.open(write(tmp_path / "s.parquet", rows)), ["khugepaged"], ["6.1", "7.2"], time_scale=10
    )
    assert [row.decisions for row in comparison.rows] == [["huge"], ["small"]]
    assert comparison.rows[1].wasted.low == 1 and comparison.rows[1].refused["least"] == {
        "lack_referenced_page": 1
    }


def test_damon_stands_for_what_the_bits_leave_unknown(tmp_path):
    rows = [
        {"time": look, "block": block, "present": 512, "damon_used": used * bool(look), "damon_unused": (512 - used) * bool(look),
         "primary_clear": 512, "secondary_clear": 512}
        for look in range(3)
        for block, used in ((0, 200), (1, 0))
    ]  # fmt: skip
    comparison = compare_samples(
        Samples.open(write(tmp_path / "s.parquet", rows)), ["khugepaged"], ["7.2"], time_scale=10
    )
    assert comparison.hot.uses == [(400, 400), (0, 0)] and comparison.hot.blocks == [BASE]
    assert comparison.rows[0].decisions == ["huge", "small"]
    assert any("estimates" in note for note in comparison.notes)


def test_where_no_use_is_known_no_coverage_is_made(tmp_path):
    rows = [{"time": look, "block": block, "present": 512} for look in range(3) for block in range(4)]
    comparison = compare_samples(
        Samples.open(write(tmp_path / "s.parquet", rows, provenance(seen=()))),
        ["khugepaged", "ingens"],
        ["7.2"],
        time_scale=10,
    )
    for row in comparison.rows:
        assert row.coverage is None and row.decisions == ["open"] * 4
    assert comparison.hot.blocks == [] and comparison.notes[0].startswith("use is unknown")


def _looks(*looks):
    """Rows of blocks 0, 1, 2 … over the *looks*, each a list of what is not zero of each block."""
    return [
        {"time": time, "block": block} | row
        for time, rows in enumerate(looks)
        for block, row in enumerate(rows)
    ]


def _compared(tmp_path, rows, *policies, seen=("primary", "secondary"), **options):
    samples = Samples.open(write(tmp_path / "s.parquet", rows, provenance(seen=seen)))
    return compare_samples(samples, policies or ["khugepaged"], ["7.2"], time_scale=10, **options)


UNUSED = {"present": 512, "primary_unused": 512, "primary_clear": 512}
KNOWN = UNUSED | {"secondary_unused": 512, "secondary_clear": 512}


def test_the_channel_that_leaves_use_open_is_named(tmp_path):
    open_ = _compared(tmp_path, _looks([UNUSED], [UNUSED]), seen=("primary",)).notes[0]
    assert "SECONDARY (not seen: by hand)" in open_ and "PRIMARY" not in open_
    whole = _compared(tmp_path, _looks([KNOWN], [KNOWN])).notes[0]
    assert whole.startswith("no page was used") and "SECONDARY" not in whole


def test_use_that_rests_on_first_touches_alone_is_told(tmp_path):
    grown = {"present": 200, "primary_used": 100, "primary_unused": 100, "primary_clear": 200}
    before = {"present": 100, "primary_clear": 100}
    again = grown | {"primary_used": 101, "primary_unused": 99}
    for used, told in ((grown, True), (again, False)):
        notes = _compared(tmp_path, _looks([before, UNUSED], [used, UNUSED]), seen=("primary",)).notes
        assert any("rests on first touches alone" in note for note in notes) == told
    known = grown | {"secondary_unused": 200}
    notes = _compared(tmp_path, _looks([before, KNOWN], [known, KNOWN])).notes
    assert not any("first touches" in note for note in notes), "nothing else is open"


def test_wasted_passes_are_unknown_where_secondary_mmus_are(tmp_path):
    open_, known = (
        _compared(tmp_path, _looks([row], [row]), "khugepaged", "never") for row in (UNUSED, KNOWN)
    )
    assert open_.rows[0].wasted is None and known.rows[0].wasted == Span(0, 0)
    assert open_.rows[1].wasted == Span(0, 0), "who visits nothing wastes nothing"


def test_what_couples_blocks_is_told_where_it_is_so(tmp_path):
    rows = _looks([KNOWN], [KNOWN])
    for policies, options, told in (
        (["khugepaged", "ingens"], {}, ""),
        (["khugepaged"], {"budget": 1}, "khugepaged"),
        (["khugepaged", "ingens,at_most=3"], {}, "ingens"),
    ):
        notes = [n for n in _compared(tmp_path, rows, *policies, **options).notes if "couples blocks" in n]
        assert len(notes) == bool(told)
        assert not told or f"couples blocks ({told}" in notes[0]


def test_what_samples_do_not_hold_is_told_and_one_block_is_one(tmp_path):
    notes = _compared(tmp_path, _looks([KNOWN], [KNOWN | {"shared": 3}])).notes
    assert any("MADV_NOHUGEPAGE" in note and "replayed as eligible" in note for note in notes)
    assert any(note.startswith("1 block holds pages that others map too") for note in notes)


def test_what_samples_cannot_feed_is_refused(tmp_path):
    rows = [{"time": look, "block": 0, "present": 512} for look in range(2)]
    samples = Samples.open(write(tmp_path / "s.parquet", rows))
    for policy, what in (("oracle", "still to come"), ("pcc", "page walks")):
        with pytest.raises(UsageError, match=what):
            compare_samples(samples, [policy], ["7.2"])
    from secondsight.replay.tlb import TlbConfig

    with pytest.raises(UsageError, match="no TLB"):
        replay(SampledEvents(samples, "least"), [Configuration.of("7.2", tlb=TlbConfig())])
    one = Samples.open(write(tmp_path / "one.parquet", rows[:1]))
    with pytest.raises(UsageError, match="longer than an interval"):
        compare_samples(one, ["never"], ["7.2"])


def test_who_wakes_more_often_than_the_samples_look_is_told(tmp_path):
    rows = [{"time": look, "block": 0, "present": 512} for look in range(3)]
    samples = Samples.open(write(tmp_path / "s.parquet", rows))
    for scale, warned in ((1, set()), (5, {"ingens"}), (11, {"ingens", "khugepaged"})):
        comparison = compare_samples(samples, ["ingens", "khugepaged", "never"], ["7.2"], time_scale=scale)
        assert {note.split()[0] for note in comparison.notes if "wakes every" in note} == warned


def test_a_khugepaged_that_had_no_time_is_told(tmp_path):
    rows = [{"time": look, "block": 0, "present": 512} for look in range(3)]
    samples = Samples.open(write(tmp_path / "s.parquet", rows))
    # Every 10 s of its clock, and once behind the end; how often a policy wakes counts for nothing.
    for scale, times in ((1, "1 time in 2.0 s"), (6, "2 times in 12.0 s"), (100, "")):
        notes = compare_samples(samples, ["khugepaged", "always", "never"], ["7.2"], time_scale=scale).notes
        told = [note for note in notes if "khugepaged woke only" in note]
        assert [note.split(" of its clock")[0] for note in told] == [f"khugepaged woke only {times}"] * bool(
            times
        )


@pytest.mark.parametrize(
    ("counts", "hot"),
    [([100] * 8, range(8)), ([100] * 7 + [60, 5], range(8)), ([500, 30, 10, 1], [0]), ([0, 3], [1])],
)
def test_hot_blocks_hold_nine_tenths_and_leave_no_equal_out(tmp_path, counts, hot):
    rows = [
        {"time": look, "block": block, "present": 512}
        | ({"primary_used": used, "primary_unused": 512 - used, "secondary_unused": 512} if look else {})
        for look in range(2)
        for block, used in enumerate(counts)
    ]
    comparison = compare_samples(Samples.open(write(tmp_path / "s.parquet", rows)), ["never"], ["7.2"])
    assert comparison.hot.blocks == [BASE + block * BLOCK for block in hot]
