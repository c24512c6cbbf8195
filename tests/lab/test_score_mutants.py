"""A sample of mutants held against kept answers, in a process apart: what is noticed, and what no answer runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondsight.lab import answers
from secondsight.lab.answers import Kept
from secondsight.lab.score_mutants import score_mutants
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.profiles import profile
from secondsight.scenario import verbs as v
from support.as_kernel import answers as model_answers


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A campaign of one scenario, the model of 7.3 in the kernel's place: every second page of a block, one too few for max_ptes_none."""
    rules = profile("7.3")
    pages = "0:" + ",".join(str(i) for i in range(0, 512, 2))
    scenario = v.Scenario(
        spaces=(v.SpaceSpec("p", 1),),
        steps=(v.CpuWrite("p", pages), v.Madvise("p", "0", "hugepage"), v.Scan()),
        host=HostConfig(mmu="npt", knobs=Knobs(max_ptes_none=255)),
    )
    path = tmp_path / "kept.json.zst"
    runs = tuple(model_answers([scenario], rules))
    answers.write(path, Kept("7.3.4-test", "7.3.4", "npt", 8, 1, (scenario,), runs))  # type: ignore[arg-type]
    return path


def test_a_sample_is_held_against_kept_answers(kept: Path):
    score = score_mutants([kept], 12, 3)
    assert len(score.scored) == 12 <= score.pool
    assert 0 < score.noticed < 12, "one scenario notices some, and cannot notice all"
    # Lines that this scenario never runs are not in the sample, and told.
    assert "scan._page_2_6_38" in score.unrun
    lines = {(m.mutant.file, m.mutant.function) for m in score.scored}
    assert ("scan", "_page_2_6_38") not in lines
