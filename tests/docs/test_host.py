"""docs/host.md's example runs, and names the columns, metrics and words that there are."""

import re
from pathlib import Path

import pytest

from secondsight.host.columns import COLUMNS
from secondsight.host.metrics import ROW_METRICS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "host.md").read_text()


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="this kernel has no THP"
)
def test_the_example_in_python(capsys, monkeypatch):
    import os

    from secondsight.host import survey, tasks

    # The example, of this process alone: reading the whole machine is no part of the fast tier.
    monkeypatch.setattr(tasks, "pids", lambda: [os.getpid()])
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(code, {})
    out = capsys.readouterr().out
    assert "MiB in free huge blocks" in out
    assert f"{tasks.user_name(os.geteuid())} " in out
    assert survey.host


def test_columns_and_metrics_that_the_page_names():
    for name in re.findall(r"--columns ([\w,]+)", PAGE):
        assert set(name.split(",")) <= set(COLUMNS)
    for name in ROW_METRICS:
        assert name in PAGE.replace("…_", "")
