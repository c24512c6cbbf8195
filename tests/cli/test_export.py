"""export: one pass as metrics, whole or not at all."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families

from secondsight.cli import top
from secondsight.errors import SecondSightError
from support.commands import in_process, printed, refused
from support.host_views import row, view


@pytest.fixture
def passes(monkeypatch):
    """A pass over a host that nobody has; what was asked of it."""
    asked = []

    def looker(by, switches, budget, blocks, pids, kernel_memory):
        asked.append((by, switches, budget, blocks))
        return lambda: view([row("one", 1.0), row("two", 2.0), row("three", 3.0)])

    monkeypatch.setattr(top, "looker", looker)
    return asked


def names(text):
    """Those that have series of their own."""
    (resident,) = (each for each in families(text) if each.name == "secondsight_group_resident_bytes")
    return sorted(sample.labels["name"] for sample in resident.samples)


def test_what_is_printed_and_what_is_written_are_metrics(passes, tmp_path, capsys):
    path = tmp_path / "s.prom"
    out = printed(capsys, "export")
    assert out.endswith("# EOF\n") and {"one", "two", "three"} <= set(names(out))
    assert (
        printed(
            capsys,
            "export",
            "-o",
            path,
            "--by",
            "user",
            "--if",
            "enabled=always",
            "--budget",
            "2.5",
            "--sums",
        )
        == ""
    )
    assert path.read_text() == out
    printed(capsys, "export", "-o", path)
    assert passes == [
        ("cgroup", None, 1.0, True),
        ("user", ["enabled=always"], 2.5, False),
        ("cgroup", None, 1.0, True),
    ]


def test_rows_beyond_the_first_are_one(passes, capsys):
    assert len(names(printed(capsys, "export", "--top", "1"))) == 2


def test_where_it_cannot_be_written_nothing_is_looked_at_and_what_was_there_stays(passes, tmp_path, capsys):
    path = tmp_path / "notes"
    path.write_text("precious")
    assert "no metrics: give another name" in refused(capsys, "export", "-o", path)
    assert "there is no directory" in refused(capsys, "export", "-o", tmp_path / "none" / "s.prom")
    assert path.read_text() == "precious" and passes == []


def test_a_pass_that_fails_leaves_the_last_whole_file(passes, tmp_path, monkeypatch, capsys):
    path = tmp_path / "s.prom"
    printed(capsys, "export", "-o", path)
    before = path.read_text()

    def fails():
        raise SecondSightError("the host is gone")

    monkeypatch.setattr(top, "looker", lambda *_: fails)
    assert in_process(capsys, "export", "-o", path)[0] == 1
    assert path.read_text() == before and [each.name for each in tmp_path.iterdir()] == ["s.prom"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--by", "colour"), "colour"),
        (("--top", "1001"), "Invalid value for '--top'"),
        (("--budget", "-1"), "Invalid value for '--budget'"),
        (("--if", "enabled"), "--if enabled: write NAME=VALUE"),
    ],
)
def test_a_wrong_request_is_one_line(argv, says, capsys):
    assert says in refused(capsys, "export", *argv)
