"""What is read without Typer is what Typer would have read; the rest is left to it."""

from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.cli import explained, group, main, plain

COMMAND = typer.main.get_command(group.app).get_command(None, "explain")
DEFAULTS = COMMAND.make_context("explain", []).params


def test_every_option_of_explain_is_known():
    words = {word for param in COMMAND.params for word in (*param.opts, *param.secondary_opts)}
    names = {param.name for param in COMMAND.params} - {"help"}
    assert {word for word in words if word.startswith("-")} - {"--help"} == set(explained.OPTIONS) - {""}
    assert {option.parameter for option in explained.OPTIONS.values()} == names


WORDS = st.one_of(
    st.sampled_from(
        [*explained.OPTIONS, "--help", "--pid=3", "--al", "--", "-1", "1", "0x10-0x20", "file.npz", "é"]
    ),
    st.integers(-5, 1 << 70).map(str),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=6))
def test_what_is_read_is_what_typer_reads(words):
    said = plain.read(words, explained.OPTIONS)
    if said is not None:
        assert DEFAULTS | said == COMMAND.make_context("explain", list(words)).params


def test_common_words_need_no_typer():
    assert plain.read(["--pid", "12", "--json", "--procfs"], explained.OPTIONS) == {
        "pid": 12, "json": True, "kernel_memory": False,
    }  # fmt: skip
    assert plain.read(["vm.npz", "--all"], explained.OPTIONS) == {"file": Path("vm.npz"), "everything": True}


@pytest.mark.parametrize(
    "words", [["--pid"], ["--pid", "x"], ["--pid", "-1"], ["--pid", "1", "--pid", "2"], ["--json", "--json"],
              ["a", "b"], ["--nothing"], ["--help"], ["--pid=1"], ["--kernel-memory", "--procfs"], [""], ["--pid", "٣"]]
)  # fmt: skip
def test_the_rest_is_left_to_typer(words):
    assert plain.read(words, explained.OPTIONS) is None


def test_a_wrong_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main(["explain", "--pid", "x"])
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count("\n") == 1 and "--pid" in message
