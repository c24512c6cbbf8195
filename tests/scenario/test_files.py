"""Scenario files: what is written is read back, in either form."""

from __future__ import annotations

import pytest

from secondsight.errors import InputError
from secondsight.scenario import files
from secondsight.scenario import random as chance
from secondsight.scenario import verbs as v


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_what_is_written_is_read_back(suffix, tmp_path) -> None:
    made, _ = chance.scenarios(40, 1)
    for i, scenario in enumerate(made):
        path = tmp_path / f"{i}.{suffix}"
        files.write(scenario, path)
        assert files.read(path) == scenario
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_place_is_named(tmp_path) -> None:
    path = tmp_path / "one.toml"
    files.write(v.Scenario(spaces=(v.Space("p"),), steps=(v.CpuRead("p", "0"),)), path)
    path.write_text(path.read_text().replace('pages = "0"', 'pages = "7"'))
    with pytest.raises(InputError, match=r"one\.toml.*steps\[0\]\.pages"):
        files.read(path)
