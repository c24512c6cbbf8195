"""Amounts on the command line."""

import pytest

from secondsight.errors import UsageError
from secondsight.live.act.amounts import parse_duration, parse_pace, parse_share, parse_size, parse_stall


@pytest.mark.parametrize(
    ("text", "value"), [("512MiB/s", 512 << 20), ("1G", 1 << 30), ("4096k/s", 4 << 20), ("2.5MB", 2621440)]
)
def test_paces(text, value):
    assert parse_pace(text) == value


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("1.5GiB", 3 << 29), ("4096", 4096), ("2T", 2 << 40)])
def test_sizes(text, value):
    assert parse_size(text, "--max-added") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [("10", "is 10 bytes, less than a page; 10M?"), ("1", "is 1 byte, less"), ("0.5k", "is 512 bytes, less than a page"),
     ("0.1", "is 0 bytes")],
)  # fmt: skip
def test_less_than_a_page_is_a_unit_forgotten(text, said):
    with pytest.raises(UsageError) as error:
        parse_size(text, "--max-added")
    assert said in str(error.value) and ("?" in str(error.value)) == ("k" not in text)


@pytest.mark.parametrize(("text", "value"), [("30s", 30), ("2min", 120), ("500ms", 0.5), ("1h", 3600)])
def test_durations(text, value):
    assert parse_duration(text, "--watch") == value


def test_shares():
    assert parse_share("12%", "--until-coverage") == 0.12


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_pace, "1MiB/s"), (parse_pace, "fast"), (parse_stall, "5"), (parse_stall, "0ms")],
)
def test_amounts_that_are_none(parse, text):
    with pytest.raises(UsageError, match="write"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_share, "0%"), (parse_share, "101%"), (parse_share, "95"), (parse_size, "-1"), (parse_size, "1X"),
     (parse_duration, "0s"), (parse_duration, "30"), (parse_duration, "25h")],
)  # fmt: skip
def test_the_option_is_named(parse, text):
    with pytest.raises(UsageError, match=r"--this .*: write"):
        parse(text, "--this")
