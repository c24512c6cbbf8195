"""An explanation as one self-contained HTML page: totals, a map of every block, and the notable ones in words.

No script, no font and nothing else is loaded from anywhere: it can be mailed and opened in ten years. Hovering over a block tells it whole.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from secondsight.live.judge.answer import Block, Explanation, GuestRam, Mapping
from secondsight.live.judge.block_verdicts import attempts_in_words
from secondsight.live.read.surroundings import whether_known
from secondsight.plural import pluralize
from secondsight.terminal import printable

_COLUMNS = 64  # blocks a row: 128 MiB
_SIDE, _GAP = 11, 2
_SMALL, _MANY = 8, 6  # more mappings than these, alike and of no more blocks than these, are drawn as one
_MOST = 40_000  # blocks drawn; beyond, a page would take a browser minutes

#: what a colour says, in the order of the legend; chosen to differ in lightness too, for eyes that do not see all hues
_KINDS = {
    "huge": ("#2a6f97", "huge already"),
    "will": ("#2a9d5c", "will collapse"),
    "may": ("#a7d8a0", "will or may collapse: something is unknown"),
    "wasted": ("#d62839", "wasted pass: in use, and refused by isolate"),
    "idle": ("#e9c46a", "no page was used"),
    "zero": ("#cdb4db", "the huge zero page"),
    "limit": ("#b08968", "a limit or a held page stands against it"),
    "passed": ("#8e929c66", "the mapping is skipped"),
}
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}table{border-collapse:collapse;font-size:13px}
td,th{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #8884;vertical-align:top}td.n{text-align:right}
code{font:12px ui-monospace,monospace}.big{font-size:1.6rem;font-weight:600}.cards{display:flex;flex-wrap:wrap;gap:2rem;margin:1rem 0}
.cards div{min-width:8rem}.legend span{display:inline-block;margin-right:1rem}
.legend i{display:inline-block;width:11px;height:11px;margin-right:.3rem}
rect{stroke:#8886}svg{display:block;max-width:100%;height:auto;margin:.2rem 0 1rem}small{opacity:.65}
@media print{h2,.legend,.map>div{break-after:avoid}.map,tr{break-inside:avoid}.legend i{print-color-adjust:exact}}
"""


def kind(block: Block) -> str:
    """The legend's key of *block*."""
    if block.mapping in ("huge", "zero"):
        return block.mapping
    if block.status == "ineligible":
        return "passed"
    if block.wasted:
        return "wasted"
    if block.status == "succeeded" or "succeeded" in block.others:
        return "will" if block.known else "may"
    return "idle" if block.status == "lack_referenced_page" else "limit"


def _escaped(text: object) -> str:
    return html.escape(printable(text))


def _lines(text: str) -> str:
    return "\n".join(_escaped(line) for line in text.split("\n"))


def render(answer: Explanation) -> str:
    """The page."""
    title = f"{answer.name} ({answer.pid}): which blocks become huge, and why not"
    totals = answer.totals
    coverage = "–" if totals.coverage is None else f"{100 * totals.coverage:.1f} %"
    cards = (
        (coverage, "of eligible memory is huge"),
        (f"{totals.resident / 2**20:,.0f} MiB", f"resident in {pluralize(totals.blocks, 'block')}"),
        (
            f"{totals.collapsible:,}",
            f"{'block' if totals.collapsible == 1 else 'blocks'} will collapse, adding {totals.bloat / 2**20:,.1f} MiB",
        ),
        (f"{totals.collapsible_if:,}", f"more may, adding {totals.bloat_if / 2**20:,.1f} MiB"),
        (
            f"{totals.wasted:,}" + (f" – {totals.wasted + totals.wasted_if:,}" if totals.wasted_if else ""),
            "wasted pass ahead" if totals.wasted + totals.wasted_if == 1 else "wasted passes ahead",
        ),
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{_escaped(title)}</title><style>{_STYLE}</style>",
        f"<h1>{_escaped(title)}</h1><small>kernel {_escaped(answer.kernel)}, read from {_escaped(answer.source)} in "
        f"{answer.read_seconds:.2f} s; secondsight {_escaped(answer.version)}</small>",
        "<div class=cards>",
        *(f"<div><div class=big>{_escaped(value)}</div>{_escaped(text)}</div>" for value, text in cards),
        "</div>",
        _facts(answer),
        _table(answer),
        "<h2>Every block</h2><p>One square is 2 MiB; hover to read it.</p>",
        _legend(),
        *_maps(answer),
        "</html>",
    ]
    return "\n".join(parts)


def _facts(answer: Explanation) -> str:
    rows = [
        *answer.channels.items(),
        ("khugepaged", "; ".join(filter(None, (whether_known(answer.registered), answer.pace)))),
        *(("open", f"{point}; judged both ways") for point in answer.open_points),
    ]
    if answer.supposed:
        rows.append(("judged as if", ", ".join(answer.supposed)))
    if answer.guest_ram is not None:
        rows.append(("guest RAM", _guest_ram(answer.guest_ram)))
    if answer.totals.attempts:
        rows.append(("attempts", attempts_in_words(answer.totals.attempts)))
    rows += [("note", note) for note in answer.notes]
    if answer.totals.sizes:
        sizes = ", ".join(f"{name} {amount / 2**20:,.1f} MiB" for name, amount in answer.totals.sizes.items())
        rows.append(("sizes in use", sizes))
    if answer.missing:
        rows.append(("kernel memory", f"not read: {answer.missing}"))
    rows.append(("limits", ", ".join(f"{name} {value}" for name, value in answer.limits.items())))
    return f"<h2>What could be seen</h2><table>{_rows(rows)}</table>"


