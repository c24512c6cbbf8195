"""Two kernels asked the same: what differs is asked a second time of fresh boots, and what does not stay is no difference."""

import pytest

from secondsight.lab import differ as lab
from secondsight.lab.differ import differ
from secondsight.lab.kernels import Kernel
from secondsight.mm.profiles import profile
from support.as_kernel import answers
from support.observable import SHOWN

SCENARIOS = [s.scenario() for s in SHOWN if s.rule in ("split_pmd_keeps_dirty", "pmd_modify_drops_dirty")]
PLAIN = profile("6.12")
OTHER = PLAIN.derive(pmd_modify_drops_dirty=True)


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """Two kernels, played by the model; ``rules(name, times asked)`` says by which rules each answers. Whoever asks is recorded."""
    asked = []
    rules = {"first": [PLAIN], "second": [OTHER]}

    def run(scenarios, kernel, mmu, *, states, size=None, folder=None, say=None):
        asked.append((kernel.name, len(scenarios), folder))
        assert size == (1 if folder else None), "alone the second time"
        turn = sum(name == kernel.name for name, *_ in asked) - 1
        of = rules[kernel.name]
        return answers(scenarios, of[min(turn, len(of) - 1)], mmu)

    monkeypatch.setattr(lab, "run", run)
    made = [Kernel(name, "6.12.118", "6.12.118-1", tmp_path / name, None) for name in rules]
    return made, rules, asked


def test_two_that_answer_alike_are_asked_once(kernels):
    (first, second), rules, asked = kernels
    rules["second"] = [PLAIN]
    assert differ(SCENARIOS, first, second, "npt").kinds == []
    assert [(name, count) for name, count, _ in asked] == [("first", 2), ("second", 2)]


def test_what_differs_is_asked_again_alone_and_freshly_booted(kernels):
    (first, second), _, asked = kernels
    said = []
    by_kind = differ(SCENARIOS, first, second, "npt", shrink=False, say=said.append)
    assert by_kind.differing == [1] and [kind.name for kind in by_kind.kinds] == ["state.pte: PADH → PAH"]
    assert [(name, count) for name, count, _ in asked[2:]] == [("first", 1), ("second", 1)]
    # Nothing that was kept of the first time answers the second.
    assert all(folder is None for *_, folder in asked[:2]) and len({folder for *_, folder in asked[2:]}) == 2
    assert said == ["1 scenario differ: asking both kernels a second time"]


def test_what_the_second_time_does_not_show_is_no_difference_of_theirs(kernels):
    (first, second), rules, _ = kernels
    rules["second"] = [OTHER, PLAIN]
    by_kind = differ(SCENARIOS, first, second, "npt", shrink=False)
    assert by_kind.kinds == []


def test_each_kind_has_its_shortest_scenario(kernels):
    (first, second), _, _ = kernels
    (kind,) = differ(SCENARIOS, first, second, "npt").kinds
    assert "mprotect" in kind.shortest and kind.shortest.count("[[steps]]") <= len(SCENARIOS[1].steps)
