"""explain as Typer reads it: the options are those of ``explained.OPTIONS``, and so are their words."""

import pytest
import typer

from secondsight.cli import explain, explained
from support.commands import printed

COMMAND = typer.main.get_command(explain.app)


def test_it_calls_what_is_read_without_typer_too(monkeypatch):
    given = []
    monkeypatch.setattr(explained, "explain", lambda **options: given.append(options))
    words = ["--pid", "7", "--json", "--all"]
    assert COMMAND.make_context("explain", list(words)).params.keys() == {
        option.parameter for option in explained.OPTIONS.values()
    }
    assert COMMAND.make_context("explain", words).params["pid"] == 7


@pytest.mark.parametrize("word", [word for word in explained.OPTIONS if word.startswith("--")])
def test_its_help_shows_every_option(word, capsys):
    assert word in printed(capsys, "explain", "--help")
