"""What ``secondsight explain`` prints. Without Typer: importing that takes longer than a process takes to read (``plain.py``)."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from secondsight.cli import import_numpy
from secondsight.cli.plain import OF_A_PROCESS, PlainOption, number
from secondsight.geometry import PMD_ORDER, kb_of_order
from secondsight.plural import pluralize
from secondsight.terminal import printable, say

if TYPE_CHECKING:
    from secondsight.live.judge.answer import Block, Explanation, Mapping
    from secondsight.live.read.capture import Snapshot

_SHOWN = 8  # of the blocks that collapse or are wasted
_ALIKE = 3  # of anything else with the same answer


def share(word: str) -> float:
    """``95%`` or ``0.95`` as a share of 1.

    :raises ValueError: it is no share.
    """
    try:
        part = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise ValueError("write a share such as 95%")
    return part


def _listed(word: str) -> list[str]:
    return [word]


#: The options, by the words that set them; "" is the file.
OPTIONS: dict[str, PlainOption] = {
    "": PlainOption("file", Path, Path | None, "A snapshot; or name a running process with --pid."),
    "--pid": PlainOption("pid", number, int | None, "A running process."),
    "--all": PlainOption("everything", True, bool, "Every block, not only the notable ones."),
    "--json": PlainOption("json", True, bool, "The whole answer as JSON."),
    "--report": PlainOption("report", Path, Path | None, "Write a self-contained HTML page as well."),
    **OF_A_PROCESS,
    "--if": PlainOption(
        "supposed", _listed, list[str] | None, "Judge as if a switch or limit were so: enabled=always; repeatable."
    ),
    "--fail-under": PlainOption(
        "fail_under", share, float | None,
        "Exit code 1 where less of the guest RAM (else of eligible memory) is huge: 95%.", "SHARE",
    ),
}  # fmt: skip


def explain(
    file: Path | None = None,
    pid: int | None = None,
    within: str | None = None,
    everything: bool = False,
    json: bool = False,
    report: Path | None = None,
    kernel_memory: bool | None = None,
    vmcore: Path | None = None,
    qmp: Path | None = None,
    supposed: list[str] | None = None,
    fail_under: float | None = None,
) -> None:
    """Totals first, then block by block: how it is mapped, which channel calls it used, and what khugepaged will answer and why."""
    from secondsight import atomicfile
    from secondsight.errors import UsageError

    import_numpy()
    from secondsight.live.judge.explain import explain as judge
    from secondsight.live.read import capture

    if (file is None) == (pid is None):
        raise UsageError("explain: name a snapshot file or --pid PID, one of them")
    if supposed:
        from secondsight.live.judge.suppose import parse

        parse(supposed)
    atomicfile.check_writable(report, *([file] if file else []), kind=atomicfile.PAGE)
    if file is not None:
        if within or vmcore or qmp:
            raise UsageError("--range, --vmcore, --qmp: belong to --pid; a snapshot holds what was captured")
        if kernel_memory is not None:
            raise UsageError("--kernel-memory, --procfs: belong to --pid; a snapshot holds what was captured")
        taken = capture.load(file)
    else:
        assert pid is not None
        taken = take(pid, within, kernel_memory, vmcore, qmp, kept=False)
    answer = judge(taken, supposed)
    if report is not None:
        _write_page(answer, report)
        print(f"page: {printable(report)}", file=sys.stderr)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(answer), indent=1).decode())
        _require(answer, fail_under)
        return
    _print_head(answer)
    _print_guest_ram(answer)
    _print_totals(answer)
    _print_mappings(answer, everything)
    _print_blocks(answer, everything)
    _require(answer, fail_under)


def _require(answer: Explanation, fail_under: float | None) -> None:
    """Leave with exit code 1 where less is huge than *fail_under*, a share of 1."""
    from secondsight.errors import SecondSightError

    if fail_under is None:
        return
    ram = answer.guest_ram
    what, coverage = ("guest RAM", ram.coverage) if ram else ("eligible memory", answer.totals.coverage)
    if coverage is None:
        raise SecondSightError(f"--fail-under {100 * fail_under:g}%: there is no {what} that is resident")
    if coverage < fail_under:
        raise SecondSightError(
            f"--fail-under {100 * fail_under:g}%: {100 * coverage:.1f} % of the resident {what} is huge"
        )


def take(
    pid: int, within: str | None, kernel_memory: bool | None, vmcore: Path | None, qmp: Path | None,
    kept: bool = True,
) -> Snapshot:  # fmt: skip
    """Capture process *pid* of this machine, of a crash dump, or of a guest from outside; *kept*: not only to be judged at once."""
    from secondsight.errors import UsageError
    from secondsight.live.read import capture

    bounds = capture.parse_range(within) if within else None
    if vmcore is None and qmp is None:
        from secondsight.live.read.process import Process

        with Process.open(pid) as process:
            kernel, missing = capture.open_kernel(kernel_memory)
            return capture.take(process, kernel, missing, bounds, kept=kept)
    if vmcore is not None and qmp is not None:
        raise UsageError("--vmcore, --qmp: name one of them")
    if kernel_memory is not None:
        raise UsageError("--kernel-memory, --procfs: are about this machine, not about --vmcore and --qmp")
    path = vmcore or qmp
    if path is not None and not path.exists():
        raise UsageError(f"{path}: there is no such file")
    try:
        from secondsight.live.read import outside
    except ImportError:
        from secondsight.errors import MissingDependency

        raise MissingDependency("drgn is not installed: pip install 'secondsight[live]'") from None
    return outside.take(outside.open_kernel(vmcore, qmp), pid, bounds)


def _write_page(answer: Explanation, path: Path) -> None:
    from secondsight import atomicfile
    from secondsight.live.judge.page import render

    with atomicfile.open_atomic(path) as part:
        part.write_text(render(answer), encoding="utf-8")


def _size(amount: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit in ("B", "KiB") else f"{amount:.1f} {unit}"
        amount /= 1024
    return ""


def _print_head(answer: Explanation) -> None:
    from secondsight.live.read.surroundings import whether_known

    say(
        f"process {answer.pid} ({printable(answer.name)}), kernel {printable(answer.kernel)}, "
        f"read from {answer.source} in {answer.read_seconds:.2f} s"
    )
    if answer.longest_call_seconds:
        say(
            f"  cost to it: its mmap lock for reading, at most {1e3 * answer.longest_call_seconds:.2f} ms at a time"
        )
    if answer.missing:
        say(f"  kernel memory was not read: {printable(answer.missing)}")
    for name, state in answer.channels.items():
        say(f"  {name:<10} {printable(state)}")
    say(f"  {'its list':<10} {whether_known(answer.registered)}")
    if answer.pace:
        say(f"  {'':<10} {answer.pace}")
    if answer.evidence:
        say(f"  {'rules':<10} {answer.evidence}")
    if answer.supposed:
        say(f"  judged as if {', '.join(answer.supposed)}; nothing was changed")
    for point in answer.open_points:
        say(f"  open: {point}; judged both ways")
    limits = ", ".join(
        f"{name} {value}" for name, value in answer.limits.items() if name.startswith(("max", "enabled"))
    )
    say(f"  limits: {limits}")
    for note in answer.notes:
        say(f"  note: {note}")


def _print_guest_ram(answer: Explanation) -> None:
    ram = answer.guest_ram
    if ram is None:
        return
    coverage = (
        "its whole 2 MiB blocks hold nothing"
        if ram.coverage is None
        else f"{100 * ram.coverage:.1f} % of its whole 2 MiB blocks is huge"
    )
    say(
        f"\nguest RAM: {_size(ram.size)} in {pluralize(ram.mappings, 'mapping')} ({', '.join(ram.backing)}; known by {ram.told_by}), "
        f"{_size(ram.resident)} resident{' in whole 2 MiB blocks' * ram.blocks_only}; {coverage}"
    )
    if ram.levels:
        say(f"  KVM maps it by {', '.join(f'{name} {_size(amount)}' for name, amount in ram.levels.items())}")
    else:
        say("  at which sizes KVM maps it only kernel memory tells")
    if ram.beside:
        say(
            f"  not counted: {_size(ram.beside)} in {pluralize(ram.beside_mappings, 'small mapping')} beside it (VGA memory, ROMs)"
        )
    for why, count in ram.small_by.items():
        say(f"  {count:8} small: {why}")


def _print_totals(answer: Explanation) -> None:
    totals = answer.totals
    # Blocks of the page cache are eligible whoever maps their pages, and so are those whose pages are in swap.
    nothing = (
        "no page of the eligible blocks is mapped here" if totals.eligible_blocks else "no eligible memory"
    )
    coverage = (
        nothing if totals.coverage is None else f"{100 * totals.coverage:.1f} % of eligible memory is huge"
    )
    skipped = (
        f" ({totals.skipped_blocks} in mappings that are skipped now and hold huge pages)"
        if totals.skipped_blocks
        else ""
    )
    say(
        f"\n{pluralize(totals.blocks, 'block holds', 'blocks hold')} memory ({_size(totals.resident)}) in "
        f"{pluralize(totals.mappings, 'mapping')}; "
        f"{totals.eligible_blocks} eligible{skipped}, {totals.huge_blocks} huge; {coverage}"
    )
    perhaps = f", perhaps {totals.wasted_if} more" if totals.wasted_if else ""
    may = f", may collapse {totals.collapsible_if} more (adding {_size(totals.bloat_if)})"
    say(
        f"khugepaged will collapse {totals.collapsible} (adding {_size(totals.bloat)}){may if totals.collapsible_if else ''}; "
        f"wasted passes ahead: {totals.wasted}{perhaps}; uncertain verdicts: {totals.unknown}"
    )
    if totals.attempts:
        from secondsight.live.judge.block_verdicts import attempts_in_words

        # As the likeliest reading has it: an uncertain verdict may come out otherwise.
        say("most likely " * bool(totals.unknown) + attempts_in_words(totals.attempts))
    if totals.sizes:
        sizes = ", ".join(f"{name} {_size(amount)}" for name, amount in totals.sizes.items())
        say(f"sizes in use (whole 2 MiB blocks): {sizes}")
    uncertain = Counter(block.status for block in answer.blocks if not block.known)
    for status, count in totals.by_status.items():
        doubt = uncertain[status]
        more = "" if not doubt else " (uncertain)" if doubt == count else f" ({doubt} of them uncertain)"
        if status == "page_pmd_mapped" and (zero := sum(b.mapping == "zero" for b in answer.blocks)):
            more = f" ({zero} of them the huge zero page: read, and nothing was stored there yet)"
        say(f"  {count:8} {status}{more}")


def _print_mappings(answer: Explanation, everything: bool) -> None:
    # What is advised and cannot be huge is news, what is advised against it is none.
    shown = [
        m
        for m in answer.mappings
        if everything or m.blocks > m.empty or m.advice == "MADV_HUGEPAGE" or (m.advice and m.blocks)
    ]
    if not shown:
        return
    say("\nmappings with whole blocks, or advised" if not everything else "\nmappings")
    alike: dict[tuple[str, str, str], list[Mapping]] = {}
    for m in shown:
        key = (m.perms, m.advice, m.refused)
        # A process may have thousands that differ in nothing but their place.
        alike.setdefault((*key[:2], f"{key[2]} {m.start:x}") if everything else key, []).append(m)
    for same in alike.values():
        for m in same[:_ALIKE]:
            words = (
                f"{m.start:012x}-{m.end:012x}", m.perms, f"{pluralize(m.blocks, 'block')} ({m.huge} huge, {m.empty} empty)",
                m.advice, printable(m.name), describe_backing(m), _state(m),
            )  # fmt: skip
            say(f"  {' '.join(word for word in words if word)}")
        left = same[_ALIKE:]
        if left:
            blocks, huge, empty = (
                sum(getattr(m, name) for m in left) for name in ("blocks", "huge", "empty")
            )
            say(
                f"  … {pluralize(len(left), 'more mapping', 'more mappings')} like these: {pluralize(blocks, 'block')} "
                f"({huge} huge, {empty} empty)"
            )


def _state(m: Mapping) -> str:
    if m.refused:
        return f"skipped: {printable(m.refused)}"
    sizes = ""
    if m.orders and m.orders != (PMD_ORDER,):
        sizes = f" to {', '.join(f'{kb_of_order(order)}kB' for order in reversed(m.orders))}"
    return f"eligible{sizes} ({printable(m.by)})" if m.by and m.backing != "anonymous" else f"eligible{sizes}"


def describe_backing(m: Mapping) -> str:
    """What stands behind a mapping that is not anonymous, and how much of it is there."""
    if m.backing == "anonymous":
        return ""
    if m.cached is None:
        return f"{m.backing}:"
    cached, resident = (
        _size(amount) + " of whole 2 MiB blocks" * (name in m.blocks_only)
        for name, amount in (("cached", m.cached), ("resident", m.resident))
    )
    return f"{m.backing}, {cached} in the page cache, {resident} mapped here:"


def _groups(answer: Explanation) -> list[list[Block]]:
    """The blocks by their answer: wasted passes first, then what will or may collapse, then refusals, the most frequent first.

    Within a group by the memory that a collapse would add, the most first.
    """
    by_kind: dict[tuple[str, bool, bool, str], list[Block]] = {}
    for block in answer.blocks:
        if block.status != "page_pmd_mapped":
            # Other reasons hold numbers of the block's own.
            why = block.reason if block.status == "ineligible" else ""
            by_kind.setdefault((block.status, block.known, block.wasted, why), []).append(block)
    groups = sorted(
        by_kind.values(),
        key=lambda g: (not g[0].wasted, g[0].status != "succeeded", g[0].status == "ineligible", -len(g)),
    )
    return [sorted(group, key=lambda b: (-b.bloat, b.address)) for group in groups]


def _print_blocks(answer: Explanation, everything: bool) -> None:
    groups = _groups(answer)
    if not (answer.blocks if everything else groups):
        return
    say(
        f"\n{'every block' if everything else 'notable blocks'}: pages present/swapped, and used by PRIMARY REFERENCED SECONDARY"
    )
    if everything:
        for block in answer.blocks:
            say(f"  {_words(block)}: {_verdict(block)}: {printable(block.reason)}")
        return
    for group in groups:
        shown = group[: _SHOWN if group[0].wasted or group[0].status == "succeeded" else _ALIKE]
        reason = ""
        for block in sorted(shown, key=lambda b: (b.reason, b.address)):
            if block.reason != reason:
                reason = block.reason
                say(f"  {_verdict(block)}: {printable(reason)}")
            say(f"    {_words(block)}")
        if len(group) > len(shown):
            say(f"    … {len(group) - len(shown)} more {_verdict(group[0])}")
    say("  --all shows every block")


def _verdict(block: Block) -> str:
    if block.known:
        return block.status
    return f"{block.status} (open: {', '.join(printable(name) for name in block.unread)})"


def _held(block: Block) -> str:
    """Entries that are neither present nor swap, and pages in the page cache that are not mapped here."""
    text = "".join(f" {count} {kind}" for kind, count in block.entries.items())
    return text + (
        f" {block.cached} cached" if block.cached is not None and block.cached != block.populated else ""
    )


def _words(block: Block) -> str:
    used = " ".join("?" if n is None else str(n) for n in (block.primary, block.referenced, block.secondary))
    guest = f" guest {block.guest:#x} slot {block.slot}" if block.guest is not None else ""
    where = f" stops at {block.at:#x}" if block.at is not None else ""
    return f"{block.address:#014x} {block.mapping} {block.populated}/{block.swapped}{_held(block)} used {used}{guest}{where}"
