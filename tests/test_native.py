"""Compiled functions are kept where that is possible, and work where it is not."""

from pathlib import Path

from numba.core import caching

import secondsight
from secondsight.native import NATIVE, native


def doubled(x):
    return 2 * x


def test_where_nothing_can_be_written_functions_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert native(doubled)(21) == 42


def test_every_file_with_compiled_code_is_in_the_stamp():
    here = Path(secondsight.__file__).parent
    compiled = [
        path.relative_to(here)
        for path in here.rglob("*.py")
        # Who only listens to the compiler compiles nothing.
        if "secondsight.native import" in path.read_text().replace("secondsight.native import on_compile", "")
    ]
    assert len(compiled) > 20
    assert {path.parts[0] for path in compiled} <= set(NATIVE)
