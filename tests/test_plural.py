import pytest

from secondsight.plural import pluralize


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (pluralize(1, "block"), "1 block"),
        (pluralize(0, "block"), "0 blocks"),
        (pluralize(1024, "page is", "pages are"), "1,024 pages are"),
        (pluralize(1, "pass", "passes"), "1 pass"),
        (pluralize(2, "pass", "passes"), "2 passes"),
    ],
)
def test_one_is_one_and_all_else_are_many(told, expected):
    assert told == expected
