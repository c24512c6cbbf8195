"""Code mutants: the model with one small change in its code, to be held against kernels' kept answers. Would they notice?

    a file of mm/khugepaged --ast--> every comparison, constant and pair of checks --seed--> a sample of them, each as text and as code

Nothing is written: a mutant is a syntax tree that ``lab.mutated`` runs in a process of its own.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import secondsight.mm.khugepaged as package

__all__ = ["EQUIVALENT", "FILES", "Mutant", "apply", "mutants", "sample"]

#: What is mutated: the modules of mm/khugepaged that say what a block is answered.
FILES = ("scan", "isolate", "attempt", "orders", "zap")

_NOT_ANONYMOUS = "they differ for pages that are not anonymous, of which there are none"
_NO_LOCK = "nobody holds a page's lock while khugepaged scans"
_COMPILED = "the same function either way, compiled for one kernel or for all"
_EMPTY = "an empty entry and the zero page count alike in every kernel that boots, and no other entry that is not present has frame 0"
_UNTOLD = "how often notifiers are asked no tracepoint tells"
_TABLE = "where a hash table looks first, how it goes on and what its empty places hold: it finds the same"
_READY = "how many frames are held ready"
_LOWEST = "no order below the lowest is ever enabled, and a walk through orders that are not tries nothing"
_GENERAL = "the block goes the general way, which answers the same, more slowly"
_MARKED = "what is marked is mapped, so it has a reference"
_STAND_INS = "stand-ins need room, and references to spare"
_LATER = "it shows in later attempts alone, and each is foretold from the state that it finds"
#: Mutants that answer as the code does for every kernel that can be booted: the function, how the changed place begins ("": whatever it
#: is), what stands in its line ("": anything), and why.
EQUIVALENT: tuple[tuple[str, str, str, str], ...] = (
    ("check_pmd_state", "if not pmd & MAPPED ; if pmd & PSE", "", "a PMD that is not present has no PSE: none is under migration here"),
    ("_page_6_12", "if c.flags[b, i] & LOCKED", "", _NO_LOCK),
    ("_page_6_12", "if not c.flags[b, i] & LRU ; if c.flags[b, i] & LOCKED", "", _NO_LOCK),
    ("_page_6_1", "if c.flags[b, i] & LOCKED", "", _NO_LOCK),
    ("_page_6_1", "if not c.flags[b, i] & LRU ; if c.flags[b, i] & LOCKED", "", _NO_LOCK),
    ("_page_6_1", "if not c.flags[b, i] & ANON", "", _NOT_ANONYMOUS),
    ("collapse_scan_pmd", "if not entry & MAPPED ; if entry & PFN_MASK == 0", "", _EMPTY),
    ("collapse_scan_pmd", "if not rules.swap_limit ; if unmapped > max_swap", "", "every kernel since 4.8 has the limit"),
    ("collapse_scan_pmd", "rules.order != ORDER_6_1", "", _NOT_ANONYMOUS),
    ("collapse_scan_pmd", "rules.order == ORDER_6_1", "", _NOT_ANONYMOUS),
    ("collapse_scan_pmd", "1", "asked += 1", _UNTOLD),
    ("scan", "len(view) >= MANY_BLOCKS", "", _COMPILED),
    ("_hold", "1", "at = folio & (_HELD - 1)", _TABLE),
    ("_hold", "1", "at = (at + 1) & (_HELD - 1)", _TABLE),
    ("_take", "if c.flags[b, i] & LOCKED or held_already", "", "what an earlier entry holds had the right count"),
    ("collapse_huge_page_isolate", "1", "last_large = np.int64(-1)", "any number that is no frame's"),
    ("collapse_huge_page_isolate", "if not entry & MAPPED ; if entry & PFN_MASK == 0", "", _EMPTY),
    ("collapse_huge_page_isolate", "if entry & UFFD_WP ; if rules.writable == WRITABLE_EVERY", "", "only 2.6.38 wants every page writable"),
    ("collapse_huge_page_isolate", "0", "large = c.order[b, i] > 0", "no anonymous folio is of order 1 (THP_ORDERS_ALL_ANON)"),
    ("collapse_huge_page_isolate", "c.mapcount[b, i] > 1", "", "no earlier entry maps a page that is mapped once"),
    ("collapse_huge_page_isolate", "folio != last_large", "", "what scan found of a large folio holds: it waits in no batch"),
    ("collapse_huge_page_isolate", "1", "asked += 1", _UNTOLD),
    ("isolate", "", "np.full((_HELD, 2), -1, np.int64)", _TABLE),
    ("isolate", "len(view) >= MANY_BLOCKS", "", _COMPILED),
    ("isolate", "order == PMD_ORDER", "", _COMPILED),
    ("collapse_huge_page", "", "parts = pages if order != PMD_ORDER", _READY),
    ("collapse_huge_page", "", "f = host.frames.reserve(", _READY),
    ("mthp_collapse", "order > MIN_ANON_ORDER", "", _LOWEST),
    ("mthp_collapse", "1", "if order > MIN_ANON_ORDER and", _LOWEST),
    ("_marked_at_most_once", "True", "every = True", _GENERAL),
    ("_marked_at_most_once", "columns.marks[b, i] <= 1", "", _GENERAL),
    ("_marked_at_most_once", "0", "(columns.order[b, i] == 0)", _GENERAL),
    ("_marked_at_most_once", "columns.refcount[b, i] > 0", "", _MARKED),
    ("_marked_at_most_once", "0", "first = (columns.refcount[b, i] > 0)", _GENERAL),
    ("_marked_at_most_once", "columns.mapcount[b, i] <= 1", "", _GENERAL),
    ("_mark_first", "True", "every = True", _GENERAL),
    ("_mark_first", "i < end", "", "kernels whose zap marks pages (up to 6.12) try whole blocks alone"),
    ("_rows_of", "False", "shared = False", _GENERAL),
    ("_rows_of", "folio[b, i] < 0", "", "no folio has frame 0"),
    ("_rows_of", "0", "if folio[b, i] < 0 or", "a page that shares none is looked up, and its row is found to be its own"),
    ("_rows_of", "columns.mapcount[b, i] <= 1", "", "a page that is mapped once is looked up, and its row is found to be its own"),
    ("_rows_of", "0", "if i > 0 and folio", "the second page's row is looked up, and found where it was copied from"),
    ("_rows_of", "1", "at = folio[b, i] & (len(seen) - 1)", _TABLE),
    ("_rows_of", "1", "at = (at + 1) & (len(seen) - 1)", _TABLE),
    ("_may_share", "False", "shared = False", _GENERAL),
    ("_may_share", "columns.mapcount[b, i] > 1", "", _GENERAL),
    ("_may_share", "0", "(columns.order[b, i] != 0)", _GENERAL),
    ("_mark", "f.refcount[page] > 0", "", _MARKED),
    ("_zap_blocks", "last > first", "", "where nothing is marked, nothing is marked either way"),
    ("_zap_blocks", "2", "f.refcount[others + i] = 2", _STAND_INS),
    ("zap", "order == PMD_ORDER", "", _LATER),
    ("zap", "True", "channel.known[:, first:end] = False, True", "what is not known counts as old here"),
    ("zap", "0", "left[:, first:end] = 0", _LATER),
    ("zap", "1", "page = (len(view) + 1", _STAND_INS),
    ("zap", "1", "flags.reshape(-1)", "numpy works out a length that is negative"),
    ("zap", "1", "return replace(view, flags=flags[:-1]", "a shorter view of the same rows, whose length compiled code does not ask"),
    ("zap", "2", "flags[-1], refcount[-1] = 0, 2", _STAND_INS),
    ("zap", "0", "flags[-1], refcount[-1] = 0, 2", _STAND_INS),
    ("zap", "2", "np.full(2 * HPAGE_PMD_NR, -1, np.int64)", _TABLE),
    ("zap", "1", "np.full(2 * HPAGE_PMD_NR, -1, np.int64)", _TABLE),
)  # fmt: skip

Kind = Literal["comparison", "constant", "order"]
_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
#: What ends a block: two checks that both end so can change places.
_ENDS = (ast.Return, ast.Break, ast.Continue, ast.Raise)


@dataclass(frozen=True)
class Mutant:
    """One change: in module *file*, in *function* ("" at its top), line *line*, of *kind*: *before* became *after* (source text).

    *node* and *part* find the place again in the file's tree: the node's number in ``ast.walk``, and which of its operators or statements.
    """

    file: str
    function: str
    line: int
    kind: Kind
    before: str
    after: str
    node: int
    part: int

    @property
    def equivalent(self) -> str:
        """Why it answers as the code does; "" where it does not, as far as is known."""
        lines = source(self.file).splitlines()
        line = lines[self.line - 1] if self.line <= len(lines) else ""
        known = (
            why
            for name, before, inside, why in EQUIVALENT
            if name == self.function and self.before.startswith(before) and inside in line
        )
        return next(known, "")

    def __str__(self) -> str:
        """One line: where, and what was changed."""
        return f"{self.file}.py:{self.line} {self.function}: {self.before}  ->  {self.after}"


def source(file: str) -> str:
    """The text of module *file* of mm/khugepaged."""
    return (Path(package.__path__[0]) / f"{file}.py").read_text()


def mutants(file: str, text: str | None = None) -> list[Mutant]:
    """Every mutant of module *file* (its *text*, by default as it stands), in the order of its lines."""
    tree = ast.parse(source(file) if text is None else text)
    inside = _functions(tree)
    skipped = _not_code(tree)
    out: list[Mutant] = []
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for kind, part, line in _places(node):
            changed = copy.deepcopy(node)
            _change(changed, part)
            before, after = _shown(node, part), _shown(changed, part)
            out.append(Mutant(file, inside.get(line, ""), line, kind, before, after, number, part))
    return sorted(out, key=lambda m: (m.line, m.node, m.part))


def apply(mutant: Mutant, text: str | None = None) -> ast.Module:
    """The tree of the mutant's file (its *text*, by default as it stands) with the change made."""
    tree = ast.parse(source(mutant.file) if text is None else text)
    node = next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.node)
    _change(node, mutant.part)
    return ast.fix_missing_locations(tree)


