import pytest

from secondsight.words import several


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (several(1, "block"), "1 block"),
        (several(0, "block"), "0 blocks"),
        (several(1024, "page is", "pages are"), "1,024 pages are"),
        (several(1, "pass", "passes"), "1 pass"),
        (several(2, "pass", "passes"), "2 passes"),
    ],
)
def test_one_is_one_and_all_else_are_many(told, expected):
    assert told == expected
