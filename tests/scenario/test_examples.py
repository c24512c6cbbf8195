"""Every shipped scenario gives the answers that it states, under every profile and for every kernel that was asked."""

from pathlib import Path

import pytest

from secondsight.scenario.expect import differences
from secondsight.scenario.files import read

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_answers_as_it_states(path: Path) -> None:
    scenario = read(path)
    assert scenario.expect, "an example states its answers"
    assert differences(scenario) == []


def test_the_seeds_stories_are_all_told() -> None:
    stories = {p.stem for p in EXAMPLES}
    for story in (
        "guest-only-npt", "guest-only-shadow", "guest-only-ept", "guest-only-ept-noad", "base-address-bug", "copied-and-zero-copy",
        "pin-blocks-collapse", "gru-contract", "gru-driver", "two-notifiers", "ksm", "referenced-saves", "no-heuristic",
        "without-notifiers",
    ):  # fmt: skip
        assert story in stories
