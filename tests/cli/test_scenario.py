"""``secondsight scenario``: what is said where there is nothing to say it about."""

import pytest

from secondsight.cli import main

SCENARIO = """[[spaces]]
name = "p"
blocks = 1
[[steps]]
do = "cpu_write"
space = "p"
pages = "0"
"""
SCAN = '[[steps]]\ndo = "scan"\n'
ADVISE = '[[steps]]\ndo = "madvise"\nspace = "p"\npages = "0"\nadvice = "hugepage"\n'


def run(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_file_without_answers_is_not_as_expected(tmp_path, capsys):
    path = tmp_path / "s.toml"
    path.write_text('rules = ["7.3"]\n' + SCENARIO + ADVISE + SCAN)
    code, out, error = run(capsys, "scenario", "check", path)
    assert code == 1
    assert "nothing was compared" in out
    assert "as expected" not in out
    assert "state nothing to compare with" in error
    assert run(capsys, "scenario", "check", "--update", path)[:2] == (0, f"{path}: as expected\n")
    path.write_text(path.read_text().replace("scan 512", "scan 511"))
    assert run(capsys, "scenario", "check", path)[0] == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SCENARIO, "no step that scans"),
        (SCENARIO + SCAN, 'advice = "hugepage"'),
        ('[host]\nthp_enabled = "never"\n' + SCENARIO + ADVISE + SCAN, "host.thp_enabled = 'never'"),
        (SCENARIO + ADVISE + SCAN, ""),
    ],
)
def test_an_empty_table_says_why(tmp_path, capsys, text, why):
    path = tmp_path / "s.toml"
    path.write_text(text)
    code, out, _ = run(capsys, "scenario", "run", path, "-r", "7.3")
    assert code == 0
    assert ("no block was visited" in out) == bool(why)
    assert why in out


def test_states_are_for_json(tmp_path, capsys):
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    code, out, error = run(capsys, "scenario", "run", path, "--states")
    assert (code, out) == (2, "")
    assert "add --json" in error
