"""A shell's questions are answered, and its script printed."""

import pytest

from secondsight.cli import main
from secondsight.cli.completion import SHELLS, VARIABLE


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_asks_through_our_variable(shell, capsys, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    code, out, _ = run(capsys, "completion", shell)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert code == 0 and f"{VARIABLE}=complete_{shell}" in out


def test_another_shell_is_refused(capsys):
    code, out, err = run(capsys, "completion", "ksh")
    assert (code, out) == (2, "") and "bash, zsh, fish" in err


@pytest.mark.parametrize(
    ("line", "expected"),
    [("secondsight expl", "explain"), ("secondsight explain --ve", ""), ("secondsight explain --repo", "--report"),
     ("secondsight lab ident", "identify"), ("secondsight compare t.parquet -p khuge", "khugepaged"),
     ("secondsight compare t.parquet -r 2.6.38-", "2.6.38-fixed"), ("secondsight replay t.parquet --rules thp-b", "thp-base"),
     ("secondsight scenario run s.toml -r 6.17", "6.17"), ("secondsight lab compare -r 6.17", "6.17"),
     ("secondsight lab hold a.json.zst -r 6.17", "6.17"), ("secondsight rules 6.17", "6.17"),
     ("secondsight compare t.parquet -p no-such", "")],
)  # fmt: skip
def test_a_question_is_answered(line, expected, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    code, out, _ = run(capsys)
    assert code == 0 and out.strip() == expected
