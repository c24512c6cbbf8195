"""On a booted kernel: samples of patterns by construction, beside the patterns themselves; and the operator's ``hotcold``."""

import numpy as np
import pytest

from secondsight.trace.samples import Samples
from secondsight.whatif.sampled import compare_samples
from support.live_guest import answered
from support.patterns import BLOCKS, INTERVALS, PATTERNS
from support.sampled_truth import as_samples, beside, uses

pytestmark = pytest.mark.kernel

BLOCK = 1 << 21
POLICIES = ("khugepaged", "ingens", "hawkeye")
RULES = ("6.12", "7.2")
SCALE = 40  # an interval of 0.3 s is 12 s of khugepaged's time


@pytest.fixture(scope="module")
def answer():
    with answered("sampling.py", "6.12", 1500, 2560) as reply:
        yield reply


def compared(samples):
    return compare_samples(samples, POLICIES, RULES[:1], time_scale=SCALE)


@pytest.mark.parametrize("name", PATTERNS)
class TestPatterns:
    @pytest.fixture
    def samples(self, answer, tmp_path, name):
        return as_samples(tmp_path / "s.parquet", answer["patterns"][name])

    def test_every_interval_counts_the_pages_that_were_used(self, answer, samples, name):
        base, truth = answer["patterns"][name]["base"], uses(name)
        looks = list(samples.looks())
        assert len(looks) == INTERVALS + 1
        for number, look in enumerate(looks[1:]):
            at = (look["address"].astype(np.int64) - base) // BLOCK
            used = np.zeros(BLOCKS, np.int64)
            used[at] = np.maximum(look["primary_used"], look["secondary_used"])
            # A look clears bits after it has read them; what QEMU and the kernel touch by the way is few.
            assert np.abs(used - truth[number]).sum() <= 0.02 * truth[number].sum() + 2, number

    @pytest.mark.parametrize("rules", RULES)
    def test_hot_blocks_and_decisions_are_those_of_the_full_trace(self, answer, tmp_path, name, rules):
        both = beside(name, answer["patterns"][name], tmp_path / "s.parquet", POLICIES, rules, SCALE)
        assert both.precision >= 0.9 and both.recall >= 0.9
        for policy in POLICIES:
            assert both.equal(policy) >= 0.95, (policy, both.decisions[policy])


class TestHotcold:
    """128 MiB written once, then the last 16 of them over and over."""

    BASE = 0x300000000000
    HOT = frozenset(range(BASE + (112 << 20), BASE + (128 << 20), BLOCK))

    def samples(self, answer, tmp_path, way) -> Samples:
        return as_samples(tmp_path / "s.parquet", answer["hotcold"][way])

    def test_where_accessed_bits_are_cleared_the_hot_memory_is_found(self, answer, tmp_path):
        comparison = compared(self.samples(answer, tmp_path, "clear"))
        hot = set(comparison.hot.blocks)
        assert len(hot & self.HOT) >= 0.9 * len(hot) and len(hot & self.HOT) >= 0.9 * len(self.HOT)
        assert len(comparison.blocks) == 64 and comparison.rows[0].coverage is not None

    def test_damon_finds_all_of_it_and_once_its_regions_are_split_at_most_its_neighbours(
        self, answer, tmp_path
    ):
        samples = self.samples(answer, tmp_path, "damon")
        comparison = compared(samples)
        assert set(comparison.hot.blocks) >= self.HOT
        assert len(comparison.blocks) == 64 and comparison.rows[0].coverage is not None
        # DAMON splits regions at random, where no block ends: the hot ones are one range, so a neighbour on either side may count too.
        looks = [set(each["address"][each["damon_used"] > 0].tolist()) for each in samples.looks()]
        assert any(look >= self.HOT and len(look) <= len(self.HOT) + 2 for look in looks), [
            len(x) for x in looks
        ]

    @pytest.mark.parametrize("way", ["sticky", "procfs"])
    def test_elsewhere_use_is_unknown_and_no_coverage_is_made(self, answer, tmp_path, way):
        comparison = compared(self.samples(answer, tmp_path, way))
        assert len(comparison.blocks) == 64 and comparison.hot.blocks == []
        assert all(row.coverage is None for row in comparison.rows)
        assert any(note.startswith("use is unknown") for note in comparison.notes)

    def test_each_channel_says_what_it_could_see(self, answer):
        for way, seen in (("clear", {"primary", "referenced", "secondary"}), ("sticky", {"primary", "referenced", "secondary"}),
                          ("procfs", set()), ("damon", {"damon"})):  # fmt: skip
            channels = {
                each["name"]: each["seen"] for each in answer["hotcold"][way]["provenance"]["channels"]
            }
            assert {name for name, is_seen in channels.items() if is_seen} - {"soft_dirty"} == seen, way

    def test_the_cost_is_told(self, answer):
        cost = answer["hotcold"]["clear"]["provenance"]["cost"]
        assert cost["looks"] == 5 and cost["own_cpu"] > 0 and cost["target_cpu"] > 0


def test_nothing_is_left_behind(answer):
    assert answer["left"] == []
