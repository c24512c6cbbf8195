"""Names of others: nothing of theirs reaches a terminal but what can be seen there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.terminal import markup, printable


@given(st.text())
def test_what_is_printed_is_one_line_that_can_be_seen(text):
    printed = printable(text)
    assert printed.isprintable()
    assert printed == text or not text.isprintable()
    assert printed.encode("utf-8") or not text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("redis-server *:6379", "redis-server *:6379"),
        ("naïve 進程", "naïve 進程"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        (7, "7"),
    ],
)
def test_names(name, shown):
    assert printable(name) == shown


def test_brackets_are_no_markup():
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as caught:
        console.print(markup("[bold]\x1b[31m[/nonsense]"))
    assert caught.get() == "[bold]\\x1b[31m[/nonsense]\n"
