"""What a file of the profiles states: a series by what it changed, and its variants; and every file of the folder is one."""

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest

from secondsight.mm import profiles
from secondsight.mm import rules as model
from secondsight.mm.profiles.series import Series, Variant
from secondsight.mm.rules import Asked


def test_a_series_is_called_by_its_version():
    assert Series(version=(6, 12), about="", changes={}).name == "6.12"
    assert Series(version=(2, 6, 38), about="", changes={}).name == "2.6.38"


def test_what_is_not_said_is_nothing():
    series, variant = (
        Series(version=(1, 0), about="x", changes={}),
        Variant(name="1.0.3", about="y", changes={}),
    )
    assert (series.asked, series.variants, variant.asked, list(variant.points), variant.earlier) == (
        (),
        (),
        (),
        [],
        False,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        series.about = "z"
    with pytest.raises(TypeError):
        Series((1, 0), "x", {})


def test_every_file_of_the_folder_is_the_series_that_it_is_called():
    folder = Path(profiles.__file__).parent
    for file in folder.glob("v*.py"):
        series = import_module(f"secondsight.mm.profiles.{file.stem}").SERIES
        assert file.stem == f"v{series.name.replace('.', '_')}" and series in profiles.SERIES


def test_what_is_changed_are_rules_with_values_of_theirs():
    plain = model.Rules(name="")
    for series in profiles.SERIES:
        for changes in (series.changes, *(variant.changes for variant in series.variants)):
            assert plain.derive(**changes)


def test_variants_points_do_not_overlap_and_who_was_asked_is_of_them():
    for series in profiles.SERIES:
        points = [point for variant in series.variants for point in variant.points]
        assert len(set(points)) == len(points), series.name
        for variant in series.variants:
            assert all(isinstance(each, Asked) for each in variant.asked)
            for each in variant.asked:
                assert profiles.for_kernel(each.version) == profiles.PROFILES[variant.name], each
