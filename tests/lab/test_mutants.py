"""Code mutants: what is changed in a small module, that a mutated module answers otherwise, and that it is as before afterwards."""

from __future__ import annotations

import ast

from secondsight.lab import mutants

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
