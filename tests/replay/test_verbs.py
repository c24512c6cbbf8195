"""Forks in a replay: what a child begins with, what stores then copy or split, and what is counted once."""

from pathlib import Path

import numpy as np
import pytest

from secondsight.errors import InputError
from secondsight.policy.protocol import Decision, Policy
from secondsight.policy.registry import make
from secondsight.replay import Configuration, replay
from secondsight.replay.tlb import TlbConfig
from secondsight.trace import Trace
from secondsight.trace.kinds import Kind, Verb
from secondsight.whatif import compare
from support.events import CR, CW, trace

ALWAYS = "always,khugepaged=false"
TWO = ("process", "process")


def figures(rows, rules="7.2", policy=ALWAYS, spaces=TWO, **options):
    return compare(trace(rows, spaces), [policy], [rules], channels=False, **options).rows[0].metrics


def copies(totals):
    return totals["copied_pages"], totals["copied_huge"], totals["copy_splits"]


#: Three pages of one block are written, and a child begins.
FORKED = [*((0, 0, 0, p, CW) for p in range(3)), (1, 0, 0, 0, Verb.FORK, 1)]


def test_a_store_on_either_side_copies_a_page_and_a_load_does_not():
    # The child's store copies; the parent's to the same page finds itself the sole owner; its store to another copies.
    rows = [*FORKED, (2, 1, 0, 0, CR), (2, 1, 0, 0, CW), (3, 0, 0, 0, CW)]
    rows += [(4, 0, 0, 1, CW), (5, 1, 0, 1, CW), (6, 0, 0, 2, CR)]
    assert copies(figures(rows, policy="never")) == (2, 0, 0)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # Copied whole before 5.8: the child's store, after which the parent owns the rest alone.
        ("2.6.38", (0, 1, 0)),
        # Split since: one page is copied, and the parent's first store splits its own mapping too, for the child still has the rest.
        ("6.1", (2, 0, 2)),
        ("7.2", (2, 0, 2)),
    ],
)
def test_a_huge_page_is_copied_whole_or_split(rules, expected):
    rows = [*FORKED, (2, 1, 0, 0, CW), (2, 1, 0, 5, CR), (3, 0, 0, 1, CW)]
    assert copies(figures(rows, rules)) == expected


def test_a_child_that_only_reads_and_exits_leaves_the_parent_its_huge_page():
    rows = [*FORKED, (2, 1, 0, 0, CR, 7), (3, 1, 0, 0, Verb.EXIT), (4, 0, 0, 1, CW)]
    totals = figures(rows)
    assert copies(totals) == (0, 0, 0)
    # All landed in a huge page: three stores, seven loads through the child's mapping, and a store.
    assert totals["coverage"] == 1


def test_where_accesses_land_after_a_split():
    rows = [*FORKED, (2, 1, 0, 0, CR, 7), (2, 1, 0, 0, CW, 5), (2, 1, 0, 1, CR, 2), (3, 0, 0, 0, CR, 3)]
    # Huge: three stores, seven loads of the child, three of the parent, whose mapping stays; small: what the child's store leaves.
    assert figures(rows)["coverage"] == (3 + 7 + 3) / (3 + 7 + 5 + 2 + 3)


def test_shared_memory_is_counted_once():
    alone = figures(FORKED[:3], spaces=("process",))
    totals = figures([*FORKED, (2, 1, 0, 0, CR)])
    assert (totals["bloat"], totals["zero_filled"], totals["bloat_share"]) == (
        alone["bloat"],
        alone["zero_filled"],
        alone["bloat_share"],
    )
    # Two mappings of it there are.
    assert (alone["huge_blocks"], totals["huge_blocks"]) == (1, 2)
    gone = figures([*FORKED, (2, 1, 0, 0, CR), (3, 1, 0, 0, Verb.EXIT)])
    assert gone["bloat"] == alone["bloat"]


def test_the_child_has_it_when_the_parent_is_gone():
    rows = [*FORKED, (2, 1, 0, 0, CR), (3, 0, 0, 0, Verb.EXIT), (4, 1, 0, 1, CW)]
    totals = figures(rows)
    # The store finds a sole owner; what was counted at the parent's exit is not counted again.
    assert copies(totals) == (0, 0, 0)
    assert totals["bloat"] == 509 * 4096


def test_a_childs_child_shares_with_both():
    rows = [*FORKED, (2, 1, 0, 0, Verb.FORK, 2), (3, 2, 0, 0, CW), (4, 1, 0, 0, CW), (5, 0, 0, 0, CW)]
    # Two copy; the third is alone with what is left.
    assert copies(figures(rows, policy="never", spaces=("process",) * 3)) == (2, 0, 0)


def test_a_fork_flushes_the_tlb_and_a_copy_walks_again():
    rows = [*FORKED, (2, 0, 0, 0, CW)]
    # 3 pages, then the entry that the fork write-protected: 4 references each; as many as without a fork, and one walk more.
    with_it = figures(rows, policy="never", tlb=TlbConfig())["walk_refs_native"]
    without = figures([*rows[:3], rows[-1]], policy="never", tlb=TlbConfig())["walk_refs_native"]
    assert (without, with_it) == (12, 16)


