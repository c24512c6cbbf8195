"""Only geometry.py knows how many bytes a page has and how many pages a block: the source is read for the numbers themselves."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import secondsight
from secondsight import geometry

SOURCE = Path(secondsight.__file__).parent
#: PAGE_SHIFT, PMD_ORDER, PMD_SHIFT, PAGE_SIZE, HPAGE_PMD_NR and what is one less
NUMBERS = {9, 12, 21, 511, 512, 4095, 4096}

#: Where such a number means something else: file, the piece of the line, and what it is there.
OTHER = {
    ("bits/pageflags.py", "1 << 12"): "KPF_ANON",
    ("bits/pageflags.py", "1 << 21"): "KPF_KSM",
    ("bits/pte.py", "1 << 9"): "_PAGE_BIT_SPECIAL",
    ("bits/spte.py", "_bit(9)"): "a software bit of an SPTE, and EPT's dirty bit",
    ("bits/swap.py", "1 << 9"): "SWP_OFFSET_FIRST_BIT",
    ("bits/swap.py", "np.uint64(9)"): "SWP_OFFSET_FIRST_BIT",
    ("host/tasks.py", "maxsize=4096"): "names that are remembered",
    ("live/read/kvm.py", "_MOST_DESCRIPTORS = 4096"): "of one rmap chain",
    ("live/read/procfs.py", "_SCAN_VECTOR = 4096"): "ranges that PAGEMAP_SCAN answers at once",
    ("live/read/tracefs.py", "buffer_kb: int = 4096"): "KiB of a trace buffer",
    ("lab/answers.py", "_MOST_BLOCKS = 4096"): "blocks of a kept campaign's pass",
    ("mm/mm_struct.py", "len(pages) < 4096"): "few pages: one by one is faster",
    ("mm/page.py", "capacity: int = 4096"): "frames to begin with",
    ("predict/patterns.py", "FOOTPRINTS = (128, 512, 2048)"): "MiB",
    ("replay/engine.py", "CHANGED = 4096"): "touches gathered after a change",
    ("replay/layout.py", "_FEW = 4096"): "blocks that need no table",
    ("scenario/files.py", "_MOST_BLOCKS = 4096"): "blocks of a scenario",
    ("trace/pages.py", "_LONGEST_HEADER: Final = 4096"): "bytes of a Parquet page's header",
    ("trace/read/text.py", "size: int = 4096"): "bytes of a text's head",
    ("whatif/sweep.py", "jobs <= 4096"): "processes of a sweep",
    ("host/metrics.py", "_LONGEST - 12"): "characters of a label",
    ("host/naming.py", "[:12]"): "characters of a container's short name",
    ("host/printing.py", "> 12"): "columns of a terminal",
    ("host/recorded.py", "_MARKS, _MOVED"): "marks that are shown, and rows that moved",
    ("lab/agent/libc.py", '"mergeable": 12'): "MADV_MERGEABLE",
    ("lab/agent/libc.py", '"pageout": 21'): "MADV_PAGEOUT",
    ("lab/agent/vm.py", "_PD0 = 0, 0x800"): "where the guest's code and tables lie",
    ("lab/agent/vmcb.py", "EFER_SVME = 1 << 12"): "a bit of a register",
    ("lab/agent/vmcb.py", "_NESTED_CTL = 0x00C"): "offsets in a control block",
    ("lab/bochs.py", "0x1000"): "offsets of the boot page",
    ("lab/bzimage.py", "* 512"): "bytes of a sector",
    ("lab/compare.py", "rounds: int = 12"): "rounds of shrinking",
    ("scenario/random_shared.py", "gfn_block=12"): "where a slot's guest memory lies",
    ("scenario/random_shared.py", '"pin": 9'): "a weight",
    ("lab/initramfs.py", "12"): "bytes of a module's signature",
    ("lab/kernels.py", "0x200"): "the offset of a bzImage's header",
    ("lab/run.py", "[:12]"): "digits of a hash",
    ("lab/shorter.py", "_ROUNDS = 12"): "rounds of shortening",
    ("lab/wire.py", "PACKED_FROM = 512"): "bytes of JSON",
    ("live/read/btf.py", "range(1, 12)"): "numbers of BTF kinds",
    ("live/read/btf.py", "range(12, 20)"): "numbers of BTF kinds",
    ("live/read/kernel_page_cache.py", "np.uint64(4096)"): "where an XArray's nodes begin (xa_is_node)",
    ("live/read/kvm.py", "1 << 9"): "EPT's dirty bit",
    ("live/read/outside.py", "0x200"): "VM_UFFD_MISSING, VM_UFFD_WP",
    ("live/read/userfaultfd.py", "_UFFD_MISSING"): "a bit of vm_flags",
    ("live/read/process.py", "21:"): "CAP_SYS_ADMIN",
    ("live/read/tracefs.py", "[:9]"): "digits of a fraction of a second",
    ("mm/profiles/v6_12.py", "version=(6, 12)"): "a kernel's version",
    ("replay/tlb.py", "l2_ways: int = 12"): "ways of a TLB",
    ("report/heatmap.py", "{x + 12}"): "pixels",
    ("report/svg.py", "{TOP + 9}"): "pixels",
    ("report/svg.py", "18, 12, 44"): "margins of a picture",
    ("report/svg.py", "round("): "digits",
    ("scenario/lives.py", "randint(2, 12)"): "how many pages are drawn",
    ("whatif/overview.py", "[:12]"): "names that are listed",
    ("trace/read/damo.py", "len(fraction) == 9"): "digits of a fraction of a second",
    ("trace/footer.py", "_TYPE, _STATISTICS"): "numbers of thrift fields",
    ("trace/read/perf.py", "len(fraction) == 9"): "digits of a fraction of a second",
    ("trace/thrift.py", "12"): "numbers of thrift types, and how deep they may lie",
    ("trace/record/vm.py", "(9, 0)"): "a version of QEMU",
    ("trace/writer.py", '"compression_level": 9'): "of zstandard",
}


def _numbers(source: str):
    """(line number, line) of each number of ``NUMBERS``, powers of ten, constant indices and members of enumerations left out."""
    lines = source.splitlines()
    yield from _in_f_strings(source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    inside = 0  # f-strings are one token up to Python 3.11, and many later: they are read by themselves
    for i, token in enumerate(tokens):
        kind = tokenize.tok_name[token.type]
        inside += (kind == "FSTRING_START") - (kind == "FSTRING_END")
        if (
            inside
            or token.type != tokenize.NUMBER
            or not re.fullmatch(r"0x[0-9a-fA-F_]+|[\d_]+", token.string)
        ):
            continue
        if int(token.string, 0) not in NUMBERS:
            continue
        before, after = tokens[i - 1].string, tokens[i + 1].string
        line = lines[token.start[0] - 1]
        if before == "**" or (before == "[" and after == "]") or re.fullmatch(r"    [A-Z_]+ = \w+", line):
            continue
        yield token.start[0], line


def _in_f_strings(source: str):
    """The same of what an f-string computes: (the line where it begins, its whole text)."""
    for string in ast.walk(ast.parse(source)):
        if not isinstance(string, ast.JoinedStr):
            continue
        for value in string.values:
            if not isinstance(value, ast.FormattedValue):
                continue
            for node in ast.walk(value.value):
                if isinstance(node, ast.Constant) and type(node.value) is int and node.value in NUMBERS:
                    yield string.lineno, ast.get_source_segment(source, string) or ""


def test_the_numbers_of_a_page_and_a_block_stand_in_one_module():
    used, literals = set(), []
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        if name == "geometry.py":
            continue
        for number, line in _numbers(path.read_text(encoding="utf-8")):
            known = [key for key in OTHER if key[0] == name and key[1] in line]
            used.update(known)
            if not known:
                literals.append(f"{name}:{number}: {line.strip()}")
    assert not literals, "say it by a name of geometry.py:\n" + "\n".join(literals)
    assert not set(OTHER) - used, "an exception that is none any more"


@pytest.mark.parametrize(
    "line",
    [
        "x = y >> 9",
        "a = np.zeros((n, 512))",
        "q = p & 0x1FF",
        "k = 4096 * pages",
        "z = f(21)",
        "m = a & ~0xFFF",
        "t = f'page {i // 512}'",
    ],
)
def test_a_number_is_found(line):
    assert [number for number, _ in _numbers(f"\n{line}\n")] == [2]


@pytest.mark.parametrize("line", ["ns = 10**9", "kind = head[12]", "x = 90 + 1.9", "'512'  # 512"])
def test_what_only_looks_like_one_is_not(line):
    assert not list(_numbers(f"{line}\n"))


def test_the_numbers_fit_each_other():
    assert geometry.PMD_SIZE == geometry.PAGE_SIZE * geometry.HPAGE_PMD_NR == 2 << 20
    assert geometry.PTRS_PER_PTE == 1 << geometry.LEVEL_BITS == geometry.HPAGE_PMD_NR
    assert [geometry.order_of_kb(geometry.kb_of_order(order)) for order in geometry.ANON_ORDERS] == list(
        range(2, 10)
    )
    assert geometry.order_of_kb(3) == geometry.order_of_kb(0) == geometry.order_of_kb(12) == -1


#: The loops that every access goes through: what they take does not change while they run, and a tuple costs a load at each use.
HOTTEST = {
    ("replay/tlb_path.py", "accesses_through"),
    ("replay/fast_path.py", "_fast_path_through"),
    # The same, compiled for each of those who may access.
    ("replay/fast_path.py", "fast_path"),
    ("replay/touch.py", "mark"),
}
MOST_PARAMETERS = 8


def _crowded(tree: ast.AST):
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        a = node.args
        named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        if len([each for each in named if each.arg not in ("self", "cls")]) > MOST_PARAMETERS:
            yield node.name


def test_functions_have_at_most_eight_parameters():
    widest = {
        (str(path.relative_to(SOURCE)), name)
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] != "cli"
        for name in _crowded(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert widest == HOTTEST