def sample(count: int, seed: int, pool: Sequence[Mutant]) -> list[Mutant]:
    """*count* mutants of *pool* (all, where there are no more), drawn from *seed*, in their order there."""
    chosen = random.Random(seed).sample(range(len(pool)), min(count, len(pool)))
    return [pool[i] for i in sorted(chosen)]


def _functions(tree: ast.Module) -> dict[int, str]:
    """The function that each line lies in (the innermost)."""
    out: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                out[line] = node.name
    return out


def _not_code(tree: ast.Module) -> set[int]:
    """The nodes (by identity) whose change changes no answer: annotations, decorators, and text."""
    out: set[int] = set()

    def leave(node: ast.AST | None) -> None:
        if node is not None:
            out.update(id(each) for each in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            leave(node.returns)
            for each in node.decorator_list:
                leave(each)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            leave(node.annotation)
        elif isinstance(node, ast.Assert):
            leave(node)
    return out


def _places(node: ast.AST) -> Iterator[tuple[Kind, int, int]]:
    """Where *node* can be changed: (kind, part, line)."""
    if isinstance(node, ast.Compare):
        yield from (("comparison", part, node.lineno) for part, _ in enumerate(node.ops))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        yield "constant", 0, node.lineno
    elif isinstance(body := getattr(node, "body", None), list):
        for part, (first, second) in enumerate(zip(body, body[1:], strict=False)):
            if _is_check(first) and _is_check(second):
                yield "order", part, first.lineno


def _is_check(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], _ENDS)


def _change(node: ast.AST, part: int) -> None:
    """Make the change in place."""
    if isinstance(node, ast.Compare):
        node.ops[part] = _SWAPPED[type(node.ops[part])]()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else int(str(node.value)) + 1
    else:
        body = node.body  # type: ignore[attr-defined]
        body[part], body[part + 1] = body[part + 1], body[part]


def _shown(node: ast.AST, part: int) -> str:
    """The changed place as source text, in a line."""
    if isinstance(node, ast.Compare | ast.Constant):
        return ast.unparse(node)
    body = node.body  # type: ignore[attr-defined]
    return " ; ".join(f"if {ast.unparse(each.test)}" for each in body[part : part + 2])
