"""Scenario files: what is written is read back, in either form."""

from __future__ import annotations

import pytest

from secondsight.errors import InputError, UsageError
from secondsight.mm.config import Sizes
from secondsight.scenario import files
from secondsight.scenario import random as chance
from secondsight.scenario import verbs as v
from secondsight.scenario.files import decode


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
    files.write(v.Scenario(spaces=(v.SpaceSpec("p"),), steps=(v.CpuRead("p", "0"),)), path)
    path.write_text(path.read_text().replace('pages = "0"', 'pages = "7"'))
    with pytest.raises(InputError, match=r"one\.toml.*steps\[0\]\.pages"):
        files.read(path)


def _of_sizes(sizes: str, knobs: str = "") -> bytes:
    return f'[host.knobs]\n{knobs}\n[host.sizes]\n{sizes}\n[[spaces]]\nname = "vm"\n[[steps]]\ndo = "scan"\n'.encode()


def test_a_size_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(InputError) as raised:
        decode(_of_sizes('48kB = "always"'), "s.toml", toml=True)
    assert "48kB" in str(raised.value) and "64kB" in str(raised.value) and "\n" not in str(raised.value)


def test_a_switch_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(InputError, match="sometimes") as raised:
        decode(_of_sizes('64kB = "sometimes"'), "s.toml", toml=True)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("sizes", "none", "mthp_collapse", "noted"),
    [
        ('64kB = "always"', 64, True, True),
        ('64kB = "always"', 511, True, False),
        ('64kB = "always"', 0, True, False),
        ('64kB = "always"', 64, False, False),
        ('64kB = "never"', 64, True, False),
    ],
)
def test_a_limit_that_counts_as_zero_below_2_mib_is_noted(
    sizes: str, none: int, mthp_collapse: bool, noted: bool
) -> None:
    host = decode(_of_sizes(sizes, f"max_ptes_none = {none}"), "s.toml", toml=True).host
    note = host.note(mthp_collapse=mthp_collapse)
    assert (note is not None) == noted
    if note:
        assert f"max_ptes_none={none} counts as 0" in note and "\n" not in note


@pytest.mark.parametrize("order", [0, 1, 10])
def test_orders_that_huge_pages_do_not_have_are_one_line(order: int) -> None:
    with pytest.raises(UsageError, match=f"order {order}: huge pages have the orders 2"):
        Sizes().of(order)
