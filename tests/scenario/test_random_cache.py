"""What random scenarios of shared memory and files have in common: pages, children, groups of one host."""

from random import Random

import pytest

from secondsight.scenario import pages
from secondsight.scenario import verbs as v
from secondsight.scenario.random_cache import CacheGenerator, Mapped, drawn, random_pages
from secondsight.scenario.random_files import FileGenerator
from secondsight.scenario.random_shared import SharedGenerator


@pytest.mark.parametrize("most", [2, 32, 512])
def test_pages_are_a_blocks_and_at_most_so_many(most):
    r, counts = Random(1), set()
    for _ in range(500):
        named = pages.parse(f"0:{random_pages(r, most)}", 1)
        assert 1 <= len(named) <= most and len(set(named.tolist())) == len(named)
        counts.add(len(named))
    assert min(counts) == 1 and max(counts) >= min(most, 250)


def test_a_child_maps_what_its_parent_does():
    made = Mapped({"a": 2, "b": 1})
    made.add_child("a", "c")
    assert made.blocks == {"a": 2, "b": 1, "c": 2} and made.steps == [] and made.pins == []


@pytest.mark.parametrize("kind", [SharedGenerator, FileGenerator])
def test_groups_share_a_host_and_a_generator_goes_on_where_it_was(kind):
    made, generator = drawn(kind(7, "npt"), 80)
    assert len(made) == 80 and isinstance(generator, CacheGenerator)
    hosts = [each.host for each in made]
    # Thirty-two of one host, and another.
    assert len(set(map(repr, hosts[:32]))) == len(set(map(repr, hosts[32:64]))) == 1
    assert generator.steps == sum(len(each.steps) for each in made)
    assert drawn(kind(7, "npt"), 40)[0] == made[:40]


@pytest.mark.parametrize("kind", [SharedGenerator, FileGenerator])
def test_pins_are_held_by_the_living_and_let_go_once(kind):
    for each in drawn(kind(3, "npt"), 200)[0]:
        alive, held = {space.name for space in each.spaces}, set()
        for step in each.steps:
            if isinstance(step, v.Fork):
                alive.add(step.child)
            elif isinstance(step, v.Exit):
                alive.remove(step.space)
                held = {pin for pin in held if pin[0] != step.space}
            elif isinstance(step, v.Pin):
                assert (step.space, step.name) not in held
                held.add((step.space, step.name))
            elif isinstance(step, v.Unpin):
                held.remove((step.space, step.name))
            if hasattr(step, "space"):
                assert isinstance(step, v.Exit) or step.space in alive
        assert len(alive) <= 4 and isinstance(each.steps[-1], v.Scan)
