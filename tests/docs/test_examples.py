"""The documents' Python is run, and what it claims to print it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secondsight.policy import Look, registry
from secondsight.policy.registry import installed
from secondsight.report.metrics import METRICS
from secondsight.whatif import compare
from secondsight.whatif import spec as specs

DOCS = Path(__file__).resolve().parents[2] / "docs"


def code_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def claims_of(page: str) -> list[str]:
    """What the page says its code prints: in a comment behind the print, or indented under a line that says "prints"."""
    text = (DOCS / page).read_text()
    said = [(m.start(), [m[1]]) for m in re.finditer(r"^print\(.*\)  # (.*)$", text, flags=re.MULTILINE)]
    said += [
        (m.start(), [line.strip() for line in m[1].splitlines()])
        for m in re.finditer(r"^prints\n\n((?:    .*\n)+)", text, flags=re.MULTILINE)
    ]
    return [line for _, lines in sorted(said) for line in lines]


@pytest.mark.parametrize(
    "page",
    [
        "add-a-secondary-mmu.md",
        "model.md",
        "add-a-kernel-version.md",
        "metrics.md",
        "policies.md",
        "replay.md",
    ],
)
def test_the_code_of_a_page_runs(page, capsys, monkeypatch) -> None:
    blocks = code_of(page)
    assert blocks
    monkeypatch.setattr(registry, "ADDED", {})
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec", dont_inherit=True), space)
    assert capsys.readouterr().out.splitlines() == claims_of(page) != []


def test_the_secondary_mmu_is_short() -> None:
    nic = code_of("add-a-secondary-mmu.md")[0]
    lines = [line for line in nic[nic.index("class Nic") :].splitlines() if line.strip()]
    assert len(lines) <= 30


def test_every_figure_stands_in_the_metrics_page_word_for_word() -> None:
    page = (DOCS / "metrics.md").read_text()
    for metric in METRICS.values():
        assert f"### {metric.title}\n\n`{metric.key}`: " in page
        assert metric.definition in page
    assert page.count("### ") == len(METRICS)


def test_every_policy_stands_in_the_policies_page() -> None:
    page = (DOCS / "policies.md").read_text()
    for name in installed():
        assert f"| `{name}` |" in page
    for column in Look.__slots__:
        assert f"`{column}`" in page


def test_the_file_of_the_scale_page_is_a_spec(tmp_path) -> None:
    text = re.findall(
        r"^```toml\n(.*?)^```", (DOCS / "scale.md").read_text(), flags=re.DOTALL | re.MULTILINE
    )[0]
    (tmp_path / "fleet.toml").write_text(text)
    labels = [c.label for c in specs.rows(specs.read(tmp_path / "fleet.toml"))]
    # Two budgets: never and oracle once each, khugepaged under three rules at three values, hawkeye under three rules at four.
    assert len(labels) == 2 * (2 + 3 * 3 + 3 * 4)
    assert "hawkeye,alpha=0.6 under 6.1 budget=10% alpha=0.2" in labels


def test_the_budget_of_the_tutorial() -> None:
    page = (DOCS / "tutorial.md").read_text()
    command = next(
        line for line in page.splitlines() if "--budget" in line and line.startswith("    secondsight")
    )
    policies = re.findall(r"-p (\S+)", command)
    trace = DOCS.parent / "examples" / "traces" / "redis-vm.parquet"
    results = compare(trace, policies, ["7.2"], time_scale=1000, budget="10%", channels=False)
    for row in results.rows:
        line = next(line for line in page.splitlines() if line.startswith(f"| `{row.policy}`"))
        said = [f"{100 * row.metrics['coverage']:.1f} %", f"{100 * row.metrics['precision']:.0f} %"]
        assert [cell.strip() for cell in line.split("|")[2:-1]] == said