@pytest.mark.parametrize(("stores", "huge"), [(255, 0), (256, 1)])
def test_khugepaged_leaves_what_is_shared_beyond_max_ptes_shared(stores, huge):
    # Of 512 pages those that neither side has stored to since are shared; 256 of them may be.
    rows = [(0, 0, 0, p, CW) for p in range(512)]
    rows += [(1, 0, 0, 0, Verb.FORK, 1), *((2, 1, 0, p, CW) for p in range(stores)), (35, 0, 0, 0, CR)]
    result = replay(trace(rows, TWO), [Configuration.of("7.2")])
    assert [space.huge_at_end for space in result.configurations[0].spaces] == [huge, huge]


def test_a_policys_split_unmaps_it_for_all_who_have_it():
    class Splits(Policy):
        name, faults = "splits", "huge"

        def wake(self, look):
            return Decision(split=np.flatnonzero(look.huge & (look.space == 0)))

    rows = [*FORKED, (2, 1, 0, 0, CR), (12, 1, 0, 0, CR, 9), (13, 1, 0, 1, CW)]
    result = compare(trace(rows, TWO), [Splits], ["7.2"], channels=False).rows[0].metrics
    # The nine loads at 12 s land in small pages, and so does the store: three, and one, were huge.
    assert result["coverage"] == 4 / 14


def test_a_fork_into_a_space_that_lives_is_told_and_not_made():
    rows = [(0, 1, 0, 0, CW), *FORKED, (2, 1, 0, 0, CW)]
    result = compare(trace(rows, TWO), [ALWAYS], ["7.2"], channels=False)
    assert any("1 fork events are not replayed" in note for note in result.provenance.notes)
    assert copies(result.rows[0].metrics) == (0, 0, 0)


def test_what_a_guest_forks_its_host_does_not_see():
    result = compare(trace([*FORKED, (2, 1, 0, 0, CW)], TWO), [ALWAYS], ["7.2"], channels=False, backing="vm")
    assert any("1 fork events are not replayed" in note for note in result.provenance.notes)


def test_the_same_number_lives_again_after_an_exit():
    rows = [*FORKED, (2, 1, 0, 0, CW), (3, 1, 0, 0, Verb.EXIT), (4, 0, 0, 0, Verb.FORK, 1), (5, 1, 0, 1, CW)]
    assert copies(figures(rows, policy="never")) == (2, 0, 0)


@pytest.mark.parametrize(("child", "said"), [(2, "forks space 2"), (0, "forks itself")])
def test_a_child_that_is_no_space_is_one_line(child, said):
    with pytest.raises(InputError, match=rf"the trace: row 1: space 0 {said}"):
        figures([(0, 0, 0, 0, CW), (1, 0, 0, 0, Verb.FORK, child)])


@pytest.mark.parametrize("rules", ["6.1", "7.2"])
@pytest.mark.parametrize("policy", ["never", ALWAYS, "always"])
def test_cutting_the_trace_anywhere_changes_nothing(rules, policy):
    rows = [
        (s, 0, b, p, (CW, CR)[(s + p) % 2], 1 + p % 3) for s in range(4) for b in range(3) for p in range(4)
    ]
    rows += [(5, 0, 0, 0, Verb.FORK, 1)]
    rows += [
        (6 + s, (s + b) % 2, b, p, (CR, CW)[(s * 3 + p + b) % 5 == 0], 1 + s % 2)
        for s in range(30)
        for b in range(3)
        for p in range(4)
    ]
    totals = [
        compare(trace(rows, TWO, batch=batch), [policy], [rules], channels=False).rows[0].metrics
        for batch in (1 << 20, 7, 1)
    ]
    assert totals[0] == totals[1] == totals[2]
    assert totals[0]["copied_pages"] > 0


REDIS = Path(__file__).parents[2] / "examples" / "traces" / "redis-fork.parquet"


def test_what_redis_copies_while_it_saves_is_what_sets_of_pages_say():
    """With small pages alone each page that was written before the fork is copied once: by the first who stores to it while both live."""
    trace = Trace.open(REDIS)
    batches = list(trace.batches(("space", "address", "kind")))
    space, address, kind = (
        np.concatenate([batch[name] for batch in batches]) for name in ("space", "address", "kind")
    )
    fork = int(np.flatnonzero(kind == Verb.FORK)[0])
    end = int(np.flatnonzero((kind == Verb.EXIT) & (space == 1))[0])
    stored = [
        set((address[low:high][kind[low:high] == Kind.CPU_WRITE] >> np.uint64(12)).tolist())
        for low, high in ((0, fork), (fork, end))
    ]
    result = replay(
        trace, [Configuration.of(rules, policy=lambda: make("never")) for rules in ("6.1", "7.2")]
    )
    for configuration in result.configurations:
        assert configuration.total.copied == len(stored[0] & stored[1]) > 1000
        assert (configuration.total.copied_huge, configuration.total.copy_splits, configuration.notes) == (
            0,
            0,
            [],
        )


def test_redis_with_huge_pages_copies_them_whole_or_splits_them():
    huge = [
        Configuration.of(rules, policy=lambda: make("always,khugepaged=false")) for rules in ("2.6.38", "7.2")
    ]
    old, new = (configuration.total for configuration in replay(REDIS, huge).configurations)
    # Each huge page that both had is copied whole once at the most; since 5.8 each side splits its own mapping.
    assert (old.copy_splits, new.copied_huge) == (0, 0)
    assert 20 < old.copied_huge <= old.blocks // 2
    assert old.copied_huge <= new.copy_splits <= 2 * old.copied_huge
    assert new.copied >= new.copy_splits
