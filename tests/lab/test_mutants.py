"""Code mutants: what is changed in a small module, that a mutated module answers otherwise, and that it is as before afterwards."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from secondsight.lab import answers, mutants
from secondsight.lab.answers import Kept
from secondsight.lab.mutated import mutated
from secondsight.lab.score_mutants import score_mutants
from secondsight.mm.config import HostConfig, Knobs
from secondsight.mm.khugepaged import scan, walk
from secondsight.mm.profiles import profile
from secondsight.mm.view import BlockView, empty
from secondsight.scenario import verbs as v
from support.as_kernel import answers as model_answers

TEXT = '''"""Two checks 7."""

@native
def look(page: int = 3) -> int:
    """Says 9."""
    if page < 5:
        return 1
    if page == 6 and not 2 < page <= 8:
        return 2
    for _ in range(4):
        pass
    return -1
'''


def _shown(kind: str) -> list[tuple[int, str, str]]:
    return [(m.line, m.before, m.after) for m in mutants.mutants("scan", TEXT) if m.kind == kind]


def test_every_comparison_constant_and_pair_of_checks_is_a_place():
    assert _shown("comparison") == [
        (6, "page < 5", "page <= 5"),
        (8, "page == 6", "page != 6"),
        (8, "2 < page <= 8", "2 <= page <= 8"),
        (8, "2 < page <= 8", "2 < page < 8"),
    ]
    assert [before for _, before, _ in _shown("constant")] == ["3", "5", "1", "6", "2", "8", "2", "4", "1"]
    assert _shown("order") == [
        (6, "if page < 5 ; if page == 6 and (not 2 < page <= 8)", "if page == 6 and (not 2 < page <= 8) ; if page < 5")
    ]  # fmt: skip


def test_a_mutant_is_the_text_with_one_change():
    for mutant in mutants.mutants("scan", TEXT):
        plain, changed = ast.unparse(ast.parse(TEXT)), ast.unparse(mutants.apply(mutant, TEXT))
        assert mutant.function == "look" and plain != changed
        if mutant.kind != "order":
            assert sum(a != b for a, b in zip(plain.splitlines(), changed.splitlines(), strict=True)) == 1


def test_a_sample_is_the_seeds():
    pool = mutants.mutants("scan", TEXT)
    assert mutants.sample(5, 1, pool) == mutants.sample(5, 1, pool) != mutants.sample(5, 2, pool)
    assert mutants.sample(99, 1, pool) == pool


def test_every_file_has_mutants_and_all_compile():
    for file in mutants.FILES:
        pool = mutants.mutants(file)
        assert pool and {"comparison", "constant"} <= {m.kind for m in pool}
        for mutant in pool[:: max(1, len(pool) // 20)]:
            compile(mutants.apply(mutant), file, "exec")


def test_what_is_called_equivalent_is_there():
    pool = [m for file in mutants.FILES for m in mutants.mutants(file)]
    lines = {file: mutants.source(file).splitlines() for file in mutants.FILES}
    for name, before, inside, why in mutants.EQUIVALENT:
        assert why and any(
            m.function == name
            and m.before.startswith(before)
            and inside in lines[m.file][m.line - 1]
            and m.equivalent
            for m in pool
        ), (name, before, inside)
    assert 0 < sum(bool(m.equivalent) for m in pool) < len(pool) // 3


def _none_pages(view: BlockView, limits: Knobs) -> tuple[str, int]:
    scanned = scan.scan(view, limits, profile("7.3"))
    return str(scan.ScanResult(int(scanned.code[0]))), int(scanned.stopped[0])


def test_a_mutated_module_answers_otherwise_and_is_as_before_afterwards():
    columns = empty(1)
    columns["pmd"] = np.full(1, 0x67, np.uint64)  # a page table, nothing mapped in it
    view, limits = BlockView(**columns), Knobs(max_ptes_none=3)
    assert _none_pages(view, limits) == ("exceed_none_pte", 3)
    mutant = next(m for m in mutants.mutants("scan") if m.before == "none_or_zero > max_none")
    real = walk.scan
    with mutated("scan", mutants.apply(mutant)):
        assert walk.scan is scan.scan is not real
        assert _none_pages(view, limits) == ("exceed_none_pte", 2)
    assert walk.scan is scan.scan is real
    assert _none_pages(view, limits) == ("exceed_none_pte", 3)


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
