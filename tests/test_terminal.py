"""Names of others: nothing of theirs reaches a terminal but what can be seen there."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.terminal import fit, markup, printable, say


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


LINES = [
    "  succeeded (open: pins (references beyond the mappings)): will become one huge page, unless a page is pinned",
    "    0x7f0000000000 small 512/0 used ? 0 ?",
    "7f5f5c600000-7f5f5e400000 " + "/a/path/of/a/file/that/is/longer/than/any/terminal/is/wide" * 3,
    "",
]


def test_lines_are_broken_between_words_and_hang():
    text = fit("\n".join(LINES), 40)
    broken = text.split("\n")
    assert all(len(line) <= 40 or " " not in line.strip() for line in broken), broken
    assert " ".join(text.split()) == " ".join(" ".join(LINES).split()), "nothing is lost"
    assert (
        broken[0].startswith("  s") and broken[1].startswith("      ") and not broken[1].startswith("       ")
    )
    assert LINES[2].split()[1] in (line.strip() for line in broken), "no path is cut"


def test_nothing_is_broken_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    say("\n".join(LINES))
    assert capsys.readouterr().out == "\n".join(LINES) + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say(LINES[0])
    assert len(capsys.readouterr().out.splitlines()) == 2
