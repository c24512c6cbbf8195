"""What the verbs of the lab share."""

import pytest
import typer

from secondsight.cli import group
from secondsight.cli.lab_options import say

LAB = typer.main.get_command(group.app).get_command(None, "lab").commands


@pytest.mark.parametrize("verb", ["boot", "run", "compare", "identify", "score"])
def test_a_kernel_and_a_machine_are_named_alike(verb):
    named = {param.name: (param.opts, param.default) for param in LAB[verb].params}
    assert named["kernel"] == (["--kernel", "-k"], "6.1") and named["mmu"] == (["--mmu", "-m"], "npt")
    assert named["modules"] == (["--modules"], None)


def test_progress_is_no_answer(capsys):
    say("booting 6.12")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "booting 6.12\n")