def _guest_ram(ram: GuestRam) -> str:
    coverage = (
        "nothing resident"
        if ram.coverage is None
        else f"{100 * ram.coverage:.1f} % of its whole 2 MiB blocks huge"
    )
    levels = ", ".join(f"{name} {amount / 2**20:,.1f} MiB" for name, amount in ram.levels.items())
    small = "; ".join(f"{count:,} small: {why}" for why, count in ram.small_by.items())
    parts = (
        f"{ram.size / 2**20:,.1f} MiB, known by {ram.told_by}",
        f"{ram.resident / 2**20:,.1f} MiB resident{' in whole 2 MiB blocks' * ram.blocks_only}, {coverage}",
        f"{ram.beside / 2**20:,.1f} MiB of small mappings beside it (VGA memory, ROMs) not counted"
        if ram.beside
        else "",
        f"KVM maps it by {levels}" if levels else "",
        small,
    )
    return "; ".join(part for part in parts if part)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<tr><th>{_escaped(name)}<td>{_escaped(text)}" for name, text in rows)


def _legend() -> str:
    return f"<p class=legend>{''.join(f'<span><i style=background:{colour}></i>{text}</span>' for colour, text in _KINDS.values())}</p>"


def _maps(answer: Explanation) -> Iterable[str]:
    """The mappings with their blocks, in the order of their addresses; hundreds of small ones that are alike in one, where the first is."""
    alike: dict[tuple[str, ...], list[tuple[Mapping, list[Block]]]] = {}
    blocks = iter(answer.blocks)
    block = next(blocks, None)
    for mapping in answer.mappings:
        mine = []
        while block is not None and block.address < mapping.end:
            if block.address >= mapping.start:
                mine.append(block)
            block = next(blocks, None)
        if mine:
            small = () if len(mine) <= _SMALL else (f"{mapping.start}",)
            key = (mapping.perms, mapping.advice, mapping.name, mapping.refused, *small)
            alike.setdefault(key, []).append((mapping, mine))
    drawn = [
        together
        for same in alike.values()
        for together in ([same] if len(same) > _MANY else [[one] for one in same])
    ]
    left = _MOST
    for together in sorted(drawn, key=lambda each: each[0][0].start):
        mine = [block for _, some in together for block in some]
        if left > 0:
            yield _map([mapping for mapping, _ in together], mine[:left])
        left -= len(mine)
    if left < 0:
        yield f"<p>Only {_MOST:,} blocks are drawn; <code>--json</code> holds all.</p>"


def _map(mappings: list[Mapping], blocks: list[Block]) -> str:
    step = _SIDE + _GAP
    height = -(-len(blocks) // _COLUMNS) * step
    squares = "".join(
        f"<rect x={i % _COLUMNS * step} y={i // _COLUMNS * step} width={_SIDE} height={_SIDE} fill='{_KINDS[kind(b)][0]}'>"
        f"<title>{_lines(_words(b))}</title></rect>"
        for i, b in enumerate(blocks)
    )
    mapping = mappings[0]
    state = f"skipped: {mapping.refused}" if mapping.refused else "eligible"
    end = max(each.end for each in mappings)
    head = f"{mapping.start:012x}-{end:012x} {mapping.perms} {mapping.advice} {mapping.name}"
    count = f"{len(mappings):,} mappings alike, " if len(mappings) > 1 else ""
    return (
        f"<div class=map><div><code>{_escaped(head)}</code> <small>{count}{_escaped(state)}</small></div>"
        f"<svg role=img width={_COLUMNS * step} height={height} viewBox='0 0 {_COLUMNS * step} {height}'>{squares}</svg></div>"
    )


def _words(block: Block) -> str:
    used = " ".join(
        f"{name} {'unknown' if count is None else count}"
        for name, count in (
            ("PRIMARY", block.primary),
            ("REFERENCED", block.referenced),
            ("SECONDARY", block.secondary),
        )
    )
    guest = f"\nguest {block.guest:#x}, slot {block.slot}" if block.guest is not None else ""
    doubt = "" if block.known else " (uncertain)"
    return f"{block.address:#x}: {block.populated} present, {block.swapped} swapped\n{used}{guest}\n{block.status}{doubt}: {block.reason}"


def _table(answer: Explanation) -> str:
    reasons: dict[tuple[str, str], int] = {}
    for block in answer.blocks:
        key = (block.status, block.reason)
        reasons[key] = reasons.get(key, 0) + 1
    ranked = sorted(reasons.items(), key=lambda item: -item[1])[:60]
    body = "".join(
        f"<tr><td class=n>{count:,}<td><code>{_escaped(status)}</code><td>{_escaped(reason)}"
        for (status, reason), count in ranked
    )
    return f"<h2>Answers, and why</h2><table><tr><th>blocks<th>khugepaged will say<th>because{body}</table>"
