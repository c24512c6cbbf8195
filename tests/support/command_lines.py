"""The command lines of ours that documents show, and whether the command can read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from secondsight.cli import group

#: What stands for a number in an example.
NUMBERS = {"PID": "4711", "N": "8", "SECONDS": "10"}
_OURS = re.compile(r"\s*(?:\$ )?(?:sudo )?(?:\.venv/bin/)?secondsight (.+)")


def lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of every command line of ours in the code blocks of Markdown *path*; number: its line's."""
    for number, line in code_of(path):
        if ours := _OURS.match(line):
            yield number, words_of(ours[1])


def others_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of the command lines in code blocks that are not ours: make, pytest, the benchmarks, this environment's programs."""
    for number, line in code_of(path):
        if re.match(r"\s*(?:[A-Z_]+=\S+ )?(?:make|pytest|python|\.venv/bin/\S+) ", line):
            yield number, line.split("  ")[0].strip() if line.strip() == line else line.strip()


def inline_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of the command lines of ours within sentences of Markdown *path*; a verb that is only named is none."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for command in re.findall(r"`secondsight ([^`]+)`", line):
            words = words_of(command)
            if len(words) > (2 if words[0] in ("lab", "trace", "scenario", "record") else 1):
                yield number, words


def code_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of every line in the code blocks of Markdown *path*; one that ``\\`` continues is one."""
    text = re.sub(r"\\\n *", " ", path.read_text())
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):
            yield number, line


def words_of(line: str) -> list[str]:
    """The words of a command line behind ``secondsight``, up to a comment, a pipe or a redirection."""
    line = re.sub(r"\$\([^)]*\)", "4711", line)
    line = re.split(r"  +#|  {2,}| [|;<>]|&&| 2>", line, maxsplit=1)[0]
    return [NUMBERS.get(word, word) for word in shlex.split(line) if word != "…"]


def read(words: list[str]) -> None:
    """Let the command that *words* name read them, and do nothing.

    :raises Exception: it cannot (an option that does not exist, a value that is none).
    """
    command = typer.main.get_command(group.app)
    path = "secondsight"
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        inner = command.get_command(None, words[0])
        assert inner is not None, f"{path} {words[0]}: no such command"
        command, path, words = inner, f"{path} {words[0]}", words[1:]
    if hasattr(command, "get_command") or words in (["--help"], ["--version"]):
        return
    command.make_context(path, list(words))
