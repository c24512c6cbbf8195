import pytest

from secondsight.plural import file_size, pluralize


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (pluralize(1, "block"), "1 block"),
        (pluralize(0, "block"), "0 blocks"),
        (pluralize(1024, "page is", "pages are"), "1,024 pages are"),
        (pluralize(1, "pass", "passes"), "1 pass"),
        (pluralize(2, "pass", "passes"), "2 passes"),
    ],
)
def test_one_is_one_and_all_else_are_many(phrase, expected):
    assert phrase == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (3586, "3,586 bytes"),
        (41_200, "41.2 kB"),
        (3_590_000, "3.59 MB"),
        (9_876_543_210, "9,876.54 MB"),
    ],
)
def test_no_file_is_of_no_size(size, expected):
    assert file_size(size) == expected
