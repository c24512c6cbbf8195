"""Compiled functions are kept where that is possible, and work where it is not."""

from numba.core import caching

from secondsight.native import native


def doubled(x):
    return 2 * x


def test_where_nothing_can_be_written_functions_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert native(doubled)(21) == 42
